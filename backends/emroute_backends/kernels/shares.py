"""What children count for in the moments of their parents, as in `emroute.capsule.shares`, and the softmax before it.

Where a parent gets so little that its shares underflow, they are taken relative to its largest.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from emroute_backends.kernels.compiling import exact, piece
from emroute_backends.kernels.exponential import exponential
from emroute_backends.kernels.lanes import GROUP, LANES

__all__ = ["Shares", "begin", "brighten", "choose", "fold_sum", "of_four", "room_for_shares", "share_out", "spread"]

Array = Any


class Shares(NamedTuple):
    """Of children, for each parent; all but `gaps`, `norms` and `active` are kept for some iterations, ``(t, ...)``."""

    gaps: Array
    """``(tiles, groups, 64)``: log R but for the logarithm of `norms`, ``(tiles, 4)``."""
    norms: Array
    active: Array
    """``(tiles, 64)``: activations over the brightest, the same for all parents."""
    assigned: Array
    """``(t, tiles, groups, 64)``: R."""
    relative: Array
    """The same, for a parent that gets next to nothing over its largest R a."""
    some: Array
    """``(t, groups, 16)``: sums of `relative` times `active`."""
    total: Array
    """``(t, groups, 16)``: of R a."""


@piece
def room_for_shares(votes: Array, slots: int) -> Shares:
    """For votes in lanes, and as many iterations as are kept."""
    tiles, groups, x = votes.shape[0] // 4, votes.shape[1], votes
    return Shares(
        np.zeros((tiles, groups, LANES), x.dtype),
        np.ones((tiles, 4), x.dtype),
        np.zeros((tiles, LANES), x.dtype),
        np.zeros((slots, tiles, groups, LANES), x.dtype),
        np.zeros((slots, tiles, groups, LANES), x.dtype),
        np.zeros((slots, groups, GROUP), x.dtype),
        np.zeros((slots, groups, GROUP), x.dtype),
    )


@piece
def brighten(activations: Array, active: Array) -> float:
    """Lay out activations over the brightest, which is returned; next to nothing is nothing."""
    n, least = len(activations), np.finfo(activations.dtype).tiny
    brightest = activations.dtype.type(0)
    for i in range(n):
        brightest = max(brightest, activations[i])
    if brightest <= least:
        brightest = activations.dtype.type(1)
    for t in range(len(active)):
        for q in range(LANES):
            i = 4 * t + q % 4
            share = activations[i] / brightest if i < n else activations.dtype.type(0)
            active[t, q] = share if share > least else 0
    return brightest


@piece
def begin(first: Array, shares: Shares, n_parents: int) -> None:
    """Start with logarithms of assignments ``(I, J)``, or, where they are of no child, with equal assignments."""
    tiles, groups, _ = shares.gaps.shape
    dtype = shares.gaps.dtype
    equal = dtype.type(1) / dtype.type(n_parents)
    for t in range(tiles):
        for g in range(groups):
            for q in range(LANES):
                i, j = 4 * t + q % 4, g * GROUP + q // 4
                if len(first) == 0:
                    shares.assigned[0, t, g, q] = equal if j < n_parents else dtype.type(0)
                else:
                    gap = first[i, j] if i < len(first) and j < n_parents else dtype.type(-np.inf)
                    shares.gaps[t, g, q] = gap
                    shares.assigned[0, t, g, q] = exponential(gap)
        for s in range(4):
            shares.norms[t, s] = 1


@exact
def of_four(a: float, b: float, c: float, d: float) -> float:
    """In this order for all parents, so that those of equal votes have equal sums."""
    return (a + b) + (c + d)


@piece
def share_out(shares: Shares, slot: int, brightest: float) -> None:
    """Shares of children in the moments of their parents, from R and its logarithms."""
    assigned, relative, active = shares.assigned[slot], shares.relative[slot], shares.active
    tiles, groups, _ = assigned.shape
    dtype = active.dtype
    sums = np.empty(LANES, dtype)
    least = np.finfo(dtype).tiny
    scarce, most = math.sqrt(least), -math.log(least)
    for g in range(groups):
        for q in range(LANES):
            sums[q] = 0
        for t in range(tiles):
            for q in range(LANES):
                relative[t, g, q] = assigned[t, g, q]
                sums[q] += assigned[t, g, q] * active[t, q]
        starved = False
        for j in range(GROUP):
            some = of_four(sums[4 * j], sums[4 * j + 1], sums[4 * j + 2], sums[4 * j + 3])
            shares.some[slot, g, j] = some
            shares.total[slot, g, j] = some * brightest
            starved |= some < scarce
        if starved:
            for j in range(GROUP):
                if shares.some[slot, g, j] < scarce:
                    highest = dtype.type(-np.inf)
                    for t in range(tiles):
                        for s in range(4):
                            if active[t, s] > 0:
                                gap = shares.gaps[t, g, 4 * j + s] - math.log(shares.norms[t, s])
                                highest = max(highest, gap + math.log(active[t, s]))
                    highest = highest if abs(highest) < np.inf else dtype.type(0)
                    some = dtype.type(0)
                    for t in range(tiles):
                        for s in range(4):
                            gap = shares.gaps[t, g, 4 * j + s] - math.log(shares.norms[t, s]) - highest
                            relative[t, g, 4 * j + s] = math.exp(min(gap, most))
                            some += relative[t, g, 4 * j + s] * active[t, s]
                    shares.some[slot, g, j] = some
                    shares.total[slot, g, j] = math.exp(highest) * some * brightest


@piece
def spread(shares: Array, active: Array, wide: Array) -> None:
    """Lay out the shares of four children ``(64,)`` as their votes are, ``(4, 64)``."""
    for q in range(LANES):
        at = q // 4 * 4
        wide[0, q] = shares[at] * active[0]
        wide[1, q] = shares[at + 1] * active[1]
        wide[2, q] = shares[at + 2] * active[2]
        wide[3, q] = shares[at + 3] * active[3]


@piece
def choose(shares: Shares, slot: int) -> None:
    """Softmax over parents of the logits in `gaps`, which the largest of each child leaves."""
    gaps, assigned, norms = shares.gaps, shares.assigned[slot], shares.norms
    tiles, groups, _ = gaps.shape
    top, total = np.empty(LANES, gaps.dtype), np.empty(LANES, gaps.dtype)
    for t in range(tiles):
        for q in range(LANES):
            top[q] = gaps[t, 0, q]
        for g in range(1, groups):
            for q in range(LANES):
                top[q] = max(top[q], gaps[t, g, q])
        fold_max(top)
        for q in range(LANES):
            total[q] = 0
        for g in range(groups):
            for q in range(LANES):
                gap = gaps[t, g, q] - top[q]
                share = exponential(gap)
                gaps[t, g, q] = gap
                assigned[t, g, q] = share
                total[q] += share
        fold_sum(total)
        for q in range(4):
            norms[t, q] = total[q]
        for q in range(LANES):
            top[q] = 1 / total[q]
        for g in range(groups):
            for q in range(LANES):
                assigned[t, g, q] *= top[q]


@piece
def fold_max(lanes):
    """Of all parents, for each of four children, in all lanes."""
    for q in range(32):
        lanes[q] = max(lanes[q], lanes[q + 32])
    for q in range(16):
        lanes[q] = max(lanes[q], lanes[q + 16])
    for q in range(8):
        lanes[q] = max(lanes[q], lanes[q + 8])
    for q in range(4):
        lanes[q] = max(lanes[q], lanes[q + 4])
    for q in range(4, LANES):
        lanes[q] = lanes[q % 4]


@piece
def fold_sum(lanes: Array) -> None:
    """Of all parents, for each of four children, in all lanes."""
    for q in range(32):
        lanes[q] += lanes[q + 32]
    for q in range(16):
        lanes[q] += lanes[q + 16]
    for q in range(8):
        lanes[q] += lanes[q + 8]
    for q in range(4):
        lanes[q] += lanes[q + 4]
    for q in range(4, LANES):
        lanes[q] = lanes[q % 4]
