"""Files as sources of chunks, read again in every pass, one chunk ahead of the fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from emroute._frames import Paths, Source, chosen, files_of, is_number, of_frames, rows_of, told
from emroute.backend import Array
from emroute.errors import InputError, needed

__all__ = ["Paths", "Source", "csv", "npy", "parquet"]


def parquet(
    path: Paths,
    columns: Sequence[str] | None = None,
    chunk_rows: int | None = None,
    *,
    gaps: bool = False,
    like: Array | None = None,
) -> Source:
    """Read Parquet files chunk by chunk, in bounded memory.

    Parameters
    ----------
    path
        A file, several, or a pattern such as ``"rows/*.parquet"``. Needs polars (``pip install 'emroute[cli]'``).
    columns
        Names of the columns to read; all by default. They must hold numbers or truth values.
    chunk_rows
        The largest number of rows of a chunk; by default as many as fit in 8 MB.
    gaps
        Whether entries may be missing. They become NaN. By default the first one is an error.
    like
        An array of the library and device to which each chunk is copied, in that array's dtype. By default chunks are
        NumPy arrays: float32 if all columns are, else float64.

    Returns
    -------
    Source
        A source that every `fit` takes instead of an array.

    Raises
    ------
    InputError
        If the file cannot be read, or a column does not exist or is not numeric; during reading, if an entry is missing
        (the message names the file, column and row).
    MissingDependencyError
        If polars is not installed.

    Examples
    --------
    >>> import tempfile
    >>> import polars as pl
    >>> from emroute import data, gmm
    >>> from emroute.datasets import faithful
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pl.DataFrame(faithful().x, schema=["eruptions", "waiting"]).write_parquet(f"{folder}/rows.parquet")
    ...     source = data.parquet(f"{folder}/rows.parquet", chunk_rows=100)
    ...     print(source.columns, gmm.fit(source, 2, rng=0).n_components)
    ('eruptions', 'waiting') 2
    """
    pl = needed("polars", "cli", "a Parquet file")
    files = files_of(path)
    with told(files[0]):
        schema = pl.scan_parquet(files).collect_schema()
        names = chosen(columns, schema.names(), files[0])
        text = [name for name in names if not (schema[name].is_numeric() or schema[name] == pl.Boolean)]
        if text:
            raise InputError(f"{files[0]}: column {text[0]!r} does not hold numbers ({schema[text[0]]})")
        kind = pl.Float32 if all(schema[name] == pl.Float32 for name in names) else pl.Float64
    queries = {file: pl.scan_parquet(file).select(pl.col(names).cast(kind)) for file in files}
    return of_frames(queries, names, (chunk_rows, gaps, like), "row {}".format)


def csv(
    path: Paths,
    columns: Sequence[str] | None = None,
    chunk_rows: int | None = None,
    *,
    separator: str = ",",
    header: bool = True,
    gaps: bool = False,
    like: Array | None = None,
) -> Source:
    r"""Read CSV files chunk by chunk, in bounded memory, also compressed ones (``.csv.gz``).

    Parameters
    ----------
    path, chunk_rows
        A file, several, or a pattern; and the largest number of rows of a chunk. See `parquet`.
    columns
        Names of the columns to read; all by default. They must hold numbers.
    separator
        The character between fields.
    header
        Whether the first line has the names of the columns. Without it they are ``column_1``, ``column_2`` and so on.
    gaps
        Whether entries may be missing or not be numbers. They become NaN. By default the first one is an error.
    like
        An array of the library and device to which each chunk is copied, in that array's dtype. By default chunks are
        NumPy arrays of float64.

    Returns
    -------
    Source
        A source that every `fit` takes instead of an array.

    Raises
    ------
    InputError
        If the file cannot be read, a column does not exist, or the first line has numbers and not names; during
        reading, if an entry is missing or not a number (the message names the file, column and line).
    MissingDependencyError
        If polars is not installed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from emroute import data, kmeans
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "rows.csv")
    ...     _ = path.write_text("name,length,width\na,1,2\nb,1.5,2\nc,9,8\n")
    ...     kmeans.fit(data.csv(path, ["length", "width"]), 2, rng=0).labels.tolist()
    [0, 0, 1]
    """
    pl = needed("polars", "cli", "a csv file")
    files = files_of(path)
    with told(files[0]):
        # as text, so that one bad entry says where it is
        tables = {file: pl.scan_csv(file, separator=separator, has_header=header, infer_schema=False) for file in files}
        known = {name: name.strip() for name in tables[files[0]].collect_schema().names()}
    if header and all(map(is_number, known.values())):
        raise InputError(f"{files[0]}: the first line holds numbers ({', '.join(known)}); pass header=False to read it")
    names = chosen(columns, [*known.values()], files[0])
    numbers = pl.col(names).str.strip_chars().cast(pl.Float64, strict=False)
    queries = {file: table.rename(str.strip).select(numbers) for file, table in tables.items()}
    return of_frames(queries, names, (chunk_rows, gaps, like), lambda row: f"line {row + 1 + header}")


def npy(
    path: str | Path,
    columns: Sequence[int] | None = None,
    chunk_rows: int | None = None,
    *,
    like: Array | None = None,
) -> Source:
    """Read the rows of an ``.npy`` file chunk by chunk.

    For NumPy, a memory map made by `numpy.load` with ``mmap_mode="r"`` works as well. This function also selects
    columns, takes integers, and copies chunks to another library.

    Parameters
    ----------
    path
        A file of an array ``(n, d)`` of numbers.
    columns
        Which columns to read; all by default.
    chunk_rows
        The largest number of rows of a chunk; by default as many as fit in 8 MB.
    like
        An array of the library and device to which each chunk is copied, in that array's dtype. By default chunks are
        NumPy arrays: float32 if the file is, else float64.

    Returns
    -------
    Source
        A source that every `fit` takes instead of an array.

    Raises
    ------
    InputError
        If the file cannot be read, holds no such array, or has no such column.
    """
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind not in "fiub":
        raise InputError(f"{path}: expected one array (n, d) of numbers")
    width = rows.shape[1]
    index = [*range(width)] if columns is None else [*columns] if isinstance(columns, Sequence) else [columns]
    if unknown := [i for i in index if isinstance(i, bool) or not isinstance(i, int) or i not in range(width)]:
        raise InputError(f"{path}: no column {unknown[0]!r}; there are {width}, from 0 on")
    step = rows_of(chunk_rows, len(index))
    dtype = np.float32 if rows.dtype == np.float32 else np.float64

    def read() -> Iterator[np.ndarray]:
        for start in range(0, rows.shape[0], step):
            part = rows[start : start + step]
            yield np.asarray(part if columns is None else part[:, index], dtype)

    return Source(str(path), tuple(map(str, index)), read, like)
