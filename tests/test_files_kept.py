"""Files are replaced whole or not at all, and only where that is asked for, whatever stops the command line."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from emroute import datasets, gmm, kmeans, poisson
from emroute._files import whole
from emroute.mixture import Mixture
from emroute.nn.torch import CapsNet, save
from tests.test_cli import fails, module, run

FAITHFUL = datasets.faithful().x
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals, limits and devices")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with data, and the results of an earlier fit in ``out``."""
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", FAITHFUL)
    assert run("fit", "gmm", "rows.npy", "-k", 3, "--out", "out", "-q").exit_code == 0
    return tmp_path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_results_are_not_replaced_without_force(here):
    before = contents(here / "out")
    message = fails("fit", "gmm", "rows.npy", "-k", 2, "--out", "out")
    for words in ("out/labels.csv, out/mixture.npz, ", "would be replaced", "--out", "--force"):
        assert words in message
    assert contents(here / "out") == before
    assert run("fit", "gmm", "rows.npy", "-k", 2, "--out", "out", "--force").exit_code == 0
    assert Mixture.load(here / "out" / "mixture.npz").n_components == 2
    assert set(contents(here / "out")) == set(before)


@pytest.mark.parametrize("options", ["kmeans rows.npy --force", "gmm rows.npy --format safetensors", "gmm gone.npy"])
def test_that_is_told_before_any_work(here, options, monkeypatch):
    for family in (gmm, kmeans):
        monkeypatch.setattr(family, "fit", lambda *args, **options: pytest.fail("work was done"))
    (here / "out" / "centroids.csv").write_text("mine")
    expected = "rows.npy is what is fitted" if "--force" in options else "labels.csv"
    if "--force" in options:
        (here / "out" / "labels.csv").unlink()
        (here / "out" / "labels.csv").symlink_to(here / "rows.npy")
    assert expected in fails("fit", *options.split(), "-k", 2, "--out", "out")


@pytest.mark.parametrize(
    ("name", "family", "force"),
    [("labels.csv", "kmeans", []), ("labels.csv", "kmeans", ["--force"]), ("centroids.csv", "kmeans", ["--force"]),
     ("mixture.npz", "gmm", ["--force"])],
)  # fmt: skip
def test_what_is_fitted_is_never_replaced(here, name, family, force):
    if name.endswith(".npz"):
        np.savez(name, x=FAITHFUL)
    else:
        np.savetxt(name, FAITHFUL, delimiter=",", header="a,b", comments="")
    before = (here / name).read_bytes()
    message = fails("fit", family, name, "-k", 2, "--out", ".", *force)
    assert f"{name} is what is fitted, and would be replaced; choose another folder with --out" in message
    assert (here / name).read_bytes() == before
    assert not (here / "labels.csv").exists() or name == "labels.csv"


def test_pictures_are_not_replaced_without_force(here):
    (here / "out" / "density.png").write_text("mine")
    assert "out/density.png" in fails("fit", "gmm", "rows.npy", "-k", 1, "--out", "out", "--plot")
    (here / "traces.png").write_text("mine")
    assert "traces.png would be replaced; choose another folder with --out, or add --force" in fails(
        "demo", "--out", "."
    )
    assert (here / "traces.png").read_text() == "mine"


@pytest.mark.filterwarnings("default")
def test_the_demo_renews_its_own_folder(here, monkeypatch):
    monkeypatch.setattr("emroute.cli.demo._libraries", lambda *args: None)
    for _ in range(2):
        assert run("demo").exit_code == 0
    assert len(contents(here / "emroute-demo")) == 4
    assert run("demo", "--out", "emroute-demo", "--force").exit_code == 0


@POSIX
@pytest.mark.parametrize("reads", [0, 1])
def test_a_closed_pipe_loses_nothing(here, reads):
    command = [sys.executable, "-m", "emroute", "fit", "gmm", "rows.npy", "-k", "2", "--out", "new"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for _ in range(reads):
        process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait(60)
    assert Mixture.load(here / "new" / "mixture.npz").n_components == 2
    assert len(np.loadtxt(here / "new" / "labels.csv", skiprows=1)) == len(FAITHFUL)


@POSIX
def test_who_leaves_before_the_guesses_loses_nothing(here):
    (here / "rows.csv").write_text("1,5\n2,5\n9,9\n")
    command = [sys.executable, "-m", "emroute", "fit", "kmeans", "rows.csv", "-k", "2", "--out", "new"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    process.stdout.close()
    process.wait(60)
    assert len(np.loadtxt(here / "new" / "labels.csv", skiprows=1)) == 3


@POSIX
@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_closed_streams_lose_nothing(here, closed):
    command = f"{sys.executable} -m emroute fit gmm rows.npy -k 2 --out new {closed}"
    assert subprocess.run(command, shell=True, capture_output=True).returncode == 0
    assert Mixture.load(here / "new" / "mixture.npz").n_components == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
@pytest.mark.parametrize("command", ["fit gmm rows.npy -k 2 --out new", "--help", "--version"])
def test_output_to_a_full_disk_is_told_in_one_line(here, command):
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "emroute", *command.split()], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (result.returncode, result.stderr) == (2, "emroute: No space left on device\n")
    if "fit" in command:
        assert Mixture.load(here / "new" / "mixture.npz").n_components == 2


FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))"
KILLED = (
    "import numpy, os, signal; "
    "numpy.savez = lambda path, **arrays: (path.write_bytes(b'half'), os.kill(os.getpid(), signal.SIGKILL))"
)
EXCHANGE_KILLED = "import os, signal; os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)"


@POSIX
@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_full_disk_leaves_old_files_whole_and_shows_the_fit(here, suffix):
    run("fit", "gmm", "rows.npy", "-k", 3, "--out", "out", "-q", "--force", "--format", suffix)
    before = contents(here / "out")
    result = module("fit", "gmm", "rows.npy", "-k", "2", "--out", "out", "--force", "--format", suffix, before=FULL)
    assert (result.returncode, result.stderr) == (2, f"emroute: out/mixture.{suffix}: File too large\n")
    assert "-1130.26" in result.stdout
    assert contents(here / "out") == before


@POSIX
@pytest.mark.parametrize("before_main", [KILLED, EXCHANGE_KILLED], ids=["while writing", "before the exchange"])
def test_kill_9_leaves_old_files_whole(here, before_main):
    before = contents(here / "out")
    result = module("fit", "gmm", "rows.npy", "-k", "2", "--out", "out", "--force", before=before_main)
    assert result.returncode == -signal.SIGKILL
    after = contents(here / "out")
    assert {name: after[name] for name in before} == before
    assert all(name.startswith(".") for name in after.keys() - before.keys())  # drafts, and under no final name
    assert run("fit", "gmm", "rows.npy", "-k", 2, "--out", "out", "--force").exit_code == 0


SAVES = {
    "mixture.npz": lambda path: gmm.fit(FAITHFUL, 2, rng=0).save(path),
    "mixture.safetensors": lambda path: poisson.fit(FAITHFUL // 1, 2, rng=0).save(path),
    "network.safetensors": lambda path: save(CapsNet(1, 3, 20, channels=4, primary_capsules=2), path),
}


@pytest.mark.parametrize("name", SAVES)
def test_every_save_is_whole_or_not_at_all(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(b"old")
    os.chmod(tmp_path / name, 0o640)
    monkeypatch.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left") as caught:
        SAVES[name](tmp_path / name)
    assert caught.value.filename == str(tmp_path / name)
    assert contents(tmp_path) == {name: b"old"}
    monkeypatch.undo()
    SAVES[name](tmp_path / name)
    assert list(contents(tmp_path)) == [name]
    assert (tmp_path / name).stat().st_size > 100
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with whole(tmp_path / "link") as draft:
        draft.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with whole(tmp_path / "pipe") as path:
        assert path == tmp_path / "pipe"
    assert list(tmp_path.iterdir()) == [tmp_path / "pipe"]
