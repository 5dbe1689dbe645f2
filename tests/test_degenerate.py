"""Degenerate data give finite, monotone answers; float32 with an offset gives what float64 does."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from emroute import binomial, gmm, kmeans, multinomial, poisson
from tests.helpers import COVARIANCE_TYPES, NUMPY, assert_monotone, clusters, given_start

pytestmark = pytest.mark.usefixtures("quick_compilation")

N, D, K = 24, 3, 3
ROUGH = 1e-9  # a component at a floor of 1e-6 costs six digits of a row's log-density

every_type = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)


def rows(seed=0):
    return np.random.default_rng(seed).standard_normal((N, D))


def ill_conditioned():
    """Two features that agree to eight digits."""
    x = rows()
    x[:, 1] = x[:, 0] + 1e-8 * x[:, 1]
    return x


def one_constant():
    """A feature of 0.1, which no float holds exactly."""
    x = rows()
    x[:, 1] = 0.1
    return x


DEGENERATE = {
    "all rows equal": np.full((N, D), 3.7),
    "all rows zero": np.zeros((N, D)),
    "two distinct rows for three components": np.repeat([[1.0, 2, 3], [4, 5, 6]], N // 2, axis=0),
    "every row many times": np.repeat(rows()[:4], N // 4, axis=0),
    "one row far from duplicates": np.concatenate([np.ones((N - 1, D)), [[1e3, 0, -1e3]]]),
    "one feature constant": one_constant(),
    "one feature 1e8 times another": rows() * [1, 1e8, 1],
    "features 1e-8 and 1e8": rows() * [1e-8, 1, 1e8],
    "ill-conditioned": ill_conditioned(),
    "a plane in space": rows() @ np.array([[1.0, 0, 1], [0, 1, 1], [0, 0, 0]]),
    "tiny numbers": rows() * 1e-150,
    "huge numbers": rows() * 1e100,
}


def assert_sound(lib, fitted, x, rounding=ROUGH):
    """Assert that a Gaussian mixture is finite, monotone and of use on its data."""
    for name in ("weights", "means", "covariances", "log_likelihood"):
        assert np.all(np.isfinite(lib.to_numpy(getattr(fitted, name)))), name
    assert lib.to_numpy(fitted.weights).sum(axis=-1) == pytest.approx(1)
    assert_monotone(lib.to_numpy(fitted.trace), x.shape[-2], rounding)
    assert int(fitted.status) != 2
    shares = lib.to_numpy(fitted.responsibilities(lib.asarray(x)))
    np.testing.assert_allclose(shares.sum(axis=-1), 1, rtol=1e-5)
    assert float(fitted.score(lib.asarray(x))) * len(x) == pytest.approx(
        float(fitted.log_likelihood), rel=1e-6, abs=1e-6
    )


@pytest.mark.parametrize("name", DEGENERATE)
@every_type
def test_degenerate_rows_give_a_sound_gaussian_mixture(lib, covariance_type, name):
    x = DEGENERATE[name]
    fitted = gmm.fit(lib.asarray(x), K, covariance_type=covariance_type, rng=0, max_iter=50)
    assert_sound(lib, fitted, x)


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_rows_give_sound_clusters(lib, name):
    x = DEGENERATE[name]
    fitted = kmeans.fit(lib.asarray(x), K, rng=0, max_iter=50)
    assert np.all(np.isfinite(lib.to_numpy(fitted.centroids)))
    scatter = ((x - x.mean(axis=0)) ** 2).sum()
    assert_monotone(lib.to_numpy(fitted.trace), scatter)
    assert 0 <= float(fitted.inertia) <= scatter * (1 + 1e-12)
    assert bool(fitted.converged)
    distances = lib.to_numpy(fitted.transform(lib.asarray(x)))
    np.testing.assert_allclose(
        (distances.min(axis=1) ** 2).sum(), float(fitted.inertia), atol=1e-12 * scatter, rtol=1e-6
    )


@every_type
def test_a_constant_feature_counts_as_variance_1(lib, covariance_type):
    x = lib.asarray(DEGENERATE["all rows equal"])
    fitted = gmm.fit(x, K, covariance_type=covariance_type, rng=0, max_iter=50)
    np.testing.assert_allclose(lib.to_numpy(fitted.means), 3.7, rtol=1e-12)
    expected = -0.5 * D * np.log(2 * np.pi * 1e-6) * N
    assert float(fitted.log_likelihood) == pytest.approx(expected, rel=1e-9)


@pytest.mark.on_jax("diag")
@every_type
def test_as_many_components_as_rows_is_sound(lib, covariance_type):
    x = rows()[:4]
    fitted = gmm.fit(lib.asarray(x), 4, covariance_type=covariance_type, rng=0, max_iter=50)
    assert_sound(lib, fitted, x)


def test_as_many_clusters_as_rows_have_no_inertia(lib):
    x = rows()[:5]
    fitted = kmeans.fit(lib.asarray(x), 5, rng=0)
    assert float(fitted.inertia) == pytest.approx(0, abs=1e-25)
    assert sorted(lib.to_numpy(fitted.labels).tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.on_jax("diag")
@every_type
def test_one_feature_is_enough(lib, covariance_type):
    x = rows()[:, :1]
    fitted = gmm.fit(lib.asarray(x), 2, covariance_type=covariance_type, rng=0, max_iter=50)
    assert_sound(lib, fitted, x)


@every_type
def test_one_row_is_enough_for_one_component(eager_lib, covariance_type):
    lib = eager_lib
    x = rows()[:1]
    fitted = gmm.fit(lib.asarray(x), 1, covariance_type=covariance_type, rng=0)
    assert_sound(lib, fitted, x)
    np.testing.assert_allclose(lib.to_numpy(fitted.means), x, rtol=1e-12)


@every_type
def test_a_component_without_points_keeps_its_place_with_weight_0(lib, covariance_type):
    x = clusters(N, D, 2, seed=3)
    weights, means, covariances = given_start(x, K, covariance_type)
    means[2] = 1e6
    init = tuple(map(lib.asarray, (weights, means, covariances)))
    fitted = gmm.fit(lib.asarray(x), K, covariance_type=covariance_type, init=init, max_iter=50)
    assert_sound(lib, fitted, x)
    assert lib.to_numpy(fitted.weights)[2] == 0
    np.testing.assert_allclose(lib.to_numpy(fitted.means)[2], 1e6, rtol=1e-9)


@pytest.mark.on_jax("full")
@every_type
def test_a_nearest_mean_start_survives_means_that_nothing_is_near_to(lib, covariance_type):
    x = clusters(N, D, 2, seed=3)
    init = np.concatenate([x[:2], np.full((1, D), 1e6)])
    fitted = gmm.fit(lib.asarray(x), K, covariance_type=covariance_type, init=lib.asarray(init), max_iter=50)
    assert_sound(lib, fitted, x)


def test_an_empty_cluster_moves_to_the_farthest_row(lib):
    x = np.array([[0.0], [1.0], [2.0], [10.0]])
    fitted = kmeans.fit(lib.asarray(x), 2, init=lib.asarray([[1.0], [1e6]]))
    np.testing.assert_allclose(np.sort(lib.to_numpy(fitted.centroids), axis=0), [[1.0], [10.0]], rtol=1e-12)
    assert float(fitted.inertia) == pytest.approx(2)
    assert_monotone(lib.to_numpy(fitted.trace), (x**2).sum())


def test_several_empty_clusters_are_all_filled(lib):
    x = clusters(N, D, 3, seed=1)
    init = np.concatenate([x[:1], np.full((2, D), 1e6)])
    fitted = kmeans.fit(lib.asarray(x), K, init=lib.asarray(init))
    assert set(lib.to_numpy(fitted.labels).tolist()) == {0, 1, 2}
    assert_monotone(lib.to_numpy(fitted.trace), ((x - x.mean(axis=0)) ** 2).sum())


def test_an_empty_cluster_does_not_move_to_a_row_of_weight_0(lib):
    x = np.array([[0.0], [1.0], [2.0], [10.0], [1e3]])
    weight = lib.asarray([1.0, 1, 1, 1, 0])
    fitted = kmeans.fit(lib.asarray(x), 2, sample_weight=weight, init=lib.asarray([[1.0], [1e6]]))
    np.testing.assert_allclose(np.sort(lib.to_numpy(fitted.centroids), axis=0), [[1.0], [10.0]], rtol=1e-12)


def test_only_heads_and_only_tails_are_sound(lib):
    for heads in (np.zeros(N), np.full(N, 10.0)):
        fitted = binomial.fit(lib.asarray(heads), lib.asarray(np.full(N, 10.0)), 2, rng=0)
        assert float(fitted.log_likelihood) == pytest.approx(0, abs=1e-9)
        assert_monotone(lib.to_numpy(fitted.trace), N)
        present = lib.to_numpy(fitted.weights) > 0
        np.testing.assert_allclose(lib.to_numpy(fitted.probs)[present], heads[0] / 10, atol=1e-12)


def test_coins_never_tossed_are_sound(lib):
    heads, trials = np.array([0.0, 3, 0, 8, 0]), np.array([0.0, 10, 0, 10, 0])
    fitted = binomial.fit(lib.asarray(heads), lib.asarray(trials), 2, init=lib.asarray([0.3, 0.8]))
    assert np.all(np.isfinite(lib.to_numpy(fitted.probs)))
    assert_monotone(lib.to_numpy(fitted.trace), N)


@pytest.mark.parametrize("fit", [multinomial.fit, poisson.fit], ids=["multinomial", "poisson"])
@pytest.mark.parametrize("x", [np.zeros((N, D)), np.ones((N, D)), np.eye(N)[:, :D]], ids=["zeros", "ones", "sparse"])
def test_counts_without_variety_are_sound(lib, fit, x):
    fitted = fit(lib.asarray(x), K, rng=0)
    assert np.isfinite(float(fitted.log_likelihood))
    assert_monotone(lib.to_numpy(fitted.trace), N)
    shares = lib.to_numpy(fitted.responsibilities(lib.asarray(x)))
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-12)


def test_a_component_of_counts_without_points_keeps_its_parameters(lib):
    heads = np.full(N, 9.0)
    init = (lib.asarray([1.0, 0.0]), lib.asarray([0.8, 0.3]))
    fitted = binomial.fit(lib.asarray(heads), lib.asarray(np.full(N, 10.0)), 2, init=init)
    np.testing.assert_allclose(lib.to_numpy(fitted.weights), [1, 0], atol=1e-15)
    np.testing.assert_allclose(lib.to_numpy(fitted.probs), [0.9, 0.3], rtol=1e-9)


# Offsets


OFFSETS = [0.0, 1e2, 1e3, 1e4]


def shifted(offset):
    """Float32 rows of three clusters about an offset, and the same rounded rows in float64."""
    x = (clusters(200, D, K, seed=2) + offset).astype(np.float32)
    return x, x.astype(np.float64)


@pytest.mark.parametrize("offset", OFFSETS)
@every_type
def test_float32_with_an_offset_fits_as_float64_does(lib, covariance_type, offset):
    single, double = shifted(offset)
    start = given_start(double, K, covariance_type)
    options = {"covariance_type": covariance_type, "max_iter": 30, "tol": 0}
    got = gmm.fit(lib.asarray(single), K, init=tuple(lib.asarray(part, "float32") for part in start), **options)
    expected = gmm.fit(double, K, init=start, **options)
    assert float(got.log_likelihood) / 200 == pytest.approx(float(expected.log_likelihood) / 200, abs=1e-3)
    assert_monotone(lib.to_numpy(got.trace), 200, 2e-5)
    scored = lib.to_numpy(got.log_prob(lib.asarray(single)))
    assert float(scored.mean()) == pytest.approx(float(expected.score(double)), abs=1e-3)
    np.testing.assert_allclose(lib.to_numpy(got.means), expected.means, atol=max(0.01, 1e-6 * offset))


@pytest.mark.parametrize("offset", OFFSETS)
@every_type
def test_one_step_in_float32_with_an_offset_agrees_row_by_row(eager_lib, covariance_type, offset):
    lib = eager_lib
    single, double = shifted(offset)
    start = given_start(double, K, covariance_type)
    options = {"covariance_type": covariance_type, "max_iter": 1}
    got = gmm.fit(lib.asarray(single), K, init=tuple(lib.asarray(part, "float32") for part in start), **options)
    expected = gmm.fit(double, K, init=start, **options)
    np.testing.assert_allclose(lib.to_numpy(got.log_prob(lib.asarray(single))), expected.log_prob(double), atol=1e-3)


@pytest.mark.parametrize("offset", OFFSETS)
def test_float32_with_an_offset_clusters_as_float64_does(lib, offset):
    single, double = shifted(offset)
    got = kmeans.fit(lib.asarray(single), K, init=lib.asarray(single[:K]))
    expected = kmeans.fit(double, K, init=double[:K])
    assert float(got.inertia) / 200 == pytest.approx(float(expected.inertia) / 200, abs=1e-3)
    assert float(-got.trace[-1]) / 200 == pytest.approx(float(expected.inertia) / 200, abs=1e-3)
    np.testing.assert_array_equal(lib.to_numpy(got.labels), NUMPY.to_numpy(expected.labels))


@pytest.mark.parametrize("offset", OFFSETS)
@every_type
def test_float32_with_an_offset_starts_and_fits_by_itself(eager_lib, covariance_type, offset):
    lib = eager_lib
    single, double = shifted(offset)
    got = gmm.fit(lib.asarray(single), K, covariance_type=covariance_type, rng=0)
    expected = gmm.fit(double, K, covariance_type=covariance_type, rng=0)
    assert float(got.log_likelihood) / 200 == pytest.approx(float(expected.log_likelihood) / 200, abs=2e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_counts_keep_their_constants(lib, dtype):
    x = np.random.default_rng(0).poisson(100_000, size=(50, 1))
    fitted = poisson.fit(lib.asarray(x.astype(dtype)), 1)
    assert bool(fitted.converged)
    expected = scipy.stats.poisson.logpmf(x, x.mean()).sum()
    rounding = np.finfo(dtype).eps * scipy.special.gammaln(1e5)  # of log x!, from which -7 a row is left
    np.testing.assert_allclose(float(fitted.log_likelihood), expected, atol=len(x) * 2 * rounding)


def test_rows_without_weight_start_nothing():
    n = 200_000
    x, w = np.full((n, 2), 50.0), np.zeros(n)
    rows = [3, 9, n // 2, n // 2 + 7]
    x[rows], w[rows] = [[0, 0], [0, 1], [9, 9], [9, 8]], 1
    fitted = gmm.fit(x, 2, covariance_type="diag", sample_weight=w, rng=0)
    np.testing.assert_allclose(np.sort(fitted.means[:, 0]), [0, 9], atol=1e-9)


def test_constant_rows_scatter_by_nothing_less_than_0():
    x = np.full((3, 1), 1160.0142, np.float32)
    fitted = kmeans.fit(x, 1, sample_weight=np.float32([0.97845602, 0.17994647, 0.7465809]), rng=0)
    assert bool(fitted.converged)
    assert float(fitted.inertia) >= 0
