"""What the commands print."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["is_terminal", "number", "show"]


def is_terminal() -> bool:
    """Whether someone watches stderr; Python has none where it was closed."""
    return sys.stderr is not None and sys.stderr.isatty()


def number(value: Any) -> str:
    """Six significant digits for numbers, text as it is.

    >>> number(-1130.26396), number(3), number("full")
    ('-1130.26', '3', 'full')
    """
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def show(console: Console, title: str, headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table under its title, the first column left-aligned, the others right; no markup is read in entries.

    Headers that are all empty are left out. Where it is too wide, names in the first column stay whole and the others
    are broken, unless names alone would take more than half of the width.
    """
    console.print(Text(title, style="bold"), soft_wrap=True)
    rows = list(rows)
    long = any(2 * len(str(row[0])) > console.width for row in rows)
    table = Table(box=box.SIMPLE, show_header=any(headers))
    for place, header in enumerate(headers):
        table.add_column(
            Text(header), justify="right" if place else "left", overflow="fold", no_wrap=bool(place) == long
        )
    for row in rows:
        table.add_row(*(Text(number(value)) for value in row))
    console.print(table)
