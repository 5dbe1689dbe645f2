"""What is computed on: the columns of a table, on their device, and how each family uses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from emroute import binomial, gmm, kmeans, multinomial, poisson
from emroute.backend import Array
from emroute.cli.files import Table, split_names
from emroute.cli.libraries import host
from emroute.cli.options import Family
from emroute.errors import InputError

__all__ = ["MODULES", "Job", "Rows", "Scaling", "choose_columns", "choose_rows"]

MODULES = {
    Family.gmm: gmm,
    Family.kmeans: kmeans,
    Family.binomial: binomial,
    Family.poisson: poisson,
    Family.multinomial: multinomial,
}


class Scaling(NamedTuple):
    """What columns are standardized by: ``(x - mean) / deviation``."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, weight: np.ndarray | None) -> Scaling:
        """Return means and standard deviations of columns; 1 in place of a deviation of 0."""
        mean = np.average(x, axis=0, weights=weight)
        deviation = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight))
        return cls(mean, np.where(deviation > 0, deviation, 1.0))

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Standardize rows."""
        return (x - self.mean) / self.deviation


class Rows(NamedTuple):
    """The numbers of a table that are used."""

    x: np.ndarray
    weight: np.ndarray | None
    kept: np.ndarray | None
    """``(n,)``: which rows of the file these are; None for all."""
    notes: tuple[str, ...]


def choose_columns(
    family: Family, table: Table, columns: str | None, weights: str | None, counts: tuple[str | None, str | None]
) -> tuple[list[str], tuple[str, ...]]:
    """Choose the columns to use, those named or all but weights and row numbers; of a binomial, heads and trials.

    Returns
    -------
    names
        The columns.
    notes
        What was decided on the user's behalf.
    """
    if columns is not None:
        return [table.find(name) for name in split_names(columns)], ()
    free = [name for name in table.names if name not in (weights, table.row_numbers)]
    if family is Family.binomial and (counts != (None, None) or len(free) != 2 or set(free) == {"heads", "trials"}):
        heads, trials = counts
        return [heads or "heads", trials or "trials"], ()
    if not free:
        raise InputError("there is no column beside the weights")
    if table.row_numbers is None:
        return free, ()
    named = f"column {table.row_numbers!r}" if table.row_numbers else "the column without a name"
    return free, (f"{table.file}: {named} holds row numbers and is left out; --columns would take it",)


def choose_rows(table: Table, names: list[str], weights: str | None, drop_missing: bool, gaps: bool = False) -> Rows:
    """Take columns, and the weights of rows.

    `drop_missing` leaves out the rows that have gaps in any of them; `gaps` lets columns have some.
    """
    kept, notes = None, ()
    if drop_missing:
        n = len(table.values)
        table, kept = table.complete([*names, *([] if weights is None else [weights])])
        gone = n - int(kept.sum())
        notes = (f"{table.file}: {gone:,} of {n:,} rows have missing numbers and are left out",) if gone else ()
        kept = kept if gone else None
    x, weight = table.take(names, gaps=gaps), None
    if weights is not None:
        weight = table.take([weights], "weights are numbers; name another --weights-column")[:, 0]
    return Rows(x, weight, kept, notes)


@dataclass(frozen=True)
class Job:
    """Rows on their device, and what a family makes of them."""

    family: Family
    names: list[str]
    x: Array
    weight: Array | None = None
    scaling: Scaling | None = None
    kept: np.ndarray | None = None

    @property
    def data(self) -> tuple[Array, ...]:
        """What the methods of a mixture take."""
        return (self.x[:, 0], self.x[:, 1]) if self.family is Family.binomial else (self.x,)

    def fit(self, k: int, **options: Any) -> Any:
        """Fit `k` components or clusters."""
        return MODULES[self.family].fit(*self.data, k, sample_weight=self.weight, **options)

    def labels(self, result: Any) -> np.ndarray:
        """Return the component or cluster of each row."""
        return host(result.labels if self.family is Family.kmeans else result.predict(*self.data))

    def centres(self, result: Any) -> tuple[str, np.ndarray]:
        """Return what each component has for each column, ``(k, d)`` in the file's units, and what that is called."""
        name = {Family.gmm: "means", Family.kmeans: "centroids", Family.poisson: "rates"}.get(self.family, "probs")
        values = host(getattr(result, name))
        if self.scaling is not None:
            values = values * self.scaling.deviation + self.scaling.mean
        return name, values.reshape(values.shape[0], -1)

    def covariances(self, result: Any) -> np.ndarray:
        """Return the covariance matrix of each Gaussian, ``(k, d, d)`` in the file's units."""
        k, d = result.n_components, len(self.names)
        matrices = result.model.covariance.dense(host(result.covariances), k, d)
        if self.scaling is not None:
            matrices = matrices * self.scaling.deviation[:, None] * self.scaling.deviation
        return matrices
