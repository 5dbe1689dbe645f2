"""Options of the command line: their values, and the help of those that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from emroute.cli.libraries import Library
from emroute.errors import InputError
from emroute.gmm.covariance import CODES, COVARIANCES

__all__ = [
    "Backend",
    "Columns",
    "Criterion",
    "Device",
    "DropMissing",
    "Dtype",
    "Family",
    "File",
    "Force",
    "Format",
    "Header",
    "Heads",
    "Key",
    "Missing",
    "Trials",
    "covariance_types",
]


class Family(StrEnum):
    """What can be fitted from the command line."""

    gmm = "gmm"
    kmeans = "kmeans"
    binomial = "binomial"
    poisson = "poisson"
    multinomial = "multinomial"


class Criterion(StrEnum):
    """What the number of components is chosen by."""

    bic = "bic"
    aic = "aic"
    icl = "icl"


class Dtype(StrEnum):
    """The precision of a fit."""

    float32 = "float32"
    float64 = "float64"


class Format(StrEnum):
    """The format of a saved fit."""

    npz = "npz"
    safetensors = "safetensors"


class Missing(StrEnum):
    """What missing numbers are."""

    refuse = "refuse"
    marginalize = "marginalize"


File = Annotated[
    Path,
    typer.Argument(
        help="A csv, tsv or txt file (also .gz), a parquet, npy or npz file, or - for text from standard input. "
        "Each row is an observation.",
        show_default=False,
    ),
]
Backend = Annotated[Library, typer.Option(help="Array library to compute with.")]
Device = Annotated[
    str | None, typer.Option(help="Device to compute on, such as cpu or cuda:0.", show_default="the library's own")
]
Columns = Annotated[
    str | None,
    typer.Option(
        help="Columns to use, a,b,c; in npy files 0,1,2. Quote a name that has a comma.",
        show_default="all but weights and row numbers",
    ),
]
Heads = Annotated[str | None, typer.Option(help="binomial: column of successes.", show_default="heads")]
Trials = Annotated[str | None, typer.Option(help="binomial: column of trials.", show_default="trials")]
Key = Annotated[str | None, typer.Option(help="Name of the array in an npz file.", show_default="the only one")]
Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header",
        help="Whether the first line of a text file names the columns.",
        show_default="guessed from the line",
    ),
]
DropMissing = Annotated[
    bool, typer.Option("--drop-missing", help="Leave out rows with missing numbers, and say how many.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace files from earlier runs in --out.")]


def covariance_types(text: str) -> list[str]:
    """Read ``full``, ``full,diag`` or ``all``.

    >>> covariance_types("full, diag")
    ['full', 'diag']

    Raises
    ------
    InputError
        If a name is not known.
    """
    names = list(CODES) if text == "all" else [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in COVARIANCES]:
        raise InputError(f"got --covariance-type {unknown[0]}, expected all or some of {', '.join(COVARIANCES)}")
    return list(dict.fromkeys(names))
