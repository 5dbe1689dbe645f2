"""Mixtures of von Mises-Fisher distributions, and the Bessel function they need, against SciPy and known values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from emroute import von_mises_fisher
from emroute.errors import InputError
from emroute.von_mises_fisher.bessel import log_bessel
from emroute.von_mises_fisher.family import concentration
from tests.helpers import rejected

pytestmark = pytest.mark.usefixtures("quick_compilation")

Mixture = von_mises_fisher.VonMisesFisherMixture


@pytest.mark.parametrize("order", [0, 0.5, 1, 2, 4, 9, 24, 49])
def test_the_bessel_function_is_that_of_scipy(lib, order):
    x = np.asarray([1e-3, 0.1, 1, 3, 10, 50, 300, 1e4, 1e5])
    log_value, ratio = (lib.to_numpy(part) for part in log_bessel(order, lib.asarray(x * x)))
    scaled = special.ive(order, x)
    known = scaled > 1e-280
    expected = np.log(scaled[known]) + x[known] - order * np.log(x[known])
    np.testing.assert_allclose(log_value[known], expected, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(ratio[known], (special.ive(order + 1, x) / scaled / x)[known], rtol=1e-12)


@pytest.mark.parametrize("order", [0, 0.5, 7.5, 500])
def test_the_bessel_function_at_zero_and_its_gradient(order):
    log_value, ratio = log_bessel(order, np.asarray(0.0))
    assert float(log_value) == pytest.approx(-order * np.log(2) - special.gammaln(order + 1), rel=1e-15)
    assert float(ratio) == pytest.approx(1 / (2 * order + 2), rel=1e-14)
    jax = pytest.importorskip("jax")
    slope = jax.grad(lambda square: log_bessel(order, square)[0])(jax.numpy.asarray(0.0))
    assert float(slope) == pytest.approx(0.5 / (2 * order + 2), rel=1e-12)


def test_the_normalizer_of_the_specification():
    for d, kappa, log_c in (
        (2, 1.15931992, -2.14925623),
        (3, 1.79675598, -3.02076342),
        (3, 20.0, -18.84214479),
        (10, 2.06964776, -3.44924069),
        (100, 220.48883841, -38.93514580),
    ):
        at_right_angle = np.eye(d)[1:2]
        mixture = Mixture.from_parameters(np.ones(1), np.eye(d)[:1], np.asarray([kappa]))
        assert float(mixture.log_prob(at_right_angle)[0]) == pytest.approx(log_c, abs=2e-8)


@pytest.mark.parametrize("d", [2, 3, 10, 100])
def test_concentrations_come_back_from_the_mean_length(d):
    kappa = np.asarray([1e-6, 0.01, 1, 20, 300, 1e4, 1e5])
    scaled = special.ive(d / 2 - 1, kappa)
    known = scaled > 1e-280
    length = special.ive(d / 2, kappa[known]) / scaled[known]
    np.testing.assert_allclose(concentration(length, d), kappa[known], rtol=2e-10)


@pytest.mark.parametrize(
    ("d", "length", "kappa"),
    [(2, 0.5, 1.15931992), (3, 0.5, 1.79675598), (3, 0.95, 20.0), (10, 0.2, 2.06964776), (100, 0.8, 220.48883841)],
)
def test_concentrations_of_the_specification(lib, d, length, kappa):
    for dtype, tolerance in (("float64", 1e-8), ("float32", 1e-5)):
        found = lib.to_numpy(concentration(lib.asarray([length], dtype), d))
        assert found.dtype == dtype
        np.testing.assert_allclose(found, kappa, rtol=tolerance)


ANGLES = 0.8 * np.pi * ((0.37 * np.arange(24)) % 1) + 3 * (np.arange(24) % 3 == 0)
CIRCLE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=-1)


def test_the_mixture_of_the_specification(lib):
    shares = np.where(np.arange(24) % 3 != 0, 0.95, 0.05)
    shares = np.stack([shares, 1 - shares])
    sums = shares @ CIRCLE
    length = np.linalg.norm(sums, axis=1)
    kappa = concentration(length / shares.sum(axis=1), 2)
    init = tuple(map(lib.asarray, (shares.mean(axis=1), sums / length[:, None], kappa)))
    fitted = von_mises_fisher.fit(lib.asarray(CIRCLE), 2, init=init, tol=1e-13, max_iter=400)
    assert float(fitted.trace[0]) == pytest.approx(-40.81676100, abs=1e-8)
    assert float(fitted.log_likelihood) == pytest.approx(-40.64652455, abs=1e-8)
    np.testing.assert_allclose(lib.to_numpy(fitted.weights), [0.72908191, 0.27091809], atol=1e-6)
    np.testing.assert_allclose(lib.to_numpy(fitted.concentrations), [1.62426, 3.00806], atol=1e-4)
    means = lib.to_numpy(fitted.means)
    np.testing.assert_allclose(np.arctan2(means[:, 1], means[:, 0]), [1.34606, -2.24364826], atol=1e-5)


def test_densities_are_those_of_scipy():
    means = np.asarray([[0.6, 0.8, 0.0], [0.0, 0.6, -0.8]])
    x = np.random.default_rng(0).standard_normal((50, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    parts = [w * stats.vonmises_fisher(m, k).pdf(x) for w, m, k in zip((0.3, 0.7), means, (5.0, 90.0), strict=True)]
    mixture = Mixture.from_parameters(np.asarray([0.3, 0.7]), means, np.asarray([5.0, 90.0]))
    np.testing.assert_allclose(mixture.log_prob(x), np.log(sum(parts)), rtol=1e-10)
    np.testing.assert_allclose(mixture.responsibilities(x), np.stack(parts, axis=1) / sum(parts)[:, None], atol=1e-10)


@pytest.mark.parametrize("d", [2, 3, 20])
def test_a_sample_has_the_mixtures_directions(d):
    means = np.stack([np.eye(d)[0], -np.eye(d)[1]])
    mixture = Mixture.from_parameters(np.asarray([0.3, 0.7]), means, np.asarray([20.0, 0.0]))
    x, labels = mixture.sample(20000, rng=0)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-12)
    length = special.ive(d / 2, 20.0) / special.ive(d / 2 - 1, 20.0)
    np.testing.assert_allclose(x[labels == 0].mean(axis=0), length * means[0], atol=0.02)
    np.testing.assert_allclose(x[labels == 1].mean(axis=0), np.zeros(d), atol=0.03)


@settings(max_examples=12)
@given(st.integers(0, 2**31), st.integers(2, 9), st.floats(0, 200))
def test_the_objective_never_falls(seed, d, kappa):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((40, d)) + kappa * np.eye(d)[rng.integers(0, 2, 40)]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    fitted = von_mises_fisher.fit(x, 3, rng=0, tol=1e-12, max_iter=100)
    steps = np.diff(fitted.trace[np.isfinite(fitted.trace)])
    rounding = np.finfo(float).eps * fitted.concentrations.max() * len(x)
    assert steps.min(initial=0) > -1e-10 * abs(float(fitted.log_likelihood)) - rounding


def test_a_component_on_one_direction_stays_finite_and_is_told():
    x = np.repeat(CIRCLE[:3], 5, axis=0)
    for dtype in ("float64", "float32"):
        with pytest.warns(match="highest concentration"):
            fitted = von_mises_fisher.fit(x.astype(dtype), 3, n_init=4, rng=0)
        assert np.isfinite(fitted.log_likelihood)
        assert np.all(np.isfinite(fitted.log_prob(CIRCLE.astype(dtype))))
        assert "capped=[0, 1, 2]" in repr(fitted)


def test_float32_finds_what_float64_finds(eager_lib):
    lib = eager_lib
    rng = np.random.default_rng(3)
    truth = Mixture.from_parameters(np.asarray([0.4, 0.6]), np.eye(8)[:2], np.asarray([30.0, 80.0]))
    x = np.asarray(truth.sample(2000, rng=rng)[0])
    fits = [
        von_mises_fisher.fit(lib.asarray(x, dtype), 2, init=lib.asarray(np.eye(8)[:2], dtype))
        for dtype in ("float32", "float64")
    ]
    ours, theirs = (lib.to_numpy(fitted.concentrations) for fitted in fits)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)
    np.testing.assert_allclose(theirs, [30, 80], rtol=0.1)
    assert lib.to_numpy(fits[0].means).dtype == np.float32


def test_what_cannot_be_fitted_is_refused():
    fit = von_mises_fisher.fit
    rejected(lambda: fit(2 * CIRCLE, 2), InputError, "unit vectors", "first in row 0")
    rejected(lambda: fit(np.where(np.arange(24)[:, None] == 7, np.nan, CIRCLE), 2), InputError, "first in row 7")
    rejected(lambda: fit(CIRCLE, 2, init=2 * CIRCLE[:2]), InputError, "init", "unit vectors")
    rejected(lambda: fit(CIRCLE, 2, init=CIRCLE[:3]), InputError, "(..., 2, 2)")
    weights = np.asarray([0.5, 0.5])
    rejected(lambda: Mixture.from_parameters(weights, CIRCLE[:2], -weights), InputError, "must not be negative")
    rejected(lambda: Mixture.from_parameters(weights, 3 * CIRCLE[:2], weights), InputError, "unit vectors")
    rejected(
        lambda: Mixture.from_parameters(weights, CIRCLE[:2], weights).log_prob(np.eye(3)), InputError, "3 features"
    )


def test_a_mixture_comes_back_from_a_file(tmp_path):
    fitted = von_mises_fisher.fit(CIRCLE, 2, rng=0)
    fitted.save(tmp_path / "directions.npz")
    np.testing.assert_array_equal(Mixture.load(tmp_path / "directions.npz").log_prob(CIRCLE), fitted.log_prob(CIRCLE))
    assert fitted.n_parameters == 1 + 2 * 2


@pytest.mark.parametrize("x", [np.asarray([[1.0, 0], [-1, 0]]), np.r_[np.eye(3), -np.eye(3)]], ids=["circle", "sphere"])
def test_balanced_directions_have_no_concentration(lib, x):
    fitted = von_mises_fisher.fit(lib.asarray(x), 1)
    assert bool(fitted.converged)
    np.testing.assert_array_equal(lib.to_numpy(fitted.concentrations), [0])
    np.testing.assert_array_equal(lib.to_numpy(fitted.means), np.zeros((1, x.shape[1])))
    area = 2 * np.pi ** (x.shape[1] / 2) / special.gamma(x.shape[1] / 2)
    assert float(fitted.log_likelihood) == pytest.approx(-len(x) * np.log(area), rel=1e-12)
    assert np.all(np.isfinite(lib.to_numpy(fitted.sample(5, rng=0)[0])))


def test_directions_have_two_entries_or_more():
    rejected(lambda: von_mises_fisher.fit(np.ones((4, 1)), 1), InputError, "at least 2")
