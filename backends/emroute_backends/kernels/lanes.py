"""Votes as the loops of routing read them: 16 parents side by side, four entries of a pose each.

``(b, children, groups, rows, 64)``: parent j is in group ``j // 16``, in the lanes from ``j % 16 * 4`` on. Entries of a
pose, or of a row of it, fill rows of four. So votes are moved four numbers at a time, sums over children and rows run
in whole vectors, and the four lanes of a parent are added up last. Numbers for each child and parent are
``(tiles, groups, 64)``: four children to a tile, in the lane ``j % 16 * 4 + i % 4``. What fills up children, parents
and entries is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emroute_backends.kernels.compiling import loops, piece

__all__ = [
    "GROUP",
    "LANES",
    "cast_poses",
    "clear",
    "from_votes",
    "lay_pairs",
    "lay_transforms",
    "place",
    "rows_of",
    "take_pairs",
    "to_votes",
    "transforms_of",
    "uncast_poses",
]

Array = Any

GROUP = 16
LANES = 4 * GROUP  # few enough for the registers, enough for the compiler to make vectors of a loop


@piece
def rows_of(width: int) -> int:
    """How many rows of four entries take."""
    return (width + 3) // 4


@piece
def place(entry: int, width: int) -> tuple[int, int]:
    """Row and lane of an entry of a pose, in whose rows there are `width`."""
    return entry // width * rows_of(width) + entry % width // 4, entry % width % 4


@piece
def clear(x: Array) -> None:
    """Set ``(t, groups, 64)`` to 0."""
    for t in range(x.shape[0]):
        for g in range(x.shape[1]):
            for q in range(LANES):
                x[t, g, q] = 0


@piece
def lay_pairs(pairs: Array, lanes: Array) -> None:
    """Lay out numbers ``(I, J)`` for each child and parent."""
    n, k = pairs.shape
    for i in range(n):
        for j in range(k):
            lanes[i // 4, j // GROUP, j % GROUP * 4 + i % 4] = pairs[i, j]


@piece
def take_pairs(lanes: Array, pairs: Array) -> None:
    """What `lay_pairs` has laid out."""
    n, k = pairs.shape
    for i in range(n):
        for j in range(k):
            pairs[i, j] = lanes[i // 4, j // GROUP, j % GROUP * 4 + i % 4]


@loops("f4")
def from_votes(votes: Array) -> Array:
    """Lay out votes ``(b, I, J, H)``."""
    b, n, k, d = votes.shape
    shape = b, rows_of(n) * 4, (k + GROUP - 1) // GROUP, rows_of(d), LANES
    x = np.zeros(shape, votes.dtype) if n % 4 or k % GROUP or d % 4 else np.empty(shape, votes.dtype)
    for p in range(b):
        lay_out(votes[p], x[p])
    return x


@piece
def lay_out(votes: Array, x: Array) -> None:
    """Lay out votes ``(I, J, H)``."""
    n, k, d = votes.shape
    whole = d // 4
    for i in range(n):
        for j in range(k):
            g, q = j // GROUP, j % GROUP * 4
            for a in range(whole):
                v0, v1 = votes[i, j, 4 * a], votes[i, j, 4 * a + 1]
                v2, v3 = votes[i, j, 4 * a + 2], votes[i, j, 4 * a + 3]
                x[i, g, a, q], x[i, g, a, q + 1], x[i, g, a, q + 2], x[i, g, a, q + 3] = v0, v1, v2, v3
            for h in range(4 * whole, d):
                x[i, g, whole, q + h % 4] = votes[i, j, h]


@loops("f5", "f4")
def to_votes(lanes: Array, like: Array) -> Array:
    """Votes ``(b, I, J, H)`` of lanes, with as many children, parents and entries as some votes."""
    votes = np.empty((len(lanes), *like.shape[1:]), lanes.dtype)
    for p in range(len(lanes)):
        take_back(lanes[p], votes[p])
    return votes


@piece
def take_back(x: Array, votes: Array) -> None:
    """What `lay_out` has laid out."""
    n, k, d = votes.shape
    whole = d // 4
    for i in range(n):
        for j in range(k):
            g, q = j // GROUP, j % GROUP * 4
            for a in range(whole):
                v0, v1, v2, v3 = x[i, g, a, q], x[i, g, a, q + 1], x[i, g, a, q + 2], x[i, g, a, q + 3]
                votes[i, j, 4 * a], votes[i, j, 4 * a + 1] = v0, v1
                votes[i, j, 4 * a + 2], votes[i, j, 4 * a + 3] = v2, v3
            for h in range(4 * whole, d):
                votes[i, j, h] = x[i, g, whole, q + h % 4]


def lay_transforms(transforms: Array) -> Array:
    """Lay out transforms ``(I, J, P, P)`` as ``(I, groups, P, rows, 64)``: the third axis is that of products."""
    i, j, p, _ = transforms.shape
    groups, rows = -(-j // GROUP), -(-p // 4)
    wide = np.zeros((i, groups * GROUP, p, rows * 4), transforms.dtype)
    wide[:, :j, :, :p] = transforms
    parts = wide.reshape(i, groups, GROUP, p, rows, 4).transpose(0, 1, 3, 4, 2, 5)
    return np.ascontiguousarray(parts).reshape(i, groups, p, rows, LANES)


def transforms_of(lanes: Array, n_parents: int) -> Array:
    """The transforms of which `lay_transforms` made lanes."""
    i, groups, p, rows, _ = lanes.shape
    parts = lanes.reshape(i, groups, p, rows, GROUP, 4).transpose(0, 1, 4, 2, 3, 5)
    return parts.reshape(i, groups * GROUP, p, rows * 4)[:, :n_parents, :, :p]


@loops("f4", "f5", "f2")
def cast_poses(poses: Array, transforms: Array, shift: Array) -> Array:
    """Votes of poses ``(b, I, P, P)`` by transforms in lanes, moved by ``(I, P * P)``; not by what has length 0."""
    (b, n, width, _), (_, groups, _, rows, _) = poses.shape, transforms.shape
    shape = b, rows_of(n) * 4, groups, width * rows, LANES
    x = np.zeros(shape, poses.dtype) if n % 4 else np.empty(shape, poses.dtype)
    for p in range(b):
        cast(poses[p], transforms, x[p])
        for i in range(len(shift)):
            for h in range(width * width):
                a, s = place(h, width)
                for j in range(groups * GROUP):
                    x[p, i, j // GROUP, a, j % GROUP * 4 + s] += shift[i, h]
    return x


@piece
def cast(poses: Array, transforms: Array, x: Array) -> None:
    """Votes of one sample."""
    n, width, _ = poses.shape
    _, groups, _, rows, _ = transforms.shape
    for i in range(n):
        for g in range(groups):
            for r in range(width):
                for a in range(rows):
                    for q in range(LANES):
                        x[i, g, r * rows + a, q] = poses[i, r, 0] * transforms[i, g, 0, a, q]
                for k in range(1, width):
                    factor = poses[i, r, k]
                    for a in range(rows):
                        for q in range(LANES):
                            x[i, g, r * rows + a, q] += factor * transforms[i, g, k, a, q]


@loops("f5", "f4", "f5")
def uncast_poses(lanes: Array, poses: Array, transforms: Array) -> tuple[Array, Array]:
    """Gradients of poses ``(b, I, P, P)`` and of transforms in lanes from those of votes."""
    of_poses, of_transforms = np.zeros(poses.shape, lanes.dtype), np.zeros(transforms.shape, lanes.dtype)
    for p in range(len(poses)):
        uncast(lanes[p], poses[p], transforms, of_poses[p], of_transforms)
    return of_poses, of_transforms


@piece
def uncast(x: Array, poses: Array, transforms: Array, of_poses: Array, of_transforms: Array) -> None:
    """Add the gradients of one sample."""
    n, width, _ = poses.shape
    _, groups, _, rows, _ = transforms.shape
    for i in range(n):
        for g in range(groups):
            for r in range(width):
                for k in range(width):
                    factor, total = poses[i, r, k], x.dtype.type(0)
                    for a in range(rows):
                        for q in range(LANES):
                            v = x[i, g, r * rows + a, q]
                            total += v * transforms[i, g, k, a, q]
                            of_transforms[i, g, k, a, q] += factor * v
                    of_poses[i, r, k] += total
