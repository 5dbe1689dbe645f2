"""``emroute fit``: a mixture or a clustering of the rows of a file."""

from __future__ import annotations

import inspect
import re
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from emroute.cli.files import read
from emroute.cli.grid import Grid, fit_grid, fit_one
from emroute.cli.job import MODULES, Job, Scaling, choose_columns, choose_rows
from emroute.cli.libraries import Library, anchor, need, put
from emroute.cli.options import (
    Backend,
    Columns,
    Criterion,
    Device,
    DropMissing,
    Dtype,
    Family,
    File,
    Force,
    Format,
    Header,
    Heads,
    Key,
    Missing,
    Trials,
    covariance_types,
)
from emroute.cli.report import Report, in_options
from emroute.cli.results import Results, check_free, names_of
from emroute.cli.show import is_terminal
from emroute.cli.text import name_of
from emroute.em import Status
from emroute.errors import EmrouteError, InputError

__all__ = ["Family", "fit"]


def fit(
    family: Annotated[Family, typer.Argument(metavar="family", help="What to fit.", show_default=False)],
    file: File,
    k: Annotated[
        str,
        typer.Option(
            "-k",
            "--n-components",
            metavar="K",
            help="How many components or clusters; or several to choose from, 1-6 or 2,3,5.",
            show_default=False,
        ),
    ],
    criterion: Annotated[
        Criterion | None,
        typer.Option(help="How to choose among several mixtures; the lowest is best.", show_default="bic"),
    ] = None,
    covariance_type: Annotated[
        str | None,
        typer.Option(
            help="gmm: full, tied, diag, spherical or a code such as VVE; full,VVE or all to choose among several.",
            show_default="full",
        ),
    ] = None,
    covariance_floor: Annotated[
        float | None,
        typer.Option(help="gmm: the least variance, in units of each column's squared width.", show_default="1e-6"),
    ] = None,
    n_init: Annotated[int, typer.Option(min=1, metavar="N", help="Number of starts; the best fit is kept.")] = 1,
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Seed of the random starts; the same seed gives the same fit.")
    ] = 0,
    tol: Annotated[
        float | None,
        typer.Option(
            help="Stop when the mean log-likelihood per row (kmeans: the inertia) improves by no more than this.",
            show_default="1e-6; kmeans: 0",
        ),
    ] = None,
    max_iter: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Largest number of iterations.", show_default="1000; kmeans: 300"),
    ] = None,
    columns: Columns = None,
    weights_column: Annotated[str | None, typer.Option(help="Column of row weights.", show_default="none")] = None,
    heads: Heads = None,
    trials: Trials = None,
    drop_missing: DropMissing = False,
    missing: Annotated[
        Missing | None,
        typer.Option(
            help="gmm: refuse missing numbers, or fit rows by the numbers that they have.", show_default="refuse"
        ),
    ] = None,
    standardize: Annotated[
        bool, typer.Option("--standardize", help="gmm, kmeans: give each column mean 0 and variance 1 for the fit.")
    ] = False,
    key: Key = None,
    header: Header = None,
    backend: Backend = Library.numpy,
    device: Device = None,
    dtype: Annotated[
        Dtype | None, typer.Option(help="Precision of the fit.", show_default="the file's, or float64")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write labels and parameters to.", show_default="none")
    ] = None,
    force: Force = False,
    format: Annotated[Format, typer.Option(help="Format of the saved fit in --out.")] = Format.npz,
    pictures: Annotated[bool, typer.Option("--plot", help="Also draw pictures to --out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Fit a mixture model or k-means to the rows of a file."""
    sizes, kinds = _sizes(k), covariance_types(covariance_type or "full")
    several = len(sizes) * len(kinds) > 1
    asked = {"criterion": criterion, "covariance_type": covariance_type, "covariance_floor": covariance_floor}
    asked |= {
        "missing": missing,
        "columns": columns,
        "counts": heads or trials,
        "standardize": standardize,
        "out": out,
        "plot": pictures,
    }
    _check_options(family, several, asked)
    if format is Format.safetensors:
        need("safetensors", "cli", "--format safetensors")
    if out is not None:
        need("polars", "cli", "--out")
        check_free(out, names_of(family, format, pictures, several), force, file)
    table = read(file, key, header)
    weights = None if weights_column is None else table.find(weights_column)
    names, notes = choose_columns(family, table, columns, weights, (heads, trials))
    rows = choose_rows(table, names, weights, drop_missing, gaps=missing is Missing.marginalize)
    scaling = Scaling.of(rows.x, rows.weight) if standardize else None
    dtype = dtype or (Dtype.float32 if rows.x.dtype.kind == "f" and rows.x.dtype.itemsize <= 4 else Dtype.float64)
    like = anchor(backend, device, dtype)
    # NumPy takes the array as it is, so that a mapped file of this dtype is read in chunks and never copied
    x = put(np.asarray(rows.x if scaling is None else scaling.apply(rows.x), dtype=dtype), like)
    weight = None if rows.weight is None else put(np.asarray(rows.weight, dtype=dtype), like)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be made is told before the fit, not after it
    job = Job(family, names, x, weight, scaling, rows.kept)
    given = {
        "tol": tol,
        "max_iter": max_iter,
        "covariance_floor": covariance_floor,
        "missing": missing and str(missing),
    }
    options = {"n_init": n_init, "rng": seed, **{name: value for name, value in given.items() if value is not None}}
    progress = not quiet and is_terminal()
    start = time.perf_counter()
    result, grid, remarks = _fitted(job, sizes, kinds, str(criterion or "bic"), {**options, "progress": progress})
    seconds = time.perf_counter() - start
    if int(result.status) == Status.NON_FINITE:
        raise EmrouteError(f"iteration {int(result.n_iter) + 1} met a number that is not finite; scale the data")
    told = [*table.assumed, *notes, *rows.notes, *map(in_options, remarks)]
    where = f"{Path(name_of(file)).name}: {x.shape[0]:,} rows, {dtype} on {backend}{f' ({device})' if device else ''}"
    floor = covariance_floor if covariance_floor is not None else _default(family, "covariance_floor")
    report = Report(job, result, where, seconds, floor, grid, told)
    try:
        if out is not None:
            Results(report, format, pictures).write(out)
    finally:  # words are for eyes, and whoever reads them may have left: files come first, whatever becomes of them
        if not quiet:
            for remark in told:
                typer.echo(f"emroute: {remark}", err=True)
            report.print(Console(), str(out or ""))


def _fitted(
    job: Job, sizes: list[int], kinds: list[str], criterion: str, options: dict[str, Any]
) -> tuple[Any, Grid | None, list[str]]:
    """Return the fit, or the best of several and the grid of these, and what is to be said of it."""
    gaussian = job.family is Family.gmm
    if len(sizes) * len(kinds) == 1:
        result, remarks = fit_one(job, sizes[0], **options | ({"covariance_type": kinds[0]} if gaussian else {}))
        return result, None, remarks
    grid = fit_grid(job, sizes, criterion, options | ({"covariance_type": kinds} if gaussian else {}))
    return grid.best, grid, grid.remarks


def _default(family: Family, option: str) -> Any:
    """Return the default of a parameter of a family's `fit`; None where it has no such parameter."""
    parameter = inspect.signature(MODULES[family].fit).parameters.get(option)
    return parameter and parameter.default


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


def _check_options(family: Family, several: bool, asked: dict[str, Any]) -> None:
    """Raise `InputError` for options that do not go together."""
    for name in ("covariance_type", "covariance_floor", "missing"):
        if asked[name] is not None and family is not Family.gmm:
            raise InputError(f"--{name.replace('_', '-')} is for gmm, got {family}")
    if asked["criterion"] is not None and family is Family.kmeans:
        raise InputError("--criterion is for mixtures; clusterings are compared by the variance ratio")
    if asked["criterion"] is not None and not several:
        raise InputError("--criterion chooses among several: -k 1-6 or -k 2,3,5, or --covariance-type all")
    if asked["standardize"] and family not in (Family.gmm, Family.kmeans):
        raise InputError(f"--standardize is for gmm and kmeans, got {family}, whose data are counts")
    if asked["standardize"] and asked["missing"] is Missing.marginalize:
        raise InputError("--standardize needs every number; add --drop-missing in place of --missing marginalize")
    if asked["counts"] is not None and family is not Family.binomial:
        raise InputError(f"--heads and --trials are for binomial, got {family}")
    if asked["columns"] is not None and family is Family.binomial:
        raise InputError("--columns is not for binomial; name its columns with --heads and --trials")
    if asked["plot"]:
        if asked["out"] is None:
            raise InputError("--plot draws to a folder; name one with --out")
        need("matplotlib", "plot", "--plot")
