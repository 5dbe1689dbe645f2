"""Layers, networks and their files: what cannot be used is refused, in words; nothing is left half written."""

import json
import resource
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from flax import nnx
from safetensors.numpy import load_file, save_file

from emroute.errors import InputError, InputTypeError, MissingDependencyError
from tests.helpers import rejected
from tests.networks import FLAX, FRAMEWORKS, TORCH

SMALL = {"image_size": 17, "widths": (3, 2, 2, 2), "n_classes": 3}


@pytest.fixture(params=FRAMEWORKS)
def framework(request):
    return FRAMEWORKS[request.param]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "network.safetensors"
    TORCH.nn.save(TORCH.make("MatrixCapsNet", **SMALL), path)
    return path


@pytest.fixture(scope="module")
def networks(saved):
    """The same small network in each framework."""
    return {name: framework.nn.load(saved) for name, framework in FRAMEWORKS.items()}


BAD_LAYERS = [
    ("PrimaryCapsules", (0, 2, 3, 3), {}, "in_channels=0"),
    ("PrimaryCapsules", (1, 2.5, 3, 3), {}, "out_capsules=2.5"),
    ("PrimaryCapsules", (1, 2, 3, (3, 3, 3)), {}, "kernel_size=(3, 3, 3)"),
    ("PrimaryCapsules", (1, 2, 3, 3), {"stride": 0}, "stride=0"),
    ("PrimaryCapsules", (1, 2, 3, 3), {"padding": -1}, "padding=-1"),
    ("DynamicRouting", (4, 3, 2, 0), {}, "out_features=0"),
    ("DynamicRouting", (4, 3, 2, 2), {"n_iter": 0}, "n_iter=0"),
    ("DynamicRouting", (4.0, 3, 2, 2), {}, "in_capsules=4.0"),
    ("Decoder", (4, (28, 28)), {}, "out_shape=(28, 28)"),
    ("Decoder", (4, (1, 28, 28)), {"hidden_features": 512}, "hidden_features=512"),
    ("MatrixPrimaryCapsules", (1, True), {}, "out_capsules=True"),
    ("ConvCapsules", (2, 3, 0), {}, "kernel_size=0"),
    ("ConvCapsules", (2, 3, 3), {"cost": "cheap"}, "cost='cheap'"),
    ("ConvCapsules", (2, 3, 3), {"inverse_temperature": [1.0, 2.0]}, "3 finite numbers"),
    ("ConvCapsules", (2, 3, 3), {"epsilon": -1.0}, "epsilon=-1.0"),
    ("ClassCapsules", (2, 3), {"entries": (0, 16)}, "entries=(0, 16)"),
    ("ClassCapsules", (2, "3"), {}, "out_capsules='3'"),
    ("CapsNet", (1, 10, 16), {}, "images of 16 x 16 are too small for windows of 9 x 9 with stride 1, 9 x 9"),
    ("CapsNet", (1, 10, (28, 0)), {}, "image_size=(28, 0)"),
    ("CapsNet", (1, 0), {}, "n_classes=0"),
    ("CapsNet", (), {"channels": 0}, "channels=0"),
    ("CapsNet", (), {"kernel_size": 1.5}, "kernel_size=1.5"),
    ("MatrixCapsNet", (1, 10, 16), {}, "images of 16 x 16 are too small"),
    ("MatrixCapsNet", (), {"widths": (32, 32, 32)}, "widths=(32, 32, 32)"),
    ("MatrixCapsNet", (), {"widths": (32, 32, 32, -1)}, "four positive integers"),
    ("MatrixCapsNet", (), {"widths": 32}, "widths=32"),
    ("MatrixCapsNet", (), {"pose_size": 0}, "pose_size=0"),
    ("MatrixCapsNet", (0,), {}, "in_channels=0"),
]


@pytest.mark.parametrize(("layer", "arguments", "options", "words"), BAD_LAYERS, ids=lambda value: str(value)[:40])
def test_what_makes_no_layer_is_refused(framework, layer, arguments, options, words):
    rejected(lambda: framework.make(layer, *arguments, **options), InputError, words)


def test_images_of_another_shape_are_refused(framework, networks):
    network = networks[framework.name]
    expected = "(B, 1, 17, 17)" if framework is TORCH else "(B, 17, 17, 1)"
    for shape in [(2, 1, 18, 17), (2, 3, 17, 17), (1, 17, 17, 1)]:
        images = framework.images(np.zeros(shape, np.float32))
        rejected(lambda images=images: network(images), InputError, str(tuple(images.shape)), expected)
    single = framework.asarray(np.zeros((17, 17), np.float32))
    rejected(lambda: network.encode(single), InputError, "(17, 17)", expected)


def test_no_images_are_refused(framework, networks):
    none = framework.images(np.zeros((0, 1, 17, 17), np.float32))
    rejected(lambda: networks[framework.name](none), InputError, "images", "B at least 1")


def test_images_that_are_not_finite_are_blamed(framework, networks, quick_compilation):
    images = np.zeros((2, 1, 17, 17), np.float32)
    images[1, 0, 8, 8] = np.nan
    rejected(lambda: networks[framework.name](framework.images(images)), InputError, "images hold NaN or infinity")


@pytest.mark.parametrize("layer", ["PrimaryCapsules", "MatrixPrimaryCapsules"])
def test_features_of_another_layout_are_refused(framework, layer):
    """One image without a batch would be taken for a batch of rows."""
    made = framework.outline(layer, 2, 3, *((4, 3) if layer == "PrimaryCapsules" else ()))
    for shape in [(5, 5, 2), (2, 5, 5), (1, 3, 5, 5)]:
        x = framework.asarray(np.zeros(shape, np.float32))
        rejected(lambda x=x: made(x), InputError, str(shape), "with C = 2")


def test_images_of_integers_are_refused(framework, networks):
    images = framework.images(np.zeros((2, 1, 17, 17), np.uint8))
    rejected(lambda: networks[framework.name](images), InputTypeError, "images", "uint8")


def test_what_is_no_array_is_refused(framework, networks):
    rejected(lambda: networks[framework.name]([[1.0]]), InputTypeError, "list")


def test_labels_that_are_no_classes_are_refused(framework):
    network = framework.outline("CapsNet", 1, 3)
    poses = framework.asarray(np.zeros((2, 3, 16), np.float32))
    for labels in ([0, 3], [-1, 0]):
        labels = framework.asarray(np.asarray(labels))
        rejected(lambda labels=labels: network.reconstruct(poses, labels), InputError, "0 to 2")
    rejected(lambda: network.reconstruct(poses, framework.asarray(np.zeros(3, int))), InputError, "(3,)", "(2,)")
    rejected(lambda: network.reconstruct(poses, np.zeros(2, int)), InputTypeError, "numpy")


def test_labels_are_looked_at_where_nothing_is_drawn(framework, networks):
    images = framework.images(np.zeros((2, 1, 17, 17), np.float32))
    for labels, *told in ([0, 99], "classes from 0 to"), ([0, 1, 0], "(3,)", "(2,)"):
        labels = framework.asarray(np.asarray(labels))
        rejected(lambda labels=labels: networks[framework.name](images, labels), InputError, *told)


def test_a_network_without_decoder_draws_nothing(framework, networks):
    poses = framework.asarray(np.zeros((2, 3, 16), np.float32))
    labels = framework.asarray(np.zeros(2, int))
    rejected(lambda: networks[framework.name].reconstruct(poses, labels), InputError, "decoder=True")


def test_capsules_of_another_shape_are_refused(framework, networks):
    routing = framework.outline("DynamicRouting", 4, 3, 2, 2)
    for shape in [(2, 5, 2), (2, 4, 3), (4, 2)]:
        x = framework.asarray(np.zeros(shape, np.float32))
        rejected(lambda x=x: routing(x), InputError, str(shape), "(B, 4, 2)")
    decoder = framework.outline("Decoder", 6, (1, 2, 2), hidden_features=(3,))
    rejected(lambda: decoder(framework.asarray(np.zeros((2, 4), np.float32))), InputError, "(2, 4)", "6 entries")
    grid = np.zeros((1, 4, 4, 3, 4, 4), np.float32), np.ones((1, 4, 4, 3), np.float32)
    classes = networks[framework.name].classes
    rejected(lambda: classes(*map(framework.asarray, grid)), InputError, "I = 3")


# Files


def spoiled(saved, path, metadata=None, **changes):
    """The sound file with other metadata or tensors; a tensor of None is left out."""
    tensors = {name.replace("_dot_", "."): value for name, value in changes.items()}
    tensors = {name: value for name, value in (load_file(saved) | tensors).items() if value is not None}
    if metadata is None:
        header = saved.read_bytes()
        metadata = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]
    save_file(tensors, path, metadata or None)
    return path


def describing(kind="MatrixCapsNet", **arguments):
    return {"emroute.network": json.dumps({"kind": kind, "arguments": arguments})}


DAMAGE = {
    "no metadata": ({"metadata": {}}, "holds no network of emroute"),
    "another's metadata": ({"metadata": {"format": "pt"}}, "holds no network of emroute"),
    "no JSON": ({"metadata": {"emroute.network": "{"}}, "holds no network of emroute"),
    "too deep a JSON": ({"metadata": {"emroute.network": "[" * 10**5}}, "holds no network of emroute"),
    "a list": ({"metadata": {"emroute.network": "[1, 2]"}}, "holds no network of emroute"),
    "no kind": ({"metadata": {"emroute.network": '{"arguments": {}}'}}, "holds no network of emroute"),
    "no arguments": ({"metadata": {"emroute.network": '{"kind": "CapsNet"}'}}, "holds no network of emroute"),
    "arguments of a kind": ({"metadata": {"emroute.network": '{"kind": "CapsNet", "arguments": 3}'}}, "no network"),
    "another kind": ({"metadata": describing("ResNet")}, "CapsNet, MatrixCapsNet"),
    "an unknown argument": ({"metadata": describing(**SMALL, device_="cpu")}, "device_"),
    "a device": ({"metadata": describing(**SMALL, device="cpu", rngs=0)}, "make no network"),
    "a bad argument": ({"metadata": describing(**SMALL | {"widths": [1]})}, "widths"),
    "an argument of another type": ({"metadata": describing(**SMALL | {"n_classes": "3"})}, "n_classes='3'"),
    "another network's arguments": ({"metadata": describing("CapsNet")}, "decoder.layers.0.weight is missing"),
    "an enormous network": ({"metadata": describing(**SMALL | {"n_classes": 10**9})}, "expected (1000000000,)"),
    "poses of more entries than memory": ({"metadata": describing(**SMALL | {"pose_size": 10**9})}, "/spoiled."),
    "a tensor too few": ({"classes_dot_beta_u": None}, "classes.beta_u is missing"),
    "a tensor too many": ({"more": np.zeros(1)}, "more is not of this network"),
    "another shape": ({"classes_dot_beta_u": np.zeros(4, np.float32)}, "classes.beta_u has shape (4,), expected (3,)"),
    "integers": ({"classes_dot_beta_u": np.zeros(3, np.int32)}, "classes.beta_u has dtype"),
}


@pytest.mark.parametrize(("changes", "words"), DAMAGE.values(), ids=DAMAGE)
def test_files_of_something_else_are_refused(framework, saved, tmp_path, changes, words):
    path = spoiled(saved, tmp_path / "spoiled.safetensors", **changes)
    rejected(lambda: framework.nn.load(path), InputError, str(path), words)


def test_weights_of_eight_bits_are_refused(framework, saved, tmp_path):
    """Flax cannot read them, Torch cannot convolve them."""
    path, header = tmp_path / "small.safetensors", saved.read_bytes()
    metadata = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["__metadata__"]
    small = {name: torch.tensor(value).to(torch.float8_e4m3fn) for name, value in load_file(saved).items()}
    safetensors.torch.save_file(small, path, metadata)
    rejected(lambda: framework.nn.load(path), InputError, str(path), "conv.weight has dtype F8_E4M3")


def test_a_file_that_tells_of_endless_routing_is_read_at_once(framework, saved, tmp_path):
    path = spoiled(saved, tmp_path / "endless.safetensors", metadata=describing(**SMALL, n_iter=10**12))
    assert framework.nn.load(path).arguments["n_iter"] == 10**12


def test_damaged_files_are_refused(framework, saved, tmp_path):
    whole, path = saved.read_bytes(), tmp_path / "damaged.safetensors"
    for data in (b"", whole[:7], whole[:200], whole[:-1], whole + b"more", b"PK\x03\x04" * 100, whole[1:]):
        path.write_bytes(data)
        rejected(lambda: framework.nn.load(path), InputError, str(path), "not a sound safetensors file")


def test_a_file_that_is_not_there(framework, tmp_path):
    with pytest.raises(FileNotFoundError):
        framework.nn.load(tmp_path / "nothing")


def test_a_write_that_fails_leaves_what_was_there(framework, networks, saved, tmp_path):
    path = tmp_path / "network.safetensors"
    framework.nn.save(networks[framework.name], path)  # else JAX's cache keeps half of what this compiles
    path.write_bytes(saved.read_bytes())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            framework.nn.save(networks[framework.name], path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == saved.read_bytes()
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        framework.nn.save(networks[framework.name], tmp_path / "no" / "folder")


def test_what_no_file_holds_is_refused(framework, tmp_path):
    path = tmp_path / "network.safetensors"
    network = framework.outline("MatrixCapsNet", **SMALL, inverse_temperature=lambda t, n_iter: 0.01 * (t + 1))
    rejected(lambda: framework.nn.save(network, path), InputError, "inverse_temperature is a function")
    other = FLAX if framework is TORCH else TORCH
    layer = other.outline("Decoder", 2, (1, 1, 1), hidden_features=())
    rejected(lambda: framework.nn.save(layer, path), InputError, "Decoder", "CapsNet, MatrixCapsNet")
    assert not list(tmp_path.iterdir())


def test_weights_that_no_load_would_look_for_are_not_saved(framework, networks, tmp_path):
    path = tmp_path / "network.safetensors"
    if framework is TORCH:
        network = framework.outline("MatrixCapsNet", **SMALL)
        torch.nn.utils.parametrizations.weight_norm(network.conv)
        words = "conv.weight is missing"
    else:
        network = nnx.clone(networks["flax"])
        network.conv.bias = None
        words = "conv.bias is missing"
    rejected(lambda: framework.nn.save(network, path), InputError, "network to save", words)
    assert not path.exists()


def test_arguments_of_numpy_are_saved_as_numbers(framework, tmp_path):
    options = SMALL | {"n_classes": np.int64(3), "inverse_temperature": np.asarray([0.1, 0.2, 0.3])}
    network = TORCH.make("MatrixCapsNet", **options)
    TORCH.nn.save(network, tmp_path / "it")
    assert framework.nn.load(tmp_path / "it").arguments == network.arguments
    assert network.arguments["inverse_temperature"] == (0.1, 0.2, 0.3)


def test_a_compiled_network_is_saved_as_itself(networks, saved, tmp_path):
    TORCH.nn.save(torch.compile(networks["torch"], backend="eager"), tmp_path / "it")
    assert (tmp_path / "it").read_bytes() == saved.read_bytes()


def test_files_need_safetensors(framework, networks, saved, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("safetensors.")] + ["safetensors"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match="pip install safetensors"):
        framework.nn.save(networks[framework.name], tmp_path / "it")
    with pytest.raises(MissingDependencyError, match="pip install safetensors"):
        framework.nn.load(saved)


@pytest.mark.parametrize(("name", "missing"), [("torch", ("flax", "jax", "jaxlib")), ("flax", ("torch",))])
def test_one_framework_does_without_the_other(name, missing):
    without = f"sys.modules.update(dict.fromkeys({missing!r})); "
    done = f"import sys; {without}import emroute; emroute.nn.{name}.CapsNet; print('fine')"
    ran = subprocess.run([sys.executable, "-c", done], capture_output=True, text=True, check=False)
    assert ran.stdout == "fine\n", ran.stderr
    lacking = f"import sys; sys.modules.update({{{name!r}: None}}); import emroute.nn.{name}"
    ran = subprocess.run([sys.executable, "-c", lacking], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError" in ran.stderr
    assert f"{name}" in ran.stderr.splitlines()[-1]
