"""``emroute fit``: a mixture or a clustering of the rows of a file."""

from __future__ import annotations

import csv
import re
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.text import Text

from emroute import binomial, gmm, kmeans, plot, select
from emroute.backend import Array
from emroute.cli.files import Table, read, split_names
from emroute.cli.libraries import Library, anchor, host, need, put
from emroute.cli.options import CovarianceType, Criterion, Dtype, Family, Format, Missing
from emroute.cli.results import check_free, drafts
from emroute.cli.show import is_terminal, show
from emroute.em import Status
from emroute.errors import EmrouteError, FitWarning, InputError

__all__ = ["Family", "fit"]

_SHOWN = 5  # features that the table and the pair plot show


def fit(
    family: Annotated[Family, typer.Argument(metavar="gmm|kmeans|binomial", help="What to fit.", show_default=False)],
    file: Annotated[
        Path, typer.Argument(help="A csv, tsv, txt, parquet, npy or npz file, an observation a row, from row 0.")
    ],
    k: Annotated[
        str,
        typer.Option(
            "-k",
            "--n-components",
            metavar="K",
            help="How many components or clusters; of gmm also several to choose from, 1-6 or 2,3,5.",
            show_default=False,
        ),
    ],
    criterion: Annotated[
        Criterion | None, typer.Option(help="By what to choose among several -k; bic by default.")
    ] = None,
    backend: Annotated[Library, typer.Option(help="The array library to fit on.")] = Library.numpy,
    device: Annotated[str | None, typer.Option(help="Its device, such as cpu or cuda:0.")] = None,
    dtype: Annotated[Dtype | None, typer.Option(help="By default the file's, or float64.")] = None,
    covariance_type: Annotated[
        CovarianceType | None, typer.Option(help="Gaussians only; full by default, all to choose.")
    ] = None,
    missing: Annotated[
        Missing | None, typer.Option(help="Gaussians only: NaN are refused, or gaps over which densities are summed.")
    ] = None,
    n_init: Annotated[int, typer.Option(min=1, help="Restarts; the best is kept.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the random starts; the same seed gives the same fit.")] = 0,
    tol: Annotated[float | None, typer.Option(help="Change of the objective a row that counts as rest.")] = None,
    max_iter: Annotated[int | None, typer.Option(min=0, help="The most iterations.")] = None,
    columns: Annotated[
        str | None, typer.Option(help="Columns to fit, a,b,c; in npy files 0,1,2. A name with a comma is quoted.")
    ] = None,
    weights_column: Annotated[str | None, typer.Option(help="A column of weights of the rows.")] = None,
    heads: Annotated[str | None, typer.Option(help="Binomials: the column of successes.")] = None,
    trials: Annotated[str | None, typer.Option(help="Binomials: the column of trials.")] = None,
    key: Annotated[str | None, typer.Option(help="Which array of an npz file.")] = None,
    header: Annotated[
        bool | None,
        typer.Option("--header/--no-header", help="Whether the first line of text names the columns; else guessed."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A folder to write labels and parameters to.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files of earlier fits in --out.")] = False,
    format: Annotated[Format, typer.Option(help="Of the mixture in --out.")] = Format.npz,
    pictures: Annotated[bool, typer.Option("--plot", help="Also draw pictures to --out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Fit a Gaussian mixture, k-means or a binomial mixture to the rows of a file."""
    sizes = _sizes(k)
    asked = {"criterion": criterion, "covariance_type": covariance_type, "columns": columns}
    asked |= {"missing": missing, "counts": heads or trials, "out": out, "pictures": pictures}
    _check_options(family, sizes, **asked)
    if format is Format.safetensors:
        need("safetensors", "cli", "--format safetensors")
    if out is not None:
        check_free(out, _files(family, format, pictures), force, file)
    table = read(file, key, header)
    weights_column = None if weights_column is None else table.find(weights_column)
    names = _columns(family, table, columns, weights_column, (heads, trials))
    x = table.take(names, gaps=missing is Missing.marginalize)
    dtype = dtype or (Dtype.float32 if x.dtype.kind == "f" and x.dtype.itemsize <= 4 else Dtype.float64)
    like = anchor(backend, device, dtype)
    # NumPy takes the array as it is, so that a mapped file of this dtype is read in chunks and never copied
    x = put(np.asarray(x, dtype=dtype), like)
    weight = None
    if weights_column is not None:
        weight = table.take([weights_column], "weights are numbers; name another --weights-column")[:, 0]
        weight = put(np.asarray(weight, dtype=dtype), like)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made is told before the fit, not after it
    job = _Job(family, names, x, weight)
    given = {"tol": tol, "max_iter": max_iter, "covariance_type": covariance_type and str(covariance_type)}
    given |= {"missing": missing and str(missing)}
    options = {"n_init": n_init, "rng": seed, **{name: value for name, value in given.items() if value is not None}}
    start, choice = time.perf_counter(), None
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", FitWarning)
        if not _chooses(sizes, covariance_type):
            result = job.fit(sizes[0], progress=not quiet and is_terminal(), **options)
        else:
            options = {"covariance_type": "full", "criterion": criterion or "bic", **options}
            choice = select.mixtures(x, sizes, sample_weight=weight, **options)
            result = choice.best
        seconds = time.perf_counter() - start
        if int(result.status) == Status.NON_FINITE:
            raise EmrouteError(f"iteration {int(result.n_iter) + 1} met a number that is not finite; scale the data")
        try:
            if out is not None:
                job.write(out, result, format, pictures)
        finally:  # words are for eyes, and whoever reads them may have left: files come first, whatever becomes of them
            if not quiet:
                for remark in (*table.assumed, *(warning.message for warning in told)):
                    typer.echo(f"emroute: {remark}", err=True)
                where = f"{file.name}: {x.shape[0]} rows, {dtype} on {backend}{f' ({device})' if device else ''}"
                console = Console()
                if choice is not None:
                    console.print(Text(f"{choice}\n"), soft_wrap=True)
                job.show(console, result, where, seconds)


def _files(family: Family, format: Format, pictures: bool) -> list[str]:
    """Name what a fit may write."""
    names = ["labels.csv", "centroids.csv" if family is Family.kmeans else f"mixture.{format}"]
    if pictures:
        names += ["trace.png", *(["pairs.png"] if family is not Family.binomial else [])]
        names += ["density.png"] if family is Family.gmm else []
    return names


def _sizes(text: str) -> list[int]:
    """Read ``3``, ``1-6`` or ``2,3,5``.

    >>> _sizes("3"), _sizes("1-3,8")
    ([3], [1, 2, 3, 8])
    """
    sizes: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,7})\s*(?:-\s*([0-9]{1,7})\s*)?", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= first <= last:
            raise InputError(f"got -k {text}, expected a number of at least 1, or several: 1-6 or 2,3,5")
        sizes += range(first, last + 1)
    return sizes


def _chooses(sizes: list[int], covariance_type: CovarianceType | None) -> bool:
    """Whether there are several mixtures to choose from."""
    return len(sizes) > 1 or covariance_type is CovarianceType.all


def _check_options(family: Family, sizes: list[int], **asked: Any) -> None:
    """Raise `InputError` for options that do not go together."""
    if len(sizes) > 1 and family is not Family.gmm:
        raise InputError(f"to choose -k among several is for gmm, got {family}; give one number")
    if asked["criterion"] is not None and not _chooses(sizes, asked["covariance_type"]):
        raise InputError("--criterion chooses among several: -k 1-6 or -k 2,3,5, or --covariance-type all")
    if asked["covariance_type"] is not None and family is not Family.gmm:
        raise InputError(f"--covariance-type is for gmm, got {family}")
    if asked["missing"] is not None and family is not Family.gmm:
        raise InputError(f"--missing is for gmm, got {family}")
    if asked["counts"] is not None and family is not Family.binomial:
        raise InputError(f"--heads and --trials are for binomial, got {family}")
    if asked["columns"] is not None and family is Family.binomial:
        raise InputError("--columns is for gmm and kmeans; name the columns of a binomial with --heads and --trials")
    if asked["pictures"]:
        if asked["out"] is None:
            raise InputError("--plot draws to a folder; name one with --out")
        need("matplotlib", "plot", "--plot")


def _columns(
    family: Family, table: Table, columns: str | None, weights: str | None, counts: tuple[str | None, str | None]
) -> list[str]:
    """Choose the columns to fit: those named, or all but the weights; of a binomial, heads and trials."""
    if columns is not None:
        return [table.find(name) for name in split_names(columns)]
    free = [name for name in table.names if name != weights]
    if family is not Family.binomial:
        if not free:
            raise InputError("there is no column beside the weights")
        return free
    if counts == (None, None) and len(free) == 2 and set(free) != {"heads", "trials"}:
        return free
    heads, trials = counts
    return [heads or "heads", trials or "trials"]


@dataclass(frozen=True)
class _Job:
    """A table on its device, and how each family fits, shows and writes it."""

    family: Family
    names: list[str]
    x: Array
    weight: Array | None

    @property
    def data(self) -> tuple[Array, ...]:
        """What the methods of a mixture take."""
        return (self.x[:, 0], self.x[:, 1]) if self.family is Family.binomial else (self.x,)

    def fit(self, k: int, **options: Any) -> Any:
        module = {Family.gmm: gmm, Family.kmeans: kmeans, Family.binomial: binomial}[self.family]
        return module.fit(*self.data, k, sample_weight=self.weight, **options)

    def labels(self, result: Any) -> Array:
        return result.labels if self.family is Family.kmeans else result.predict(*self.data)

    def show(self, console: Console, result: Any, where: str, seconds: float) -> None:
        facts: dict[str, Any] = {}
        names = self.names[:_SHOWN]
        if self.family is Family.kmeans:
            title, share, centres = "clusters", "rows", host(result.centroids)
            shares = np.bincount(host(result.labels), minlength=result.n_clusters).tolist()
            facts["inertia"] = float(result.inertia)
        else:
            title, share, shares = "components", "weight", host(result.weights).tolist()
            if self.family is Family.binomial:
                names, centres = ["probability"], host(result.probs)[:, None]
            else:
                centres = host(result.means)
            log_likelihood = float(result.log_likelihood)
            facts["log-likelihood"] = f"{log_likelihood:.6f}"
            facts["a row"] = float(result.score(*self.data, sample_weight=self.weight))
            facts["BIC"] = f"{float(result.bic(*self.data, sample_weight=self.weight)):.4f}"
        pairs = enumerate(zip(shares, centres, strict=True))
        rows = [(str(place), part, *centre[:_SHOWN].tolist()) for place, (part, centre) in pairs]
        show(console, f"{where}: {title}", ["", share, *names], rows)
        if self.family is not Family.binomial and len(self.names) > _SHOWN:
            console.print(f"and {len(self.names) - _SHOWN} more columns\n")
        facts["iterations"] = int(result.n_iter)
        converged = Status(int(result.status)) is Status.CONVERGED
        facts["status"] = "converged" if converged else "not converged; raise --max-iter"
        facts["seconds"] = f"{seconds:.3f}"
        show(console, "fit", ["", ""], facts.items())

    def write(self, out: Path, result: Any, format: Format, pictures: bool) -> None:
        """Write ``labels.csv``, the mixture or ``centroids.csv``, and pictures: all of them, or none."""
        names = [
            name for name in _files(self.family, format, pictures) if name != "density.png" or len(self.names) == 2
        ]
        with drafts(out, names) as (labels, parameters, *figures):
            np.savetxt(labels, host(self.labels(result)), fmt="%d", header="label", comments="")
            if self.family is Family.kmeans:
                self._write_centroids(parameters, result)
            else:
                result.save(parameters)
            for draft, figure in zip(figures, self._draw(result), strict=False):  # in this order none is drawn in vain
                figure.savefig(draft)

    def _write_centroids(self, path: Path, result: Any) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(self.names)
            rows.writerows([str(value) for value in row] for row in host(result.centroids))  # shortest that reads back

    def _draw(self, result: Any) -> Iterator[Any]:
        """Draw the trace, points in pairs, and the density of Gaussians in the plane, in the order of `_files`."""
        yield plot.trace(result)
        names = self.names[:_SHOWN]
        yield plot.pairs(self.x[:, :_SHOWN], self.labels(result), names)
        yield plot.density(result, self.x, self.names)
