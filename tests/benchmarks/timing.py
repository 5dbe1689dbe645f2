"""Measure functions turn about, so that a busy machine slows all of them, on a stated number of threads."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pytest
import torch
from threadpoolctl import threadpool_limits

from tests.benchmarks.page import Row
from tests.benchmarks.sections import Section

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keep this process to as many cores as threads: JAX knows no other limit."""
    if CORES and threads > len(CORES):
        pytest.skip(f"needs {threads} cores")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    _move(CORES[-threads:])
    try:
        yield
    finally:
        _move(CORES)
        torch.set_num_threads(before)


def _move(cores: list[int]) -> None:
    for task in Path("/proc/self/task").iterdir() if cores else ():
        try:
            os.sched_setaffinity(int(task.name), cores)
        except ProcessLookupError:  # a thread that has ended meanwhile
            continue


@dataclass(frozen=True)
class Bench:
    """Collects the rows of the page."""

    rounds: int
    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        self.rows.append(row)
        print(f"{row.section.heading}: {', '.join(row.cells)}, against {row.peer}: {row.ratio:.2f}")

    def medians(self, *functions: Callable[[], object], threads: int = 1) -> list[float]:
        """Median seconds of each, all on the same threads."""
        seconds: list[list[float]] = [[] for _ in functions]
        with pinned(threads):
            for function in functions:  # compiles, and loads whatever `threadpool_limits` has to find
                function()
            with threadpool_limits(threads):
                for _ in range(self.rounds):
                    for taken, function in zip(seconds, functions, strict=True):
                        start = time.perf_counter()
                        function()
                        taken.append(time.perf_counter() - start)
        return [median(taken) for taken in seconds]

    def compare(
        self,
        section: Section,
        cells: tuple[str, ...],
        ours: Callable[[], object],
        peers: Mapping[str, Callable[[], object]],
        threads: int = 1,
    ) -> None:
        """Add a row for each peer."""
        mine, *theirs = self.medians(ours, *peers.values(), threads=threads)
        for peer, seconds in zip(peers, theirs, strict=True):
            self.add(Row(section, cells, mine, peer, seconds, threads))
