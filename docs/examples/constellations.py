"""Points of squares and triangles, and how well objects are told apart (Kosiorek et al. 2019, section 3.1)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

SQUARE = np.asarray([[3.0, 3.0], [1.0, 1.0], [3.0, 1.0], [1.0, 3.0]])
TRIANGLE = np.asarray([[1.0, 2.0], [3.0, 1.0], [3.0, 3.0]])
PATTERNS = SQUARE, TRIANGLE, SQUARE
N_POINTS = sum(map(len, PATTERNS))


class Constellations(NamedTuple):
    """A batch of examples."""

    points: np.ndarray
    """``(B, P, 2)`` in [-1, 1]; 0 where there is none."""
    presence: np.ndarray
    """``(B, P)``: 1 or 0."""
    patterns: np.ndarray
    """``(B, P)``: to which of the patterns a point belongs."""


def draw(rng: np.random.Generator, n: int) -> Constellations:
    """Draw patterns, each there with probability 1/2, turned by at most a quarter, 1 to 4 times as large, and moved."""
    points, presence = np.zeros((n, N_POINTS, 2)), np.zeros((n, N_POINTS))
    patterns = np.repeat(np.arange(len(PATTERNS)), [len(pattern) for pattern in PATTERNS])
    patterns = np.tile(patterns, (n, 1))
    for kind, pattern in enumerate(PATTERNS):
        angle, scale = rng.uniform(-np.pi / 2, np.pi / 2, n), 1 + 3 * rng.uniform(size=n)
        turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=-1).reshape(n, 2, 2)
        moved = 24 * rng.uniform(size=(n, 1, 2)) / scale[:, None, None]
        placed = scale[:, None, None] * np.einsum("bij,pj->bpi", turn, pattern - pattern.mean(axis=0)) + moved
        mine = patterns[0] == kind
        points[:, mine] = placed
        presence[:, mine] = rng.uniform(size=(n, 1)) < 0.5
    there = points[presence > 0]
    if len(there):
        low, high = there.min(), there.max()
        points = (points - low) / max(high - low, 1e-9) * 2 - 1
    order = np.argsort(rng.uniform(size=(n, N_POINTS)), axis=1)
    points, presence = np.take_along_axis(points, order[..., None], 1), np.take_along_axis(presence, order, 1)
    points = points * presence[..., None]
    return Constellations(points.astype("f"), presence.astype("f"), np.take_along_axis(patterns, order, 1))


def errors(data: Constellations, responsibilities: np.ndarray) -> tuple[int, int]:
    """Return how many points of how many are given to another object than their pattern's, matched in each example."""
    wrong = total = 0
    objects = responsibilities.argmax(axis=-1)
    k = responsibilities.shape[-1]
    for there, truth, found in zip(data.presence > 0, data.patterns, objects, strict=True):
        table = np.zeros((len(PATTERNS), k), int)
        np.add.at(table, (truth[there], found[there]), 1)
        wrong += int(there.sum()) - int(table[linear_sum_assignment(-table)].sum())
        total += int(there.sum())
    return wrong, total
