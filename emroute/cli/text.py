"""Tables in text files: separators, headers, decimal commas, row numbers, and lines that are not like the others."""

from __future__ import annotations

import csv
import gzip
import io
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from itertools import dropwhile, islice
from pathlib import Path
from typing import Any, NamedTuple

from emroute.errors import InputError

__all__ = ["STDIN", "Parsed", "first_line", "name_of", "parse"]

STDIN = Path("-")
"""Stands for standard input."""

_SEPARATORS = (",", ";", "\t", " ")
_DECIMAL_COMMA = r"\s*[+-]?(?:[0-9]+(?:,[0-9]*)?|,[0-9]+)(?:[eE][+-]?[0-9]+)?\s*"
_MISSING = ("", "na", "n/a", "null", "none", "nan", "?")

Content = Path | bytes


class Parsed(NamedTuple):
    """The columns of a text file."""

    frame: Any
    """Numbers; null where an entry is missing, or is text."""
    text: dict[str, str]
    """What is wrong with each column that does not hold numbers."""
    place: Callable[[int], str]
    """Where in the file a row is, in words."""
    assumed: tuple[str, ...]
    """What was guessed, and the option that says otherwise."""


def parse(pl: Any, path: Path, header: bool | None) -> Parsed:
    """Read a csv file as text first, so that a column of numbers is one in which every entry is missing or a number."""
    content, name = _content(path), name_of(path)
    try:
        return _parse(pl, content, name, header)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name}: not a csv file in UTF-8 ({first_line(error)})") from None


def _parse(pl: Any, content: Content, name: str, header: bool | None) -> Parsed:
    content, separator = _one_separator(content)
    first = next((cells for _, cells in _records(content, separator)), [])
    names, assumed = [cell.strip() for cell in first], []
    headless = header is False
    if header is None and all(_is_number(cell, separator) for cell in names):
        headless = not _is_count_of_columns(content, separator, names)
        if headless and names:
            assumed.append("the first line holds numbers and is read as a row; --header takes it for names of columns")
        elif names:
            line = f"{','.join(names):.40}"
            assumed.append(f"the first line, {line}, is taken for names of columns; --no-header reads it as a row")
    if headless:
        names = [str(place) for place in range(len(names))]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{name}: two columns are named {twice[0]!r}; rename one")

    def place(row: int) -> str:
        line, _ = next(islice(_records(content, separator), row + (not headless), None))
        return f"line {line}"

    try:
        raw = pl.read_csv(
            _lines(content), has_header=not headless, new_columns=names or None, separator=separator, infer_schema=False
        )
    except pl.exceptions.PolarsError:
        _check_widths(content, name, separator)
        raise
    if raw[:, -1].has_nulls():
        _check_widths(content, name, separator)  # a line that is too short ends in nulls
    filled = raw.select(pl.any_horizontal(pl.all().is_not_null())).to_series().arg_true()
    raw = raw.head(filled[-1] + 1 if len(filled) else 0)  # empty lines at the end are no rows
    raw = raw.with_columns(pl.all().str.strip_chars())
    raw = raw.with_columns(pl.when(~pl.all().str.to_lowercase().is_in(_MISSING)).then(pl.all()))
    if separator != "," and (commas := _with_decimal_commas(pl, raw)):
        raw = raw.with_columns(pl.col(commas).str.replace(",", ".", literal=True))
        assumed.append(f"commas in {', '.join(map(repr, commas))} are read as decimal points")
    frame = raw.cast(pl.Float64, strict=False)
    text = {}
    for column in raw.columns:
        bad = (raw[column].is_not_null() & frame[column].is_null()).arg_true()
        if len(bad):
            text[column] = f"{place(bad[0])}: {raw[column][bad[0]]!r:.40}"
            if len(names) == 1:
                text[column] += "; fields are separated by commas, semicolons, tabs or blanks"
    return Parsed(frame, text, place, tuple(f"{name}: {what}" for what in assumed))


def name_of(path: Path) -> str:
    """Return how messages call a file."""
    return "standard input" if path == STDIN else str(path)


def _content(path: Path) -> Content:
    """Return a file that can be read again and again: what comes compressed or from standard input is held."""
    if path == STDIN:
        return sys.stdin.buffer.read()
    if path.suffix.lower() != ".gz":
        return path
    try:
        return gzip.decompress(path.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be decompressed ({first_line(error)})") from None


def _one_separator(content: Content) -> tuple[Content, str]:
    """Return content whose fields are separated by one character each, and that character.

    Runs of blanks become tabs, and a header that is one field short, as R's `write.table` leaves it, begins with an
    empty name.
    """
    separator = _separator(content)
    if separator == " ":
        rows = io.StringIO(newline="")
        csv.writer(rows, delimiter="\t", lineterminator="\n").writerows(cells for _, cells in _every(content, " "))
        content, separator = rows.getvalue().encode(), "\t"
    head = [cells for _, cells in islice(_records(content, separator), 3)]
    if len(head) == 3 and len(head[0]) + 1 == len(head[1]) == len(head[2]) and _counts(head[1][0], head[2][0]):
        whole = content if isinstance(content, bytes) else content.read_bytes()
        content = re.sub(rb"^(?:\xef\xbb\xbf)?\s*", lambda start: start[0] + b'""' + separator.encode(), whole, count=1)
    return content, separator


def _counts(first: str, second: str) -> bool:
    """Whether two lines begin with row numbers or, both of them, with text."""
    if first.strip().isdigit() and second.strip().isdigit():
        return int(second) == int(first) + 1
    return not _is_number(first, ";") and not _is_number(second, ";")


def _separator(content: Content) -> str:
    """Return what separates the fields of the first two lines.

    It makes as many fields of both, most of them numbers in the second line, and many of them. A comma between digits
    may be a decimal one, so fields between other separators may be numbers with commas. Blanks are often parts of
    names: they separate only what is all numbers, or what nothing else separates.
    """
    starts = {each: [cells for _, cells in islice(_records(content, each), 2)] for each in _SEPARATORS}

    def evidence(separator: str) -> tuple[bool, float, int]:
        start = starts[separator]
        if not start:
            return False, 0.0, 0
        widths = [len(cells) for cells in start]
        alike = len(widths) == 2 and widths[1] > 1 and widths[1] - widths[0] in (0, 1)
        numbers = sum(_is_number(cell, separator) or cell.strip().lower() in _MISSING[1:] for cell in start[-1])
        return alike, numbers / max(1, widths[-1]), widths[0]

    found = {each: evidence(each) for each in _SEPARATORS}
    if (found[" "][1] < 1 and any(found[each][0] for each in _SEPARATORS[:-1])) or not found[" "][0]:
        del found[" "]
    return max(found, key=found.__getitem__)


def _is_count_of_columns(content: Content, separator: str, names: list[str]) -> bool:
    """Whether the first line is ``0, 1, ..., d - 1``: of a single column only where other numbers are not as plain."""
    if names != [str(place) for place in range(len(names))]:
        return False
    return len(names) > 1 or any(not cells[0].strip().isdigit() for _, cells in _records(content, separator) if cells)


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


def _lines(content: Content) -> Path | io.BytesIO:
    """Return a file, or its content where lines end in a carriage return alone, which polars does not read."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            start = file.read(2**20)
        if not re.search(rb"\r[^\r\n]", start):
            return content
        content = content.read_bytes()
    return io.BytesIO(re.sub(rb"\r*\n|\r", b"\n", content) if b"\r" in content else content)


def _check_widths(content: Content, name: str, separator: str) -> None:
    """Raise `InputError` unless every line has as many fields as the first, or none."""
    width = 0
    for line, cells in _records(content, separator):
        width = width or len(cells)
        if cells and len(cells) != width:
            raise InputError(f"{name}, line {line}: number of fields is {len(cells)}, in the first line {width}")


def _records(content: Content, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Give the fields of each line and the number of the line, from the first that is not empty."""
    return dropwhile(lambda record: not record[1], _every(content, separator))


def _every(content: Content, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Give the fields of each line and the number of the line. Of blanks, any number separates two fields."""
    file = content.open("rb") if isinstance(content, Path) else io.BytesIO(content)
    with io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as lines:
        blanks = separator == " "
        texts = (" ".join(line.split()) + "\n" for line in lines) if blanks else lines
        reader = csv.reader(texts, delimiter=separator, skipinitialspace=blanks)
        yield from ((reader.line_num, cells) for cells in reader)


def _is_number(cell: str, separator: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return separator != "," and re.fullmatch(_DECIMAL_COMMA, cell) is not None
    return True


def first_line(error: Exception) -> str:
    """Return the first line of an error's words."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
