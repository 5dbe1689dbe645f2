"""The trained networks that the site shows: small, and as good as they are said to be."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

torch = pytest.importorskip("torch")

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def images():
    """By data set: scikit-learn's digits on MNIST's frame, which no network has seen, and the sample of clothes."""
    found, clothes = load_digits(), np.load(DOCS / "models" / "fashion-mnist-500.npz")
    x = torch.tensor(found.images[:, None] / 16).float()
    x = torch.nn.functional.interpolate(x, size=(18, 18), mode="bicubic").clamp(0, 1)
    digits = torch.nn.functional.pad(x, (5, 5, 5, 5)), found.target
    return {
        "mnist": digits,
        "fashion-mnist": (torch.tensor(clothes["images"][:, None] / 255).float(), clothes["labels"]),
    }


NETWORKS = {
    "capsnet-mnist": (1797, 0.96, 0.9936),  # 0.9936 is what the tutorial reached
    "capsnet-fashion-mnist": (500, 0.85, 0.88),
    "matrix-capsnet-mnist": (300, 0.75, 0.979),
}
"""How many images are looked at, what is found of them at least, and of the test set."""


@pytest.mark.parametrize("name", NETWORKS)
def test_a_trained_network_knows_its_images(name, images):
    from emroute.nn.torch import load

    n, least, least_in_test = NETWORKS[name]
    x, labels = (part[:n] for part in images[name.partition("capsnet-")[2]])
    network = load(DOCS / "models" / f"{name}.safetensors")
    with torch.no_grad():
        predicted = np.concatenate([network.encode(some)[1].argmax(-1).numpy() for some in x.split(300)])
    assert (predicted == labels).mean() > least
    result = json.loads((DOCS / "results" / f"{name}.json").read_text())
    assert result["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert result["test"] > least_in_test
    assert (DOCS / "models" / f"{name}.safetensors").stat().st_size < 2_000_000


@pytest.mark.parametrize("name", NETWORKS)
def test_flax_reads_the_same_network(name, images):
    pytest.importorskip("flax")
    from emroute.nn import flax
    from emroute.nn.torch import load

    x, path = images[name.partition("capsnet-")[2]][0][:16], DOCS / "models" / f"{name}.safetensors"
    with torch.no_grad():
        expected = load(path)(x)
    found = flax.load(path)(x.permute(0, 2, 3, 1).numpy())
    np.testing.assert_allclose(found.activations, expected.activations, atol=1e-5)
    if expected.reconstructions is not None:
        np.testing.assert_allclose(np.moveaxis(found.reconstructions, -1, 1), expected.reconstructions, atol=1e-5)
