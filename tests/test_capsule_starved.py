"""Parents that get next to nothing: their poses, who belongs to whom, and the gradients, in float32 as in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from emroute import capsule
from emroute.array import divide

pytestmark = pytest.mark.usefixtures("quick_compilation")


def rival(spread=0.01, n=8, scale=1.0, offset=0.0):
    """Votes ``(n, 2, 16)`` for a parent on which all agree, and for one that so gets none."""
    rng = np.random.default_rng(0)
    return np.stack([spread * rng.normal(size=(n, 16)), offset + scale * rng.normal(size=(n, 16))], 1)


def em(votes, **options):
    """EM routing of votes of any library, all else plain."""
    like = votes[:, 0, 0]
    costs = 0 * votes[0, :, 0]
    return capsule.em_routing(votes, 0 * like + 1, costs, costs, **options)


def torch_gradient(function, x, dtype):
    x = torch.tensor(x, dtype=dtype, requires_grad=True)
    function(x).sum().backward()
    return x.grad.numpy().astype(np.float64)


def jax_gradient(function, x, dtype=jnp.float32):
    return np.asarray(jax.grad(lambda x: function(x).sum())(jnp.asarray(x, dtype=dtype)), dtype=np.float64)


def assert_same_gradients(function, x, rtol=1e-3):
    """In float32 on Torch and JAX as in float64 on the same rounded numbers."""
    x = np.asarray(x, np.float32).astype(np.float64)
    right = torch_gradient(function, x, torch.float64)
    assert np.all(np.isfinite(right))
    assert np.abs(right).max() > 0
    for seen in (torch_gradient(function, x, torch.float32), jax_gradient(function, x)):
        np.testing.assert_allclose(seen, right, rtol=0, atol=rtol * np.abs(right).max())
    return right


@pytest.mark.parametrize(
    ("spread", "scale", "cost"), [(0.01, 1.0, "hinton"), (0.01, 2.98, "hinton"), (0.01, 1.0, "normalized")]
)
def test_the_gradients_of_a_starved_parent_are_right(spread, scale, cost):
    votes = rival(spread, scale=scale)
    right = assert_same_gradients(lambda v: em(v, cost=cost).poses, votes)
    if (scale, cost) == (1.0, "hinton"):
        np.testing.assert_allclose(np.abs(right).max(), 1.0, rtol=1e-6)


def test_the_gradient_is_the_slope():
    """Float64, against central differences: the second parent's log-shares are about -40."""
    votes, weight = rival(0.1), np.cos(np.arange(32)).reshape(2, 16)
    right = torch_gradient(lambda v: em(v, n_iter=2).poses * torch.asarray(weight), votes, torch.float64)
    for place in np.ndindex(2, 2, 3):
        step = np.zeros_like(votes)
        step[place] = 1e-6
        ends = [np.sum(weight * em(votes + sign * step, n_iter=2).poses) for sign in (1, -1)]
        np.testing.assert_allclose((ends[0] - ends[1]) / 2e-6, right[place], rtol=1e-5, atol=1e-7)


def exact_mean(votes, n_iter=2):
    """Procedure 1 in extended precision, shares relative to each parent's largest."""
    votes = votes.astype(np.longdouble)
    log_r = np.full(votes.shape[:2], -np.log(np.longdouble(votes.shape[1])))
    for iteration in range(n_iter):
        shares = np.exp(log_r - log_r.max(axis=0))
        total = (shares.sum(axis=0) * np.exp(log_r.max(axis=0)))[:, None]
        shares = (shares / shares.sum(axis=0))[..., None]
        mean = (shares * votes).sum(axis=0)
        variance = (shares * (votes - mean) ** 2).sum(axis=0) + np.longdouble(1e-6)
        cost = (np.log(variance) / 2 * total).sum(axis=-1)
        log_a = -np.log1p(np.exp(0.01 * (1 - 0.95 ** (iteration + 1)) * cost))
        logits = log_a - ((votes - mean) ** 2 / variance + np.log(variance)).sum(axis=-1) / 2
        logits = logits - logits.max(axis=1, keepdims=True)
        log_r, used = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), log_r
    return mean.astype(float), np.exp(used).astype(float)


@pytest.mark.parametrize(("spread", "offset", "n"), [(1e-3, 3.0, 3), (1e-2, 3.0, 8), (1e-2, -100.0, 5)])
@pytest.mark.parametrize("n_iter", [2, 3])
def test_a_starved_parent_has_the_mean_of_its_own_shares(lib, spread, offset, n, n_iter):
    votes = rival(spread, n, offset=offset).astype(np.float32)
    found = em(lib.asarray(votes), n_iter=n_iter)
    mean, assignments = exact_mean(votes.astype(np.float64), n_iter)
    np.testing.assert_allclose(lib.to_numpy(found.poses), mean, rtol=0, atol=2e-2 * np.abs(votes[:, 1]).std())
    np.testing.assert_allclose(lib.to_numpy(found.assignments), assignments, atol=1e-3)


def test_who_belongs_to_whom_is_the_same_in_float32():
    """A parent starved in the second step that wins children in the third, where its pose is not taken for 0."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        votes = (rng.normal(size=(12, 4, 8)) * rng.uniform(0.01, 1, size=(1, 4, 1)) + 5).astype(np.float32)
        wide = em(votes.astype(np.float64), n_iter=4)
        np.testing.assert_allclose(em(votes, n_iter=4).assignments, wide.assignments, atol=2e-2)


def test_children_that_are_not_there_have_no_share():
    """Nor do they make all others too far: the first child, alone near the second parent, has activation 0."""
    votes, active = rival(offset=3.0).astype(np.float32), np.ones(8, np.float32)
    votes[0] = 0.0
    active[0] = 0.0
    zero = np.zeros(2, np.float32)
    for n_iter in (2, 3):
        found = capsule.em_routing(votes, active, zero, zero, n_iter=n_iter)
        without = capsule.em_routing(votes[1:], active[1:], zero, zero, n_iter=n_iter)
        np.testing.assert_allclose(found.poses, without.poses, atol=1e-4)


def gmm(points, far=1e3):
    """Two parents near the points, and one far away."""
    means = points[:3, :] + 0 * points[:3, :]
    xp_like = 0 * means
    shift = np.asarray([[0.0], [0.1], [far]])
    if isinstance(points, torch.Tensor):
        shift = torch.asarray(shift, dtype=points.dtype)
    elif isinstance(points, jax.Array):
        shift = jnp.asarray(shift, dtype=points.dtype)
    return capsule.gmm_routing(points, (means + shift, xp_like + 1, xp_like[:, 0] + 0.3), n_iter=2)


def conv(kernels):
    """Routing of a grid where one type of parent is agreed upon."""
    rng = np.random.default_rng(3)
    like = kernels if isinstance(kernels, torch.Tensor) else None
    grid = rng.normal(size=(1, 3, 3, 2, 2, 2)) * 0.01 + np.eye(2)
    arrays = grid, np.ones((1, 3, 3, 2)), np.zeros(2), np.zeros(2)
    if like is not None:
        arrays = [torch.asarray(x, dtype=like.dtype) for x in arrays]
    else:
        arrays = [jnp.asarray(x, dtype=kernels.dtype) for x in arrays]
    poses, active, u, a = arrays
    return capsule.conv_em_routing(poses, active, kernels, u, a, n_iter=2, epsilon=1e-4)


def kernels():
    rng = np.random.default_rng(4)
    agreed = np.broadcast_to(np.eye(2), (2, 2, 2, 1, 2, 2))
    return np.concatenate([agreed, rng.normal(size=(2, 2, 2, 1, 2, 2))], axis=3)


SIBLINGS = {
    "a mixture with a far mean": (lambda x: gmm(x).poses, np.random.default_rng(1).normal(size=(6, 4))),
    "its prior": (lambda x: gmm(x, 4.0).activations[:1], np.random.default_rng(1).normal(size=(6, 4))),
    "convolutional": (lambda x: conv(x).poses, kernels()),
    "tiny votes, k-means": (lambda x: capsule.kmeans_routing(x * 1e-16).poses * 1e32, rival(1.0)),
    "squash near 0": (lambda x: capsule.squash(x * 1e-18, constant=1e-30) * 1e6, rival(1.0)),
    "squash far off": (lambda x: capsule.squash(x * 1e18) ** 3, rival(1.0)),
}


@pytest.mark.parametrize("name", SIBLINGS)
def test_siblings_have_the_gradients_of_float64(name):
    assert_same_gradients(*SIBLINGS[name])


def test_votes_whose_squares_underflow_have_finite_gradients():
    for seen in (torch_gradient, jax_gradient):
        dtype = torch.float32 if seen is torch_gradient else jnp.float32
        assert np.all(np.isfinite(seen(lambda x: capsule.kmeans_routing(x).activations, 1e-20 * rival(1.0), dtype)))


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1.0, 1e25])
def test_a_quotient_has_its_gradient_wherever_both_are_in_range(size):
    whole = jnp.asarray(size, dtype=jnp.float32)
    slope = jax.grad(lambda x: divide(0.5 * size, x))(whole)
    np.testing.assert_allclose(float(slope) * size, -0.5, rtol=1e-5)
    slope = jax.grad(lambda x: jax.grad(lambda x: divide(1.0, x) * 1.0)(x))(jnp.asarray(2.0))
    np.testing.assert_allclose(float(slope), 0.25, rtol=1e-6)  # 2 / x**3


@pytest.mark.parametrize("compile", [lambda f: f, jax.jit])
@pytest.mark.parametrize("size", [2e-38, 1e-30, 1e-20, 1.0, 1e20, 1e38])
def test_a_quotient_is_in_range_wherever_both_are(size, compile):
    part, whole = (jnp.asarray([1.5 * size], jnp.float32), jnp.asarray([-size], jnp.float32))
    np.testing.assert_allclose(compile(divide)(part, whole), -1.5, rtol=1e-6)
    if 1e-35 < size < 1e35:
        np.testing.assert_allclose(compile(divide)(1.0, whole), -1 / size, rtol=1e-6)


@pytest.mark.parametrize("size", [1e-18, 1e20, 1e35])
@pytest.mark.parametrize("route", [capsule.dynamic_routing, capsule.kmeans_routing])
def test_votes_of_any_length_have_the_poses_of_float64(route, size):
    votes = size * np.random.default_rng(0).normal(size=(7, 4, 6))
    want = route(votes, n_iter=1)  # of more, rounding decides between parents
    for put in (np.asarray, torch.asarray, jnp.asarray):
        found = route(put(votes.astype(np.float32)), n_iter=1)
        np.testing.assert_allclose(found.poses, want.poses, rtol=1e-5)
        np.testing.assert_allclose(found.activations, want.activations, rtol=1e-5)


def directions_by_clustering(votes, n_iter=3):
    """Poses of k-means routing of long votes in float64, each parent's shares relative to its largest."""
    logits = np.zeros(votes.shape[:2])
    for _ in range(n_iter):
        shares = logits - logits.max(1, keepdims=True)
        shares = shares - np.log(np.exp(shares).sum(1, keepdims=True))
        total = np.einsum("ij,ijh->jh", np.exp(shares - shares.max(0)), votes)
        directions = total / np.linalg.norm(total, axis=1, keepdims=True)
        logits = np.einsum("ijh,jh->ij", votes, directions)
    return directions, np.exp(shares)


@pytest.mark.parametrize("size", [1e3, 3e4, 1e15])
def test_a_starved_parent_keeps_its_direction_in_kmeans_routing(size):
    for seed in range(40):
        votes = size * np.random.default_rng(seed).normal(size=(7, 4, 6))
        _, shares = directions_by_clustering(votes)
        for put, dtype in ((np.asarray, np.float64), (np.asarray, np.float32), (torch.asarray, np.float32)):
            found = capsule.kmeans_routing(put(votes.astype(dtype)))
            np.testing.assert_allclose(found.assignments, shares, atol=1e-2)


@pytest.mark.parametrize("cost", ["hinton", "normalized"])
def test_children_that_are_barely_there_leave_gradients_finite(cost):
    votes = torch.asarray(np.random.default_rng(0).normal(size=(9, 3, 5)).astype(np.float32), copy=True)
    faint = torch.linspace(1e-45, 1e-38, 9)  # denormal numbers
    given = [x.requires_grad_() for x in (votes, faint, torch.zeros(3), torch.zeros(3))]
    found = capsule.em_routing(*given, cost=cost)
    for gradient in torch.autograd.grad(found.poses.sum() + found.activations.sum(), given, allow_unused=True):
        assert torch.isfinite(gradient).all()


@given(st.floats(-20, 15), st.floats(-20, 15), st.integers(0, 1000))
def test_poses_lie_among_the_votes_and_gradients_are_finite_at_any_scale(first, second, seed):
    votes = np.random.default_rng(seed).normal(size=(5, 2, 3))
    votes = torch.tensor(votes * np.asarray([[[10.0**first], [10.0**second]]]), dtype=torch.float32)
    votes.requires_grad_()
    found = em(votes)
    (found.poses / votes.detach().abs().amax() + 0).sum().backward()
    assert torch.isfinite(votes.grad).all()
    slack = 1e-5 * votes.detach().abs().amax(0)
    assert ((found.poses <= votes.amax(0) + slack) & (found.poses >= votes.amin(0) - slack)).all()
