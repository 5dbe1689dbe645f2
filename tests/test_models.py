"""The trained network that the site shows: small, and as good as it is said to be."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

torch = pytest.importorskip("torch")

DOCS = Path(__file__).parents[1] / "docs"
CAPSNET = DOCS / "models" / "capsnet-mnist.safetensors"


@pytest.fixture(scope="module")
def digits():
    """Scikit-learn's digits, which it has never seen, on MNIST's frame."""
    found = load_digits()
    x = torch.tensor(found.images[:, None] / 16).float()
    x = torch.nn.functional.interpolate(x, size=(18, 18), mode="bicubic").clamp(0, 1)
    return torch.nn.functional.pad(x, (5, 5, 5, 5)), found.target


def test_the_trained_network_reads_other_digits(digits):
    from emroute.nn.torch import load

    images, labels = digits
    network = load(CAPSNET)
    with torch.no_grad():
        predicted = np.concatenate([network.encode(some)[1].argmax(-1).numpy() for some in images.split(300)])
    assert (predicted == labels).mean() > 0.96
    result = json.loads((DOCS / "results" / "capsnet-mnist.json").read_text())
    assert result["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert result["test"] > 0.9936  # what the tutorial reached
    assert CAPSNET.stat().st_size < 2_000_000


def test_flax_reads_the_same_network(digits):
    pytest.importorskip("flax")
    from emroute.nn import flax
    from emroute.nn.torch import load

    images = digits[0][:16]
    with torch.no_grad():
        expected = load(CAPSNET)(images)
    found = flax.load(CAPSNET)(images.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(found.activations, expected.activations, atol=1e-5)
    np.testing.assert_allclose(np.moveaxis(found.reconstructions, -1, 1), expected.reconstructions, atol=1e-5)
