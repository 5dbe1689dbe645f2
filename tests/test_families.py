"""Mixtures of counts: SciPy's probabilities, the equations written out, and what a result can do."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from emroute import binomial, multinomial, poisson
from emroute.errors import InputError
from tests.helpers import NUMPY, rejected

pytestmark = pytest.mark.usefixtures("quick_compilation")

N, D, K = 24, 3, 3
SHARES = np.array([0.2, 0.3, 0.5])
WEIGHT = np.random.default_rng(9).uniform(0.2, 3, N)
RNG = np.random.default_rng(6)
TRIALS = RNG.integers(5, 30, N).astype(float)


class Family:
    """What the tests ask of a family."""

    @staticmethod
    def mean(k, trials=1):
        """Of a sample; a family whose parameter is not a mean has its own."""
        return trials * k


class Coins(Family):
    """Binomials of ``(heads, trials)``."""

    module, mixture, name = binomial, binomial.BinomialMixture, "probs"
    data = (RNG.binomial(TRIALS.astype(int), RNG.choice([0.2, 0.5, 0.9], N)).astype(float), TRIALS)
    start = np.array([0.3, 0.5, 0.8])
    n_parameters = K
    sample = (N,), {"trials": 12}

    @staticmethod
    def log_prob(k, heads, trials):
        return stats.binom(trials, k).logpmf(heads)

    @staticmethod
    def estimate(shares, heads, trials):
        return np.array([(share * heads).sum() / (share * trials).sum() for share in shares.T])


class Documents(Family):
    """Multinomials of rows of counts."""

    module, mixture, name = multinomial, multinomial.MultinomialMixture, "probs"
    data = (RNG.multinomial(20, [0.2, 0.3, 0.5], N).astype(float),)
    start = np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.3, 0.2, 0.5]])
    n_parameters = K * (D - 1)
    sample = (N, D), {"trials": 12}

    @staticmethod
    def log_prob(k, x):
        return stats.multinomial(x.sum(axis=1), k / k.sum()).logpmf(x)

    @staticmethod
    def estimate(shares, x):
        sums = np.stack([(share[:, None] * x).sum(axis=0) for share in shares.T])
        return sums / sums.sum(axis=1, keepdims=True)


class Rates(Family):
    """Poissons of rows of counts."""

    module, mixture, name = poisson, poisson.PoissonMixture, "rates"
    data = (RNG.poisson([2.0, 5, 9], (N, D)).astype(float),)
    start = np.array([[2.0, 5, 9], [9, 2, 5], [5, 9, 2]])
    n_parameters = K * D
    sample = (N, D), {}

    @staticmethod
    def log_prob(k, x):
        return stats.poisson(k).logpmf(x).sum(axis=1)

    @staticmethod
    def estimate(shares, x):
        return np.stack([(share[:, None] * x).sum(axis=0) / share.sum() for share in shares.T])


class PlainRates(Family):
    """Poissons of plain counts."""

    module, mixture, name = poisson, poisson.PoissonMixture, "rates"
    data = (RNG.poisson(6.0, N).astype(float),)
    start = np.array([2.0, 5, 9])
    n_parameters = K
    sample = (N,), {}

    @staticmethod
    def log_prob(k, x):
        return stats.poisson(k).logpmf(x)

    @staticmethod
    def estimate(shares, x):
        return np.array([(share * x).sum() / share.sum() for share in shares.T])


every_family = pytest.mark.parametrize("family", [Coins, Documents, Rates, PlainRates])


@dataclass
class Plain:
    """A mixture written out: SciPy's probabilities, the M-step's ratios of sums."""

    family: type
    weights: np.ndarray
    components: np.ndarray

    def joint(self):
        parts = zip(self.weights, self.components, strict=True)
        return np.stack([np.log(w) + self.family.log_prob(k, *self.family.data) for w, k in parts], axis=1)

    def step(self, fixed):
        joint = self.joint()
        shares = WEIGHT[:, None] * np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        weights = self.weights if fixed else shares.sum(axis=0) / shares.sum()
        return Plain(self.family, weights, self.family.estimate(shares, *self.family.data))

    def log_likelihood(self):
        return WEIGHT @ logsumexp(self.joint(), axis=1)


def four_steps(lib, family, fixed=False):
    data = tuple(map(lib.asarray, family.data))
    init = (lib.asarray(SHARES), lib.asarray(family.start))
    options = {"sample_weight": lib.asarray(WEIGHT), "tol": 0, "max_iter": 4}
    if fixed:
        options["weights"] = lib.asarray(SHARES)
    return data, family.module.fit(*data, K, init=init, **options)


@pytest.mark.parametrize("fixed", [False, True], ids=["free", "fixed"])
@every_family
def test_iterations_follow_the_equations(lib, family, fixed):
    _, fitted = four_steps(lib, family, fixed)
    plain, trace = Plain(family, SHARES, family.start), []
    for _ in range(4):
        trace.append(plain.log_likelihood())
        plain = plain.step(fixed)
    trace.append(plain.log_likelihood())
    np.testing.assert_allclose(lib.to_numpy(fitted.weights), plain.weights, rtol=1e-9)
    np.testing.assert_allclose(lib.to_numpy(getattr(fitted, family.name)), plain.components, rtol=1e-9)
    np.testing.assert_allclose(lib.to_numpy(fitted.trace), trace, rtol=1e-10)


@every_family
def test_probabilities_and_responsibilities_are_those_of_scipy(lib, family):
    data, fitted = four_steps(lib, family)
    joint = Plain(family, lib.to_numpy(fitted.weights), lib.to_numpy(getattr(fitted, family.name))).joint()
    expected = logsumexp(joint, axis=1)
    np.testing.assert_allclose(lib.to_numpy(fitted.log_prob(*data)), expected, rtol=1e-9)
    shares = np.exp(joint - expected[:, None])
    np.testing.assert_allclose(lib.to_numpy(fitted.responsibilities(*data)), shares, atol=1e-9)
    np.testing.assert_array_equal(lib.to_numpy(fitted.predict(*data)), joint.argmax(axis=1))


@pytest.mark.parametrize("fixed", [False, True], ids=["free", "fixed"])
@every_family
def test_criteria_count_free_parameters(eager_lib, family, fixed):
    lib = eager_lib
    data, fitted = four_steps(lib, family, fixed)
    total, p = lib.to_numpy(fitted.log_prob(*data)).sum(), family.n_parameters + (0 if fixed else K - 1)
    assert float(fitted.score(*data)) == pytest.approx(total / N, rel=1e-12)
    assert float(fitted.bic(*data)) == pytest.approx(-2 * total + p * np.log(N), rel=1e-12)
    assert float(fitted.aic(*data)) == pytest.approx(-2 * total + 2 * p, rel=1e-12)
    unsure = np.log(lib.to_numpy(fitted.responsibilities(*data)).max(axis=1)).sum()
    assert float(fitted.icl(*data)) == pytest.approx(-2 * total + p * np.log(N) - 2 * unsure, rel=1e-12)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@every_family
def test_a_mixture_comes_back_from_a_file_in_any_library(lib, family, suffix, tmp_path):
    data, fitted = four_steps(NUMPY, family)
    fitted.save(tmp_path / f"mixture{suffix}")
    loaded = family.mixture.load(tmp_path / f"mixture{suffix}", like=lib.asarray([0.0]))
    for name in ("weights", family.name, "trace", "status"):
        np.testing.assert_array_equal(lib.to_numpy(getattr(loaded, name)), getattr(fitted, name), err_msg=name)
    got = lib.to_numpy(loaded.log_prob(*map(lib.asarray, data)))
    np.testing.assert_allclose(got, fitted.log_prob(*data), rtol=1e-10)


@every_family
def test_a_mixture_of_its_own_parameters_scores_the_same(lib, family):
    data, fitted = four_steps(lib, family)
    again = family.mixture.from_parameters(fitted.weights, getattr(fitted, family.name))
    np.testing.assert_allclose(lib.to_numpy(again.log_prob(*data)), lib.to_numpy(fitted.log_prob(*data)), rtol=1e-9)


@every_family
def test_a_batch_of_given_parameters_scores_as_each_alone(lib, family):
    weights = np.stack([SHARES, SHARES[::-1]])
    starts = np.stack([family.start, family.start[::-1] * 0.9 + 0.1 * family.start])
    data = [lib.asarray(x) for x in family.data]
    alone = [
        lib.to_numpy(family.mixture.from_parameters(lib.asarray(w), lib.asarray(s)).log_prob(*data))
        for w, s in zip(weights, starts, strict=True)
    ]
    both = family.mixture.from_parameters(lib.asarray(weights), lib.asarray(starts))
    stacked = [lib.asarray(np.stack([x, x])) for x in family.data]
    np.testing.assert_allclose(lib.to_numpy(both.log_prob(*stacked)), alone, rtol=1e-12)


@every_family
def test_a_sample_is_of_counts_with_the_mixtures_mean(lib, family):
    _, fitted = four_steps(lib, family)
    shape, options = family.sample
    rows, labels = (lib.to_numpy(part) for part in fitted.sample(20000, rng=3, **options))
    assert rows.shape == (20000, *shape[1:])
    assert np.all((rows >= 0) & (rows == np.floor(rows)))
    components = lib.to_numpy(getattr(fitted, family.name))
    for k, (weight, component) in enumerate(zip(lib.to_numpy(fitted.weights), components, strict=True)):
        own = rows[labels == k]
        assert len(own) / len(rows) == pytest.approx(weight, abs=0.02)
        if len(own) > 100:
            np.testing.assert_allclose(own.mean(axis=0), family.mean(component, **options), rtol=0.1, atol=0.1)
    again, _ = fitted.sample(20000, rng=3, **options)
    np.testing.assert_array_equal(lib.to_numpy(again), rows)


def test_trials_may_differ_between_coins_of_a_sample():
    _, fitted = four_steps(NUMPY, Coins)
    trials = np.arange(N)
    heads, _ = fitted.sample(N, trials, rng=0)
    assert np.all(heads <= trials)
    assert heads[0] == 0


@pytest.mark.parametrize("family", [Coins, Documents])
def test_trials_of_a_sample_are_whole_numbers(family):
    _, fitted = four_steps(NUMPY, family)
    for ours, theirs in zip(fitted.sample(9, trials=4.0, rng=0), fitted.sample(9, trials=4, rng=0), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for trials in (-1, 2.5, np.nan, np.inf, "4", None):
        rejected(lambda trials=trials: fitted.sample(9, trials=trials), InputError, f"trials={trials!r}")


@every_family
def test_integer_counts_are_fitted_in_float64(lib, family):
    data = tuple(lib.asarray(x, "int64") for x in family.data)
    _, expected = four_steps(NUMPY, family)
    init = (lib.asarray(SHARES), lib.asarray(family.start))
    fitted = family.module.fit(*data, K, init=init, sample_weight=lib.asarray(WEIGHT), tol=0, max_iter=4)
    got = lib.to_numpy(getattr(fitted, family.name))
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, getattr(expected, family.name), rtol=1e-9)


def test_float32_counts_stay_float32(eager_lib):
    lib = eager_lib
    for family in (Coins, Documents, Rates):
        data = tuple(lib.asarray(x, "float32") for x in family.data)
        fitted = family.module.fit(*data, K, init=lib.asarray(family.start, "float32"), max_iter=4)
        for value in (fitted.weights, getattr(fitted, family.name), fitted.log_likelihood, fitted.log_prob(*data)):
            assert lib.to_numpy(value).dtype == np.float32


def test_named_starts_find_separate_coins(eager_lib):
    lib, rng = eager_lib, np.random.default_rng(1)
    labels = rng.integers(0, 2, 200)
    heads = rng.binomial(50, np.array([0.2, 0.8])[labels])
    for init in ("k-means++", "random"):
        fitted = binomial.fit(lib.asarray(heads), 50, 2, init=init, n_init=4, rng=0)
        np.testing.assert_allclose(np.sort(lib.to_numpy(fitted.probs)), [0.2, 0.8], atol=0.03)
