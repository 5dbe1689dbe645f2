"""The tables that a fit prints, and keeps as ``summary.txt``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console

from emroute._criteria import criteria_of
from emroute._engine.status import figure
from emroute.cli.grid import Grid
from emroute.cli.job import Job
from emroute.cli.libraries import host
from emroute.cli.options import Family
from emroute.cli.show import facts, show
from emroute.em import Status
from emroute.remarks import places

__all__ = ["NAMES", "Report", "in_options"]

NAMES = {"bic": "BIC", "aic": "AIC", "icl": "ICL"}
"""Criteria as they are printed."""
_OPTIONS = ("max_iter", "n_init", "covariance_type", "covariance_floor", "tol")


def in_options(remark: str) -> str:
    """Return a remark in which parameters are called as the options are.

    >>> in_options("raise max_iter or tol"), in_options("try more, or criterion='icl'")
    ('raise --max-iter or --tol', 'try more, or --criterion icl')
    """
    remark = remark.replace("criterion='icl'", "--criterion icl")
    return re.sub(rf"\b({'|'.join(_OPTIONS)})\b", lambda name: f"--{name[0].replace('_', '-')}", remark)


@dataclass(frozen=True)
class Report:
    """A fit in words and numbers."""

    job: Job
    result: Any
    title: str
    """Where the rows are from, how many, and where they were fitted."""
    seconds: float
    floor: float
    """The covariance floor, of Gaussians."""
    grid: Grid | None = None
    notes: list[str] = field(default_factory=list)

    def print(self, console: Console, folder: str) -> None:
        """Print all tables; `folder` says where what does not fit can be found."""
        if self.grid is not None:
            self._sizes(console, self.grid, folder)
        self._components(console, folder)
        facts(console, "Fit", self._facts().items())

    def _sizes(self, console: Console, grid: Grid, folder: str) -> None:
        kinds = len({candidate.kind for candidate in grid.candidates}) > 1
        names = [grid.criterion, *(name for name in grid.candidates[0].figures if name != grid.criterion)]
        best = grid.candidates[grid.index]
        rows = []
        for candidate in grid.candidates:
            remarks = ["best"] * (candidate is best) + ["floored"] * bool(candidate.floored)
            remarks += ["not converged"] * (not candidate.converged)
            figures = [figure(candidate.figures[name], 2) for name in names]
            rows.append((str(candidate.k), *[candidate.kind] * kinds, ", ".join(remarks), *figures))
        headers = ["k", *["covariances"] * kinds, "", *(NAMES.get(name, name) for name in names)]
        title = f"How many components, by {NAMES.get(grid.criterion, grid.criterion)}"
        show(console, title, headers, rows, folder and f"{folder}/criteria.csv has them")

    def _components(self, console: Console, folder: str) -> None:
        name, centres = self.job.centres(self.result)
        if self.job.family is Family.kmeans:
            what, share = "clusters", "rows"
            shares = np.bincount(self.job.labels(self.result), minlength=self.result.n_clusters).tolist()
        else:
            what, share, shares = "components", "weight", host(self.result.weights).tolist()
        columns = ["probability"] if self.job.family is Family.binomial else self.job.names
        rows = [
            (str(place), part, *centre)
            for place, (part, centre) in enumerate(zip(shares, centres.tolist(), strict=True))
        ]
        title = f"{self.title}: {what}"
        show(console, title, ["", share, *columns], rows, folder and f"{folder}/{name}.csv has them")

    def _facts(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        result, job = self.result, self.job
        if job.family is Family.kmeans:
            found["inertia"] = float(result.inertia)
        else:
            found["log-likelihood"] = figure(float(result.log_likelihood))
            found["per row"] = float(result.score(*job.data, sample_weight=job.weight))
            criterion = "bic" if self.grid is None else self.grid.criterion
            value = criteria_of(result, *job.data, sample_weight=job.weight, names=(criterion,))[criterion]
            found[NAMES[criterion]] = figure(value, 4)
        if job.family is Family.gmm:
            found["floor"] = self._floor()
        found["iterations"] = int(result.n_iter)
        converged = Status(int(result.status)) is Status.CONVERGED
        found["status"] = "converged" if converged else "not converged; raise --max-iter or --tol"
        if self.grid is not None and self.grid.at_the_edge:
            found["size"] = "the largest -k tried is best; try more"
        found["seconds"] = f"{self.seconds:.3f}"
        return found

    def _floor(self) -> str:
        """Say what the floor of the covariances is, and which components rest on it."""
        floor = f"{self.floor:g} of the columns' squared widths"
        if not (floored := places(self.result.floored)):
            return f"{floor}; no component rests on it"
        listed, one = ", ".join(map(str, floored)), len(floored) == 1
        rest = f"component {listed} rests" if one else f"components {listed} rest"
        width = f"as if {'it were' if one else 'they were'} as wide as the columns"
        return f"{floor}; {rest} on it, and the criteria are computed {width}"
