"""Fits of several sizes, and the best of them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from emroute import kmeans, select
from emroute._criteria import criteria_of
from emroute._progress import bar
from emroute.cli.job import Job
from emroute.cli.options import Family
from emroute.errors import FitWarning
from emroute.remarks import places

__all__ = ["Candidate", "Grid", "fit_grid", "fit_one"]

_VARIANCE_RATIO = "variance ratio"


class Candidate(NamedTuple):
    """One fit of several."""

    k: int
    kind: str | None
    """The covariance type of Gaussians."""
    figures: dict[str, float]
    """The log-likelihood and the criteria, or the inertia and the ratio of variances, by name."""
    converged: bool
    floored: list[int]
    """Components on the floor of the covariances."""


@dataclass(frozen=True)
class Grid:
    """Fits of several sizes, and the best of them."""

    criterion: str
    candidates: list[Candidate]
    results: list[Any]
    index: int
    """Which is best."""
    remarks: list[str]
    """What a user should know of the best."""

    @property
    def best(self) -> Any:
        """The best fit."""
        return self.results[self.index]

    def lines(self) -> dict[str, tuple[list[int], list[float]]]:
        """Return sizes and their criteria, of each covariance type."""
        lines: dict[str, tuple[list[int], list[float]]] = {}
        for each in self.candidates:
            sizes, values = lines.setdefault(each.kind or "", ([], []))
            sizes.append(each.k)
            values.append(each.figures[self.criterion])
        return lines

    @property
    def best_place(self) -> tuple[int, float]:
        """The size of the best, and its criterion."""
        best = self.candidates[self.index]
        return best.k, best.figures[self.criterion]

    @property
    def at_the_edge(self) -> bool:
        """Whether the best is the largest of several."""
        sizes = [candidate.k for candidate in self.candidates]
        return min(sizes) < max(sizes) == sizes[self.index]


def fit_grid(job: Job, sizes: list[int], criterion: str, options: dict[str, Any]) -> Grid:
    """Fit every size, Gaussians with every covariance type, and choose.

    Mixtures are chosen by an information criterion. Clusterings are chosen by the variance ratio of Calinski and
    Harabasz (1974), the greatest ((T - W) / (k - 1)) / (W / (n - k)), with W the inertia and T that of one cluster.
    """
    if job.family is Family.gmm:
        return _gaussians(job, sizes, criterion, options)
    results, candidates, remarks = [], [], []
    total, rows = 0.0, 0.0
    if job.family is Family.kmeans:
        total = float(kmeans.fit(job.x, 1, sample_weight=job.weight).inertia)
        rows = float(job.x.shape[0] if job.weight is None else job.weight.sum())
    shown, options = options["progress"], options | {"progress": False}  # one bar, of all fits
    with bar(shown, len(sizes), job.family) as advance:
        for k in sizes:
            result, told = fit_one(job, k, **options)
            if job.family is Family.kmeans:
                inertia = float(result.inertia)
                figures = {"inertia": inertia, _VARIANCE_RATIO: _variance_ratio(total, inertia, rows, k)}
            else:
                figures = {"log-likelihood": float(result.log_likelihood)}
                figures |= criteria_of(result, *job.data, sample_weight=job.weight)
            candidates.append(Candidate(k, None, figures, bool(result.converged), []))
            results.append(result)
            remarks.append(told)
            advance(f"k = {k}")
    if job.family is Family.kmeans:
        criterion, index = _VARIANCE_RATIO, int(np.argmax([each.figures[_VARIANCE_RATIO] for each in candidates]))
    else:
        index = int(np.argmin([each.figures[criterion] for each in candidates]))
    return Grid(criterion, candidates, results, index, remarks[index])


def fit_one(job: Job, k: int, **options: Any) -> tuple[Any, list[str]]:
    """Return a fit, and what it warns of."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", FitWarning)
        result = job.fit(k, **options)
    return result, [str(warning.message) for warning in told]


def _gaussians(job: Job, sizes: list[int], criterion: str, options: dict[str, Any]) -> Grid:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", FitWarning)
        choice = select.mixtures(job.x, sizes, criterion=criterion, sample_weight=job.weight, **options)
    candidates = []
    for row, mixture in zip(choice.table, choice.mixtures, strict=True):
        figures = {"log-likelihood": row.log_likelihood, "bic": row.bic, "aic": row.aic, "icl": row.icl}
        floored = places(mixture.floored)
        candidates.append(Candidate(row.n_components, row.covariance_type, figures, row.converged, floored))
    remarks = [str(warning.message) for warning in told]
    return Grid(criterion, candidates, list(choice.mixtures), choice.index, remarks)


def _variance_ratio(total: float, inertia: float, rows: float, k: int) -> float:
    """Return the criterion of Calinski and Harabasz; nothing speaks for one cluster, or for as many as rows."""
    if k == 1 or rows <= k:
        return 0.0
    return (total - inertia) / (k - 1) / (inertia / (rows - k)) if inertia else float("inf")
