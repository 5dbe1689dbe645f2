"""Tables of numbers from csv, parquet, npy and npz files, and from standard input."""

from __future__ import annotations

import csv
import io
import shlex
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np

from emroute.cli.libraries import need
from emroute.cli.text import STDIN, Parsed, first_line, name_of, parse
from emroute.errors import InputError

__all__ = ["Table", "read", "split_names"]

_GAPS = "fit a Gaussian mixture with --missing marginalize"

TEXTS = (".csv", ".tsv", ".txt")
SUFFIXES = (*TEXTS, *(f"{suffix}.gz" for suffix in TEXTS), ".parquet", ".npy", ".npz")

_LISTED = 20  # columns that an error names
_PANDAS_INDEX = "__index_level_0__"  # in parquet files, where it comes last
# as a first column of row numbers is called by R and pandas, by pandas that has read it from a file, and in Rdatasets
_ROW_NUMBERS = ("", "Unnamed: 0", "rownames", _PANDAS_INDEX)


@dataclass(frozen=True)
class Table:
    """Columns by name. An npy file has its columns named ``0, 1, ...`` and stays on disk, mapped."""

    names: tuple[str, ...]
    values: np.ndarray
    """``(n, len(names))``; NaN where an entry is missing, or is text."""
    text: dict[str, str] = field(default_factory=dict)
    """What is wrong with each column that does not hold numbers."""
    missing: dict[str, int] = field(default_factory=dict)
    """The first row that has no number in a column, of each column of numbers where there is one."""
    infinite: dict[str, int] = field(default_factory=dict)
    """The first row that has an infinity in a column."""
    assumed: tuple[str, ...] = ()
    """What was guessed in reading, and the option that says otherwise."""
    file: str = ""
    """Where it was read from."""
    place: Callable[[int], str] = "row {}".format
    """Where in the file a row is, in words."""

    @property
    def row_numbers(self) -> str | None:
        """The column that only numbers or names the rows, if there is one beside others."""
        if len(self.names) > 1 and self.names[0] in _ROW_NUMBERS:
            return self.names[0]
        return _PANDAS_INDEX if _PANDAS_INDEX in self.names[1:] else None

    def find(self, name: str) -> str:
        """Return the name of a column as the file spells it: keyboards and files may compose letters otherwise.

        Raises
        ------
        InputError
            If there is no such column.
        """
        alike = [known for known in self.names if normalize("NFC", known) == normalize("NFC", name)]
        if not alike:
            folded = {known.casefold(): known for known in self.names}
            close = get_close_matches(name.casefold(), folded, n=1)
            meant = f"; did you mean {folded[close[0]]!r}?" if close else ""
            more = f" and {len(self.names) - _LISTED} more" if len(self.names) > _LISTED else ""
            raise InputError(f"no column {name!r}{meant or ';'} the file has {', '.join(self.names[:_LISTED])}{more}")
        return name if name in alike else alike[0]

    def complete(self, names: Sequence[str]) -> tuple[Table, np.ndarray]:
        """Leave out the rows that have no number in some of these columns.

        Returns
        -------
        Table
            The other rows; this very table where all are complete.
        numpy.ndarray
            ``(n,)``: which rows of this table are kept.
        """
        names = [name for name in map(self.find, names) if name not in self.text]  # what `take` refuses is not missing
        kept = ~np.isnan(self.values[:, [self.names.index(name) for name in names]]).max(axis=1, initial=False)
        if kept.all():
            return self, kept
        if not kept.any():
            raise InputError(f"{self.file}: no row has a number in each of these columns; leave out the emptiest")
        rows = np.flatnonzero(kept)
        values, place = self.values[rows], self.place
        endless = np.isinf(values).T
        infinite = {name: int(found.argmax()) for name, found in zip(self.names, endless, strict=True) if found.any()}
        return replace(
            self, values=values, missing={}, infinite=infinite, place=lambda row: place(int(rows[row]))
        ), kept

    def take(self, names: Sequence[str], otherwise: str = "no other column is left", gaps: bool = False) -> np.ndarray:
        """Return some columns, ``(n, len(names))``; all of them, in order, without a copy.

        Parameters
        ----------
        names
            Of the columns.
        otherwise
            What to say where none of them holds numbers.
        gaps
            Whether there may be rows without a number.

        Raises
        ------
        InputError
            If a column is not there, does not hold numbers, or not in every row.
        """
        names = [self.find(name) for name in names]
        text = [name for name in names if name in self.text]
        if text:
            rest = [name for name in names if name not in self.text]
            remedy = f"correct it, or fit the others: --columns {_join_names(rest)}" if rest else otherwise
            complaints = "; ".join(f"column {name!r} does not hold numbers ({self.text[name]})" for name in text)
            raise InputError(f"{complaints}; {remedy}")
        if lacking := [name for name in names if name in self.missing and not gaps]:
            name = min(lacking, key=self.missing.__getitem__)
            where = f"{self.file}, {self.place(self.missing[name])}"
            raise InputError(f"{where}: no number in column {name!r}; fill it in, add --drop-missing, or {_GAPS}")
        if endless := [name for name in names if name in self.infinite]:
            name = min(endless, key=self.infinite.__getitem__)
            where = f"{self.file}, {self.place(self.infinite[name])}"
            raise InputError(f"{where}: infinity in column {name!r}; correct it, or leave the row out")
        if tuple(names) == self.names:
            return self.values
        return self.values[:, [self.names.index(name) for name in names]]


def split_names(text: str) -> list[str]:
    """Read names as a record of a csv file.

    >>> split_names('a, "x, y"')
    ['a', 'x, y']
    """
    records = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    return [name.strip() for record in records for name in record] or [""]


def _join_names(names: Sequence[str]) -> str:
    """Return names as a shell takes them and `split_names` reads them."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return shlex.quote(line.getvalue())


def read(path: Path, key: str | None = None, header: bool | None = None) -> Table:
    """Read a table of numbers.

    Parameters
    ----------
    path
        A ``.csv``, ``.parquet``, ``.npy`` or ``.npz`` file. Fields of a csv file are separated by commas, semicolons,
        tabs or blanks, decimals by points or, where fields are not, by commas; its name may end in ``.tsv`` or
        ``.txt``, and in ``.gz`` after that. ``-`` is text from standard input.
    key
        Which array of an npz file.
    header
        Whether the first line of a csv file names the columns; by default it does unless it holds only numbers other
        than ``0, 1, ..., d - 1``, which pandas writes for columns without names.

    Raises
    ------
    InputError
        If the suffix is another, or the file does not hold a table.
    OSError
        If the file cannot be opened.
    MissingDependencyError
        If csv and parquet files need polars, which is not there.
    """
    suffix = _suffix(path)
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: got suffix {suffix!r}, expected {', '.join(SUFFIXES)}")
    if key is not None and suffix != ".npz":
        raise InputError(f"--key is for npz files, got {path.name}")
    if header is not None and suffix.removesuffix(".gz") not in TEXTS:
        raise InputError(f"--header and --no-header are for {', '.join(TEXTS)} files, got {path.name}")
    if path.is_fifo():
        raise InputError(f"{path}: a pipe, which can be read only once; read it as standard input, `- < {path}`")
    if path != STDIN:
        with path.open("rb"):  # the libraries' own errors name neither file nor reason
            pass
    return _read_array(path, key) if suffix in (".npy", ".npz") else _read_frame(path, header)


def _suffix(path: Path) -> str:
    """Return how a file's name ends, ``.gz`` included; standard input is text."""
    if path == STDIN:
        return TEXTS[0]
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])


def _read_array(path: Path, key: str | None) -> Table:
    try:
        if path.suffix.lower() == ".npy":
            loaded: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            with path.open("rb") as file:  # NumPy leaves a bad archive open
                arrays: Any = np.load(file, allow_pickle=False)
                loaded = arrays[_key(arrays.files, key)]
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        # what NumPy takes for a pickle is any file that does not begin like its own
        reason = "it does not hold plain arrays" if "pickle" in str(error) else first_line(error)
        raise InputError(f"{path}: cannot be read ({reason})") from None
    if not isinstance(loaded, np.ndarray):  # of an archive of other files
        raise InputError(f"{path}: cannot be read (it does not hold plain arrays)")
    if loaded.dtype.kind not in "fiub" or loaded.ndim not in (1, 2):
        got = f"shape {loaded.shape} and dtype {loaded.dtype}"
        raise InputError(f"{path}: got an array of {got}, expected numbers of shape (n,) or (n, d)")
    values = loaded[:, None] if loaded.ndim == 1 else loaded
    return Table(tuple(map(str, range(values.shape[1]))), values)


def _key(keys: list[str], key: str | None) -> str:
    if key is None and len(keys) == 1:
        return keys[0]
    if key is None or key not in keys:
        wanted = "choose one with --key" if key is None else f"there is no {key!r}"
        raise InputError(f"holds the arrays {', '.join(keys) or '(none)'}; {wanted}")
    return key


def _read_frame(path: Path, header: bool | None) -> Table:
    need("polars", "cli", f"a {path.suffix} file")
    import polars as pl

    try:
        frame, text, place, assumed = _parquet(pl, path) if _suffix(path) == ".parquet" else parse(pl, path, header)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)})") from None
    missing = _first_rows(frame, lambda column: column.is_null() | column.is_nan())
    infinite = _first_rows(frame, lambda column: column.is_infinite())
    return Table(tuple(frame.columns), frame.to_numpy(), text, missing, infinite, assumed, name_of(path), place)


def _parquet(pl: Any, path: Path) -> Parsed:
    frame, text = pl.read_parquet(path), {}
    for name, kind in frame.schema.items():
        if not (kind.is_numeric() or kind == pl.Boolean):
            text[name] = str(kind)
    frame = frame.with_columns(pl.lit(None).alias(name) for name in text)
    numbers = [kind for name, kind in frame.schema.items() if name not in _ROW_NUMBERS]
    narrow = all(kind in (pl.Float32, pl.Null) for kind in numbers)
    return Parsed(frame.cast(pl.Float32 if narrow else pl.Float64), text, "row {}".format, ())


def _first_rows(frame: Any, what: Callable[[Any], Any]) -> dict[str, int]:
    """Return the first row of each column for which something holds, of those where it does."""
    rows = {name: what(frame[name]).arg_true() for name in frame.columns}
    return {name: found[0] for name, found in rows.items() if len(found)}
