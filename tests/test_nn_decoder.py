"""Decoders end as they are told, and what they cannot draw is refused."""

import numpy as np
import pytest

from emroute.errors import InputError
from emroute.nn import capsnet_loss
from tests.helpers import rejected
from tests.networks import FRAMEWORKS, TORCH

SMALL = {"channels": 2, "kernel_size": 3, "primary_capsules": 2, "primary_features": 3, "class_features": 4}


@pytest.fixture(params=FRAMEWORKS)
def framework(request):
    return FRAMEWORKS[request.param]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A network for each last activation; Flax reads them faster than it draws."""
    made = {}
    for activation in ("sigmoid", "tanh", "linear"):
        made[activation] = tmp_path_factory.mktemp("decoders") / activation
        network = TORCH.make("CapsNet", 1, 3, 8, decoder_features=(5,), decoder_activation=activation, **SMALL)
        TORCH.nn.save(network, made[activation])
    return made


@pytest.mark.parametrize(
    ("activation", "last", "bounds"),
    [
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x)), (0, 1)),
        ("tanh", np.tanh, (-1, 1)),
        ("linear", lambda x: x, None),
    ],
)
def test_the_last_activation_is_the_one_asked_for(framework, activation, last, bounds, saved):
    decoder = framework.nn.load(saved[activation]).decoder
    poses = np.random.default_rng(0).normal(size=(3, 3, 4)).astype(np.float32) * 20
    w = {name.replace("kernel", "weight"): value for name, value in framework.weights(decoder).items()}
    for layer in (0, 1):
        name = f"layers.{layer}.weight"
        w[name] = w[name] if framework is TORCH else w[name].T
    hidden = np.maximum(poses.reshape(3, -1) @ w["layers.0.weight"].T + w["layers.0.bias"], 0)
    expected = last(hidden @ w["layers.1.weight"].T + w["layers.1.bias"]).reshape(3, 1, 8, 8)
    found = framework.to_numpy(decoder(framework.asarray(poses)), images=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert decoder.range == bounds


def test_none_is_linear_and_others_are_refused(framework):
    assert framework.outline("Decoder", 4, (1, 2, 2), activation=None).activation == "linear"
    for network in ("CapsNet", "MatrixCapsNet"):
        made = framework.outline(network, 1, 3, 28, decoder=True, decoder_activation="linear")
        assert made.decoder.activation == "linear"
    rejected(lambda: framework.outline("Decoder", 4, (1, 2, 2), activation="relu"), InputError, "relu", "'linear'")


UNREACHABLE = [("sigmoid", -0.5, 1.0), ("sigmoid", 0.0, 255.0), ("tanh", -2.0, 1.0)]


@pytest.mark.parametrize(("activation", "low", "high"), UNREACHABLE)
def test_targets_out_of_range_are_refused(framework, activation, low, high, saved, quick_compilation):
    network = framework.nn.load(saved[activation])
    images = framework.images(np.linspace(low, high, 64, dtype=np.float32).reshape(1, 1, 8, 8))
    labels = framework.asarray(np.asarray([1]))
    words = f"{low:g} and {high:g}", "the decoder draws between", 'decoder_activation="linear"'
    rejected(lambda: capsnet_loss(network(images, labels), images, labels), InputError, *words)
    assert network(images).activations.shape == (1, 3)  # nothing is learned from


@pytest.mark.parametrize(("activation", "low", "high"), [("linear", -3.0, 200.0), ("tanh", -1, 1), ("sigmoid", 0, 1)])
def test_targets_in_range_are_taken(framework, activation, low, high, saved, quick_compilation):
    network = framework.nn.load(saved[activation])
    images = framework.images(np.linspace(low, high, 64, dtype=np.float32).reshape(1, 1, 8, 8))
    labels = framework.asarray(np.asarray([1]))
    assert np.isfinite(framework.to_numpy(capsnet_loss(network(images, labels), images, labels)))
