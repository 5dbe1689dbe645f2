"""Counts at the sizes where sums of products lose their digits, and weights, rates and probabilities of 0."""

from __future__ import annotations

from typing import Any

import numpy as np

from emroute import binomial, counts, family, multinomial, poisson
from emroute.backend import Array, namespace
from emroute.gmm import GaussianMixture
from emroute.mixture import Mixture
from emroute.testing.cases.case import Case, normal

__all__ = ["COUNTS"]

_KINDS = {
    "binomial": binomial.BinomialMixture,
    "multinomial": multinomial.MultinomialMixture,
    "poisson": poisson.PoissonMixture,
}


def _some(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Counts and their means: near each other, far apart, small and large."""
    means = np.exp(rng.uniform(0, 16, (2, 30))).round()
    x = np.concatenate([rng.poisson(means[0]), (means[1] * rng.uniform(0.2, 3, 30)).round()])
    return x.astype(float) + 1, means.ravel()


def _sizes(rng: np.random.Generator) -> tuple[np.ndarray]:
    """Counts on both sides of where the series takes over."""
    return (np.concatenate([np.arange(1.0, 20), np.exp(rng.uniform(3, 16, 20)).round()]),)


def _large_rates(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Counts of 10^7, and mixing weights and rates three standard deviations apart."""
    rates = np.asarray([[1e7, 3e6], [1.0009e7, 3e6]])
    return rng.poisson(rates[np.arange(24) % 2]).astype(float), np.asarray([0.4, 0.6]), rates


def _large_shares(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Rows of 10^6 counts, mixing weights, and shares that hardly differ."""
    probs = np.asarray([[0.5, 0.25, 0.25], [0.5, 0.251, 0.249]])
    return rng.multinomial(1_000_000, probs[np.arange(24) % 2]).astype(float), np.asarray([0.4, 0.6]), probs


def _large_coins(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Heads of 10^6 tosses, mixing weights, and coins that hardly differ."""
    probs = np.asarray([0.5, 0.501])
    return rng.binomial(1_000_000, probs[np.arange(24) % 2]).astype(float), np.asarray([0.4, 0.6]), probs


_LARGE = {"binomial": _large_coins, "multinomial": _large_shares, "poisson": _large_rates}


def _data(kind: str, x: Array) -> tuple[Array, ...]:
    return (x, 0 * x + 1_000_000) if kind == "binomial" else (x,)


def _scored(mixture: Mixture, *data: Array) -> dict[str, Array]:
    """What is said of rows."""
    return {name: getattr(mixture, name)(*data) for name in ("log_prob", "predict")}


def _scores(kind: str) -> Any:
    def run(x: Array, weights: Array, parameters: Array) -> Any:
        return _scored(_KINDS[kind].from_parameters(weights, parameters), *_data(kind, x))

    return run


def _fit(kind: str) -> Any:
    module = {"binomial": binomial, "multinomial": multinomial, "poisson": poisson}[kind]

    def run(x: Array, weights: Array, parameters: Array) -> Any:
        fitted = module.fit(*_data(kind, x), 2, init=(weights, parameters), tol=0, max_iter=2)
        return fitted.weights, fitted.params[1], fitted.trace

    return run


def _zero_weight(weights: Array, means: Array, x: Array) -> Any:
    """A component of weight 0 where it alone is near."""
    xp = namespace(weights)
    return _scored(GaussianMixture.from_parameters(weights, means, xp.ones_like(means), covariance_type="diag"), x)


def _zero_rate(weights: Array, rates: Array, x: Array) -> Any:
    """Rates of 0 where that is, and is not, possible."""
    return _scored(poisson.PoissonMixture.from_parameters(weights, rates), x)


def _exact_deviance(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """In extended precision."""
    x, mean = x.astype(np.longdouble), mean.astype(np.longdouble)
    return (x * np.log(x / mean) + mean - x).astype(float)


COUNTS = (
    Case(
        "family.as_integers", family.as_integers, lambda rng: (rng.integers(0, 200, 5),), smooth=False, variant="counts"
    ),
    Case("family.as_integers", family.as_integers, normal((4,))),
    Case(
        "family.posterior",
        family.posterior,
        lambda rng: (np.asarray([[-5000.0, -np.inf], [0.0, -np.inf]]), np.asarray([1.0, 0.0])),
        smooth=False,
        variant="weights of 0",
    ),
    Case(
        "family.posterior",
        family.posterior,
        lambda rng: (*normal((3, 4))(rng), rng.dirichlet(np.ones(3))),
    ),
    Case("counts.deviance", counts.deviance, _some, _exact_deviance, smooth=False, variant="large"),
    Case("counts.deviance", counts.deviance, lambda rng: tuple(rng.uniform(1, 9, (2, 8)))),
    Case("counts.peak", counts.peak, _sizes, smooth=False, variant="large"),
    Case("counts.peak", counts.peak, lambda rng: (rng.uniform(1, 30, 8),)),
    *(Case(f"{kind}.fit", _fit(kind), _LARGE[kind], variant="large counts") for kind in _KINDS),
    *(
        Case(f"{kind}.{mixture.__name__}", _scores(kind), _LARGE[kind], variant="large counts")
        for kind, mixture in _KINDS.items()
    ),
    Case(
        "gmm.GaussianMixture",
        _zero_weight,
        lambda rng: (np.asarray([1.0, 0.0]), np.asarray([[0.0], [100.0]]), np.asarray([[100.0]])),
        smooth=False,
        variant="a weight of 0",
    ),
    Case(
        "poisson.PoissonMixture",
        _zero_rate,
        lambda rng: (np.asarray([0.5, 0.5]), np.asarray([[0.0, 1], [1000, 0]]), np.asarray([[1.0, 0], [0, 1], [1, 1]])),
        smooth=False,
        variant="rates of 0",
    ),
)
"""What rests on log-probabilities of counts, and on logarithms of 0."""
