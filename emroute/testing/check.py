"""The whole suite: every case on array libraries and devices, basic operations first."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from emroute.testing.cases import ALGORITHMS, OPERATIONS, Case
from emroute.testing.compare import Difference
from emroute.testing.equivalence import DTYPES, Outcome
from emroute.testing.place import NUMPY, Place, with_fused

__all__ = ["run"]

_SEEDS = 3


def run(chosen: Sequence[Place], thorough: bool = False) -> Iterator[tuple[Case, list[Outcome]]]:
    """Run all cases, and yield how each went.

    Algorithms are not run where an operation that they rest on has failed; NumPy, with which the others are compared,
    comes in even if it was not chosen. Libraries with fused forms run all cases a second time, on these.

    Parameters
    ----------
    chosen
        Array libraries and devices.
    thorough
        Whether to draw the arguments three times instead of once, and to compare gradients in float32 too.

    Yields
    ------
    tuple of Case and list of Outcome
        A case, and its outcomes on libraries and devices, in each dtype.
    """
    standing = with_fused(list(dict.fromkeys([NUMPY, *chosen])))
    # most of the time goes into compilers, which leave Python to the others; a few threads more keep all cores at it
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        for cases in (OPERATIONS, ALGORITHMS):
            broken = set()
            for case, outcomes in zip(cases, pool.map(partial(_outcomes, standing, thorough), cases), strict=True):
                broken |= {outcome.place for outcome in outcomes if not outcome.passed}
                yield case, outcomes
            standing = [] if NUMPY in broken else [place for place in standing if place not in broken]


def _outcomes(places: Sequence[Place], thorough: bool, case: Case) -> list[Outcome]:
    pairs = [(place, dtype) for dtype in DTYPES for place in places if place.has(dtype)]
    found = []
    for seed in range(_SEEDS if thorough else 1):
        trial = case.trial(seed)
        for dtypes in (DTYPES,) if thorough else ((dtype,) for dtype in DTYPES):
            now = replace(trial, gradients=trial.gradients and "float64" in dtypes)
            try:
                found += now.run([pair for pair in pairs if pair[1] in dtypes])
            except Exception as error:  # raised by NumPy, so that there is nothing to compare with
                problem = f"{type(error).__name__}: {error}"
                found.append(Outcome(NUMPY, dtypes[0], "values", Difference(0.0), 0.0, problem))
    return found
