"""What the commands print."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["facts", "is_terminal", "number", "show"]

_GAP = 2  # blanks between columns
_NAME = 12  # names in the first column are not broken to less than this


def is_terminal() -> bool:
    """Whether someone watches stderr; Python has none where it was closed."""
    return sys.stderr is not None and sys.stderr.isatty()


def number(value: Any) -> str:
    """Return six significant digits of a number, and text as it is.

    >>> number(-1130.26396), number(3), number("full")
    ('-1130.26', '3', 'full')
    """
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def show(console: Console, title: str, headers: Sequence[str], rows: Iterable[Sequence[Any]], rest: str = "") -> None:
    """Print a table under its title, the first column left-aligned, the others right; no markup is read in entries.

    Headers that are all empty are left out. Numbers are never broken over lines. Where the table is too wide, headers
    are wrapped, then names in the first column are broken, then the last columns are left out. A line below the table
    names the columns that were left out, and `rest` says where to find them.
    """
    cells = [[number(value) for value in row] for row in rows]
    entries = [[len(row[place]) for row in cells] for place in range(len(headers))]
    widths = _widths(headers, entries, console.width)
    shown = len(widths)
    while shown > 1 and _total(widths[:shown]) > console.width:
        shown -= 1
    console.print(Text(title, style="bold"), soft_wrap=True)
    table = _table(show_header=any(headers))
    for place, (header, width) in enumerate(zip(headers[:shown], widths, strict=False)):
        table.add_column(Text(header), justify="right" if place else "left", overflow="fold", width=width)
    for row in cells:
        table.add_row(*(Text(entry) for entry in row[:shown]))
    console.print(table)
    if left_out := [" ".join(header.split()) for header in headers[shown:]]:
        names = textwrap.shorten(", ".join(left_out), 200, placeholder=" ...")
        console.print(f"Not shown: {names}{'; ' * bool(rest)}{rest}", markup=False, highlight=False)
    console.print()


def facts(console: Console, title: str, entries: Iterable[tuple[str, Any]]) -> None:
    """Print names and what belongs to them; long sentences are wrapped."""
    console.print(Text(title, style="bold"), soft_wrap=True)
    table = _table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in entries:
        table.add_row(Text(name), Text(number(value)))
    console.print(table)
    console.print()


def _table(show_header: bool) -> Table:
    return Table(box=box.SIMPLE, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0), show_header=show_header)


def _widths(headers: Sequence[str], entries: Sequence[Sequence[int]], room: int) -> list[int]:
    """Return the widths of columns: as wide as their headers if there is room, else as their longest word or entry."""
    lines = [max(map(len, header.split("\n"))) for header in headers]
    widths = [max([line, *lengths]) for line, lengths in zip(lines, entries, strict=True)]
    if _total(widths) <= room:
        return widths
    words = [max(map(len, header.split()), default=0) for header in headers]
    widths = [max([word, *lengths]) for word, lengths in zip(words, entries, strict=True)]
    widths[0] = min(widths[0], max(_NAME, room - _total(widths) + widths[0]))
    return widths


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)
