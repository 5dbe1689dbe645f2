"""Write docs/benchmarks.md: a section has three sentences, a chart and a table, all made of what was measured."""

import os
import platform
import re
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from math import floor, log10
from pathlib import Path

from tests.benchmarks.sections import SECTIONS, Section

COMMAND = "OMP_NUM_THREADS=2 python -m pytest -n 0 tests/benchmarks --rounds {} --write-table docs/benchmarks.md"
LIBRARIES = ("emroute", "numpy", "numba", "torch", "jax", "scikit-learn")
LEVEL = 1.05
"""Ratios nearer to 1 than this are noise."""
WORDS = {1: "one", 2: "two"}


@dataclass(frozen=True)
class Row:
    """A comparison with a peer, in seconds or bytes."""

    section: Section
    cells: tuple[str, ...]
    ours: float
    peer: str
    theirs: float
    threads: int = 1

    @property
    def ratio(self) -> float:
        return self.theirs / self.ours


def write(target: Path, rows: list[Row], rounds: int) -> None:
    """Write the page, and the charts beside it into images/benchmarks."""
    from tests.benchmarks.chart import draw

    folder = target.parent / "images" / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    parts = [_head(rounds)]
    for section in SECTIONS:
        if own := [row for row in rows if row.section == section]:
            name = re.sub(r"\W+", "-", section.heading.lower()) + ".svg"
            draw(folder / name, own)
            picture = f"![Bars of the ratios in the table below, and a line at 1](images/benchmarks/{name})"
            text = f"{section.measured} {against(own)} {verdict(own)}"
            parts.append("\n\n".join([f"## {section.heading}", text, picture, table(own)]))
    target.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def against(rows: list[Row]) -> str:
    """Who the peers are, in which versions, and on how many threads."""
    section, peers = rows[0].section, _peers(rows)
    start, ran = ("The peer is", "both ran") if len(peers) == 1 else ("The peers are", "all ran")
    sentence = f"{start} {_and([f'{peer} {installed(peer)}'.strip() for peer in peers])}{section.how}"
    if section.unit == "s":
        threads = sorted({row.threads for row in rows})
        sentence += f"; {ran} on {_and([WORDS[n] for n in threads])} {_thread(threads[-1])}"
    return sentence + "."


def verdict(rows: list[Row]) -> str:
    """Who wins, and by how much."""
    subject, peers = rows[0].section.ours, _peers(rows)
    groups = {peer: [row for row in rows if row.peer == peer] for peer in peers}
    several = [f"against {peer}, {subject} is {_outcome(group)}" for peer, group in groups.items()]
    sentence = "; ".join(several) if len(peers) > 1 else f"{subject} is {_outcome(rows)}"
    return (sentence if sentence.startswith("emroute") else sentence[0].upper() + sentence[1:]) + "."


def table(rows: list[Row]) -> str:
    """The rows in Markdown, the peer and the threads only where they differ."""
    section, peers, threads = rows[0].section, _peers(rows), {row.threads for row in rows}
    several, varied = len(peers) > 1, len(threads) > 1
    names = [*section.columns, *["against"] * several, *["threads"] * varied]
    lines = [[*names, section.ours, "peer" if several else peers[0], "ratio"], ["---"] * (len(names) + 3)]
    for row in rows:
        told = [*row.cells, *[row.peer] * several, *[str(row.threads)] * varied]
        lines.append([*told, *(amount(x, section.unit) for x in (row.ours, row.theirs)), digits(row.ratio, 3)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def labels(rows: list[Row]) -> list[str]:
    """What tells the rows apart, in words."""
    words = [(*row.cells, row.peer, f"{row.threads} {_thread(row.threads)}") for row in rows]
    columns = list(zip(*words, strict=True))
    told = [column for column in columns if len(set(column)) > 1] or columns[:1]
    return [", ".join(line) for line in zip(*told, strict=True)]


def amount(x: float, unit: str) -> str:
    """Seconds or bytes to three digits."""
    sizes = {"B": {"GB": 1e9, "MB": 1e6, "kB": 1e3}, "s": {"s": 1.0, "ms": 1e-3, "µs": 1e-6}}[unit]
    name = next((name for name, size in sizes.items() if x >= size), [*sizes][-1])
    return f"{digits(x / sizes[name], 3)} {name}"


def digits(x: float, n: int) -> str:
    """A positive number to n significant digits, or to a whole number."""
    return f"{x:.{max(0, n - 1 - floor(log10(x)))}f}"


def installed(name: str) -> str:
    """The version of a distribution; of what is none, nothing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _peers(rows: list[Row]) -> list[str]:
    return [*dict.fromkeys(row.peer for row in rows)]


def _outcome(rows: list[Row]) -> str:
    section, ratios = rows[0].section, [row.ratio for row in rows]
    better = [x for x in ratios if x >= LEVEL]
    worse = [1 / x for x in ratios if x <= 1 / LEVEL]
    groups = {section.better: better, "level": [1.0] * (len(rows) - len(better) - len(worse)), section.worse: worse}
    told = []
    for word, times in groups.items():
        if times:
            share = f" in {len(times)} of {len(rows)}" if len(rows) > 1 else ""
            span = " to ".join(dict.fromkeys(digits(end(times), 2) for end in (min, max)))
            told.append(f"{word}{share}" + (f", by {span} times" if word != "level" else ""))
    *first, last = told
    return f"{', '.join(first)}, and {last}" if first else last


def _and(parts: list[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def _thread(n: int) -> str:
    return "thread" if n == 1 else "threads"


def _head(rounds: int) -> str:
    versions = ", ".join(f"{name} {installed(name)}" for name in LIBRARIES if installed(name))
    return f"""# Benchmarks

Speed is a ratio against another library. Both run alternately in one process on the same cores, and each figure is the
median of {rounds} rounds. A ratio of 2 means that emroute takes half the time, or half the memory. In the charts, bars
to the right of the line at 1 are ratios above 1, on a logarithmic scale. Differences below 5 % count as level.

Measured on {date.today():%Y-%m-%d} on {os.cpu_count()} cores of {_cpu()}, with Python {platform.python_version()},
{versions}.
Each section says how many threads ran; they were pinned to as many cores. From a checkout,

```bash
pip install -e '.[bench]'
{COMMAND.format(rounds)}
```

repeats all measurements and writes this page."""


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = [x for x in info.read_text().splitlines() if x.startswith("model name")] if info.exists() else []
    return names[0].split(": ")[1] if names else platform.processor()
