"""What the commands leave in a folder: files of which none is lost."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from emroute import plot
from emroute._figures import sizes_figure
from emroute._files import whole
from emroute.cli.libraries import host
from emroute.cli.options import Family, Format
from emroute.cli.report import NAMES, Report
from emroute.errors import InputError

__all__ = ["Results", "check_free", "drafts", "names_of", "table"]


def check_free(out: Path, names: Sequence[str], force: bool, source: Path | None = None) -> None:
    """Raise `InputError` if files of these names are there and may not be replaced; what is read never may."""
    there = [out / name for name in names if (out / name).exists()]
    if source is not None and source.exists() and any(path.samefile(source) for path in there):
        raise InputError(f"{source} is what is fitted, and would be replaced; choose another folder with --out")
    if there and not force:
        raise InputError(
            f"{', '.join(map(str, there))} would be replaced; choose another folder with --out, or add --force"
        )


@contextmanager
def drafts(out: Path, names: Sequence[str]) -> Iterator[list[Path]]:
    """Give drafts to write, which take the places of the files of a folder once all are on the disk."""
    with ExitStack() as stack:
        yield [stack.enter_context(whole(out / name)) for name in names]


def names_of(family: Family, format: Format, pictures: bool, several: bool) -> list[str]:
    """Name what a fit of a family may write."""
    kmeans, gmm = family is Family.kmeans, family is Family.gmm
    centres = {Family.kmeans: "centroids", Family.gmm: "means", Family.poisson: "rates"}.get(family, "probs")
    names = ["labels.csv", f"{'clusters' if kmeans else 'mixture'}.{format}", f"{centres}.csv", "columns.csv"]
    names += ["summary.txt", *["responsibilities.csv"] * (not kmeans), *["covariances.csv"] * gmm]
    names += ["criteria.csv"] * several
    if pictures:
        names += ["trace.png", *["criteria.png"] * several, *["uncertainty.png", "density.png"] * gmm]
        names += ["classification.png" if gmm else "pairs.png"] * (family is not Family.binomial)
    return names


@dataclass(frozen=True)
class Results:
    """A fit, and how each of its files is written."""

    report: Report
    format: Format
    pictures: bool

    def write(self, out: Path) -> None:
        """Write all files, or none."""
        job, grid = self.report.job, self.report.grid
        names = names_of(job.family, self.format, self.pictures, grid is not None)
        if len(job.names) != 2:
            names = [name for name in names if name != "density.png"]
        with drafts(out, names) as paths:
            for name, draft in zip(names, paths, strict=True):
                write: Callable[[Path, str], None] = getattr(self, f"_{Path(name).stem}")
                write(draft, out.name)

    def _labels(self, path: Path, folder: str) -> None:
        job = self.report.job
        table({"label": spread(job.labels(self.report.result), job.kept)}, path)

    def _responsibilities(self, path: Path, folder: str) -> None:
        job = self.report.job
        shares = host(self.report.result.responsibilities(*job.data))
        table({str(k): spread(share, job.kept) for k, share in enumerate(shares.T)}, path, decimals=6)

    def _mixture(self, path: Path, folder: str) -> None:
        self.report.result.save(path)

    _clusters = _mixture

    def _centroids(self, path: Path, folder: str) -> None:
        _, values = self.report.job.centres(self.report.result)
        table(dict(zip(self.report.job.names, values.T, strict=True)), path)

    def _means(self, path: Path, folder: str) -> None:
        job, result = self.report.job, self.report.result
        _, values = job.centres(result)
        columns = ["probability"] if job.family is Family.binomial else job.names
        first = {"component": np.arange(len(values)), "weight": host(result.weights)}
        table(first | dict(zip(columns, values.T, strict=True)), path)

    _probs = _rates = _means

    def _covariances(self, path: Path, folder: str) -> None:
        job = self.report.job
        matrices = job.covariances(self.report.result)
        k, d = matrices.shape[:2]
        first = {"component": np.repeat(np.arange(k), d), "column": np.tile(np.asarray(job.names), k)}
        table(first | dict(zip(job.names, matrices.reshape(k * d, d).T, strict=True)), path)

    def _columns(self, path: Path, folder: str) -> None:
        job = self.report.job
        columns: dict[str, Any] = {"column": np.asarray(job.names)}
        if job.scaling is not None:
            columns |= {"mean": job.scaling.mean, "deviation": job.scaling.deviation}
        table(columns, path)

    def _summary(self, path: Path, folder: str) -> None:
        text = io.StringIO()
        self.report.print(Console(file=text, width=80), folder)
        text.writelines(f"{note}\n" for note in self.report.notes)
        path.write_text(text.getvalue(), encoding="utf-8")

    def _criteria(self, path: Path, folder: str) -> None:
        grid: Any = self.report.grid
        if path.suffix == ".png":
            self._save(
                sizes_figure(grid.lines(), grid.best_place, str(NAMES.get(grid.criterion, grid.criterion))), path
            )
            return
        columns: dict[str, Any] = {"k": [each.k for each in grid.candidates]}
        if grid.candidates[0].kind is not None:
            columns["covariance_type"] = [each.kind for each in grid.candidates]
        columns |= {name: [each.figures[name] for each in grid.candidates] for name in grid.candidates[0].figures}
        columns["converged"] = [each.converged for each in grid.candidates]
        columns["floored"] = [len(each.floored) for each in grid.candidates]
        columns["best"] = [place == grid.index for place in range(len(grid.candidates))]
        table({name: np.asarray(values) for name, values in columns.items()}, path)

    def _trace(self, path: Path, folder: str) -> None:
        self._save(plot.trace(self.report.result), path)

    def _density(self, path: Path, folder: str) -> None:
        self._save(plot.density(self.report.result, *self._drawn()), path)

    def _pairs(self, path: Path, folder: str) -> None:
        x, names = self._drawn()
        self._save(plot.pairs(x, self.report.job.labels(self.report.result), names), path)

    def _classification(self, path: Path, folder: str) -> None:
        self._save(plot.classification(self.report.result, *self._drawn()), path)

    def _uncertainty(self, path: Path, folder: str) -> None:
        self._save(plot.uncertainty(self.report.result, *self._drawn()), path)

    def _drawn(self) -> tuple[Any, list[str]]:
        """Return the rows and the names of their columns, which say so where they are standardized."""
        job = self.report.job
        return job.x, [f"{name} (standardized)" if job.scaling else name for name in job.names]

    @staticmethod
    def _save(figure: Any, path: Path) -> None:
        figure.savefig(path)


def spread(values: np.ndarray, kept: np.ndarray | None) -> Any:
    """Return values of the rows that were kept as a column of all rows of the file, null for the others."""
    import polars as pl

    column = pl.Series(values)
    if kept is None:
        return column
    places = np.where(kept, np.cumsum(kept) - 1, 0)
    return pl.select(pl.when(pl.Series(kept)).then(column.gather(places))).to_series()


def table(columns: dict[str, Any], path: Any, decimals: int | None = None) -> None:
    """Write columns as a csv file; numbers are the shortest that read back, unless decimals are given, and gaps NA."""
    import polars as pl

    pl.DataFrame(columns).write_csv(path, null_value="NA", float_precision=decimals)
