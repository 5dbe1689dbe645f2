"""Costs that tie, losses in half precision, lengths that rounding would make longer than 1, and exported graphs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from emroute import capsule
from emroute.nn import CapsuleOutput, capsnet_loss, matrix_capsnet_loss
from tests.capsules import em_normalized

pytestmark = pytest.mark.usefixtures("quick_compilation")


def tied(u, votes, n_iter):
    """Activation of the first parent, of children that are half there."""
    half = 0 * votes[:, 0, 0] + 0.5
    return capsule.em_routing(votes, half, u, 0 * u, cost="normalized", n_iter=n_iter).activations[0]


@pytest.mark.parametrize("n_iter", [1, 2, 3, 5])
@pytest.mark.parametrize("level", [0.0, 0.3, -7.1])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_gradient_is_bounded_where_costs_tie(n_iter, level, dtype):
    """And has the sign of the differences: a dearer parent is less there."""
    votes = level + np.zeros((6, 3, 4))
    u = torch.zeros(3, dtype=getattr(torch, dtype), requires_grad=True)
    tied(u, torch.asarray(votes, dtype=u.dtype), n_iter).backward()
    grad = u.grad.numpy()
    assert -10 < grad[0] < -1e-3
    assert np.all(grad[1:] > 0)
    assert np.all(grad[1:] < 10)
    for step in (0.1, -0.1):
        right = em_normalized(votes, np.full(6, 0.5), np.asarray([step, 0, 0]), np.zeros(3), n_iter)[1][0]
        found = tied(np.asarray([step, 0, 0], dtype), votes.astype(dtype), n_iter)
        np.testing.assert_allclose(found, right, rtol=2e-6 if dtype == "float32" else 1e-12)


def test_the_gradient_is_bounded_on_jax_too():
    votes = jnp.zeros((6, 3, 4), dtype=jnp.float32)
    grad = jax.grad(lambda u: tied(u, votes, 3))(jnp.zeros(3, dtype=jnp.float32))
    assert -10 < float(grad[0]) < -1e-3


@pytest.mark.parametrize("n_iter", [1, 2, 3])
def test_equal_transforms_tie_within_rounding(n_iter):
    """Votes that are equal for all parents, and not round: nothing but rounding tells their costs apart."""
    rng = np.random.default_rng(2)
    poses, one = rng.normal(size=(9, 4, 4)), rng.normal(size=(9, 1, 4, 4))
    transforms = torch.asarray(np.broadcast_to(one, (9, 5, 4, 4)).copy(), dtype=torch.float32).requires_grad_()
    arrays = [torch.asarray(x, dtype=torch.float32) for x in (poses, np.ones(9), np.zeros(5))]
    found = capsule.em_routing_from_poses(
        arrays[0], transforms, arrays[1], arrays[2], arrays[2], cost="normalized", n_iter=n_iter
    )
    np.testing.assert_allclose(found.activations.detach(), 0.5, atol=1e-5)
    found.activations[0].backward()
    assert transforms.grad.abs().max() < 10


@pytest.mark.parametrize("gap", [1e-5, 1e-3, 1.0])
def test_costs_that_differ_are_standardized_as_in_the_tutorials(gap):
    rng = np.random.default_rng(5)
    votes, u = np.repeat(rng.normal(size=(6, 1, 4)), 3, axis=1), np.asarray([gap, 0, -gap / 3])
    found = capsule.em_routing(votes, np.full(6, 0.5), u, np.zeros(3), cost="normalized")
    right = em_normalized(votes, np.full(6, 0.5), u, np.zeros(3), 3)
    np.testing.assert_allclose(found.activations, right[1], rtol=1e-9)
    np.testing.assert_allclose(found.poses, right[0], rtol=1e-7, atol=1e-9)


HALVES = {"torch": (torch.float16, torch.bfloat16), "jax": (jnp.float16, jnp.bfloat16), "numpy": (np.float16,)}


@pytest.mark.parametrize("name", HALVES)
def test_losses_in_half_precision_fit_where_the_result_fits(name):
    xp = {"torch": torch, "jax": jnp, "numpy": np}[name]
    for dtype in HALVES[name]:
        drawn, images = xp.zeros((2, 3, 96, 96), dtype=dtype), xp.zeros((2, 3, 96, 96), dtype=dtype) + 2
        lengths, labels = xp.zeros((2, 2), dtype=dtype), xp.asarray([0, 1])
        output = CapsuleOutput(xp.zeros((2, 2, 4), dtype=dtype), lengths, drawn)
        near = {"rtol": 1 / 128 if dtype in (torch.bfloat16, jnp.bfloat16) else 1e-3}
        loss = capsnet_loss(output, images, labels)
        assert loss.dtype == dtype
        np.testing.assert_allclose(float(loss), 0.0005 * 27648 * 4 + 0.81, **near)
        np.testing.assert_allclose(float(matrix_capsnet_loss(output, images, labels)), 55.296 + 0.81, **near)
        # means of sums that do not fit: 1,000 images of 8,192, and 40,000 losses of 2
        many = xp.zeros((1000, 2048), dtype=dtype)
        np.testing.assert_allclose(float(capsule.reconstruction_loss(many, many + 2, n_axes=1)), 8192, **near)
        long, first = xp.zeros((40_000, 2), dtype=dtype) + 2, xp.zeros(40_000, dtype=xp.asarray(0).dtype)
        np.testing.assert_allclose(float(capsule.margin_loss(long, first)), 0.5 * 1.9**2, **near)
        np.testing.assert_allclose(float(capsule.spread_loss(long, first, 1.5)), 2.25, **near)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("n", [2, 16, 64])
def test_no_length_is_above_1(eager_lib, dtype, n):
    if eager_lib.name == "array_api_strict" and dtype == "float16":
        dtype = "float32"  # the standard has no float16
    unit = np.random.default_rng(0).normal(size=(100, 3, 2, n))
    unit = unit / np.linalg.norm(unit, axis=-1, keepdims=True)
    for size in (5, 300, 5000):
        votes = eager_lib.asarray(size * unit, dtype)
        for routing in (capsule.dynamic_routing(votes), capsule.kmeans_routing(votes)):
            lengths = eager_lib.to_numpy(routing.activations)
            assert lengths.max() <= 1
            assert lengths.max() > 0.9
            u = eager_lib.asarray(np.zeros(2), dtype)
            capsule.em_routing(votes[:, :2, ...], routing.activations, u, u, n_iter=1)  # which takes no more than 1
        for constant in (1.0, 0.5):
            squashed = eager_lib.to_numpy(capsule.squash(votes, constant=constant)).astype(np.float64)
            assert np.linalg.norm(squashed, axis=-1).max() <= 1


def test_the_limit_of_lengths_leaves_the_gradient():
    s = torch.tensor([[4000.0, 3000.0]], dtype=torch.float32, requires_grad=True)
    capsule.squash(s)[0, 0].backward()
    np.testing.assert_allclose(s.grad, [[9 / 125000, -12 / 125000]], rtol=1e-4)


class Layers(torch.nn.Module):
    """A dynamic routing whose lengths and poses go on to an EM routing, and their losses."""

    def forward(self, votes, votes2, labels):
        found = capsule.dynamic_routing(votes)
        zero = torch.zeros(3)
        last = capsule.em_routing(votes2, found.activations, zero, zero, n_iter=2)
        means = torch.eye(3, 4) + 0 * votes2[:, :3, 0, :]
        mixed = capsule.gmm_routing(votes2[:, :, 0, :], (means, 0 * means + 1, 0 * means[..., 0] + 0.5))
        loss = capsule.margin_loss(found.activations[:, :3], labels)
        return last.poses, last.activations, mixed.poses, loss, capsule.spread_loss(last.activations, labels)


def test_an_exported_graph_holds_nothing_that_nothing_uses():
    rng = np.random.default_rng(0)
    arrays = [torch.asarray(rng.normal(size=size), dtype=torch.float32) for size in ((2, 5, 4, 3), (2, 4, 3, 4))]
    program = torch.export.export(Layers(), (*arrays, torch.asarray([0, 2])))
    nodes = list(program.graph.nodes)
    unused = [node for node in nodes if node.op == "call_function" and not node.users]
    assert not [node.target for node in unused if getattr(node.meta.get("val"), "dtype", None) == torch.bool]
    checks = ("amin", "isfinite", "aten.all", "aten.min.")
    assert not [node.target for node in nodes if any(name in str(node.target) for name in checks)]
