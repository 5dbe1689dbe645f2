"""Routing differentiates on Torch and JAX: right, alike, and finite where it is hard."""

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.test_util import check_grads

from emroute import capsule

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
VOTES = RNG.normal(size=(2, 4, 3, 2))
ACTIVATIONS = RNG.uniform(0.2, 0.9, size=(2, 4))
BETA_U, BETA_A = RNG.normal(size=3), RNG.normal(size=3)
POSES, TRANSFORMS = RNG.normal(size=(2, 4, 2, 2)), RNG.normal(size=(4, 3, 2, 2))
GRID, ACTIVE = RNG.normal(size=(1, 3, 3, 2, 2, 2)), RNG.uniform(0.2, 0.9, size=(1, 3, 3, 2))
KERNELS = RNG.normal(size=(2, 2, 2, 3, 2, 2))
START = RNG.normal(size=(2, 3, 2)), np.ones((2, 3, 2)), np.full((2, 3), 1 / 3)
WARM = {"inverse_temperature": [1.0, 1.0, 1.0]}
PAIRS = RNG.normal(size=(2, 4, 3))
VECTORS = RNG.normal(size=(2, 4, 2)), *(RNG.normal(size=shape) for shape in ((4, 3, 2), (4, 3), (4, 3, 2, 2)))
HEINSEN = [
    RNG.normal(size=shape)
    for shape in ((4, 2), (4,), (3, 2), (2, 3), (3, 3), (3, 2), (3, 2), (3, 2), (4, 3), (4, 3), (4, 3), (4, 3))
]

CASES = {
    "dynamic": (capsule.dynamic_routing, [VOTES]),
    "dynamic, leaky, with a bias": (lambda v, b: capsule.dynamic_routing(v, bias=b, leaky=True), [VOTES, VOTES[0, 0]]),
    "k-means": (capsule.kmeans_routing, [VOTES]),
    "EM, one iteration": (
        lambda *x: capsule.em_routing(*x, n_iter=1, inverse_temperature=[1.0]),
        [VOTES, ACTIVATIONS, BETA_U, BETA_A],
    ),
    "EM": (lambda *x: capsule.em_routing(*x, **WARM), [VOTES, ACTIVATIONS, BETA_U, BETA_A]),
    "EM, normalized": (
        lambda *x: capsule.em_routing(*x, cost="normalized"),
        [VOTES, ACTIVATIONS, BETA_U, BETA_A],
    ),
    "EM from poses": (
        lambda *x: capsule.em_routing_from_poses(*x, **WARM),
        [POSES, TRANSFORMS, ACTIVATIONS, BETA_U, BETA_A],
    ),
    "GMM": (lambda p, m: capsule.gmm_routing(p, (m, m * 0 + 1.0, m[..., 0] * 0 + 1 / 3)), [VOTES[:, :, 0], START[0]]),
    "convolutional EM": (
        lambda *x: capsule.conv_em_routing(*x, padding=1, n_iter=2, inverse_temperature=[1.0, 1.0]),
        [GRID, ACTIVE, KERNELS, BETA_U, BETA_A],
    ),
    "convolutional dynamic": (lambda *x: capsule.conv_dynamic_routing(*x, n_iter=2), [GRID, KERNELS]),
    "EM, full": (
        lambda *x: capsule.em_routing(*x, **WARM, covariance="full", epsilon=1e-2),
        [VOTES, ACTIVATIONS, BETA_U, BETA_A],
    ),
    "variational": (capsule.variational_routing, [VOTES, ACTIVATIONS, BETA_U, BETA_A]),
    "variational, full": (
        lambda *x: capsule.variational_routing(*x, covariance="full"),
        [VOTES, ACTIVATIONS, BETA_U, BETA_A],
    ),
    "bound": (lambda v, a, r: capsule.variational_bound(v, a, r), [VOTES, ACTIVATIONS, np.full((2, 4, 3), 1 / 3)]),
    "attention": (
        lambda v, g, b: capsule.attention_routing(v, gain=g, bias=b, n_iter=3),
        [np.stack([VOTES, VOTES[::-1] ** 2], axis=-1).reshape(2, 4, 3, 4), *RNG.normal(size=(2, 4))],
    ),
    "self": (
        lambda p, w, b, t, a: capsule.self_routing(p, a, w, b, t),
        [*VECTORS, ACTIVATIONS],
    ),
    "self-attention": (capsule.self_attention_routing, [VOTES, PAIRS[0]]),
    "Heinsen": (
        lambda x, *p: capsule.heinsen_routing(x, capsule.HeinsenParameters(*p)),
        [VECTORS[0], *HEINSEN],
    ),
    "Heinsen, matrices": (capsule.heinsen_matrix_routing, [VOTES, VECTORS[0][..., 0], *PAIRS]),
    "likelihood": (
        lambda x, v, s, w: capsule.mixture_likelihood(x, v, 1 + s * s, w, dummy=(0.1, 0.1)),
        [VOTES[:, :, 0], VOTES.swapaxes(1, 2), ACTIVATIONS[:, None] * np.ones((3, 1)), BETA_A * np.ones((2, 3))],
    ),
    "warp": (lambda t, r: capsule.warp(t, capsule.affine_poses(r / 2), (4, 5)), [VOTES[0], RNG.normal(size=(4, 6))]),
    "sparsity": (lambda a: capsule.sparsity(a, "entropy"), [ACTIVATIONS]),
    "squash": (capsule.squash, [VOTES]),
    "exponential squash": (capsule.exponential_squash, [VOTES]),
}


def loss(result):
    """One number of everything in a result, each entry weighing differently."""
    parts = result if isinstance(result, tuple) else (result,)
    total = 0.0
    for x in parts:
        weight = np.cos(np.arange(math.prod(x.shape))).reshape(tuple(x.shape))
        total = total + (x * (torch.asarray(weight, dtype=x.dtype) if isinstance(x, torch.Tensor) else weight)).sum()
    return total


def torch_gradients(function, arrays):
    tensors = [torch.tensor(x, requires_grad=True) for x in arrays]
    loss(function(*tensors)).backward()
    return [x.grad.numpy() for x in tensors]


def jax_gradients(function, arrays):
    return jax.grad(lambda *x: loss(function(*x)), argnums=tuple(range(len(arrays))))(*map(jnp.asarray, arrays))


@pytest.mark.parametrize("name", CASES)
def test_torch_gradients_are_right(name):
    function, arrays = CASES[name]
    tensors = tuple(torch.tensor(x, requires_grad=True) for x in arrays)
    assert torch.autograd.gradcheck(lambda *x: loss(function(*x)), tensors)


COMPILES_LONG = ("EM, full", "variational", "variational, full", "bound", "Heinsen", "Heinsen, matrices")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.thorough if name in COMPILES_LONG else ()) for name in CASES]
)
def test_jax_gradients_are_torchs(name):
    function, arrays = CASES[name]
    for got, expected in zip(jax_gradients(function, arrays), torch_gradients(function, arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", ["EM", "convolutional EM", "dynamic"])
def test_jax_gradients_are_right(name):
    function, arrays = CASES[name]
    check_grads(lambda *x: loss(function(*x)), tuple(map(jnp.asarray, arrays)), order=1, modes=["rev"], rtol=1e-4)


HARD = {
    "identical votes": [np.ones((1, 4, 3, 2)), np.ones((1, 4))],
    "one child": [VOTES[:1, :1], np.ones((1, 1))],
    "one parent": [VOTES[:1, :, :1], np.ones((1, 4))],
    "no activation": [VOTES[:1], np.zeros((1, 4))],
    "votes of 0": [np.zeros((1, 4, 3, 2)), np.ones((1, 4))],
    "far apart": [VOTES[:1] * 1e4, np.ones((1, 4))],
}
ROUTINGS = {
    "dynamic": lambda v, a, u, b: capsule.dynamic_routing(v),
    "k-means": lambda v, a, u, b: capsule.kmeans_routing(v),
    "EM": capsule.em_routing,
    "normalized": lambda *x: capsule.em_routing(*x, cost="normalized"),
    "full": lambda *x: capsule.em_routing(*x, covariance="full"),
    "variational": capsule.variational_routing,
    "variational, full": lambda *x: capsule.variational_routing(*x, covariance="full"),
    "attention": lambda v, a, u, b: capsule.attention_routing(v),
    "self": lambda v, a, u, b: capsule.self_routing(v[..., 0, :], a, v[0], v[0, ..., 0], v[0][..., None]),
    "self-attention": lambda v, a, u, b: capsule.self_attention_routing(v),
    "Heinsen, matrices": lambda v, a, u, b: capsule.heinsen_matrix_routing(v, a, v[0, ..., 0], v[0, ..., 1]),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("name", HARD)
def test_gradients_are_finite_where_it_is_hard(name, routing, dtype):
    votes, active = HARD[name]
    j = votes.shape[2]
    tensors = [torch.tensor(x, dtype=getattr(torch, dtype.__name__), requires_grad=True) for x in (votes, active)]
    betas = [torch.zeros(j, dtype=tensors[0].dtype, requires_grad=True) for _ in range(2)]
    found = ROUTINGS[routing](*tensors, *betas)
    assert all(torch.isfinite(x).all() for x in found)
    loss(found).backward()
    for x in (*tensors, *betas):
        assert x.grad is None or torch.isfinite(x.grad).all()


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("routing", ["EM", "normalized", "dynamic"])
def test_jax_gradients_are_finite_where_it_is_hard(name, routing):
    votes, active = HARD[name]
    arrays = [votes, active, np.zeros(votes.shape[2]), np.zeros(votes.shape[2])]
    for x in jax_gradients(ROUTINGS[routing], arrays):
        assert np.all(np.isfinite(x))


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-6, 1.0, 1e20])
def test_squash_differentiates_everywhere(scale):
    s = torch.full((3,), scale, dtype=torch.float32, requires_grad=True)
    capsule.squash(s)[0].backward()
    assert torch.isfinite(s.grad).all()
    got = jax.grad(lambda x: capsule.squash(x)[0])(jnp.full(3, scale, jnp.float32))
    assert np.all(np.isfinite(got))
    if scale < 1e10:  # beyond, JAX takes denormal numbers for 0
        np.testing.assert_allclose(got, s.grad.numpy(), rtol=1e-5, atol=1e-30)
    if not scale:
        assert not np.any(got)


def test_detach_inner_leaves_the_last_step():
    """The gradient is that of one weighted sum whose assignments are constants, squash included."""
    votes = torch.tensor(VOTES, requires_grad=True)
    found = capsule.dynamic_routing(votes, detach_inner=True)
    loss(found.poses).backward()
    again = torch.tensor(VOTES, requires_grad=True)
    fixed = found.assignments.detach()
    loss(capsule.squash((fixed[..., None] * again).sum(dim=-3))).backward()
    torch.testing.assert_close(votes.grad, again.grad)


@pytest.mark.parametrize("name", ["EM", "convolutional EM", "dynamic"])
def test_recomputing_changes_no_gradient(name):
    arrays = CASES[name][1]
    calls = {
        "EM": lambda keep: lambda *x: capsule.em_routing(*x, **WARM, recompute=keep),
        "convolutional EM": lambda keep: lambda *x: capsule.conv_em_routing(*x, padding=1, recompute=keep),
        "dynamic": lambda keep: lambda *x: capsule.dynamic_routing(*x, recompute=keep),
    }[name]
    for a, b in zip(torch_gradients(calls(True), arrays), torch_gradients(calls(False), arrays), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def blocks_of_one(monkeypatch):
    """Blocks of one sample, or of one window."""
    for library in ("torch", "jax"):
        monkeypatch.setattr(f"emroute_backends.{library}.chunk_size", lambda _: 1)


@pytest.mark.parametrize("name", CASES)
def test_blocks_change_no_gradient(name, blocks_of_one, monkeypatch):
    """planted: gradients written into the whole seven times as large."""
    function, arrays = CASES[name]
    got = torch_gradients(function, arrays)
    monkeypatch.undo()
    for a, b in zip(got, torch_gradients(function, arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_blocks_change_no_gradient_of_jax(blocks_of_one):
    function, arrays = CASES["EM"]
    for a, b in zip(jax_gradients(function, arrays), torch_gradients(function, arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["EM", "convolutional EM", "dynamic, leaky, with a bias"])
def test_blocks_can_be_differentiated_twice_and_forward(name, blocks_of_one):
    function, arrays = CASES[name]
    tensors = tuple(torch.tensor(x, requires_grad=True) for x in arrays)
    gradients = torch.autograd.grad(loss(function(*tensors)), tensors, create_graph=True)
    torch.autograd.backward(sum((x**2).sum() for x in gradients))
    assert all(torch.isfinite(x.grad).all() for x in tensors)
    plain = tuple(x.detach() for x in tensors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.func.jvp loads rules that torch scripts, which torch minds
        _, slope = torch.func.jvp(lambda *x: loss(function(*x)), plain, tuple(map(torch.ones_like, plain)))
    torch.testing.assert_close(slope, sum(x.sum() for x in gradients).detach())


def test_torch_func_maps_and_differentiates():
    votes, active, u, a = (torch.tensor(x) for x in (VOTES, ACTIVATIONS, BETA_U, BETA_A))
    mapped = torch.func.vmap(lambda v, x: capsule.em_routing(v, x, u, a).poses)(votes, active)
    torch.testing.assert_close(mapped, capsule.em_routing(votes, active, u, a).poses)

    def total(v):
        return loss(capsule.em_routing(v, active, u, a, **WARM))

    expected = torch_gradients(CASES["EM"][0], CASES["EM"][1])[0]
    np.testing.assert_allclose(torch.func.grad(total)(votes), expected, rtol=1e-10)


def test_jax_maps():
    votes, active, u, a = map(jnp.asarray, (VOTES, ACTIVATIONS, BETA_U, BETA_A))
    mapped = jax.jit(jax.vmap(lambda v, x: capsule.em_routing(v, x, u, a).poses))(votes, active)
    np.testing.assert_allclose(mapped, capsule.em_routing(votes, active, u, a).poses, rtol=1e-12)


def test_torch_compiles_whole():
    arrays = [torch.tensor(x, dtype=torch.float32) for x in (VOTES, ACTIVATIONS, BETA_U, BETA_A)]
    expected = capsule.em_routing(*arrays)  # the first call finds the backend, which cannot be compiled
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.compile minds array-api-compat's caches
        got = torch.compile(capsule.em_routing, backend="aot_eager", fullgraph=True)(*arrays)
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y)


def test_torch_compiles_the_way_back_through_blocks(blocks_of_one):
    arrays = [torch.tensor(x, dtype=torch.float32, requires_grad=True) for x in (VOTES, ACTIVATIONS, BETA_U, BETA_A)]
    expected = torch.autograd.grad(loss(capsule.em_routing(*arrays)), arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.compile minds array-api-compat's caches
        got = torch.compile(capsule.em_routing, backend="aot_eager", fullgraph=True)(*arrays)
        got = torch.autograd.grad(loss(got), arrays)
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y)


def test_gradients_of_shared_transforms_are_summed_over_blocks_in_float32(blocks_of_one):
    rng = np.random.default_rng(0)
    shapes = (300, 5, 2, 2), (5, 3, 2, 2), (300, 3, 4)
    poses, transforms, slopes = (torch.tensor(rng.normal(size=shape), dtype=torch.bfloat16) for shape in shapes)

    def gradient(dtype):
        kernels = transforms.to(dtype).requires_grad_(True)
        rest = [torch.ones(5, dtype=dtype), torch.zeros(3, dtype=dtype), torch.zeros(3, dtype=dtype)]
        found = capsule.em_routing_from_poses(poses.to(dtype), kernels, *rest)
        (got,) = torch.autograd.grad((found.poses.float() * slopes).sum(), kernels)
        return got.double()

    right = gradient(torch.float32)
    assert (gradient(torch.bfloat16) - right).norm() < 2.0**-8 * right.norm()


def test_autocast_leaves_statistics_in_float32():
    """Votes that agree far from 0, of which bfloat16 keeps nothing."""
    votes = 5 + 0.05 * torch.tensor(VOTES, dtype=torch.float32)
    rest = [torch.tensor(x, dtype=torch.float32) for x in (ACTIVATIONS, BETA_U, BETA_A)]
    expected = capsule.em_routing(votes, *rest)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = capsule.em_routing(votes, *rest)
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


def test_nan_is_not_hidden_from_whoever_traces():
    votes = jnp.asarray(np.where(np.arange(VOTES.size).reshape(VOTES.shape) == 0, np.nan, VOTES))
    found = jax.jit(capsule.em_routing)(votes, *map(jnp.asarray, (ACTIVATIONS, BETA_U, BETA_A)))
    assert np.isnan(found.poses).any()
    assert np.isnan(jax.jit(capsule.dynamic_routing)(votes).activations).any()
    assert np.isnan(capsule.squash(np.asarray([np.nan, 1.0]))).all()


def test_autocast_takes_half_precision_votes():
    poses, transforms = (torch.tensor(x, dtype=torch.float32) for x in (POSES, TRANSFORMS))
    rest = [torch.tensor(x, dtype=torch.float32) for x in (ACTIVATIONS, BETA_U, BETA_A)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        votes = capsule.vote(poses, transforms)
        got = capsule.em_routing(votes, *rest)
    expected = capsule.em_routing(capsule.vote(poses, transforms), *rest)
    assert votes.dtype == got.poses.dtype == torch.bfloat16
    torch.testing.assert_close(got.poses.float(), expected.poses, rtol=0.05, atol=0.05)
