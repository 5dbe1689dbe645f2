"""Counts that are large, zero or narrow integers: what is right is SciPy's, exact arithmetic's, or the best of many."""

from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy import stats

import emroute.sklearn as es
from emroute import binomial, multinomial, poisson
from emroute.counts import deviance, peak
from emroute.errors import InputError
from emroute.family import posterior
from emroute.gmm import GaussianMixture
from tests.helpers import assert_monotone, rejected

pytestmark = pytest.mark.usefixtures("quick_compilation")

HALF = np.arange(1000) % 2  # two groups of 500 rows


# Large counts: no digit is lost in float32


LARGE = {
    "Poisson of 10^7": (
        poisson.PoissonMixture,
        [1e7],
        ([9993675, 10000000, 10003162],),
        [-10.978373, -8.977986, -9.478004],
    ),
    "binomial of 10^6": (
        binomial.BinomialMixture,
        [0.5],
        ([499000, 500000, 500013], [1e6, 1e6, 1e6]),
        [-9.133547, -7.133546, -7.133884],
    ),
    "binomial of 10^6, rare": (
        binomial.BinomialMixture,
        [2**-16],
        ([0, 15, 40], [2**20, 2**20, 2**20]),
        stats.binom(2**20, 2**-16).logpmf([0, 15, 40]),
    ),
    "multinomial of 10^6": (
        multinomial.MultinomialMixture,
        [[0.5, 0.25, 0.25]],
        ([[500000, 250000, 250000], [501000, 249000, 250000]],),
        stats.multinomial(1_000_000, [0.5, 0.25, 0.25]).logpmf([[500000, 250000, 250000], [501000, 249000, 250000]]),
    ),
    "Poissons of 1, 10^3 and 10^7": (
        poisson.PoissonMixture,
        [[1, 1000, 1e7]],
        ([[0, 1000, 1e7], [2, 1030, 10003162]],),
        stats.poisson([1, 1000, 1e7]).logpmf([[0, 1000, 1e7], [2, 1030, 10003162]]).sum(axis=1),
    ),
}


@pytest.mark.parametrize("case", LARGE)
def test_large_counts_keep_their_digits(lib, case):
    kind, parameters, data, expected = LARGE[case]
    mixture = kind.from_parameters(lib.asarray([1.0], "float32"), lib.asarray(parameters, "float32"))
    found = lib.to_numpy(mixture.log_prob(*(lib.asarray(x, "float32") for x in data)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=3e-6)


def test_counts_of_10_to_the_15_keep_their_digits_in_float64():
    x = np.array([1e15, 1e15 - 5e7, 1e15 + 3e7])
    mixture = poisson.PoissonMixture.from_parameters(np.ones(1), np.asarray([1e15]))
    np.testing.assert_allclose(mixture.log_prob(x), [-18.18832673066, -19.43832672649, -18.63832674116], rtol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_deviances_and_peaks_are_exact_to_a_few_spacings(lib, dtype):
    rng = np.random.default_rng(0)
    mean = np.exp(rng.uniform(-3, 16, 400)).astype(dtype)
    x = np.concatenate([rng.poisson(mean[:200]), (mean[200:] * np.exp(rng.uniform(-3, 3, 200))).round()]).astype(dtype)
    exact = [
        float((a * (a / b).ln() if a else 0) + b - a)
        for a, b in zip(map(Decimal, x.tolist()), map(Decimal, mean.tolist()), strict=True)
    ]
    found = lib.to_numpy(deviance(lib.asarray(x, dtype), lib.asarray(mean, dtype)))
    np.testing.assert_allclose(found, exact, rtol=100 * np.finfo(dtype).eps, atol=0)
    found = lib.to_numpy(peak(lib.asarray(x, dtype)))
    np.testing.assert_allclose(
        found, stats.poisson(x.astype(float)).logpmf(x), rtol=1e-9 + 30 * np.finfo(dtype).eps, atol=1e-6
    )


FITS = {
    "Poisson": (poisson, lambda rng: (rng.poisson(np.array([1e7, 1.001e7])[HALF]),)),
    "Poisson, apart": (poisson, lambda rng: (rng.poisson(np.array([1, 1e7])[HALF]),)),
    "binomial": (
        binomial,
        lambda rng: (rng.binomial(1_000_000, np.array([0.5, 0.502])[HALF]), np.full(1000, 1_000_000)),
    ),
    "multinomial": (
        multinomial,
        lambda rng: (rng.multinomial(1_000_000, np.array([[0.5, 0.25, 0.25], [0.5, 0.252, 0.248]])[HALF]),),
    ),
}


@pytest.mark.parametrize("case", FITS)
def test_large_counts_are_fitted_in_float32_as_in_float64(lib, case):
    module, draw = FITS[case]
    data = [x.astype(np.float32) for x in draw(np.random.default_rng(0))]
    expected = module.fit(*(x.astype(float) for x in data), 2, rng=0)
    found = module.fit(*map(lib.asarray, data), 2, rng=0)
    np.testing.assert_allclose(lib.to_numpy(found.weights), expected.weights, atol=0.005)
    assert float(found.log_likelihood) / 1000 == pytest.approx(float(expected.log_likelihood) / 1000, abs=1e-4)
    score = float(found.bic(*map(lib.asarray, data)))
    assert score == pytest.approx(float(expected.bic(*(x.astype(float) for x in data))), abs=0.1)
    assert_monotone(lib.to_numpy(found.trace), 1000, 1e-6)


def test_a_fit_inside_jit_is_that_of_deviances():
    x = np.float32([9_990_000, 9_993_675, 10_000_000, 10_030_000, 10_033_162])
    fit = jax.jit(
        lambda x: poisson.fit(x, 2, init=jnp.asarray([9.99e6, 1.003e7], jnp.float32), max_iter=3).log_likelihood
    )
    expected = poisson.fit(x.astype(float), 2, init=[9.99e6, 1.003e7], max_iter=3).log_likelihood
    assert float(fit(x)) == pytest.approx(float(expected), abs=1e-3)


# Zeros


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_component_of_weight_0_explains_nothing(lib, dtype):
    def array(value):
        return lib.asarray(value, dtype)

    weights = array([1.0, 0.0])
    gaussians = GaussianMixture.from_parameters(
        weights, array([[0.0], [100.0]]), array([1.0, 1.0]), covariance_type="spherical"
    )
    coins = binomial.BinomialMixture.from_parameters(weights, array([2**-10, 0.75]))
    rates = poisson.PoissonMixture.from_parameters(weights, array([1.0, 1000.0]))
    cases = [
        (gaussians, (array([[100.0]]),), stats.norm.logpdf(100)),
        (coins, (array([1000.0]), array([1000.0])), 1000 * np.log(2**-10)),
        (rates, (array([1000.0]),), stats.poisson(1).logpmf(1000)),
    ]
    for mixture, data, expected in cases:
        assert float(mixture.log_prob(*data)[0]) == pytest.approx(expected, rel=1e-6)
        assert int(mixture.predict(*data)[0]) == 0
        np.testing.assert_array_equal(lib.to_numpy(mixture.responsibilities(*data)), [[1, 0]])


def test_a_weight_of_0_that_is_kept_leaves_a_component_out(lib):
    heads = lib.asarray([0.0, 0, 0, 1000])
    fitted = binomial.fit(heads, 1000, 2, weights=[1.0, 0.0], init=[0.01, 0.999])
    np.testing.assert_allclose(lib.to_numpy(fitted.probs), [0.25, 0.999], rtol=1e-12)
    assert float(fitted.log_likelihood) == pytest.approx(1000 * np.log(0.25) + 3000 * np.log(0.75), rel=1e-12)


def test_a_rate_of_0_forbids_every_count_but_0(lib):
    mixture = poisson.PoissonMixture.from_parameters(lib.asarray([0.5, 0.5]), lib.asarray([0.0, 1000.0]))
    x = lib.asarray([0.0, 1, 1000])
    np.testing.assert_array_equal(lib.to_numpy(mixture.predict(x)), [0, 1, 1])
    expected = [np.log(0.5), np.log(0.5) - 1000 + np.log(1000), np.log(0.5) + stats.poisson(1000).logpmf(1000)]
    np.testing.assert_allclose(lib.to_numpy(mixture.log_prob(x)), expected, rtol=1e-12)
    for dtype in ("float32", "float64"):
        nothing = poisson.fit(lib.asarray(np.zeros(10), dtype), 2, rng=0)
        assert float(nothing.log_prob(lib.asarray([1.0], dtype))[0]) == -np.inf
        assert float(nothing.log_prob(lib.asarray([0.0], dtype))[0]) == pytest.approx(0, abs=1e-6)


def test_what_no_component_can_give_has_the_weights_as_its_shares(lib):
    shares = lib.asarray([[0.0, 1.0, 0.0], [0.0, 0.5, 0.5]])
    mixture = multinomial.MultinomialMixture.from_parameters(lib.asarray([0.3, 0.7]), shares)
    x = lib.asarray([[1.0, 2, 0], [0, 3, 0], [0, 1, 1]])
    np.testing.assert_allclose(
        lib.to_numpy(mixture.log_prob(x)), [-np.inf, np.log(0.3 + 0.7 / 8), np.log(0.35)], rtol=1e-12
    )
    np.testing.assert_allclose(lib.to_numpy(mixture.responsibilities(x))[[0, 2]], [[0.3, 0.7], [0, 1]], rtol=1e-12)
    np.testing.assert_array_equal(lib.to_numpy(mixture.predict(x)), [1, 0, 1])
    coins = binomial.BinomialMixture.from_parameters(lib.asarray([0.3, 0.7]), lib.asarray([0.0, 1.0]))
    found = lib.to_numpy(coins.log_prob(lib.asarray([0.0, 2, 1]), 2))
    np.testing.assert_allclose(found, [np.log(0.3), np.log(0.7), -np.inf], rtol=1e-12)


def test_impossible_rows_end_a_fit_unless_they_do_not_count(eager_lib):
    lib, x = eager_lib, [0.0, 1, 2]
    start = lib.asarray([0.0, 0.0])
    assert int(poisson.fit(lib.asarray(x), 2, init=start).status) == 2
    weight = lib.asarray([1.0, 0, 0])
    fitted = poisson.fit(lib.asarray(x), 2, init=start, sample_weight=weight)
    assert int(fitted.status) == 0
    assert float(fitted.log_likelihood) == pytest.approx(0, abs=1e-12)
    assert float(fitted.score(lib.asarray(x), sample_weight=weight)) == pytest.approx(0, abs=1e-12)


def _scored(weights, like):
    """Log-probabilities under one mixture of each family, whose second component has weight 0."""
    kinds = poisson.PoissonMixture, binomial.BinomialMixture, multinomial.MultinomialMixture
    parameters = [2.0, 5.0], [0.2, 0.5], [[0.2, 0.8], [0.5, 0.5]]
    data = ([3.0],), ([3.0], [9.0]), ([[3.0, 6]],)
    for kind, parameter, rows in zip(kinds, parameters, data, strict=True):
        yield kind.from_parameters(weights, like(parameter)).log_prob(*map(like, rows)).sum()
    gaussians = GaussianMixture.from_parameters(
        weights, like([[0.0], [1]]), like([1.0, 1]), covariance_type="spherical"
    )
    yield gaussians.log_prob(like([[1.0]])).sum()


ODDS = [
    stats.poisson(5).pmf(3) / stats.poisson(2).pmf(3),
    *[stats.binom(9, 0.5).pmf(3) / stats.binom(9, 0.2).pmf(3)] * 2,
    np.exp(0.5),
]


def test_the_gradient_in_a_weight_of_0_is_what_it_would_add():
    weights = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    values = list(_scored(weights, lambda x: torch.tensor(x, dtype=torch.float64)))
    found = [torch.autograd.grad(value, weights)[0].numpy() for value in values]
    np.testing.assert_allclose(found, [[0, odds - 1] for odds in ODDS], atol=1e-12)
    on_jax = jax.jacobian(lambda w: jnp.stack(list(_scored(w, jnp.asarray))))(jnp.asarray([1.0, 0.0]))
    np.testing.assert_allclose(on_jax, [[0, odds - 1] for odds in ODDS], atol=1e-12)


def test_gradients_are_finite_where_something_is_0():
    def total(weights, rates, x):
        return posterior(-deviance(x, rates[:, None]), weights)[1].sum()

    for x, by_rate in ([0.0, 0.0], [-2, 0]), ([0.0, 4.0], [-1, -1 + 4 / 1000]):
        expected = np.array(by_rate) if x[1] else np.array([-2.0, 0])
        start = [0.5, 0.5], [0.0, 1000.0]
        found = jax.grad(total, (0, 1))(*map(jnp.asarray, start), jnp.asarray(x))
        own = [torch.tensor(part, dtype=torch.float64, requires_grad=True) for part in start]
        theirs = torch.autograd.grad(total(*own, torch.tensor(x, dtype=torch.float64)), own)
        for gradients in (found, theirs):
            assert all(np.isfinite(np.asarray(part)).all() for part in gradients)
            np.testing.assert_allclose(np.asarray(gradients[1]), expected, atol=1e-9)


# Starts


STARTS = {
    "Poisson": (poisson, lambda rng: (rng.poisson(np.array([0.2, 2])[HALF]),)),
    "binomial": (binomial, lambda rng: (rng.binomial(20, np.array([0.02, 0.1])[HALF]), np.full(1000, 20))),
    "binomial, mostly heads": (
        binomial,
        lambda rng: (rng.binomial(20, np.array([0.98, 0.9])[HALF]), np.full(1000, 20)),
    ),
    "Poissons": (poisson, lambda rng: (rng.poisson(np.array([[0.2, 1.0, 0.1], [2, 0.1, 0.1]])[HALF]),)),
    "multinomial": (
        multinomial,
        lambda rng: (rng.multinomial(4, np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]])[HALF]),),
    ),
}


@pytest.mark.parametrize("case", STARTS)
def test_no_start_is_caught_at_0(case):
    module, draw = STARTS[case]
    data = [x.astype(float) for x in draw(np.random.default_rng(0))]
    reached = np.array([float(module.fit(*data, 2, rng=seed).log_likelihood) for seed in range(10)])
    assert (reached.max() - reached.min()) / 1000 < 1e-3


def test_a_start_is_between_its_own_rows_and_all(lib):
    x = np.array([0.0] * 5 + [10.0] * 5)
    begun = poisson.fit(lib.asarray(x), 2, rng=0, max_iter=0)
    np.testing.assert_allclose(np.sort(lib.to_numpy(begun.rates)), [0.25, 9.75], rtol=1e-12)
    assert float(poisson.fit(lib.asarray(np.zeros(5)), 1, max_iter=0).rates[0]) == 0
    given = poisson.fit(lib.asarray(x), 2, init=lib.asarray([0.0, 10.0]), max_iter=0)
    np.testing.assert_array_equal(lib.to_numpy(given.rates), [0, 10])


# Integers


UNSIGNED = ("uint8", "uint16", "uint32", "uint64")


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", *UNSIGNED])
def test_trials_are_summed_in_integers_that_hold_them(lib, dtype):
    if lib.name == "array_api_strict":
        pytest.skip("scikit-learn's estimators take it only under its dispatch: test_sklearn.py")
    x = [[10, 200, 100], [90, 110, 200]] if dtype != "int8" else [[10, 100, 100], [90, 10, 27]]
    rows = np.array(x * 20)
    estimator = es.BinomialMixture(2, random_state=0).fit(lib.asarray(rows, dtype))
    expected = np.sort(rows[:2, 0] / rows[:2].sum(axis=1))
    np.testing.assert_allclose(np.sort(lib.to_numpy(estimator.probs_)), expected, atol=1e-6)


@pytest.mark.parametrize("dtypes", [("uint8", "uint8"), ("uint16", "uint16"), ("uint8", "int64"), ("int8", "float64")])
def test_small_integers_do_not_wrap_around(eager_lib, dtypes):
    lib = eager_lib
    heads, trials = np.array([10, 90] * 5), np.array([200 if dtypes[1] != "int8" else 120, 100] * 5)
    held = lib.asarray(heads, dtypes[0]), lib.asarray(trials, dtypes[1])
    fitted = binomial.fit(*held, 2, rng=0)
    np.testing.assert_allclose(np.sort(lib.to_numpy(fitted.probs)), [0.05, 0.9], atol=1e-6)
    x = np.stack([heads, trials - heads], axis=1)
    if dtypes[0] != "int8":
        shares = multinomial.fit(lib.asarray(x, dtypes[0]), 2, rng=0).probs
        np.testing.assert_allclose(np.sort(lib.to_numpy(shares)[:, 0]), [0.05, 0.9], atol=1e-6)


def test_heads_beyond_the_range_of_trials_are_refused(eager_lib):
    heads, trials = eager_lib.asarray([300, 10], "int64"), eager_lib.asarray([44, 44], "uint8")
    rejected(lambda: binomial.fit(heads, trials, 1), InputError, "row 0")
