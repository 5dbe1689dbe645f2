"""Accelerated EM: the published example, and what must hold whatever is extrapolated."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import strategies as st

from emroute import binomial, em, gmm, multinomial, poisson
from emroute.backend import namespace
from emroute.datasets import faithful
from emroute.em import Status
from emroute.errors import InputError
from tests.helpers import COVARIANCE_TYPES, assert_monotone, for_all

# Deaths of women of 80 and more by days, of The Times, 1910-1912 (Hasselblad 1969); the standard example of slow EM
DEATHS = np.asarray([162, 267, 271, 185, 111, 61, 27, 8, 3, 1.0])
SLOW = {"init": ([0.3, 0.7], [1.0, 2.5]), "tol": 0.0, "max_iter": 4000}
FAITHFUL = np.asarray(faithful().x)


@pytest.mark.filterwarnings("ignore::emroute.FitWarning")
def test_the_deaths_of_the_times():
    seen, calm = [np.asarray([0.3, 1.0, 2.5])], []

    def watch(iteration, fit):
        seen.append(np.asarray([fit.params.weights[0], *fit.params.rates[:, 0]]))
        if iteration % 3 == 1 and np.linalg.norm(seen[-1] - seen[-2]) < 1e-8:
            calm.append(iteration)

    options = {**SLOW, "sample_weight": DEATHS, "max_iter": 90}
    fitted = poisson.fit(np.arange(10), 2, accelerate="squarem", callback=watch, **options)
    assert calm[0] <= 76  # 75 of R's SQUAREM, and the step that sees that nothing moves
    assert float(fitted.log_likelihood) == pytest.approx(-1989.945859883, abs=1e-8)
    np.testing.assert_allclose(fitted.weights[0], 0.3598854, atol=1e-6)
    np.testing.assert_allclose(fitted.rates, [1.2560951, 2.6634043], atol=1e-6)
    assert_monotone(fitted.trace, DEATHS.sum())
    plain = poisson.fit(np.arange(10), 2, **{**options, "max_iter": 300})  # it takes 2586 steps
    assert float(plain.log_likelihood) < float(fitted.log_likelihood) - 1e-5


def test_every_library_takes_the_same_steps(lib):
    options = {**SLOW, "max_iter": 30, "accelerate": "squarem"}
    expected = poisson.fit(np.arange(10), 2, sample_weight=DEATHS, **options)
    found = poisson.fit(lib.asarray(np.arange(10)), 2, sample_weight=lib.asarray(DEATHS), **options)
    np.testing.assert_allclose(lib.to_numpy(found.trace), expected.trace, rtol=1e-11)
    watched = poisson.fit(
        lib.asarray(np.arange(10)), 2, sample_weight=lib.asarray(DEATHS), callback=lambda *_: None, **options
    )
    np.testing.assert_allclose(lib.to_numpy(watched.trace), expected.trace, rtol=1e-11)


@pytest.mark.filterwarnings("ignore::emroute.FitWarning")
def test_gaussians_crawl_no_more():
    fast = gmm.fit(FAITHFUL, 5, rng=2, tol=1e-9, accelerate="squarem")
    plain = gmm.fit(FAITHFUL, 5, rng=2, tol=1e-9, max_iter=4 * int(fast.n_iter) - 1)
    assert not plain.converged
    assert float(fast.log_likelihood) > float(plain.log_likelihood)


@for_all(kind=st.sampled_from(COVARIANCE_TYPES), seed=st.integers(0, 1000), k=st.integers(2, 4), examples=10)
def test_the_likelihood_never_falls(eager_lib, kind, seed, k):
    lib, rng = eager_lib, np.random.default_rng(seed)
    x, weight = rng.normal(size=(50, 2)) * [1, 50], rng.uniform(0.1, 3, 50)
    options = {"covariance_type": kind, "rng": seed, "max_iter": 60, "tol": 1e-9, "accelerate": "squarem"}
    fitted = gmm.fit(lib.asarray(x), k, sample_weight=lib.asarray(weight), **options)
    assert_monotone(lib.to_numpy(fitted.trace), weight.sum())


@pytest.mark.parametrize("missing", ["refuse", "marginalize"])
def test_problems_of_a_batch_take_steps_of_their_own(missing):
    x = np.stack([FAITHFUL[:100], FAITHFUL[100:200]])
    if missing == "marginalize":
        x[:, ::9, 1] = np.nan
    init = x[:, [0, 1, 4]] + [0, 1]
    init = np.where(np.isnan(init), 70, init)
    options = {"missing": missing, "accelerate": "squarem", "tol": 1e-9}
    together = gmm.fit(x, 3, init=init, **options)
    for place in (0, 1):
        alone = gmm.fit(x[place], 3, init=init[place], **options)
        np.testing.assert_allclose(
            together.trace[place][: alone.trace.shape[-1]], alone.trace, rtol=1e-8, equal_nan=True
        )


def test_counts_and_streams():
    rng = np.random.default_rng(0)
    counts = rng.poisson([[3.0, 5, 2]], (60, 3))
    trials = np.full(60, 10)
    heads = rng.binomial(trials, np.where(np.arange(60) % 2, 0.4, 0.6))
    for fit, data, init in (
        (multinomial.fit, (counts,), [[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]),
        (binomial.fit, (heads, trials), [0.3, 0.7]),
        (poisson.fit, (counts,), [[2.0, 4, 3], [4, 6, 1]]),
    ):
        options = {"init": init, "tol": 1e-11, "max_iter": 3000}
        fast, plain = (fit(*data, 2, accelerate=how, **options) for how in ("squarem", None))
        assert_monotone(fast.trace, 600)
        assert float(fast.log_likelihood) >= float(plain.log_likelihood) - 1e-6
        assert int(fast.n_iter) < int(plain.n_iter)
    chunks = [FAITHFUL[:150], FAITHFUL[150:]]
    options = {"init": FAITHFUL[[0, 1, 4]], "tol": 1e-8, "accelerate": "squarem"}
    streamed, whole = gmm.fit(chunks, 3, **options), gmm.fit(FAITHFUL, 3, **options)
    np.testing.assert_allclose(streamed.trace, whole.trace, rtol=1e-9)


class Params(NamedTuple):
    rate: np.ndarray


class Sums(NamedTuple):
    weight: np.ndarray
    total: np.ndarray
    censored: np.ndarray


class Waiting:
    """Exponential waiting times, of which some were only seen to pass `x`: EM crawls where most were."""

    ranks = (0, 0)

    def expect(self, params, data, weight):
        x, seen = data
        xp = namespace(x)
        return Sums(xp.sum(weight), xp.sum(weight * x), xp.sum(weight * (1 - seen)))

    def maximize(self, sums, params):
        return Params(sums.weight / (sums.total + sums.censored / params.rate))

    def objective(self, sums, params):
        xp = namespace(params.rate)
        return (sums.weight - sums.censored) * xp.log(params.rate) - params.rate * sums.total


class OnLogScale(Waiting):
    def pack(self, params):
        return (namespace(params.rate).log(params.rate),)

    def unpack(self, coordinates, params):
        return Params(namespace(params.rate).exp(coordinates[0]))


@pytest.mark.parametrize("model", [Waiting(), OnLogScale()])
def test_a_model_of_the_users_own(lib, model):
    x = np.random.default_rng(0).exponential(2, 200)
    data = lib.asarray(np.minimum(x, 0.2)), lib.asarray((x < 0.2).astype(float))
    start = Params(lib.asarray(5.0))
    exact = np.sum(x < 0.2) / np.minimum(x, 0.2).sum()
    plain = em.fit(model, data, start, tol=1e-13)
    fast = em.fit(model, data, start, tol=1e-13, accelerate="squarem")
    assert float(fast.params.rate) == pytest.approx(exact, rel=1e-6)
    assert int(fast.n_iter) <= int(plain.n_iter) / 4
    assert_monotone(lib.to_numpy(fast.trace), 200)


class Fragile(Waiting):
    """A model whose extrapolated parameters are no numbers."""

    def pack(self, params):
        return (params.rate,)

    def unpack(self, coordinates, params):
        return Params(params.rate * np.nan)


def test_a_leap_into_nowhere_is_not_taken():
    x = np.random.default_rng(0).exponential(2, 200)
    data, start = (np.minimum(x, 0.2), (x < 0.2).astype(float)), Params(np.asarray(5.0))
    fitted = em.fit(Fragile(), data, start, accelerate="squarem", tol=1e-12, max_iter=3000)
    assert Status(int(fitted.status)) is Status.CONVERGED
    assert float(fitted.params.rate) == pytest.approx(np.sum(x < 0.2) / np.minimum(x, 0.2).sum(), rel=1e-3)


def test_other_accelerations_are_refused():
    with pytest.raises(InputError, match="accelerate='anderson'"):
        gmm.fit(FAITHFUL, 2, accelerate="anderson")
