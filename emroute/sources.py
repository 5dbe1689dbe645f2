"""Files as sources of chunks, read again in every pass, one chunk ahead of the fit."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.backend import Array
from emroute.errors import InputError, needed

__all__ = ["Paths", "Source", "csv", "npy", "parquet"]

Paths = str | Path | Sequence[str | Path]
"""A file, several files, or a pattern such as ``"rows/*.parquet"``."""

_BYTES = 2**23  # size of a chunk, if its number of rows is not given


@dataclass(frozen=True, repr=False, eq=False)
class Source:
    """Rows of numbers in files, made by `parquet`, `csv` and `npy`. Each pass opens the files again."""

    name: str
    """The file, or the first of several."""
    columns: tuple[str, ...]
    """The names of the columns, in order."""
    read: Callable[[], Iterator[np.ndarray]]
    """A function that makes an iterator of chunks ``(rows, d)`` on the host."""
    like: Array | None = None
    """An array of the library and device to which chunks are copied; None for NumPy."""

    def __iter__(self) -> Iterator[Any]:
        for chunk in _ahead(self.read()):
            yield chunk if self.like is None else backends.get(self.like).from_numpy(chunk, self.like)

    def __repr__(self) -> str:
        return f"Source({self.name}, {len(self.columns)} columns)"


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
    files = _files(path)
    with _told(files[0]):
        schema = pl.scan_parquet(files).collect_schema()
        names = _chosen(columns, schema.names(), files[0])
        text = [name for name in names if not (schema[name].is_numeric() or schema[name] == pl.Boolean)]
        if text:
            raise InputError(f"{files[0]}: column {text[0]!r} does not hold numbers ({schema[text[0]]})")
        kind = pl.Float32 if all(schema[name] == pl.Float32 for name in names) else pl.Float64
    numbers = pl.scan_parquet(files).select(pl.col(names).cast(kind))
    return _of_frames(numbers, files[0], names, (chunk_rows, gaps, like), "row {}".format)


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
    files = _files(path)
    with _told(files[0]):
        # as text, so that one bad entry says where it is
        rows = pl.scan_csv(files, separator=separator, has_header=header, infer_schema=False)
        known = {name: name.strip() for name in rows.collect_schema().names()}
    if header and all(map(_is_number, known.values())):
        raise InputError(f"{files[0]}: the first line holds numbers ({', '.join(known)}); pass header=False to read it")
    names = _chosen(columns, [*known.values()], files[0])
    numbers = rows.rename(known).select(pl.col(names).str.strip_chars().cast(pl.Float64, strict=False))
    return _of_frames(numbers, files[0], names, (chunk_rows, gaps, like), lambda row: f"line {row + 1 + header}")


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
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype.kind not in "fiub":
        raise InputError(f"{path}: expected one array (n, d) of numbers")
    width = rows.shape[1]
    index = [*range(width)] if columns is None else [*columns]
    if unknown := [i for i in index if i not in range(width)]:
        raise InputError(f"{path}: no column {unknown[0]!r}; there are {width}, from 0 on")
    step = _rows_of(chunk_rows, len(index))
    dtype = np.float32 if rows.dtype == np.float32 else np.float64

    def read() -> Iterator[np.ndarray]:
        for start in range(0, rows.shape[0], step):
            part = rows[start : start + step]
            yield np.asarray(part if columns is None else part[:, index], dtype)

    return Source(str(path), tuple(map(str, index)), read, like)


def _of_frames(numbers: Any, file: str, names: list[str], options: tuple[Any, bool, Any], place: Any) -> Source:
    """Return a source of the numbers that a query yields; `place` describes in words where a row is."""
    chunk_rows, gaps, like = options
    step = _rows_of(chunk_rows, len(names))

    def read() -> Iterator[np.ndarray]:
        start = 0
        with _told(file):
            for frame in numbers.collect_batches(chunk_size=step, maintain_order=True):
                chunk = frame.to_numpy()
                if not gaps and np.isnan(chunk.sum()) and (found := np.argwhere(np.isnan(chunk))).size:
                    row, column = map(int, found[0])
                    raise InputError(
                        f"{file}: no number in column {names[column]!r} of {place(start + row)}; "
                        "leave such rows out, or pass gaps=True to a model that takes NaN"
                    )
                yield chunk
                start += len(chunk)

    return Source(file, tuple(names), read, like)


def _ahead(chunks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Read each chunk on another thread while the one before is in use."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = reader.submit(next, chunks, None)
            yield chunk


def _files(path: Paths) -> list[str]:
    """Return the files that a path, a pattern or several of them name, or raise `InputError` if there is none."""
    given = [path] if isinstance(path, str | Path) else [*path]
    files = [file for one in map(str, given) for file in ([one] if Path(one).exists() else sorted(glob.glob(one)))]
    if not files:
        raise InputError(f"no such file: {', '.join(map(str, given))}")
    return files


@contextmanager
def _told(file: str) -> Iterator[None]:
    """Raise an error of polars as an `InputError` that names the file."""
    from polars.exceptions import PolarsError

    try:
        yield
    except (PolarsError, OSError) as error:
        raise InputError(f"{file}: cannot be read ({str(error).splitlines()[0]})") from None


def _chosen(columns: Sequence[str] | None, known: list[str], file: str) -> list[str]:
    """Return the columns to read, or raise `InputError` for one that does not exist."""
    names = known if columns is None else [*columns]
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"{file}: no column {unknown[0]!r}; the file has {', '.join(known)}")
    return names


def _rows_of(chunk_rows: int | None, width: int) -> int:
    if chunk_rows is None:
        return max(1, _BYTES // (8 * max(1, width)))
    if not isinstance(chunk_rows, int) or chunk_rows < 1:
        raise InputError(f"got chunk_rows={chunk_rows!r}, expected an integer of at least 1")
    return chunk_rows


def _is_number(text: str) -> bool:
    with suppress(ValueError):
        float(text)
        return True
    return False
