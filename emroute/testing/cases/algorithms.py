"""Fits and fitted mixtures, and all algorithms together; NumPy itself says what is right: the tests compare it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from emroute import binomial, em, family, gmm, kmeans, multinomial, poisson, select
from emroute.arrays import diagonal
from emroute.backend import Array, get, namespace
from emroute.gmm import GaussianMixture
from emroute.gmm.covariance import COVARIANCES
from emroute.mixture import Mixture
from emroute.testing.cases.case import Case, normal, positive
from emroute.testing.cases.counts import COUNTS
from emroute.testing.cases.data import (
    draw_clusters,
    draw_coins,
    draw_counts,
    draw_documents,
    draw_gaussians,
    draw_halves,
    draw_parameters,
    draw_problems,
    draw_tosses,
)
from emroute.testing.cases.models import NORMAL, Moments
from emroute.testing.cases.routings import ROUTINGS

__all__ = ["ALGORITHMS"]

# so few iterations, on data that overlap, that no rounding can bring a fit to rest
_SHORT: dict[str, Any] = {"tol": 1e-12, "max_iter": 3}
"""A number of iterations that rounding cannot change."""
_THREE_STARTS: dict[str, Any] = {"init": "k-means++", "n_init": 3, "rng": 0, "tol": 1e-3, "covariance_floor": 0.01}
"""A tolerance that separate clusters reach at once, and others not; a floor that both dtypes can have."""


def _history(mixture: Any) -> dict[str, Array]:
    """What every fitted mixture tells."""
    names = ("weights", "log_likelihood", "trace", "n_iter", "status", "converged")
    return {name: getattr(mixture, name) for name in names}


def _gmm(covariance_type: str, **options: Any) -> Callable[..., Any]:
    def run(x: Array, weight: Array, means: Array) -> dict[str, Array]:
        given = {"init": means, **_SHORT, **options}
        fitted = gmm.fit(x, 3, covariance_type=covariance_type, sample_weight=weight, **given)
        return {**_history(fitted), "means": fitted.means, "covariances": fitted.covariances}

    return run


def _scored(mixture: Mixture, *data: Array, weight: Array) -> dict[str, Array]:
    """Every method that scores data."""
    found = {name: getattr(mixture, name)(*data) for name in ("log_prob", "responsibilities", "predict")}
    totals = {name: getattr(mixture, name)(*data, sample_weight=weight) for name in ("score", "bic", "aic", "icl")}
    return found | totals


def _gaussian_scores(covariance_type: str) -> Callable[..., Any]:
    def run(x: Array, weight: Array, weights: Array, means: Array, covariances: Array) -> Any:
        mixture = GaussianMixture.from_parameters(weights, means, covariances, covariance_type=covariance_type)
        return _scored(mixture, x, weight=weight), mixture.sample(5, rng=0), mixture.means, mixture.covariances

    return run


_EACH, _TOTALS = ("log_prob", "responsibilities", "predict"), ("score", "bic", "aic", "icl")
_CRITERIA = tuple(f"mixture.Mixture.{name}" for name in _TOTALS[1:])


def _scaled(weights: Array, means: Array, covariances: Array) -> GaussianMixture:
    """Weights are scaled to one, so that they have derivatives."""
    weights = weights / namespace(weights).sum(weights, axis=-1, keepdims=True)
    return GaussianMixture.from_parameters(weights, means, covariances, covariance_type="diag")


def _each(name: str) -> Callable[..., Array]:
    return lambda x, weight, *parameters: getattr(_scaled(*parameters), name)(x)


def _totals(x: Array, weight: Array, *parameters: Array) -> list[Array]:
    return [getattr(_scaled(*parameters), name)(x, sample_weight=weight) for name in _TOTALS]


def _gaussian_parameters(*parameters: Array) -> Any:
    mixture = _scaled(*parameters)
    return mixture.weights, mixture.means, mixture.covariances


def _count_parameters(kind: Any, *data: Any) -> Callable[..., Any]:
    """Parameters and what they say of counts; shares are scaled to one, so that they have derivatives."""

    def run(weights: Array, parameters: Array) -> Any:
        xp = namespace(weights)
        if kind is multinomial.MultinomialMixture:
            parameters = parameters / xp.sum(parameters, axis=-1, keepdims=True)
        mixture = kind.from_parameters(weights / xp.sum(weights, axis=-1, keepdims=True), parameters)
        return mixture.weights, mixture.log_prob(*(get(weights).from_numpy(np.asarray(x), weights) for x in data))

    return run


def _sampled(kind: Any, *trials: int, **options: Any) -> Callable[..., Any]:
    return lambda *parameters: kind.from_parameters(*parameters, **options).sample(5, *trials, rng=0)


def _clustered(rng: np.random.Generator) -> tuple[kmeans.KMeans, np.ndarray]:
    """Two clusters, and rows."""
    centroids = np.asarray([[-1.0, 0, 1], [1, 1, 0]])
    return kmeans.fit(centroids, 2, init=centroids, max_iter=0), rng.standard_normal((4, 3))


def _far(rng: np.random.Generator) -> tuple[kmeans.KMeans, np.ndarray]:
    """Two pairs of close clusters, 10^5 apart, and rows beside their centroids; float32 holds them."""
    centroids = np.asarray([[0.0], [1.0], [2.0**17], [2.0**17 + 1]])
    return kmeans.fit(centroids, 4, init=centroids, max_iter=0), centroids + 0.25


def _called(*names: str) -> Callable[..., Any]:
    return lambda clusters, x: [getattr(clusters, name)(x) for name in names]


def _saved(x: Array, weight: Array, weights: Array, means: Array, covariances: Array) -> Any:
    """Written to files and read again."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for mixture in (
            GaussianMixture.from_parameters(weights, means, covariances),
            poisson.PoissonMixture.from_parameters(weights, means),
        ):
            path = Path(folder) / "mixture.npz"
            mixture.save(path)
            loaded = Mixture.load(path, like=x)
            params = loaded.params
            if isinstance(loaded, GaussianMixture):  # the bound is the dtype's own, and what is in units of it
                spread = params.spread
                params = params._replace(spread=(spread.covariances, spread.factors, spread.log_det, spread.floored))
            found.append((params, loaded.model, loaded.n_iter))
    return found


def _binomial(heads: Array, trials: Array, weight: Array, labels: Array, probs: Array) -> Any:
    fitted = binomial.fit(heads, trials, 2, sample_weight=weight, init=probs, **_SHORT)
    return {**_history(fitted), "probs": fitted.probs}


def _binomial_scores(heads: Array, trials: Array, weight: Array, labels: Array, probs: Array) -> Any:
    mixture = binomial.BinomialMixture.from_parameters(probs, probs)
    return _scored(mixture, heads, trials, weight=weight), mixture.sample(5, 9, rng=0), mixture.probs


def _tossed(heads: Array, trials: Array, weight: Array, labels: Array, probs: Array) -> Any:
    known = binomial.fit_complete(heads, trials, labels, 2)
    return known.weights, known.probs


def _expected(heads: Array, trials: Array, probs: Array) -> Any:
    """Differentiable in the parameters."""
    weights = probs / namespace(probs).sum(probs, axis=-1, keepdims=True)
    mixture = binomial.BinomialMixture.from_parameters(weights, probs)
    return [binomial.expected_log_likelihood(mixture, heads, trials, constant=constant) for constant in (True, False)]


def _multinomial(x: Array, weight: Array, weights: Array, probs: Array) -> Any:
    fitted = multinomial.fit(x, 2, sample_weight=weight, weights=weights, init=probs, **_SHORT)
    return {**_history(fitted), "probs": fitted.probs}


def _multinomial_scores(x: Array, weight: Array, weights: Array, probs: Array) -> Any:
    mixture = multinomial.MultinomialMixture.from_parameters(weights, probs)
    return _scored(mixture, x, weight=weight), mixture.sample(5, 9, rng=0)


def _poisson(x: Array, weight: Array, weights: Array, rates: Array) -> Any:
    fitted = poisson.fit(x, 2, sample_weight=weight, init=rates, **_SHORT)
    return {**_history(fitted), "rates": fitted.rates}


def _poisson_scores(x: Array, weight: Array, weights: Array, rates: Array) -> Any:
    mixture = poisson.PoissonMixture.from_parameters(weights, rates)
    return _scored(mixture, x, weight=weight), mixture.sample(5, rng=0)


def _kmeans(x: Array, weight: Array, means: Array) -> Any:
    """Restarts of two problems, each to its end, which rounding may put off by a step."""
    found = kmeans.fit(x, 3, sample_weight=weight, n_init=3, rng=0)
    names = ("centroids", "labels", "inertia", "converged", "n_clusters")
    return {name: getattr(found, name) for name in names}, found.predict(x)


def _streamed(x: Array, weight: Array, means: Array) -> Any:
    """The same rows in three chunks."""
    found = kmeans.fit([x[start : start + 14, ...] for start in (0, 14, 28)], 3, n_init=2, max_iter=3, rng=0)
    return found.centroids, found.labels, found.trace, found.n_iter, found.status


def _own_model(x: Array, weight: Array, means: Array) -> Any:
    start = Moments(means[0, :], 0 * means[0, :] + 4)
    fit = em.fit(NORMAL, x, start, sample_weight=weight, chunk_size=10, max_iter=2)
    return fit, fit.converged


def _chosen(x: Array, weight: Array, means: Array) -> Any:
    choice = select.mixtures(x, 3, "spherical", sample_weight=weight, rng=0, **_SHORT)
    return choice.table, choice.best.means


ALGORITHMS = (
    *COUNTS,
    Case("family.distances", family.distances, normal((6, 3), (4, 3))),
    Case("family.nearest", family.nearest, normal((6, 3), (4, 3))),
    Case("family.is_count", family.is_count, lambda rng: (np.asarray([0, 1, 2.5, -1, np.nan, np.inf]),)),
    Case("family.as_real", family.as_real, normal((4,), (2,))),
    Case(
        "family.as_real", family.as_real, lambda rng: (rng.integers(0, 9, 4), rng.standard_normal(2)), variant="counts"
    ),
    Case("family.ratio", family.ratio, positive((3,), (3,), (3,))),
    Case(
        "family.ratio",
        family.ratio,
        lambda rng: (np.ones(3), np.asarray([2.0, 0, 4]), np.full(3, 7.0)),
        smooth=False,
        variant="by 0",
    ),
    Case("family.share", family.share, positive((2, 3))),
    Case(
        "family.share",
        family.share,
        lambda rng: (np.asarray([[2.0, 0, 4], [0, 0, 0]]),),
        smooth=False,
        variant="of nothing",
    ),
    Case("arrays.diagonal.weighted_sum", diagonal.weighted_sum, normal((2, 3, 4, 5), (2, 3, 5))),
    Case("arrays.diagonal.quadratic", diagonal.quadratic, normal((2, 3, 4), (2, 3, 4, 5))),
    Case("arrays.diagonal.log_peak", diagonal.log_peak, positive((2, 3, 4))),
    Case("em.fit", _own_model, draw_clusters),
    Case("gmm.fit", _gmm("full", **_THREE_STARTS), draw_problems, variant="two problems, 3 starts"),
    *(Case("gmm.fit", _gmm(kind), draw_clusters, variant=kind) for kind in ("tied", "diag", "spherical")),
    *(Case("gmm.GaussianMixture", _gaussian_scores(kind), draw_gaussians(kind), variant=kind) for kind in COVARIANCES),
    *(Case(f"mixture.Mixture.{name}", _each(name), draw_gaussians("diag")) for name in _EACH),
    Case(
        "mixture.Mixture.score",
        _totals,
        draw_gaussians("diag"),
        also=tuple(f"mixture.Mixture.{name}" for name in _TOTALS),
    ),
    Case("gmm.GaussianMixture.from_parameters", _gaussian_parameters, draw_parameters),
    Case(
        "gmm.GaussianMixture.sample",
        _sampled(GaussianMixture, covariance_type="diag"),
        draw_parameters,
    ),
    Case("mixture.Mixture.save", _saved, draw_gaussians("full")),
    Case("mixture.Mixture.load", _saved, draw_gaussians("full")),
    Case("binomial.fit", _binomial, draw_coins),
    Case("binomial.fit_complete", _tossed, draw_coins),
    Case("binomial.expected_log_likelihood", _expected, draw_tosses),
    Case("binomial.BinomialMixture", _binomial_scores, draw_coins),
    Case(
        "binomial.BinomialMixture.from_parameters",
        _count_parameters(binomial.BinomialMixture, [3, 0, 9], [9, 9, 9]),
        positive((2,), (2,)),
    ),
    Case("binomial.BinomialMixture.sample", _sampled(binomial.BinomialMixture, 9), draw_halves),
    Case("multinomial.fit", _multinomial, draw_documents),
    Case("multinomial.MultinomialMixture", _multinomial_scores, draw_documents),
    Case(
        "multinomial.MultinomialMixture.from_parameters",
        _count_parameters(multinomial.MultinomialMixture, [[3, 0], [1, 2]]),
        positive((2,), (2, 2)),
    ),
    Case(
        "multinomial.MultinomialMixture.sample",
        _sampled(multinomial.MultinomialMixture, 9),
        lambda rng: draw_documents(rng)[2:],
    ),
    Case("poisson.fit", _poisson, draw_counts),
    Case("poisson.PoissonMixture", _poisson_scores, draw_counts),
    Case(
        "poisson.PoissonMixture.from_parameters",
        _count_parameters(poisson.PoissonMixture, [[3, 0], [1, 2]]),
        positive((2,), (2, 2)),
    ),
    Case("poisson.PoissonMixture.sample", _sampled(poisson.PoissonMixture), lambda rng: draw_counts(rng)[2:]),
    Case("kmeans.fit", _kmeans, draw_problems, variant="two problems, 3 starts"),
    Case("kmeans.fit", _streamed, draw_clusters, variant="stream"),
    Case("kmeans.KMeans.predict", _called("predict"), _far, variant="close centroids far away"),
    Case("kmeans.KMeans.predict", _called("predict"), _clustered),
    Case("kmeans.KMeans.transform", lambda m, x: 1 / m.transform(x), _far, smooth=False, variant="far away"),
    Case("kmeans.KMeans.transform", _called("transform", "assign"), _clustered, also=("kmeans.KMeans.assign",)),
    Case("select.mixtures", _chosen, draw_clusters),
    *ROUTINGS,
)
"""What rests on the operations."""
