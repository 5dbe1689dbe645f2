"""Compare the routings on the same planted votes: ``python docs/examples/compare_routings.py``.

It writes the table of ``docs/compare-routings.md`` and the chart beside it.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np

from emroute import capsule

mpl.use("svg")
from matplotlib import pyplot as plt

DOCS = Path(__file__).parents[1]
BEGIN, END = "<!-- table -->\n", "<!-- end -->"
B, I, J, H, CLUTTER = 30, 200, 4, 16, 20  # noqa: E741 - samples, children, parents, entries; children of no parent
ZERO, WARM = np.zeros(J), (1.0, 1.0, 1.0)


def planted(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Votes ``(B, I, J, H)``, and the parents ``(B, I)`` that children have, -1 for none.

    A child's vote for its parent is the parent's pose and noise, wide along some directions and narrow along others;
    its votes for the others, and all votes of clutter, are anything.
    """
    rng = np.random.default_rng(seed)
    votes = rng.normal(size=(B, I, J, H))
    parents, truth = rng.normal(size=(B, J, H)), rng.integers(J, size=(B, I))
    axes, _ = np.linalg.qr(rng.normal(size=(B, J, H, H)))
    width = np.geomspace(0.05, 1.2, H)
    for sample in range(B):
        for child in range(I - CLUTTER):
            parent = truth[sample, child]
            noise = axes[sample, parent] @ (width * rng.normal(size=H))
            votes[sample, child, parent] = parents[sample, parent] + noise
    truth[:, I - CLUTTER :] = -1
    return votes, truth


def with_costs(route: Callable[..., Any], **options: Any) -> Callable[[np.ndarray], Any]:
    """A routing with activations and costs, all children being there."""
    return lambda votes: route(votes, np.ones(votes.shape[:2]), ZERO, ZERO, **options)


def net_scores(metric: str) -> Callable[[np.ndarray], Any]:
    """The routing of Heinsen (2019), with costs that do not tell children apart."""
    ones = np.ones((I, J)) / I
    return lambda votes: capsule.heinsen_matrix_routing(votes, np.full(votes.shape[:2], 5.0), ones, ones, metric=metric)


ROUTINGS = {
    "EM, diagonal": with_costs(capsule.em_routing),
    "EM, normalized cost": with_costs(capsule.em_routing, cost="normalized"),
    "EM, full": with_costs(capsule.em_routing, covariance="full", epsilon=1e-3),
    "variational, diagonal": with_costs(capsule.variational_routing),
    "variational, full": with_costs(capsule.variational_routing, covariance="full"),
    "Heinsen 2019": net_scores("gaussian"),
    "Heinsen 2019, k-means": net_scores("k-means"),
    "dynamic": capsule.dynamic_routing,
    "k-means": capsule.kmeans_routing,
    "attention, 3 steps": lambda votes: capsule.attention_routing(votes, n_iter=3),
    "self-attention, 1 step": capsule.self_attention_routing,
}


def measured(route: Callable[[np.ndarray], Any], rounds: int) -> tuple[float, float, float, float]:
    """Accuracy, seconds, MiB beside the votes, and how far a rotation of all votes moves the assignments."""
    votes, truth = planted()
    found = route(votes).assignments
    real = truth >= 0
    accuracy = float((found.argmax(axis=-1) == truth)[real].mean())
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        route(votes)
        seconds.append(time.process_time() - start)
    tracemalloc.start()
    route(votes)
    memory = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(H, H)))
    moved = float(np.abs(route(votes @ turn).assignments - found).max())
    return accuracy, median(seconds), memory, moved


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=9, help="how often each is timed")
    given = options.parse_args()
    rows = {name: measured(route, given.rounds) for name, route in ROUTINGS.items()}
    lines = ["| routing | accuracy | time | memory | moved by a rotation |", "| --- | --- | --- | --- | --- |"]
    for name, (accuracy, seconds, memory, moved) in rows.items():
        lines.append(f"| {name} | {accuracy:.1%} | {seconds * 1e3:.0f} ms | {memory:.0f} MiB | {moved:.1g} |")
    page = DOCS / "compare-routings.md"
    text = page.read_text(encoding="utf-8")
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    page.write_text(text[:start] + "\n".join(lines) + "\n" + text[end:], encoding="utf-8")
    plt.rcParams["svg.hashsalt"] = "emroute"
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4), sharey=True, layout="constrained")
    names = list(rows)[::-1]
    left.barh(names, [rows[name][0] for name in names])
    left.set_xlabel("children given to their parents")
    left.set_xlim(0, 1)
    right.barh(names, [rows[name][1] * 1e3 for name in names])
    right.set_xlabel("ms of processor time")
    right.set_xscale("log")
    figure.savefig(DOCS / "images" / "compare-routings.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
