"""Layers route by name, and Efficient-CapsNet: sizes, both frameworks, one file."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from emroute import capsule
from emroute.errors import InputError
from emroute.nn import capsnet_loss
from emroute.nn import flax as flax_nn
from emroute.nn import torch as torch_nn
from tests.helpers import rejected
from tests.networks import FLAX, FRAMEWORKS, TORCH

NAMES = ("em", "full", "variational", "attention", "self")
RNG = np.random.default_rng(0)
POSES, ACTIVE = RNG.normal(size=(2, 4, 4, 3, 2, 2)).astype("f"), RNG.uniform(size=(2, 4, 4, 3)).astype("f")


@pytest.mark.parametrize("routing", NAMES)
def test_a_layer_is_the_routing_of_its_name(routing):
    torch.manual_seed(0)
    poses, active = torch.tensor(POSES), torch.tensor(ACTIVE)
    conv = torch_nn.ConvCapsules(3, 2, 2, pose_size=2, routing=routing, padding=1)
    classes = torch_nn.ClassCapsules(3, 5, pose_size=2, routing=routing)
    for kind, layer, own in (("conv", conv, {"padding": 1}), ("class", classes, {})):
        learned = {name: value for name, value in layer.named_parameters() if name != "score"}
        given = {} if routing == "attention" else {"activations": active}
        options = {"covariance": "full"} if routing == "full" else {}
        options |= {} if routing == "self" else {"n_iter": 3}
        name = {"em": "em", "full": "em"}.get(routing, routing)
        route = getattr(capsule, f"{kind}_{name}_routing")
        expected, got = route(poses, **given, **learned, **own, **options), layer(poses, active)
        torch.testing.assert_close(got.poses, expected.poses)
        torch.testing.assert_close(got.assignments, expected.assignments)
        if layer is conv or routing != "attention":
            torch.testing.assert_close(got.activations, expected.activations)
        last, path = layer(poses, active, return_path=True)
        assert len(path) == (1 if routing == "self" else 3)
        torch.testing.assert_close(last.activations, got.activations)
    assert f"routing={routing!r}" in repr(conv) or routing == "em"


def test_attention_has_classes_that_sum_to_one():
    layer = torch_nn.ClassCapsules(3, 5, pose_size=2, routing="attention")
    found = layer(torch.tensor(POSES), torch.tensor(ACTIVE))
    torch.testing.assert_close(found.activations.sum(-1), torch.ones(2))
    found.activations[:, 0].sum().backward()
    assert layer.score.grad.norm() > 0


@pytest.mark.parametrize("routing", [pytest.param(name, marks=pytest.mark.thorough) for name in NAMES])
def test_both_frameworks_route_alike(routing, tmp_path):
    options = {"widths": (4, 2, 3, 3), "pose_size": 2, "routing": routing}
    network = TORCH.make("MatrixCapsNet", 1, 4, 20, **options)
    torch_nn.save(network, tmp_path / "file")
    images = np.random.default_rng(1).uniform(size=(2, 1, 20, 20)).astype("f")
    other = flax_nn.load(tmp_path / "file")
    for x, y in zip(network(TORCH.images(images)), other(FLAX.images(images)), strict=True):
        if x is not None:
            np.testing.assert_allclose(TORCH.to_numpy(x), np.asarray(y), rtol=2e-4, atol=2e-5)


def test_unknown_routings_are_refused():
    rejected(lambda: torch_nn.ConvCapsules(3, 2, 2, routing="fuzzy"), InputError, "routing='fuzzy'", "'variational'")
    wrong = {"routing": "full", "cost": "normalized"}
    rejected(lambda: torch_nn.ClassCapsules(3, 2, **wrong), InputError, "cost='normalized'", "routing='full'")


@pytest.mark.parametrize("framework", FRAMEWORKS.values(), ids=FRAMEWORKS)
def test_the_published_number_of_parameters(framework):
    network = framework.outline("EfficientCapsNet", decoder=False)
    assert framework.count(network) == 161_824


def learned(images):
    """A small network after a step, so that its moments of batches are not those it was made with."""
    network = TORCH.make("EfficientCapsNet", 1, 3, 20, channels=(4, 6, 6, 8), class_features=4, decoder=False)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    losses = []
    for _ in range(6):
        loss = capsnet_loss(network(images), images, torch.tensor([0, 1, 2, 0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return network, losses


def test_one_file_of_efficient_capsnet_serves_both_frameworks(tmp_path):
    images = np.random.default_rng(2).uniform(size=(4, 1, 20, 20)).astype("f")
    network, losses = learned(torch.tensor(images))
    assert losses[-1] < losses[0]
    assert network.norm1.running_mean.norm() > 0
    torch_nn.save(network, tmp_path / "torch")
    again, other = torch_nn.load(tmp_path / "torch"), flax_nn.load(tmp_path / "torch")
    expected = network.eval()(torch.tensor(images)).poses.detach().numpy()
    np.testing.assert_array_equal(again(torch.tensor(images)).poses.detach().numpy(), expected)
    np.testing.assert_allclose(other(FLAX.images(images)).poses, expected, rtol=1e-4, atol=1e-5)
    flax_nn.save(other, tmp_path / "flax")
    assert (tmp_path / "flax").read_bytes() == (tmp_path / "torch").read_bytes()


def test_flax_keeps_moments_of_batches():
    network = FLAX.make("EfficientCapsNet", 1, 3, 20, channels=(4, 6, 6, 8), class_features=4, decoder=False)
    images = jnp.ones((2, 20, 20, 1), jnp.float32)
    network(images)
    assert float(jnp.abs(network.norm1.mean[...]).sum()) > 0
    before = nnx.state(network, nnx.BatchStat)
    network.eval()
    network(images)
    np.testing.assert_array_equal(before["norm1"]["mean"][...], network.norm1.mean[...])


def test_channels_that_make_no_capsules_are_refused():
    rejected(lambda: torch_nn.EfficientCapsNet(channels=(4, 4, 4, 12)), InputError, "channels=", "multiple of 8")
