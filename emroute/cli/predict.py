"""``emroute predict``: a saved fit applied to the rows of a file."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from emroute._files import whole
from emroute.binomial import BinomialMixture
from emroute.cli.files import read
from emroute.cli.job import Job, Scaling, choose_columns, choose_rows
from emroute.cli.libraries import Library, anchor, host, need, put
from emroute.cli.options import Backend, Columns, Device, DropMissing, Family, File, Header, Heads, Key, Missing, Trials
from emroute.cli.results import check_free, spread, table
from emroute.errors import InputError
from emroute.kmeans import KMeans
from emroute.mixture import Mixture
from emroute.mixtures.storage import kind_of

__all__ = ["predict"]

_SAVED = ("mixture.npz", "mixture.safetensors", "clusters.npz", "clusters.safetensors")


def predict(
    model: Annotated[
        Path, typer.Argument(help="A saved fit: the --out folder of emroute fit, or a file.", show_default=False)
    ],
    file: File,
    columns: Columns = None,
    heads: Heads = None,
    trials: Trials = None,
    drop_missing: DropMissing = False,
    key: Key = None,
    header: Header = None,
    backend: Backend = Library.numpy,
    device: Device = None,
    out: Annotated[Path | None, typer.Option(help="A csv file to write.", show_default="standard output")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file --out.")] = False,
) -> None:
    """Apply a saved fit to the rows of a file.

    The output is csv, with a line for each row of the file: its label and, for mixtures, its log-density and the
    probability of every component; for k-means, the distance to its centroid.
    """
    need("polars", "cli", "predict")
    if out is not None:
        check_free(out.parent, [out.name], force, file)
    saved = _saved(model)
    result = _load(saved, anchor(backend, device))
    rows = read(file, key, header)
    known, scaling = _columns_of(saved.parent / "columns.csv")
    family = Family.binomial if isinstance(result, BinomialMixture) else Family.kmeans
    if columns is None and (heads, trials) == (None, None) and known is not None:
        names, notes = [rows.find(name) for name in known], ()
    else:
        names, notes = choose_columns(family, rows, columns, None, (heads, trials))
    gaps = getattr(result.model, "missing", None) == Missing.marginalize
    chosen = choose_rows(rows, names, None, drop_missing, gaps)
    like = result.centroids if isinstance(result, KMeans) else result.weights
    x = put(np.asarray(chosen.x if scaling is None else scaling.apply(chosen.x), dtype=host(like).dtype), like)
    found = {name: spread(values, chosen.kept) for name, values in _predicted(result, Job(family, names, x)).items()}
    for note in (*rows.assumed, *notes, *chosen.notes):
        typer.echo(f"emroute: {note}", err=True)
    if out is None:
        table(found, sys.stdout.buffer if hasattr(sys.stdout, "buffer") else sys.stdout)
        return
    with whole(out) as draft:
        table(found, draft)


def _saved(model: Path) -> Path:
    """Return the file of a saved fit, which may be named by its folder."""
    if not model.is_dir():
        return model
    found = [model / name for name in _SAVED if (model / name).exists()]
    if not found:
        raise InputError(f"{model}: no saved fit, expected one of {', '.join(_SAVED)}; `emroute fit --out` writes one")
    return max(found, key=lambda path: path.stat().st_mtime)


def _load(path: Path, like: Any) -> Any:
    kind = KMeans if kind_of(path) == "KMeans" else Mixture
    return kind.load(path, like=like)


def _columns_of(path: Path) -> tuple[list[str] | None, Scaling | None]:
    """Return the columns that were fitted and how they were standardized, as `emroute fit` leaves them beside a fit."""
    if not path.exists():
        return None, None
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    names = [row[0] for row in rows]
    if len(header) == 1:
        return names, None
    mean, deviation = np.asarray([row[1:] for row in rows], dtype=np.float64).T
    return names, Scaling(mean, deviation)


def _predicted(result: Any, job: Job) -> dict[str, np.ndarray]:
    """Return the columns to write."""
    if isinstance(result, KMeans):
        labels, square = map(host, result.assign(job.x))
        return {"label": labels, "distance": np.sqrt(square)}
    shares = host(result.responsibilities(*job.data))
    found = {"label": host(result.predict(*job.data)), "log_density": host(result.log_prob(*job.data))}
    return found | {f"probability_{k}": share for k, share in enumerate(shares.T)}
