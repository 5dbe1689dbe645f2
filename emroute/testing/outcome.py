"""What a comparison found, and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emroute.testing.compare import Difference
from emroute.testing.place import Place

__all__ = ["Outcome", "report", "told"]


@dataclass(frozen=True)
class Outcome:
    """How one library did on one device in one dtype."""

    place: Place
    dtype: str
    of: str
    """``"values"`` or ``"gradients"``."""
    difference: Difference
    rtol: float
    problem: str = ""
    """What was wrong beside the numbers."""
    seconds: float = 0.0
    cause: Exception | None = None
    """What the function raised."""

    @property
    def passed(self) -> bool:
        """Whether the results are those of NumPy."""
        return not self.problem and self.difference.error <= self.rtol


def report(found: Sequence[Outcome]) -> str:
    """Return a table of who differs where, in the order of the outcomes."""
    wrong = [outcome for outcome in found if not outcome.passed]
    rows = [("library", "device", "dtype", "of", "error", "allowed", "where", "found", "expected")]
    for outcome in wrong:
        row = outcome.place.library, outcome.place.where, outcome.dtype, outcome.of, *told(outcome)
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([f"{len(wrong)} of {len(found)} results differ from float64 NumPy:", *lines])


def _doubt(found: Sequence[Outcome]) -> str:
    """Whether float64 NumPy differs from what it gave before: a line for below the table."""
    again = [o for o in found if (str(o.place), o.dtype, o.of) == ("numpy cpu", "float64", "values")]
    if all(outcome.passed or outcome.problem for outcome in again):
        return ""
    return "\nNumPy differs from itself: does the function draw at random, or change its arguments?"


def told(outcome: Outcome) -> tuple[str, str, str, str, str]:
    """Return error, what is allowed, where, and both values; or what was wrong beside the numbers."""
    error, where, found, expected = outcome.difference
    if outcome.problem:
        return "", "", _in_a_line(outcome.problem), "", ""
    return f"{error:.2g}", f"{outcome.rtol:.2g}", where or "the result", _in_a_line(found), _in_a_line(expected)


def _in_a_line(value: Any) -> str:
    return " ".join(str(value).split())
