"""The training examples: what a killed run loses, and what they say of bad data, bad checkpoints and full disks."""

import csv
import dataclasses
import errno
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from sklearn.datasets import load_digits

import checkpoints
import explore
import flags
import train_capsnet
import train_cnn
import train_efficient_capsnet
import train_matrix_capsnet
import training
from emroute.nn.torch import CapsNet, save
from images import Images

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
SMALL = {
    "capsnet": ["--channels", "8", "--primary-capsules", "2"],
    "matrix_capsnet": ["--widths", "8", "2", "4", "4"],
    "cnn": ["--parameters", "30000"],
}


@pytest.fixture(scope="module")
def digits():
    """Real digits of 24 x 24 pixels on black canvases of 28 x 28."""
    found = load_digits()
    large = np.kron(found.images / 16 * 255, np.ones((3, 3))).astype(np.uint8)
    large = np.pad(large, ((0, 0), (2, 2), (2, 2)))[:400, ..., None]
    return Images(large, found.target[:400].astype(np.int64))


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    """The same as files in MNIST's format."""
    made = tmp_path_factory.mktemp("digits")
    for name, start in (("train", 0), ("t10k", 200)):
        images, labels = digits.images[start : start + 200, ..., 0], digits.labels[start : start + 200].astype(np.uint8)
        head = [b"\0\0\x08\x03", *(size.to_bytes(4, "big") for size in images.shape)]
        (made / f"{name}-images-idx3-ubyte").write_bytes(b"".join([*head, images.tobytes()]))
        head = [b"\0\0\x08\x01", len(labels).to_bytes(4, "big")]
        (made / f"{name}-labels-idx1-ubyte").write_bytes(b"".join([*head, labels.tobytes()]))
    return made


def command(script, folder, out, *more):
    name = script.removeprefix("train_")
    options = [
        "--folder",
        folder,
        "--out",
        out,
        "--validation",
        "40",
        "--batch-size",
        "16",
        *SMALL.get(name, []),
        *more,
    ]
    return [sys.executable, EXAMPLES / f"{script}.py", *map(str, options)]


def run(*args):
    return subprocess.run(command(*args), capture_output=True, text=True)


def train(task, settings, digits, epochs, out, resume, start=None):
    few = Images(digits.images[:20], digits.labels[:20])
    return training.train(task, settings, digits, few, epochs, out, resume, start)


def log(out):
    with (out / checkpoints.LOG).open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def small(library="torch", script=train_capsnet, **options):
    """A task of few parameters and its settings."""
    options = {
        train_capsnet: {"channels": 4, "primary_capsules": 2, "decoder": False, "reconstruction_reduction": "mean"},
        train_matrix_capsnet: {"widths": (4, 2, 3, 3), "n_iter": 2, "cost": "normalized", "margin": "epoch"},
        train_efficient_capsnet: {"channels": (4, 4, 4, 8), "decoder": False},
        train_cnn: {"channels": (4, 8), "parameters": 5000},
    }[script] | options
    settings = training.Settings(script.__name__, library, "mnist", 48, 16, 16, 1e-3, 0.9, 5.0, 1, 0, options)
    return script.task((28, 28, 1), 10, options), settings


@pytest.mark.parametrize(
    ("library", "script"),
    [
        ("torch", train_capsnet),
        ("torch", train_matrix_capsnet),
        ("torch", train_cnn),
        ("jax", train_capsnet),
        ("torch", train_efficient_capsnet),
        pytest.param("jax", train_efficient_capsnet, marks=pytest.mark.thorough),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(library, script, digits, tmp_path):
    task, settings = small(library, script)
    train(task, settings, digits, 2, tmp_path / "whole", False)
    train(task, settings, digits, 1, tmp_path / "parts", False)
    train(task, settings, digits, 2, tmp_path / "parts", True)
    assert log(tmp_path / "whole") == log(tmp_path / "parts")
    assert len(log(tmp_path / "parts")) == 2
    best = [(tmp_path / run / training.BEST).read_bytes() for run in ("whole", "parts")]
    assert best[0] == best[1]


def test_a_run_that_is_killed_goes_on_where_it_was(folder, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run("train_capsnet", folder, whole, "--epochs", "3").returncode == 0
    process = subprocess.Popen(command("train_capsnet", folder, killed, "--epochs", "3"), stderr=subprocess.DEVNULL)
    while not (killed / training.CHECKPOINT).exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 1 <= len(log(killed)) < 3
    done = len(log(killed))
    resumed = run("train_capsnet", folder, killed, "--epochs", "3", "--resume")
    assert resumed.returncode == 0
    assert f"going on after epoch {done}" in resumed.stdout
    assert log(whole) == log(killed)
    assert (whole / training.BEST).read_bytes() == (killed / training.BEST).read_bytes()


@pytest.fixture(scope="module")
def begun(digits, tmp_path_factory):
    """A run of one epoch."""
    out = tmp_path_factory.mktemp("begun")
    task, settings = small()
    train(task, settings, digits, 1, out, False)
    return out


@pytest.fixture
def copy(begun, tmp_path):
    for file in begun.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def content(out):
    return {file.name: file.read_bytes() for file in out.iterdir()}


def damage(out):
    whole = (out / training.CHECKPOINT).read_bytes()
    (out / training.CHECKPOINT).write_bytes(whole[: len(whole) // 2])


def replace(out, **metadata):
    save_file({"weight": np.zeros(3)}, out / training.CHECKPOINT, metadata)


def swap(out):
    with safe_open(out / training.CHECKPOINT, "numpy") as file:
        told = file.metadata()
    replace(out, **told)


@pytest.mark.parametrize(
    ("spoil", "resume", "options", "words"),
    [
        (damage, True, {}, "damaged"),
        (replace, True, {}, "no checkpoint of these examples"),
        (lambda out: replace(out, **{checkpoints.KEY: "[1]"}), True, {}, "no checkpoint of these examples"),
        (swap, True, {}, "of another network"),
        (lambda out: None, True, {"channels": 5}, "of another run"),
        (lambda out: None, False, {}, "--resume"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_told_and_stays(copy, digits, spoil, resume, options, words):
    spoil(copy)
    before = content(copy)
    task, settings = small(**options)
    with pytest.raises(training.TrainingError, match=words):
        train(task, settings, digits, 2, copy, resume)
    assert content(copy) == before


@pytest.mark.parametrize("full", ["save_file", "replace", "write_text"])
def test_a_full_disk_costs_the_epoch_alone(copy, digits, monkeypatch, full):
    def fail(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = content(copy)
    task, settings = small()
    with monkeypatch.context() as patch:
        patch.setattr(*((checkpoints, full) if full == "save_file" else (Path, full)), fail)
        with pytest.raises(training.TrainingError, match="No space left"):
            train(task, settings, digits, 2, copy, True)
    kept = (training.CHECKPOINT,) if full == "save_file" else (training.CHECKPOINT, checkpoints.LOG)
    assert all(content(copy)[name] == before[name] for name in kept)
    assert content(copy).keys() == before.keys()
    train(task, settings, digits, 2, copy, True)
    assert len(log(copy)) == 2


def test_a_folder_that_cannot_be_written_to_is_told_before_training(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_epoch", None)
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(training.TrainingError, match="cannot be written to"):
            train(*small(), digits, 1, out, False)


def test_two_runs_do_not_share_a_folder(copy, digits):
    before = content(copy)
    with FileLock(copy / checkpoints.LOCK), pytest.raises(training.TrainingError, match="another run writes"):
        train(*small(), digits, 2, copy, True)
    assert content(copy) == before
    train(*small(), digits, 2, copy, True)
    assert len(log(copy)) == 2


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_a_run_may_begin_with_weights_of_either_library(library, begun, digits, tmp_path):
    task, settings = small(library)
    still = dataclasses.replace(settings, learning_rate=1e-12, start="digest")
    train(task, still, digits, 1, tmp_path / "on", False, begun / training.BEST)
    theirs, ours = (load_file(run / training.BEST) for run in (begun, tmp_path / "on"))
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-7)
    with pytest.raises(training.TrainingError, match="start: 'digest' there, None now"):
        train(task, settings, digits, 2, tmp_path / "on", True)
    wider, settings = small(library, channels=6)
    for file, words in ((training.BEST, "CapsNet with .*channels=4,"), (training.CHECKPOINT, "it is a checkpoint")):
        with pytest.raises(training.TrainingError, match=f"not weights of this network to begin with .*{words}"):
            train(wider, settings, digits, 1, tmp_path / "wider", False, begun / file)


@pytest.mark.parametrize("spoil", [Path.unlink, lambda best: best.write_bytes(b"damaged")])
def test_a_best_network_that_is_gone_is_told(copy, digits, spoil):
    spoil(copy / training.BEST)
    with pytest.raises(training.TrainingError, match="not the network that was kept"):
        train(*small(), digits, 1, copy, True)


NONSENSE = {
    "--epochs": ("0", "-1", "1.5"),
    "--train": ("0",),
    "--validation": ("-1",),
    "--test": ("0", "all"),
    "--batch-size": ("0",),
    "--learning-rate": ("nan", "0", "-1", "inf", "fast"),
    "--decay": ("0",),
    "--clip": ("-5",),
    "--shift": ("-2",),
    "--seed": ("-1",),
}


def test_options_that_make_no_run_are_refused(capsys):
    options = flags.parser("", "it")
    for option, values in NONSENSE.items():
        for value in values:
            with pytest.raises(SystemExit):
                options.parse_args([f"{option}={value}"])
            assert f"argument {option}: got '{value}', expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "option", "value"),
    [("train_cnn", "--library", "jax"), ("train_matrix_capsnet", "--data", "multimnist-like")],
)
def test_what_a_network_cannot_do_is_no_choice(script, option, value, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, option, value])
    with pytest.raises(SystemExit):
        runpy.run_path(str(EXAMPLES / f"{script}.py"), run_name="__main__")
    assert f"argument {option}: invalid choice: '{value}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "n_iter"), [([], 3), (["--tutorial"], 2), (["--tutorial", "--n-iter", "4"], 4)], ids=str
)
def test_the_tutorials_route_twice_unless_told_otherwise(options, n_iter, monkeypatch):
    ran = []
    monkeypatch.setattr(training, "run", lambda *args, **options: ran.append(options))
    monkeypatch.setattr(sys, "argv", ["train_capsnet", *options])
    runpy.run_path(str(EXAMPLES / "train_capsnet.py"), run_name="__main__")
    assert [options["n_iter"] for options in ran] == [n_iter]


def test_a_run_that_is_interrupted_says_how_to_go_on(folder, tmp_path, monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupt)
    given = flags.parser("", "it").parse_args(["--folder", str(folder), "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit, match="130"):
        training.run(given, "CNN", train_cnn.task, channels=(4, 8), parameters=5000)
    assert "--resume" in capsys.readouterr().err


def test_images_that_do_not_fit_together_are_an_error(digits, tmp_path):
    task, settings = small()
    smaller = Images(digits.images[:, 2:-2], digits.labels)
    with pytest.raises(training.TrainingError, match="test images"):
        training.train(task, settings, digits, smaller, 1, tmp_path, False)
    with pytest.raises(training.TrainingError, match="leave none"):
        train(task, dataclasses.replace(settings, n_train=-4600, n_validation=5000), digits, 1, tmp_path, False)


def test_too_many_images_are_an_error(digits, tmp_path):
    task, settings = small()
    with pytest.raises(training.TrainingError, match="400 training images, 64016 were asked"):
        train(task, dataclasses.replace(settings, n_train=64000), digits, 1, tmp_path, False)


@pytest.mark.parametrize("script", ["train_capsnet", "train_matrix_capsnet", "train_cnn"])
def test_each_script_trains_and_says_what_is_wrong(script, folder, tmp_path):
    done = run(script, folder, tmp_path / "run", "--epochs", "1", "--train", "32", "--test", "50")
    assert done.returncode == 0, done.stderr
    assert [row["epoch"] for row in log(tmp_path / "run")] == ["1"]
    result = json.loads((tmp_path / "run" / training.RESULT).read_text())
    assert (result["n_test"], result["epoch"], result["settings"]["n_train"]) == (50, 1, 32)
    tensors = load_file(tmp_path / "run" / training.BEST)
    assert result["parameters"] == sum(tensor.size for tensor in tensors.values())
    done = run(script, tmp_path / "nowhere", tmp_path / "run2")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert not (tmp_path / "run2").exists()
    cut = tmp_path / "cut"
    cut.mkdir()
    for file in folder.iterdir():
        (cut / file.name).write_bytes(file.read_bytes()[:-1] if "t10k-images" in file.name else file.read_bytes())
    done = run(script, cut, tmp_path / "run3")
    assert done.returncode == 1
    assert "t10k-images" in done.stderr


def test_two_digits_are_right_when_both_are_found():
    activations = np.asarray([[0.9, 0.8, 0.1], [0.9, 0.1, 0.8], [0.1, 0.2, 0.3]])
    assert training.right(activations, np.asarray([[1, 0], [0, 1], [2, 1]])).tolist() == [True, False, True]
    assert training.right(activations, np.asarray([0, 2, 2])).tolist() == [True, False, True]
    assert training.targets(np.asarray([[1, 0]]), 3).tolist() == [[1, 1, 0]]


@pytest.mark.parametrize("script", [train_capsnet, train_matrix_capsnet], ids=lambda script: script.__name__)
def test_what_was_trained_is_looked_into(script, digits, folder, tmp_path, monkeypatch):
    decoder = {"decoder": True, "decoder_features": (4, 4)}
    for made, options, name in [(script, decoder, "capsules"), (train_cnn, {}, "cnn")]:
        train(*small(script=made, **options), digits, 1, tmp_path / name, False)
    kept = [str(tmp_path / name / training.BEST) for name in ("capsules", "cnn")]
    out = tmp_path / "explored"
    given = ["explore.py", kept[0], "--cnn", kept[1], "--folder", str(folder), "--out", str(out), "--n", "20"]
    monkeypatch.setattr(sys, "argv", given)
    explore.main()
    page, tables = (out / "index.md").read_text(), json.loads((out / "tables.json").read_text())
    shown = re.findall(r"\]\((.*?)\)", page)
    assert len(shown) == 8
    assert all((out / name).stat().st_size > 1000 for name in shown)
    attacked, shifted = tables["Robustness to FGSM"], tables["Test images shifted by pixels"]
    for line, same in zip(attacked[1:], shifted[1:], strict=True):
        network = explore.load_network(kept[0]) if line[0] != "CNN" else explore.load_cnn(kept[1])
        images, labels = explore.as_tensor(digits.images[200:220]), torch.from_numpy(digits.labels[200:220])
        assert line[1] == same[1] == explore.accuracy(network, images, labels)
    assert [row[0] for row in tables["Agreement"][1:]] == ([1, 2, 3] if script is train_capsnet else [1, 2])


def test_networks_that_cannot_be_read_are_told(folder, tmp_path, monkeypatch):
    (tmp_path / "foreign").write_bytes(b"not a network")
    monkeypatch.setattr(sys, "argv", ["explore.py", str(tmp_path / "foreign"), "--folder", str(folder)])
    with pytest.raises(SystemExit, match="foreign"):
        explore.main()


def test_a_network_for_images_of_another_size_is_told(folder, tmp_path, monkeypatch):
    path = tmp_path / "other.safetensors"
    save(CapsNet(1, 10, 20, channels=2, primary_capsules=1, decoder=False), path)
    monkeypatch.setattr(sys, "argv", ["explore.py", str(path), "--folder", str(folder), "--n", "2"])
    with pytest.raises(SystemExit, match="images have shape"):
        explore.main()
