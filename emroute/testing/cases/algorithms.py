"""Fits and fitted mixtures, and all algorithms together; NumPy itself says what is right: the tests compare it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from emroute import em, family, gmm, kmeans, poisson, select
from emroute.arrays import diagonal
from emroute.backend import Array, get, namespace
from emroute.gmm import GaussianMixture
from emroute.gmm.covariance import NAMED
from emroute.mixture import Mixture
from emroute.testing.cases.case import Case, normal, positive
from emroute.testing.cases.counts import COUNTS
from emroute.testing.cases.data import (
    draw_clusters,
    draw_gaussians,
    draw_parameters,
    draw_problems,
)
from emroute.testing.cases.families import FAMILIES, SHORT, history, sampled, scored
from emroute.testing.cases.models import NORMAL, Moments
from emroute.testing.cases.routings import ROUTINGS
from emroute.von_mises_fisher.bessel import log_bessel

__all__ = ["ALGORITHMS"]

_THREE_STARTS: dict[str, Any] = {"init": "k-means++", "n_init": 3, "rng": 0, "tol": 1e-3, "covariance_floor": 0.01}
"""A tolerance that separate clusters reach at once, and others not; a floor that both dtypes can have."""


def _gmm(covariance_type: str, **options: Any) -> Callable[..., Any]:
    def run(x: Array, weight: Array, means: Array) -> dict[str, Array]:
        given = {"init": means, **SHORT, **options}
        fitted = gmm.fit(x, 3, covariance_type=covariance_type, sample_weight=weight, **given)
        return {**history(fitted), "means": fitted.means, "covariances": fitted.covariances}

    return run


def _gaussian_scores(covariance_type: str) -> Callable[..., Any]:
    def run(x: Array, weight: Array, weights: Array, means: Array, covariances: Array) -> Any:
        mixture = GaussianMixture.from_parameters(weights, means, covariances, covariance_type=covariance_type)
        return scored(mixture, x, weight=weight), mixture.sample(5, rng=0), mixture.means, mixture.covariances

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


def _part(kind: str, find: Callable[[GaussianMixture, Array], GaussianMixture]) -> Callable[..., Any]:
    """Parameters of what becomes of a mixture when features are given, or left out."""

    def run(x: Array, weight: Array, weights: Array, means: Array, covariances: Array) -> Any:
        weights = weights / namespace(weights).sum(weights, axis=-1, keepdims=True)
        found = find(GaussianMixture.from_parameters(weights, means, covariances, covariance_type=kind), x)
        return found.weights, found.means, found.covariances

    return run


def _marginal(mixture: GaussianMixture, x: Array) -> GaussianMixture:
    return mixture.marginal([2, 0])


def _conditional(mixture: GaussianMixture, x: Array) -> GaussianMixture:
    return mixture.condition([1], x[..., 0, 1:2])


def _gappy(x: Array) -> Array:
    """Rows with gaps."""
    gaps = np.where((np.arange(3 * x.shape[-2]) % 5 == 0).reshape(-1, 3), np.nan, 0.0)
    return x + get(x).from_numpy(gaps, x)


def _imputed(x: Array, weight: Array, weights: Array, means: Array, covariances: Array) -> Array:
    return GaussianMixture.from_parameters(weights, means, covariances).impute(_gappy(x))


def _fit_gaps(x: Array, weight: Array, means: Array) -> Any:
    found = []
    for kind in ("full", "spherical"):
        options = {"covariance_type": kind, "missing": "marginalize", "sample_weight": weight, "init": means, **SHORT}
        fitted = gmm.fit(_gappy(x), 3, **options)
        found.append((history(fitted), fitted.means, fitted.covariances))
    return found


def _score_gaps(x: Array, weight: Array, *parameters: Array) -> Array:
    mixture = gmm.fit(_gappy(x), 3, missing="marginalize", init=parameters, tol=0.0, max_iter=0)
    return mixture.log_prob(_gappy(x))


def _fit_labels(x: Array, weight: Array, means: Array) -> Any:
    """From the means of labelled rows."""
    labels = get(x).from_numpy(np.where(np.arange(42) % 4 == 0, np.arange(42) % 3, -1), x)
    fitted = gmm.fit(x, 3, labels=labels, fixed=["weights"], sample_weight=weight, rng=0, **SHORT)
    return history(fitted), fitted.means, fitted.covariances


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


def _sorted(*parameters: Array) -> Any:
    """The heaviest component first, then by the first feature."""
    mixture = _scaled(*parameters)
    return [(each.weights, each.means, each.covariances) for each in (mixture.sorted(), mixture.sorted("means"))]


def _from_centroids(centroids: Array, x: Array) -> Any:
    """Given centroids, and what they say of rows after they were written to a file."""
    clusters = kmeans.KMeans.from_centroids(centroids)
    return clusters.centroids, clusters.transform(x)


def _saved_clusters(centroids: Array, x: Array) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clusters.npz"
        kmeans.KMeans.from_centroids(centroids).save(path)
        loaded = kmeans.KMeans.load(path, like=x)
    return loaded.params, loaded.model, loaded.n_iter, loaded.labels


def _kmeans(x: Array, weight: Array, means: Array) -> Any:
    """Restarts of two problems, each to its end, which rounding may put off by a step."""
    found = kmeans.fit(x, 3, sample_weight=weight, n_init=3, rng=0)
    names = ("centroids", "labels", "inertia", "converged", "n_clusters")
    return {name: getattr(found, name) for name in names}, found.predict(x)


def _alone(x: Array, weight: Array, means: Array) -> Any:
    """One problem from a given start, for a few steps."""
    found = kmeans.fit(x, 3, sample_weight=weight, init=means, max_iter=3)
    return found.centroids, found.labels, found.inertia, found.trace


def _streamed(x: Array, weight: Array, means: Array) -> Any:
    """The same rows in three chunks."""
    found = kmeans.fit([x[start : start + 14, ...] for start in (0, 14, 28)], 3, n_init=2, max_iter=3, rng=0)
    return found.centroids, found.labels, found.trace, found.n_iter, found.status


def _own_model(x: Array, weight: Array, means: Array) -> Any:
    start = Moments(means[0, :], 0 * means[0, :] + 4)
    fit = em.fit(NORMAL, x, start, sample_weight=weight, chunk_size=10, max_iter=2)
    return fit, fit.converged


def _chosen(x: Array, weight: Array, means: Array) -> Any:
    choice = select.mixtures(x, 3, "spherical", sample_weight=weight, rng=0, **SHORT)
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
    Case("von_mises_fisher.bessel.log_bessel", lambda square: log_bessel(1.0, 9 * square), positive((2, 3))),
    Case("arrays.diagonal.weighted_sum", diagonal.weighted_sum, normal((2, 3, 4, 5), (2, 3, 5))),
    Case("arrays.diagonal.quadratic", diagonal.quadratic, normal((2, 3, 4), (2, 3, 4, 5))),
    Case("arrays.diagonal.log_peak", diagonal.log_peak, positive((2, 3, 4))),
    Case("em.fit", _own_model, draw_clusters),
    Case("gmm.fit", _fit_gaps, draw_clusters, variant="gaps"),
    Case("gmm.fit", _fit_labels, draw_clusters, variant="labels"),
    Case("gmm.fit", _gmm("full", accelerate="squarem"), draw_clusters, variant="accelerated"),
    Case("gmm.fit", _gmm("full", **_THREE_STARTS), draw_problems, variant="two problems, 3 starts"),
    *(Case("gmm.fit", _gmm(kind), draw_clusters, variant=kind) for kind in ("tied", "diag", "spherical")),
    *(Case("gmm.fit", _gmm(kind), draw_clusters, variant=kind) for kind in ("EII", "EVI", "VEE", "EVE", "VEV")),
    *(Case("gmm.GaussianMixture", _gaussian_scores(kind), draw_gaussians(kind), variant=kind) for kind in NAMED),
    Case("mixture.Mixture.log_prob", _score_gaps, draw_gaussians("full"), smooth=False, variant="gaps"),
    *(Case(f"mixture.Mixture.{name}", _each(name), draw_gaussians("diag")) for name in _EACH),
    Case(
        "mixture.Mixture.score",
        _totals,
        draw_gaussians("diag"),
        also=tuple(f"mixture.Mixture.{name}" for name in _TOTALS),
    ),
    Case("gmm.GaussianMixture.from_parameters", _gaussian_parameters, draw_parameters),
    Case("mixture.Mixture.sorted", _sorted, draw_parameters),
    Case(
        "gmm.GaussianMixture.sample",
        sampled(GaussianMixture, covariance_type="diag"),
        draw_parameters,
    ),
    Case("gmm.GaussianMixture.impute", _imputed, draw_gaussians("full")),
    *(
        Case(
            f"gmm.GaussianMixture.{name}", _part(kind, find), draw_gaussians(kind), smooth=kind == "diag", variant=kind
        )
        for name, find in (("marginal", _marginal), ("condition", _conditional))
        for kind in ("full", "tied", "diag")
    ),
    Case("mixture.Mixture.save", _saved, draw_gaussians("full")),
    Case("mixture.Mixture.load", _saved, draw_gaussians("full")),
    *FAMILIES,
    Case("kmeans.fit", _kmeans, draw_problems, variant="two problems, 3 starts"),
    Case("kmeans.fit", _alone, draw_clusters, variant="one problem"),
    Case("kmeans.fit", _streamed, draw_clusters, variant="stream"),
    Case("kmeans.KMeans.predict", _called("predict"), _far, variant="close centroids far away"),
    Case("kmeans.KMeans.predict", _called("predict"), _clustered),
    Case("kmeans.KMeans.transform", lambda m, x: 1 / m.transform(x), _far, smooth=False, variant="far away"),
    Case("kmeans.KMeans.transform", _called("transform", "assign"), _clustered, also=("kmeans.KMeans.assign",)),
    Case("kmeans.KMeans.from_centroids", _from_centroids, normal((2, 3), (4, 3))),
    Case("kmeans.KMeans.save", _saved_clusters, normal((2, 3), (4, 3)), also=("kmeans.KMeans.load",)),
    Case("select.mixtures", _chosen, draw_clusters),
    *ROUTINGS,
)
"""What rests on the operations."""
