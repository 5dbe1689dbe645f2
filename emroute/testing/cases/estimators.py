"""The estimators of `emroute.sklearn`, where scikit-learn is installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

from emroute.backend import Array
from emroute.testing.cases.case import Case

__all__ = ["ESTIMATORS"]

_AT_ONCE = {"tol": 1e9, "max_iter": 2, "random_state": 0}
"""At rest after one iteration, so that rounding decides nothing and nothing warns."""
# data are shaped as for the functions below the estimators, so that those are compiled once


def _clusters(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of two overlapping clusters, their weights, and centres to start from."""
    centres = np.asarray([[-1.5, 0.0], [1.5, 1.0]])
    rows = centres[np.arange(24) % 2] + rng.standard_normal((24, 2))
    return rows, rng.uniform(0.5, 2, 24), centres + 0.3


def _counts(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Counts, their weights, and rates to start from."""
    rates = np.asarray([[3.0, 9.0], [8.0, 4.0]])
    return rng.poisson(rates[np.arange(24) % 2]) + 1.0, rng.uniform(0.5, 2, 24), rates + 1


def _shares(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Counts of four words, their weights, and shares to start from."""
    counts, weight, rates = _counts(rng)
    return np.hstack([counts, counts]), weight, np.hstack([rates, rates]) / rates.sum(axis=1, keepdims=True) / 2


def _coins(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Heads and tails, their weights, and probabilities of heads to start from."""
    counts, weight, rates = _counts(rng)
    return counts, weight, rates[:, 0] / rates.sum(axis=1)


def _mixture(estimator: Any, x: Array, weight: Array) -> Any:
    labels = estimator.fit_predict(x, sample_weight=weight)
    scores = estimator.score(x), estimator.score(x, sample_weight=weight), estimator.bic(x), estimator.aic(x)
    each = estimator.predict(x), estimator.predict_proba(x), estimator.score_samples(x)
    return labels, scores, each, estimator.weights_, estimator.lower_bounds_, estimator.sample(5)


def _gaussian(x: Array, weight: Array, means: Array) -> Any:
    from emroute import sklearn

    start = {"means_init": means, "init_params": "random"}
    estimator = sklearn.GaussianMixture(2, covariance_type="full", **start, **_AT_ONCE)
    return _mixture(estimator, x, weight), estimator.covariances_, estimator.precisions_cholesky_


def _binomial(x: Array, weight: Array, probs: Array) -> Any:
    from emroute import sklearn

    return _mixture(sklearn.BinomialMixture(2, probs_init=probs, **_AT_ONCE), x, weight)


def _multinomial(x: Array, weight: Array, probs: Array) -> Any:
    from emroute import sklearn

    return _mixture(sklearn.MultinomialMixture(2, probs_init=probs, **_AT_ONCE), x, weight)


def _poisson(x: Array, weight: Array, rates: Array) -> Any:
    from emroute import sklearn

    return _mixture(sklearn.PoissonMixture(2, rates_init=rates, **_AT_ONCE), x, weight)


def _kmeans(x: Array, weight: Array, centres: Array) -> Any:
    from emroute import sklearn

    estimator = sklearn.KMeans(2, init=centres, n_init=1, max_iter=300).fit(x, sample_weight=weight)
    each = estimator.labels_, estimator.predict(x), estimator.transform(x)
    return each, estimator.cluster_centers_, estimator.inertia_, estimator.score(x, sample_weight=weight)


_ALL = (
    Case("sklearn.GaussianMixture", _gaussian, _clusters),
    Case("sklearn.BinomialMixture", _binomial, _coins),
    Case("sklearn.MultinomialMixture", _multinomial, _shares),
    Case("sklearn.PoissonMixture", _poisson, _counts),
    Case("sklearn.KMeans", _kmeans, _clusters),
)
ESTIMATORS = _ALL if find_spec("sklearn") else ()
"""None where scikit-learn is missing."""
