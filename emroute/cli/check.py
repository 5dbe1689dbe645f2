"""``emroute check``: whether every array library on this machine gives what NumPy gives."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console

import emroute
from emroute.cli.show import show
from emroute.testing.cases import Case
from emroute.testing.check import run
from emroute.testing.equivalence import Outcome, told
from emroute.testing.place import places

__all__ = ["check"]


def check(
    backend: Annotated[list[str] | None, typer.Option(help="Only these libraries; by default all installed.")] = None,
    device: Annotated[list[str] | None, typer.Option(help="Only these devices, such as cpu or cuda:0.")] = None,
    thorough: Annotated[bool, typer.Option("--thorough", help="More data, and gradients in float32 too.")] = False,
) -> None:
    """Compare every function on every array library and device here with float64 NumPy; status 1 if any differs."""
    start, console = time.perf_counter(), Console()
    chosen = places(backend or None, device or None)
    for place in chosen:
        place.enable_float64()
    versions = {place.library: place.version for place in chosen}
    about = [("Python", platform.python_version()), ("emroute", emroute.__version__), *versions.items()]
    show(console, "Versions", ["", ""], about)
    results = []
    with Console(stderr=True).status("") as status:
        for case, outcomes in run(chosen, thorough):
            results.append((case, outcomes))
            status.update(f"{len(results)} cases, {time.perf_counter() - start:.0f} s: {case.title}")
    _table(console, results)
    wrong = [(case, outcome) for case, outcomes in results for outcome in outcomes if not outcome.passed]
    seconds = f"{time.perf_counter() - start:.0f} s"
    if not wrong:
        console.print(f"All is well: {sum(len(outcomes) for _, outcomes in results)} comparisons in {seconds}.")
        return
    headers = ["", "library", "dtype", "of", "error", "allowed", "where", "found", "expected"]
    rows = [(case.title, str(outcome.place), outcome.dtype, outcome.of, *told(outcome)) for case, outcome in wrong]
    show(console, "What differs", headers, rows)
    for place in dict.fromkeys(outcome.place for _, outcome in wrong):
        names = dict.fromkeys(case.name for case, outcome in wrong if outcome.place == place)
        console.print(f"On {place} these are wrong: {', '.join(names)}.", soft_wrap=True)
    raise typer.Exit(1)


def _table(console: Console, results: Sequence[tuple[Case, list[Outcome]]]) -> None:
    """Print the largest difference of each case on each library and device, and the seconds that all took."""
    columns = list(dict.fromkeys(outcome.place for _, outcomes in results for outcome in outcomes))
    rows: list[tuple[Any, ...]] = []
    for case, outcomes in results:
        title = case.title
        for kind in dict.fromkeys((outcome.dtype, outcome.of) for outcome in outcomes):
            mine = [outcome for outcome in outcomes if (outcome.dtype, outcome.of) == kind]
            cells = [_cell([outcome for outcome in mine if outcome.place == place]) for place in columns]
            what = kind[0] if kind[1] == "values" else "gradients"
            rows.append((title, what, *cells, f"{sum(outcome.seconds for outcome in mine):.2f}"))
            title = ""
    everything = [outcome for _, outcomes in results for outcome in outcomes]
    taken = [sum(outcome.seconds for outcome in everything if outcome.place == place) for place in columns]
    rows.append(("seconds", "", *(f"{seconds:.1f}" for seconds in taken), f"{sum(taken):.1f}"))
    headers = ["", "", *(f"{place.library}\n{place.device}" for place in columns), "seconds"]
    show(console, "Largest differences from float64 NumPy, relative to the array's largest entry", headers, rows)


def _cell(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "–"
    if not all(outcome.passed for outcome in outcomes):
        return "WRONG"
    return f"{max(outcome.difference.error for outcome in outcomes):.0e}"
