"""Tables in text files: separators, headers, decimal commas, and lines that are not like the others."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from itertools import dropwhile, islice
from pathlib import Path
from typing import Any

from emroute.errors import InputError

__all__ = ["first_line", "parse"]

_SEPARATORS = (",", ";", "\t")
_DECIMAL_COMMA = r"\s*[+-]?(?:[0-9]+(?:,[0-9]*)?|,[0-9]+)(?:[eE][+-]?[0-9]+)?\s*"
_MISSING = ("", "na", "n/a", "null", "none", "nan", "?")


def parse(
    pl: Any, path: Path, header: bool | None
) -> tuple[Any, dict[str, str], Callable[[int], str], tuple[str, ...]]:
    """Read a csv file as text first, so that a column of numbers is one in which every entry is missing or a number."""
    separator, first = _first_record(path)
    names, assumed = [name.strip() for name in first], []
    headless = header is False
    if header is None and all(_is_number(name, separator) for name in names):
        headless = not _is_count_of_columns(path, separator, names)
        if headless and names:
            assumed.append("the first line holds numbers and is read as a row; --header takes it for names of columns")
        elif names:
            line = f"{','.join(names):.40}"
            assumed.append(f"the first line, {line}, is taken for names of columns; --no-header reads it as a row")
    if headless:
        names = [str(place) for place in range(len(names))]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{path}: two columns are named {twice[0]!r}; rename one")

    def place(row: int) -> str:
        line, _ = next(islice(_records(path, separator), row + (not headless), None))
        return f"line {line}"

    try:
        raw = pl.read_csv(
            _lines(path), has_header=not headless, new_columns=names or None, separator=separator, infer_schema=False
        )
    except pl.exceptions.PolarsError:
        _check_widths(path, separator)
        raise
    if raw[:, -1].has_nulls():
        _check_widths(path, separator)  # a line that is too short ends in nulls
    filled = raw.select(pl.any_horizontal(pl.all().is_not_null())).to_series().arg_true()
    raw = raw.head(filled[-1] + 1 if len(filled) else 0)  # empty lines at the end are no rows
    raw = raw.with_columns(pl.all().str.strip_chars())
    raw = raw.with_columns(pl.when(~pl.all().str.to_lowercase().is_in(_MISSING)).then(pl.all()))
    if separator != "," and (commas := _with_decimal_commas(pl, raw)):
        raw = raw.with_columns(pl.col(commas).str.replace(",", ".", literal=True))
        assumed.append(f"commas in {', '.join(map(repr, commas))} are read as decimal points")
    frame = raw.cast(pl.Float64, strict=False)
    text = {}
    for name in raw.columns:
        bad = (raw[name].is_not_null() & frame[name].is_null()).arg_true()
        if len(bad):
            text[name] = f"{place(bad[0])}: {raw[name][bad[0]]!r:.40}"
            if len(names) == 1:
                text[name] += "; fields are separated by commas, semicolons or tabs"
    return frame, text, place, tuple(f"{path}: {what}" for what in assumed)


def _first_record(path: Path) -> tuple[str, list[str]]:
    """Return what separates the fields of the first line, and the fields.

    It is what makes most fields of it, the first of equals, and as many of the second line, if any does; but a comma
    between digits may be a decimal one: where all fields between other separators are numbers with commas, it is.
    """
    starts = {separator: [cells for _, cells in islice(_records(path, separator), 2)] for separator in _SEPARATORS}
    heads = {separator: start[0] if start else [] for separator, start in starts.items()}
    for separator in _SEPARATORS[1:]:
        if len(heads[separator]) > 1 and all(re.fullmatch(_DECIMAL_COMMA, cell) for cell in heads[separator]):
            return separator, heads[separator]

    def evidence(separator: str) -> tuple[bool, int]:
        widths = [len(cells) for cells in starts[separator]]
        return widths[:1] == widths[1:] != [1], len(heads[separator])

    separator = max(_SEPARATORS, key=evidence)
    return separator, heads[separator]


def _is_count_of_columns(path: Path, separator: str, names: list[str]) -> bool:
    """Whether the first line is ``0, 1, ..., d - 1``: of a single column only where other numbers are not as plain."""
    if names != [str(place) for place in range(len(names))]:
        return False
    return len(names) > 1 or any(not cells[0].strip().isdigit() for _, cells in _records(path, separator) if cells)


def _with_decimal_commas(pl: Any, raw: Any) -> list[str]:
    """Name columns in which some numbers have a comma, all commas are decimal, and no number has a point."""
    found = []
    for name in raw.columns:
        column = raw[name]
        commas = column.filter(column.str.contains(",", literal=True))
        numbers = f"^(?:{_DECIMAL_COMMA})$"
        if len(commas) and commas.str.contains(numbers).all() and not column.str.contains(".", literal=True).any():
            found.append(name)
    return found


def _lines(path: Path) -> Path | io.BytesIO:
    """Return a file, or its content where lines end in a carriage return alone, which polars does not read."""
    with path.open("rb") as file:
        start = file.read(2**20)
        if not re.search(rb"\r[^\r\n]", start):
            return path
        return io.BytesIO(re.sub(rb"\r*\n|\r", b"\n", start + file.read()))


def _check_widths(path: Path, separator: str) -> None:
    """Raise `InputError` unless every line has as many fields as the first, or none."""
    width = 0
    for line, cells in _records(path, separator):
        width = width or len(cells)
        if cells and len(cells) != width:
            raise InputError(f"{path}, line {line}: number of fields is {len(cells)}, in the first line {width}")


def _records(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Give the fields of each line of a csv file and the number of the line, from the first that is not empty."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=separator)
            yield from dropwhile(lambda record: not record[1], ((reader.line_num, cells) for cells in reader))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a csv file in UTF-8 ({first_line(error)})") from None


def _is_number(cell: str, separator: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return separator != "," and re.fullmatch(_DECIMAL_COMMA, cell) is not None
    return True


def first_line(error: Exception) -> str:
    """Return the first line of an error's words."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
