"""Measure in pairs, in one process, and write the table of docs/benchmarks.md."""

import os
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import median

import pytest

COMMAND = "OMP_NUM_THREADS=2 python -m pytest -n 0 tests/benchmarks --write-table docs/benchmarks.md"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-table", metavar="FILE", help="write the figures as Markdown")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


ROWS: pytest.StashKey[list[tuple[str, list[str]]]] = pytest.StashKey()


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Add a row to a section of the table."""

    def add(section: str, *cells: str) -> None:
        request.config.stash[ROWS].append((section, [*cells]))
        print(" | ".join([section, *cells]))

    return add


@pytest.fixture
def versus(benchmark) -> Callable[..., tuple[float, float]]:
    """Median seconds of ours and of a peer, turn about so that a busy machine slows both."""

    def measure(ours: Callable[[], object], peer: Callable[[], object], rounds: int = 3) -> tuple[float, float]:
        ours(), peer()
        seconds: list[float] = []

        def timed_peer() -> None:
            start = time.perf_counter()
            peer()
            seconds.append(time.perf_counter() - start)

        benchmark.pedantic(ours, setup=timed_peer, rounds=rounds)
        mine, theirs = benchmark.stats.stats.median, median(seconds)
        benchmark.extra_info["ratio"] = theirs / mine
        return mine, theirs

    return measure


def pytest_sessionfinish(session: pytest.Session) -> None:
    target, rows = session.config.getoption("--write-table"), session.config.stash[ROWS]
    if not target or not rows:
        return
    lines = [
        "# Benchmarks",
        "",
        "Speed is a ratio against a peer: both run in one process, turn about, medians of several; above 1 emroute is "
        "faster. Memory is the peak of anonymous memory above what the process held before. Written by",
        "",
        f"```bash\npip install -e '.[bench]'\n{COMMAND}\n```",
        "",
        f"on {date.today():%Y-%m-%d}, Python {platform.python_version()}, {_cpu()}, {os.cpu_count()} cores, "
        f"{os.environ.get('OMP_NUM_THREADS', 'no limit of')} threads.",
    ]
    for section in dict.fromkeys(name for name, _ in rows):
        cells = [row for name, row in rows if name == section]
        head, _, columns = section.partition(": ")
        names = columns.split(", ")
        lines += ["", f"## {head}", "", _line(names), _line(["---"] * len(names)), *map(_line, cells)]
    Path(target).write_text("\n".join(lines) + "\n")


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = [x for x in info.read_text().splitlines() if x.startswith("model name")] if info.exists() else []
    return names[0].split(": ")[1] if names else platform.processor()
