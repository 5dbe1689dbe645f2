"""``emroute check``: whether every array library on this machine gives what NumPy gives."""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from rich.console import Console

import emroute
from emroute.cli.show import show
from emroute.errors import FitWarning
from emroute.testing.cases import OPERATIONS, Case
from emroute.testing.check import run
from emroute.testing.equivalence import Outcome, told
from emroute.testing.place import NUMPY, Place, installed_libraries, places

__all__ = ["check"]

_NAMES = 48  # characters for the names of functions and the dtype
_COLUMN = 9  # characters for a library


def check(
    backend: Annotated[
        list[str] | None, typer.Option(help="Only these libraries.", show_default="all that are installed")
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option(help="Only these devices, such as cpu or cuda:0.", show_default="all")
    ] = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Use more data, and compare gradients in float32 too.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print a row for each case and for its gradients.")
    ] = False,
) -> None:
    """Compare every library and device here with NumPy.

    Every public function is compared with float64 NumPy. The exit status is 1 if any result differs.
    """
    start, console = time.perf_counter(), Console()
    chosen = places(backend or None, device or None)
    for name in device or []:
        has = {place.library for place in chosen if place.device == name}
        if without := [each for each in backend or installed_libraries() if each not in has]:
            console.print(f"Left out, because they have no device {name} here: {', '.join(without)}.", markup=False)
    for place in chosen:
        place.enable_float64()
    versions = {place.library: place.version for place in [NUMPY, *chosen]}
    about = [("Python", platform.python_version()), ("emroute", emroute.__version__), *versions.items()]
    show(console, "Versions", ["", ""], about)
    results = []
    with warnings.catch_warnings(), Console(stderr=True).status("") as status:
        warnings.simplefilter("ignore", FitWarning)  # the fits of the cases are short
        for case, outcomes in run(chosen, thorough):
            results.append((case, outcomes))
            status.update(f"{len(results)} cases, {time.perf_counter() - start:.0f} s: {case.title}")
    _table(console, results, _each_case if verbose else _each_algorithm)
    wrong = [(case, outcome) for case, outcomes in results for outcome in outcomes if not outcome.passed]
    seconds = f"{time.perf_counter() - start:.0f} s"
    if not wrong:
        console.print(f"All is well: {sum(len(outcomes) for _, outcomes in results)} comparisons in {seconds}.")
        return
    console.print("What differs", style="bold")
    for case, outcome in wrong:
        console.print(_sentence(case, outcome), markup=False, highlight=False)
    console.print()
    for place in dict.fromkeys(outcome.place for _, outcome in wrong):
        names = dict.fromkeys(case.name for case, outcome in wrong if outcome.place == place)
        console.print(f"On {place} these are wrong: {', '.join(names)}.", soft_wrap=True)
    raise typer.Exit(1)


def _sentence(case: Case, outcome: Outcome) -> str:
    """Say in words what differs, by how much, and where."""
    error, allowed, where, found, expected = told(outcome)
    what = f"{case.title} on {outcome.place}, {outcome.dtype}, {outcome.of}"
    if outcome.problem:
        return f"{what}: {where}"
    return f"{what}: error {error}, allowed {allowed}; {where} is {found}, expected {expected}"


def _each_case(case: Case, outcome: Outcome) -> tuple[str, str]:
    return case.title, outcome.dtype if outcome.of == "values" else f"{outcome.dtype} {outcome.of}"


def _each_algorithm(case: Case, outcome: Outcome) -> tuple[str, str]:
    return f"{case.name.partition('.')[0]}.*" if case in OPERATIONS else case.name, outcome.dtype


def _table(
    console: Console, results: Sequence[tuple[Case, list[Outcome]]], row: Callable[..., tuple[str, str]]
) -> None:
    """Print the largest difference of each row on each library and device, and the seconds that all took."""
    lines: dict[tuple[str, str], list[Outcome]] = {}
    for case, outcomes in results:
        for outcome in outcomes:
            lines.setdefault(row(case, outcome), []).append(outcome)
    everything = [outcome for mine in lines.values() for outcome in mine]
    columns = list(dict.fromkeys(outcome.place for outcome in everything))

    def cells(mine: Sequence[Outcome], entry: Callable[[Sequence[Outcome]], str], shown: list[Place]) -> list[str]:
        return [entry([outcome for outcome in mine if outcome.place == place]) for place in shown]

    left_out, title = (
        _left_out(results),
        "Largest differences from float64 NumPy, relative to the array's largest entry",
    )
    at_once = max(1, (console.width - _NAMES) // _COLUMN)
    for first in range(0, len(columns), at_once):
        shown, rows, above = columns[first : first + at_once], [], ""
        for (name, what), mine in lines.items():
            entries = [
                left_out.get(place, "–") if cell == "–" else cell
                for place, cell in zip(shown, cells(mine, _cell, shown), strict=True)
            ]
            rows.append((name if name != above else "", what, *entries))
            above = name
        rows.append(("seconds", "", *cells(everything, _seconds, shown)))
        headers = ["", "", *(f"{place.library}\n{place.where}" for place in shown)]
        show(console, title, headers, rows)
        title = "The same on further libraries"


def _left_out(results: Sequence[tuple[Case, list[Outcome]]]) -> dict[Place, str]:
    """Why the algorithms were not run on some libraries: an operation that they rest on is wrong there."""
    wrong: dict[Place, dict[str, None]] = {}
    for case, outcomes in results:
        for outcome in outcomes:
            if case in OPERATIONS and not outcome.passed:
                wrong.setdefault(outcome.place, {})[case.name.rpartition(".")[2]] = None
    reasons = {}
    for place, names in wrong.items():
        reasons[place] = f"not run: {', '.join(names)} {'is' if len(names) == 1 else 'are'} wrong"
    if NUMPY in reasons:  # there is nothing to compare with
        everywhere = dict.fromkeys((outcome.place for _, outcomes in results for outcome in outcomes), reasons[NUMPY])
        reasons = {place: f"{why} on NumPy" for place, why in everywhere.items()}
    return reasons


def _seconds(outcomes: Sequence[Outcome]) -> str:
    return f"{sum(outcome.seconds for outcome in outcomes):.1f}"


def _cell(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "–"
    if not all(outcome.passed for outcome in outcomes):
        return "WRONG"
    values = [outcome for outcome in outcomes if outcome.of == "values"] or outcomes
    return f"{max(outcome.difference.error for outcome in values):.0e}"
