"""Full covariances of wide rows: differences to the means in place of monomials, of which there would be d²/2 a row."""

import numpy as np
import pytest

import emroute
from emroute.gmm.model import GaussianModel
from emroute.gmm.spread import diagonal, truncated
from tests.helpers import NUMPY
from tests.test_memory import peak

N, D, K = 400, 24, 2  # wide for two components
X = np.random.default_rng(0).normal(size=(N, D)) + 0.4 * np.arange(K)[np.arange(N) % K, None]
START = np.full(K, 1 / K), X[:K], np.stack([np.eye(D)] * K)


def a_step(x, weights, means, covariances):
    """The textbook's, and the log-likelihood before it."""
    gaps = x - means[:, None]
    squares = np.einsum("knd,kde,kne->kn", gaps, np.linalg.inv(covariances), gaps)
    log_det = np.linalg.slogdet(2 * np.pi * covariances)[1]
    log_joint = np.log(weights)[:, None] - (squares + log_det[:, None]) / 2
    log_norm = np.logaddexp.reduce(log_joint, axis=0)
    shares = np.exp(log_joint - log_norm)
    counts = shares.sum(1)
    means = shares @ x / counts[:, None]
    gaps = x - means[:, None]
    covariances = np.einsum("kn,knd,kne->kde", shares, gaps, gaps) / counts[:, None, None]
    return log_norm.sum(), (counts / len(x), means, covariances)


@pytest.mark.parametrize(
    ("k", "d", "plain"), [(1, 8, False), (1, 16, True), (8, 32, False), (32, 128, False), (99, 256, True)]
)
def test_the_form_is_chosen_by_shape_alone(k, d, plain):
    assert GaussianModel("full").covariance.plain(k, d) == plain
    assert not GaussianModel("tied").covariance.plain(k, d)


@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-9), ("float32", 2e-4)])
def test_wide_fits_follow_the_textbook(lib, dtype, rtol):
    start = tuple(lib.asarray(part, dtype) for part in START)
    fitted = emroute.gmm.fit(lib.asarray(X, dtype), K, init=start, tol=0, max_iter=3)
    trace, reached, expected = [], START, START
    for _ in range(4):
        reached = expected
        value, expected = a_step(X, *reached)
        trace.append(value)
    np.testing.assert_allclose(lib.to_numpy(fitted.trace), trace, rtol=rtol)
    for got, right in zip((fitted.weights, fitted.means, fitted.covariances), reached, strict=True):
        np.testing.assert_allclose(lib.to_numpy(got), right, rtol=rtol, atol=10 * rtol)


def test_blocks_batches_and_weights_change_nothing(lib):
    x, weight = np.stack([X, X[::-1] * 3]), np.arange(N) % 3.0
    start = tuple(map(lib.asarray, START))
    options = {"init": start, "tol": 0, "max_iter": 2}
    both = emroute.gmm.fit(lib.asarray(x), K, sample_weight=lib.asarray(weight), **options)
    for place, rows in enumerate(x):
        repeated = np.repeat(rows, weight.astype(int), axis=0)
        alone = emroute.gmm.fit(lib.asarray(repeated), K, chunk_size=150, **options)
        got, right = (lib.to_numpy(fitted.covariances) for fitted in (both, alone))
        scale = rows.std() ** 2
        np.testing.assert_allclose(got[place] / scale, right / scale, rtol=1e-6, atol=1e-6)


def test_a_narrow_component_far_away_keeps_its_digits():
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(size=(N, D)), 300 + 0.05 * rng.normal(size=(N, D))])
    means = np.stack([x[0], x[N]])
    fine, coarse = (emroute.gmm.fit(x.astype(dtype), 2, init=means.astype(dtype)) for dtype in ("float64", "float32"))
    assert np.all(np.diff(coarse.trace) > -1e-5 * abs(coarse.trace[0]))
    own = fine.covariances[:, range(D), range(D)]
    np.testing.assert_allclose(coarse.covariances[:, range(D), range(D)] / own, 1, atol=2e-2)


def test_a_diagonal_is_decomposed_by_sight():
    variances, floor = np.array([[4.0, 1e-9, 1.0], [0.5, 2.0, 1e3]]), np.full(1, 1e-6)
    by_sight = diagonal(variances, floor, 1e-12)
    by_work = truncated(variances[..., None] * np.eye(3), floor, 1e-12, None)
    for got, right in zip(by_sight, by_work, strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("k", [1, 2])
def test_a_wide_fit_holds_a_few_times_its_data(k):
    n, d = 2000, 300
    x = np.random.default_rng(0).normal(size=(n, d))
    most, _ = peak(lambda: emroute.gmm.fit(x, k, init="random", max_iter=1, rng=0))
    assert most < 10 * n * d * 8  # monomials of 512 rows alone would be 38 times the data


def test_saved_wide_mixtures_come_back(tmp_path):
    fitted = emroute.gmm.fit(X, K, init=START, max_iter=1)
    fitted.save(tmp_path / "wide.npz")
    again = emroute.gmm.GaussianMixture.load(tmp_path / "wide.npz")
    np.testing.assert_array_equal(again.log_prob(X), fitted.log_prob(X))
    assert NUMPY.to_numpy(again.covariances).shape == (K, D, D)
