"""The published figures: coins, iris, Old Faithful, k-means, and the mixture of scikit-learn#10122."""

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binom, multivariate_normal
from sklearn.datasets import load_iris
from sklearn.utils import check_random_state

from emroute import binomial, gmm, kmeans
from tests.helpers import NUMPY, library

quick = pytest.mark.usefixtures("quick_compilation")

HEADS = np.array([5, 9, 8, 4, 7])
EQUAL = [0.5, 0.5]

# iteration: theta A and B after it; log-likelihood, Q with and without the binomial coefficient before it
COINS = {
    1: (0.713012, 0.581339, -11.320587, -10.9139, -32.6872),
    2: (0.745292, 0.569256, -10.085982, -9.4856, -31.2589),
    3: (0.768099, 0.549536, -9.949840, -8.9868, -30.7601),
    5: (0.791055, 0.526281, -9.811671, -8.2978, -30.0711),
    9: (0.796668, 0.519770, -9.796936, -8.1003, -29.8736),
}


def iris():
    return load_iris().data


def faithful():
    return np.loadtxt(Path(__file__).parent / "data" / "faithful.csv", delimiter=",", skiprows=1)


def test_coins_follow_the_published_table(lib):
    heads, thetas = lib.asarray(HEADS), [lib.asarray([0.6, 0.5])]
    fitted = binomial.fit(
        heads,
        10,
        2,
        init=thetas[0],
        weights=EQUAL,
        tol=0,
        max_iter=9,
        callback=lambda iteration, fit: thetas.append(fit.params.probs),
    )
    trace = lib.to_numpy(fitted.trace)
    for iteration, (theta_a, theta_b, log_likelihood, q, q_without) in COINS.items():
        np.testing.assert_allclose(lib.to_numpy(thetas[iteration]), [theta_a, theta_b], atol=6e-7)
        assert trace[iteration - 1] == pytest.approx(log_likelihood, abs=6e-7)
        before = binomial.BinomialMixture.from_parameters(lib.asarray(EQUAL), thetas[iteration - 1])
        sums = [binomial.expected_log_likelihood(before, heads, 10, constant=c) for c in (True, False)]
        np.testing.assert_allclose([float(x) for x in sums], [q, q_without], atol=6e-5)


@pytest.mark.parametrize("max_iter", [1, 9])
def test_coins_fitted_in_one_go_end_where_the_table_does(lib, max_iter):
    fitted = binomial.fit(lib.asarray(HEADS), 10, 2, init=[0.6, 0.5], weights=EQUAL, tol=0, max_iter=max_iter)
    np.testing.assert_allclose(lib.to_numpy(fitted.probs), COINS[max_iter][:2], atol=6e-7)
    assert int(fitted.n_iter) == max_iter


def test_coins_with_equal_weights_reach_the_limit(lib):
    fitted = binomial.fit(lib.asarray(HEADS), 10, 2, init=[0.6, 0.5], weights=EQUAL, tol=0)
    np.testing.assert_allclose(lib.to_numpy(fitted.probs), [0.79678907, 0.51958312], atol=1e-7)
    assert float(fitted.log_likelihood) == pytest.approx(-9.796924292, abs=1e-8)
    assert bool(fitted.converged)
    np.testing.assert_array_equal(lib.to_numpy(fitted.weights), EQUAL)


def test_coins_with_free_weights_reach_the_limit(lib):
    fitted = binomial.fit(lib.asarray(HEADS), 10, 2, init=[0.6, 0.5], tol=0)
    np.testing.assert_allclose(lib.to_numpy(fitted.probs), [0.79336765, 0.51391659], atol=1e-7)
    np.testing.assert_allclose(lib.to_numpy(fitted.weights), [0.52275132, 0.47724868], atol=1e-7)
    assert float(fitted.log_likelihood) == pytest.approx(-9.795418956, abs=1e-8)
    assert bool(fitted.converged)


@quick
@pytest.mark.parametrize("dtype", ["int32", "int64", "float64"])
def test_coins_may_be_counted_in_any_real_dtype(lib, dtype):
    trials = lib.asarray(np.full(5, 10), dtype)
    for tosses in (10, trials):
        fitted = binomial.fit(lib.asarray(HEADS, dtype), tosses, 2, init=[0.6, 0.5], weights=EQUAL, tol=0)
        np.testing.assert_allclose(lib.to_numpy(fitted.probs), [0.79678907, 0.51958312], atol=1e-7)


@quick
def test_recorded_coins_agree_with_a_general_optimizer(lib):
    heads, labels = np.array([7, 9, 2, 6, 0]), np.array([0, 0, 1, 0, 1])
    fitted = binomial.fit_complete(lib.asarray(heads), 10, lib.asarray(labels), 2)
    np.testing.assert_allclose(lib.to_numpy(fitted.probs), [22 / 30, 1 / 10], rtol=1e-14)
    np.testing.assert_allclose(lib.to_numpy(fitted.weights), [3 / 5, 2 / 5], rtol=1e-14)
    assert float(fitted.log_likelihood) == pytest.approx(-7.655267754, abs=1e-9)

    def loss(theta):
        return -binom.logpmf(heads, 10, theta[labels]).sum()

    found = minimize(loss, [0.5, 0.5], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    np.testing.assert_allclose(lib.to_numpy(fitted.probs), found.x, atol=1e-6)
    assert float(fitted.log_likelihood) == pytest.approx(-found.fun, abs=1e-6)


@pytest.mark.parametrize(
    ("covariance_type", "best"),
    [("full", -180.1855), ("tied", -256.35404), ("diag", -306.86046), ("spherical", -384.31410)],
)
def test_iris_reaches_its_best_known_mixture(lib, covariance_type, best):
    options = {"covariance_type": covariance_type, "n_init": 20, "rng": 0}
    fitted, same = (gmm.fit(own.asarray(iris()), 3, **options) for own in (lib, NUMPY))
    assert float(fitted.log_likelihood) == pytest.approx(best, rel=1e-4)
    assert bool(fitted.converged)
    for name in ("weights", "means", "covariances"):  # one seed, one fit
        np.testing.assert_allclose(lib.to_numpy(getattr(fitted, name)), getattr(same, name), rtol=1e-6, atol=1e-6)


@quick
@pytest.mark.parametrize(("k", "best"), [(2, 152.3479518), (3, 78.8514414), (4, 57.2284732)])
def test_iris_reaches_its_best_known_clusters(lib, k, best):
    fitted, same = (kmeans.fit(own.asarray(iris()), k, n_init=20, rng=0) for own in (lib, NUMPY))
    assert float(fitted.inertia) == pytest.approx(best, rel=1e-4)
    assert bool(fitted.converged)
    assert float(fitted.trace[-1]) == pytest.approx(-float(fitted.inertia), rel=1e-12)
    np.testing.assert_allclose(lib.to_numpy(fitted.centroids), same.centroids, rtol=1e-6)
    np.testing.assert_array_equal(lib.to_numpy(fitted.labels), same.labels)


@quick
def test_old_faithful_splits_into_short_and_long_eruptions(lib):
    fitted = gmm.fit(lib.asarray(faithful()), 2, n_init=20, rng=0)
    assert float(fitted.log_likelihood) == pytest.approx(-1130.263960, rel=1e-4)
    weights, means = lib.to_numpy(fitted.weights), lib.to_numpy(fitted.means)
    order = np.argsort(weights)
    assert weights[order[0]] == pytest.approx(0.355873, rel=1e-2)
    np.testing.assert_allclose(means[order], [[2.036388, 54.478517], [4.289662, 79.968115]], rtol=1e-3)


@quick
def test_old_faithful_at_tol_0_agrees_to_every_published_digit(lib):
    x = faithful()
    start = np.array([[2.0, 55.0], [4.3, 80.0]])
    fitted = gmm.fit(lib.asarray(x), 2, init=lib.asarray(start), tol=0)
    assert float(fitted.log_likelihood) == pytest.approx(-1130.263960, abs=1e-6)
    assert float(fitted.weights[0]) == pytest.approx(0.355873, abs=1e-6)
    np.testing.assert_allclose(lib.to_numpy(fitted.means), [[2.036388, 54.478517], [4.289662, 79.968115]], atol=1e-6)


def unequal_mixture():
    """The data of scikit-learn#10122: 300 and 100 rows of two overlapping Gaussians."""
    rng = check_random_state(1234)
    large = multivariate_normal([2, 4], [[5, 2], [2, 6]]).rvs(size=300, random_state=rng)
    small = multivariate_normal([0, 0], [[4, 2], [2, 3]]).rvs(size=100, random_state=rng)
    return np.concatenate([large, small])


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_the_default_tolerance_finds_the_weights_of_an_unequal_mixture(name):
    lib = library(name)
    fitted = gmm.fit(lib.asarray(unequal_mixture()), 2, n_init=16, rng=0)
    assert 0.74 <= float(lib.to_numpy(fitted.weights).max()) <= 0.78
    assert bool(fitted.converged)
