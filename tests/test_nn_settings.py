"""A file holds what a network does now: settings that were changed since it was made come back, or are refused."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from emroute.errors import InputError
from tests.helpers import rejected
from tests.networks import FLAX, FRAMEWORKS, TORCH

MATRIX = "MatrixCapsNet", {"image_size": 17, "widths": (3, 2, 2, 2), "n_classes": 3, "decoder": True}
VECTOR = "CapsNet", {"image_size": 10, "kernel_size": 3, "channels": 3, "primary_capsules": 2, "n_classes": 3}


@pytest.fixture(params=FRAMEWORKS)
def framework(request):
    return FRAMEWORKS[request.param]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Small networks in a file each; their transforms are large, so that settings matter."""
    paths = {}
    for name, options in (MATRIX, VECTOR):
        network = TORCH.make(name, decoder_features=(4,), **options)
        network.classes.transforms.data *= 20
        network.classes.transforms.data += 0.5
        paths[name] = tmp_path_factory.mktemp("sound") / name
        TORCH.nn.save(network, paths[name])
    return paths


def option(layer, name, value):
    return lambda network: getattr(network, layer).options.__setitem__(name, value)


def attribute(layer, name, value):
    return lambda network: setattr(getattr(network, layer), name, value)


CHANGES = {
    "inverse temperatures": ("MatrixCapsNet", option("classes", "inverse_temperature", (0.1, 0.5, 2.0))),
    "of NumPy": ("MatrixCapsNet", option("classes", "inverse_temperature", np.asarray([0.1, 0.5, 2.0]))),
    "iterations": ("MatrixCapsNet", option("conv_capsules1", "n_iter", 1)),
    "cost": ("MatrixCapsNet", option("classes", "cost", "normalized")),
    "epsilon": ("MatrixCapsNet", option("conv_capsules2", "epsilon", 0.3)),
    "all options": ("MatrixCapsNet", lambda net: net.classes.options.update(n_iter=2, inverse_temperature="tutorial")),
    "entries": ("MatrixCapsNet", attribute("classes", "entries", (3, 7))),
    "no entries": ("MatrixCapsNet", attribute("classes", "entries", None)),
    "coordinates": ("MatrixCapsNet", attribute("classes", "coordinates", ((2.0,), (3.0,)))),
    "stride": ("MatrixCapsNet", attribute("conv_capsules1", "stride", 1)),
    "padding": ("MatrixCapsNet", attribute("conv_capsules2", "padding", 1)),
    "linear decoder": ("MatrixCapsNet", attribute("decoder", "activation", "linear")),
    "leaky": ("CapsNet", attribute("classes", "leaky", True)),
    "one iteration": ("CapsNet", attribute("classes", "n_iter", 1)),
    "rectified": ("CapsNet", attribute("primary", "relu", True)),
    "tanh decoder": ("CapsNet", attribute("decoder", "activation", "tanh")),
}


def outputs(network, x):
    with torch.no_grad():
        return [np.asarray(part) for part in network(x)]


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_comes_back(change, saved, tmp_path):
    name, apply = CHANGES[change]
    path, again = tmp_path / "network", tmp_path / "again"
    network = TORCH.nn.load(saved[name])
    x = torch.rand(2, *network.image_shape, generator=torch.Generator().manual_seed(0))
    before = outputs(network, x)
    apply(network)
    TORCH.nn.save(network, path)
    loaded = TORCH.nn.load(path)
    now = outputs(network, x)
    assert any(not np.allclose(old, new, rtol=1e-3, atol=1e-6) for old, new in zip(before, now, strict=True))
    for expected, found in zip(now, outputs(loaded, x), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert loaded.arguments == network.arguments
    FLAX.nn.save(FLAX.nn.load(path), again)  # the other framework reads and writes the same
    assert path.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("change", ["inverse temperatures", "leaky", "rectified", "linear decoder"])
def test_flax_writes_what_was_changed(change, saved, tmp_path):
    name, apply = CHANGES[change]
    networks = TORCH.nn.load(saved[name]), FLAX.nn.load(saved[name])
    for network, framework in zip(networks, (TORCH, FLAX), strict=True):
        apply(network)
        framework.nn.save(network, tmp_path / framework.name)
    assert (tmp_path / "torch").read_bytes() == (tmp_path / "flax").read_bytes()


def test_what_does_not_change_results_comes_back_too(framework, saved, tmp_path):
    network = framework.nn.load(saved["CapsNet"])
    network.classes.detach_inner, network.classes.recompute = True, False
    framework.nn.save(network, tmp_path / "it")
    loaded = framework.nn.load(tmp_path / "it")
    assert (loaded.classes.detach_inner, loaded.classes.recompute) == (True, False)


def test_the_dtype_of_computations_is_not_in_a_file(saved, tmp_path):
    network = FLAX.nn.load(saved["CapsNet"], dtype="bfloat16")
    FLAX.nn.save(network, tmp_path / "it")
    assert (tmp_path / "it").read_bytes() == saved["CapsNet"].read_bytes()


def test_untouched_networks_have_files_as_before(saved):
    for path in saved.values():
        with safe_open(path, "numpy") as file:
            assert json.loads(file.metadata()["emroute.network"]).keys() == {"kind", "arguments"}


def test_a_function_is_refused_until_its_values_are_given(framework, saved, tmp_path):
    network = framework.nn.load(saved["MatrixCapsNet"])
    network.classes.options["inverse_temperature"] = lambda t, n_iter: 1.0
    words = "inverse_temperature is a function", "classes"
    rejected(lambda: framework.nn.save(network, tmp_path / "it"), InputError, *words)
    network.classes.options["inverse_temperature"] = (1.0, 1.0, 1.0)
    framework.nn.save(network, tmp_path / "it")
    loaded = framework.nn.load(tmp_path / "it")
    assert tuple(loaded.classes.options["inverse_temperature"]) == (1.0, 1.0, 1.0)


REFUSED = [
    ("MatrixCapsNet", option("classes", "n_iter", "many"), ("classes.options", "many")),
    ("MatrixCapsNet", option("classes", "speed", 3), ("classes.options", "speed")),
    ("MatrixCapsNet", attribute("classes", "entries", (3, 99)), ("classes.entries", "99")),
    ("CapsNet", attribute("classes", "n_iter", 0), ("classes.n_iter", "0")),
    ("CapsNet", attribute("decoder", "activation", "softmax"), ("decoder.activation", "softmax")),
    ("CapsNet", lambda net: setattr(net, "image_shape", (1, 9, 9)), ("image_shape", "(1, 9, 9)")),
]


@pytest.mark.parametrize(("name", "change", "words"), REFUSED, ids=[case[2][0] for case in REFUSED])
def test_what_no_layer_can_have_is_refused(framework, saved, tmp_path, name, change, words):
    network = framework.nn.load(saved[name])
    change(network)
    rejected(lambda: framework.nn.save(network, tmp_path / "it"), InputError, *words)
    assert not list(tmp_path.iterdir())


def test_layers_that_no_argument_makes_are_refused(framework, saved, tmp_path):
    network = framework.nn.load(saved["CapsNet"])
    if framework is TORCH:
        network.conv.stride = (2, 2)
    else:
        network.conv.strides = (2, 2)
    rejected(lambda: framework.nn.save(network, tmp_path / "it"), InputError, "conv.stride", "(2, 2)", "(1, 1)")

    class Other(type(network.primary)):
        pass

    network = framework.nn.load(saved["CapsNet"])
    network.primary.__class__ = Other
    rejected(lambda: framework.nn.save(network, tmp_path / "it"), InputError, "primary is a Other")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"classes": {"n_iter": -1}}, ("classes.n_iter", "-1")),
        ({"classes": {"transforms": 1}}, ("classes.transforms", "does not have")),
        ({"nothing": {"n_iter": 1}}, ("nothing.n_iter", "does not have")),
        ([1], ("no network of emroute",)),
    ],
)
def test_settings_of_a_damaged_file_are_refused(framework, saved, tmp_path, settings, words):
    with safe_open(saved["CapsNet"], "numpy") as file:
        told = json.loads(file.metadata()["emroute.network"])
    path = tmp_path / "it"
    save_file(load_file(saved["CapsNet"]), path, {"emroute.network": json.dumps(told | {"settings": settings})})
    rejected(lambda: framework.nn.load(path), InputError, *words)
