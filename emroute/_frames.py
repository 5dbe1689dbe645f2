"""What the readers of files share: a source that opens its files in each pass, and reads one chunk ahead."""

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
from emroute.errors import InputError

__all__ = ["Paths", "Source", "ahead", "chosen", "files_of", "is_number", "of_frames", "rows_of", "told"]

Paths = str | Path | Sequence[str | Path]
"""A file, several files, or a pattern such as ``"rows/*.parquet"``."""

_BYTES = 2**23  # of a chunk, where its rows are not given


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
        for chunk in ahead(self.read()):
            yield chunk if self.like is None else backends.get(self.like).from_numpy(chunk, self.like)

    def __repr__(self) -> str:
        return f"Source({self.name}, {len(self.columns)} columns)"


def of_frames(queries: dict[str, Any], names: list[str], options: tuple[Any, bool, Any], place: Any) -> Source:
    """Return a source of the numbers that a query yields for each file; `place` describes in words where a row is."""
    chunk_rows, gaps, like = options
    step = rows_of(chunk_rows, len(names))

    def read() -> Iterator[np.ndarray]:
        for file, query in queries.items():
            start = 0
            with told(file):
                for frame in query.collect_batches(chunk_size=step, maintain_order=True):
                    chunk = frame.to_numpy()
                    if not gaps and len(found := np.argwhere(np.isnan(chunk))):
                        row, column = map(int, found[0])
                        raise InputError(
                            f"{file}: no number in column {names[column]!r} of {place(start + row)}; leave such rows "
                            "out, or read the file with gaps=True for a model that takes NaN"
                        )
                    yield chunk
                    start += len(chunk)

    return Source(next(iter(queries)), tuple(names), read, like)


def ahead(chunks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Read each chunk on another thread while the one before is in use."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = reader.submit(next, chunks, None)
            yield chunk


def files_of(path: Paths) -> list[str]:
    """Return the files that a path, a pattern or several of them name, or raise `InputError` if one is missing."""
    if not isinstance(path, str | Path | Sequence):
        raise InputError(f"got a path of type {type(path).__qualname__}, expected a path, a pattern or several")
    given = [path] if isinstance(path, str | Path) else [*path]
    files = []
    for one in map(str, given):
        found = [one] if Path(one).exists() else sorted(glob.glob(one))
        if not found:
            raise InputError(f"no such file: {one}")
        files += found
    return files


@contextmanager
def told(file: str) -> Iterator[None]:
    """Raise an error of polars as an `InputError` that names the file."""
    from polars.exceptions import PolarsError

    try:
        yield
    except (PolarsError, OSError) as error:
        raise InputError(f"{file}: cannot be read ({str(error).splitlines()[0]})") from None


def chosen(columns: Sequence[str] | None, known: list[str], file: str) -> list[str]:
    """Return the columns to read, or raise `InputError` for one that does not exist."""
    names = known if columns is None else [columns] if isinstance(columns, str) else [*columns]
    if not names:
        raise InputError(f"{file}: got no columns to read; the file has {', '.join(known)}")
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"{file}: no column {unknown[0]!r}; the file has {', '.join(known)}")
    return names


def rows_of(chunk_rows: int | None, width: int) -> int:
    if chunk_rows is None:
        return max(1, _BYTES // (8 * max(1, width)))
    if not isinstance(chunk_rows, int | np.integer) or isinstance(chunk_rows, bool) or chunk_rows < 1:
        raise InputError(f"got chunk_rows={chunk_rows!r}, expected an integer of at least 1")
    return int(chunk_rows)


def is_number(text: str) -> bool:
    with suppress(ValueError):
        float(text)
        return True
    return False
