"""Activations of networks are float32 at least, so that classes do not tie where the rest has fewer digits."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from emroute.nn import torch as torch_nn
from tests.networks import FRAMEWORKS

MODELS = Path(__file__).parents[1] / "docs" / "models"


@pytest.fixture(params=FRAMEWORKS)
def framework(request):
    return FRAMEWORKS[request.param]


@pytest.fixture(scope="module")
def images():
    """Digits on MNIST's frame."""
    x = torch.tensor(load_digits().images[:100, None] / 16).float()
    x = torch.nn.functional.interpolate(x, size=(18, 18), mode="bicubic").clamp(0, 1)
    return torch.nn.functional.pad(x, (5, 5, 5, 5))


def ties(activations):
    return float(((activations == activations.max(-1, keepdim=True).values).sum(-1) > 1).float().mean())


@pytest.mark.parametrize("how", ["autocast", "whole"])
@pytest.mark.parametrize("name", ["capsnet-mnist", "matrix-capsnet-mnist"])
def test_classes_do_not_tie_in_bfloat16(name, how, images):
    network, x = torch_nn.load(MODELS / f"{name}.safetensors"), images if name == "capsnet-mnist" else images[:4]
    with torch.no_grad():
        expected = network.encode(x)[1]
        if how == "whole":
            poses, found = network.to(torch.bfloat16).encode(x.to(torch.bfloat16))
        else:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                poses, found = network.encode(x)
    assert (poses.dtype, found.dtype) == (torch.bfloat16, torch.float32)
    assert ties(found) == 0
    assert (found.argmax(-1) == expected.argmax(-1)).float().mean() > 0.95
    assert (found - expected).abs().max() < 0.1
    assert found.min() >= 0
    assert found.max() <= 1


LAYERS = {
    "DynamicRouting": ((4, 3, 2, 5), {"n_iter": 2}, [(2, 4, 2)]),
    "ConvCapsules": ((2, 3, 2), {"n_iter": 1, "pose_size": 2}, [(1, 3, 3, 2, 2, 2), (1, 3, 3, 2)]),
    "ClassCapsules": ((2, 3), {"n_iter": 1, "pose_size": 2}, [(1, 2, 2, 2, 2, 2), (1, 2, 2, 2)]),
}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_keep_activations(framework, name, dtype, quick_compilation):
    """Those of a path, too; poses and assignments have the dtype of what came in."""
    arguments, options, shapes = LAYERS[name]
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(0.2, 0.8, size=shape).astype(np.float32) for shape in shapes]
    if framework.name == "torch":
        layer = framework.make(name, *arguments, **options).to(getattr(torch, dtype))
        half, wide = [torch.tensor(x).to(getattr(torch, dtype)) for x in arrays], torch.float32
    else:
        layer = framework.make(name, *arguments, **options, param_dtype=getattr(jnp, dtype))
        half, wide = [jnp.asarray(x).astype(dtype) for x in arrays], jnp.float32
    found, path = layer(*half, return_path=True)
    assert len(path) == options["n_iter"]
    for routing in (found, *path):
        assert routing.activations.dtype == wide
        assert routing.poses.dtype == routing.assignments.dtype == half[0].dtype
    np.testing.assert_array_equal(framework.to_numpy(found.activations), framework.to_numpy(path[-1].activations))


def test_float64_stays():
    layer = FRAMEWORKS["torch"].make("DynamicRouting", 4, 3, 2, 5).double()
    assert {x.dtype for x in layer(torch.ones(1, 4, 2, dtype=torch.float64))} == {torch.float64}
