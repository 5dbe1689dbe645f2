"""Votes as the loops of routing read them: 16 parents side by side, four entries of a pose each.

``(children, groups, rows, 64)``: parent j is in group ``j // 16``, entry h in row ``h // 4``, both in the lane
``j % 16 * 4 + h % 4``. So votes ``(I, J, H)`` are moved four numbers at a time, sums over children and rows run in
whole vectors, and the four lanes of a parent are added up last. Numbers for each child and parent are
``(tiles, groups, 64)``: four children to a tile, in the lane ``j % 16 * 4 + i % 4``. What fills up children, parents
and entries is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emroute_backends.kernels.compiling import piece

__all__ = ["ENTRIES", "GROUP", "LANES", "empty_votes", "lay_out"]

Array = Any

ENTRIES, GROUP = 4, 16
LANES = ENTRIES * GROUP  # few enough for the registers, enough for the compiler to make vectors of a loop


@piece
def empty_votes(children: int, parents: int, entries: int, like: Array) -> Array:
    """Room for the votes of one sample."""
    groups, rows = (parents + GROUP - 1) // GROUP, (entries + ENTRIES - 1) // ENTRIES
    return np.zeros(((children + 3) // 4 * 4, groups, rows, LANES), like.dtype)


@piece
def lay_out(votes: Array, lanes: Array) -> None:
    """Take votes ``(I, J, H)`` of one sample."""
    n, k, d = votes.shape
    whole = d // ENTRIES
    for i in range(n):
        for j in range(k):
            g, q = j // GROUP, j % GROUP * ENTRIES
            for a in range(whole):
                v0, v1 = votes[i, j, 4 * a], votes[i, j, 4 * a + 1]
                v2, v3 = votes[i, j, 4 * a + 2], votes[i, j, 4 * a + 3]
                lanes[i, g, a, q], lanes[i, g, a, q + 1] = v0, v1
                lanes[i, g, a, q + 2], lanes[i, g, a, q + 3] = v2, v3
            for h in range(ENTRIES * whole, d):
                lanes[i, g, whole, q + h - ENTRIES * whole] = votes[i, j, h]
