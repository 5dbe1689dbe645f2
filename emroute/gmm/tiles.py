"""Rows with gaps, in tiles: so many rows that lack the same features, of which an E-step then does once what it can.

A gap is NaN. Rows are grouped on the host, by the pattern of their gaps; the last tile of a pattern is filled up with
rows that count nothing.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from emroute import backend as backends
from emroute.arrays.tracing import on_host
from emroute.backend import Array, is_array
from emroute.data import Block, Rows
from emroute.errors import InputError

__all__ = ["Tiles", "check_seen", "gaps_in", "in_order", "tiled", "without_gaps"]

_WORK = 8  # rows for which an E-step does as much as for a tile, to each feature


class Tiles(NamedTuple):
    """Rows ``(..., t, m, d)``, gaps 0."""

    x: Array
    share: Array
    """``(..., t, m)``: the share of each row in the weight of its tile."""
    seen: Array
    """``(..., t, d)``: 1 where the tile's rows have the feature, 0 where they lack it."""
    known: Array | None = None
    """``(..., t, m)`` or ``(..., t, m, k)``: what is known of the rows' components."""


def gaps_in(x: Array) -> np.ndarray | None:
    """Return where an array has gaps, on the host; None where it has none, or a compiler is tracing."""
    host = on_host(x)
    gaps = None if host is None else np.isnan(host)
    return gaps if gaps is not None and gaps.any() else None


def check_seen(x: Array) -> None:
    """Raise `InputError` where a compiler is tracing, so that nobody can see where gaps are."""
    if on_host(x) is None:
        raise InputError("rows are grouped by their gaps, which inside jit or vmap are not known")


def without_gaps(x: Array, gaps: np.ndarray, weight: Any = None) -> Array:
    """Return rows whose gaps are filled with the other values of the feature, in turn: they have its distribution.

    Rows without weight fill no gaps.

    Raises
    ------
    InputError
        If a feature has no value.
    """
    host = np.array(on_host(x))
    counts = np.ones(host.shape[:-1], dtype=bool)
    if is_array(weight) and tuple(weight.shape) in (host.shape[-2:-1], host.shape[:-1]):  # others are refused later
        counts = np.broadcast_to(np.asarray(on_host(weight)) > 0, counts.shape)
    rows, lack = (part.reshape(-1, *part.shape[-2:]) for part in (host, gaps))
    counts = counts.reshape(-1, host.shape[-2])
    if (empty := (lack | ~counts[..., None]).all(axis=-2)).any():
        raise InputError(f"feature {np.argwhere(empty)[0, -1]} of x is NaN in all rows; leave it out")
    for problem, feature in np.argwhere(lack.any(axis=-2)):
        column, missing = rows[problem, :, feature], lack[problem, :, feature]
        column[missing] = np.resize(column[~missing & counts[problem]], np.count_nonzero(missing))
    return backends.get(x).from_numpy(rows.reshape(host.shape), x)


def tiled(rows: Rows, gaps: np.ndarray, known: Array | None = None) -> tuple[Rows, np.ndarray]:
    """Return rows of known gaps as tiles, and where each row of a problem is among those of its tiles, ``(..., n)``."""
    x, (n, d) = rows.arrays[0], gaps.shape[-2:]
    backend, xp = backends.get(x), backends.namespace(x)
    gaps, x = np.broadcast_to(gaps, (*rows.batch, n, d)), x[..., :n, :]
    patterns = [_patterns(lack) for lack in gaps.reshape(-1, n, d)]
    size = _size([counts for _, _, counts in patterns], d)
    most = max(sum(-(-counts // size)) for _, _, counts in patterns)
    place, weight = np.empty((len(patterns), n), np.int64), np.zeros((len(patterns), most, size))
    source, seen = np.zeros((len(patterns), most, size), np.int64), np.ones((len(patterns), most, d))
    given = np.ones((len(patterns), n)) if rows.weight is None else _host(rows.weight)[..., :n].reshape(-1, n)
    for problem, (lacking, which, counts) in enumerate(patterns):
        n_tiles = -(-counts // size)
        start = np.cumsum(n_tiles) - n_tiles
        order = np.argsort(which, kind="stable")
        rank = np.arange(n) - (np.cumsum(counts) - counts)[which[order]]
        place[problem, order] = start[which[order]] * size + rank
        source[problem].reshape(-1)[place[problem]] = np.arange(n) + problem * n
        weight[problem].reshape(-1)[place[problem]] = given[problem]
        seen[problem, : n_tiles.sum()] = np.repeat(~lacking, n_tiles, axis=0)
    total = weight.sum(axis=-1, keepdims=True)
    share = weight / np.where(total > 0, total, 1.0)
    batch, index = tuple(rows.batch), backend.from_numpy(source.reshape(-1), x)

    def taken(values: Array, rest: tuple[int, ...]) -> Array:
        return xp.reshape(xp.take(xp.reshape(values, (-1, *rest)), index, axis=0), (*batch, most, size, *rest))

    if known is not None:
        first = (*(slice(None),) * len(batch), slice(n), ...)
        known = taken(known[first], tuple(known.shape[len(batch) + 1 :]))
    shapes = (share, (*batch, most, size)), (seen, (*batch, most, d)), (total, (*batch, most))
    share, seen, total = (backend.from_numpy(part.reshape(shape), x) for part, shape in shapes)
    tiles = Tiles(taken(xp.where(xp.isnan(x), xp.zeros_like(x), x), (d,)), share, seen, known)
    return Rows(Block(tiles, total), batch), place.reshape(*batch, n)


def in_order(found: Array, place: np.ndarray, n_batch: int) -> Array:
    """Return results ``(..., t, m, ...)`` of tiles, after so many batch dimensions, in the order of the rows."""
    backend, xp = backends.get(found), backends.namespace(found)
    batch, (tiles, size, *rest) = found.shape[:n_batch], found.shape[n_batch:]
    place = np.broadcast_to(place, (*batch, place.shape[-1]))
    problems = math.prod(batch)
    flat = place.reshape(problems, -1) + np.arange(problems)[:, None] * tiles * size
    taken = xp.take(xp.reshape(found, (-1, *rest)), backend.from_numpy(flat.reshape(-1), found), axis=0)
    return xp.reshape(taken, (*place.shape, *rest))


def _host(x: Array) -> np.ndarray:
    return backends.get(x).to_numpy(x).astype(np.float64)


def _patterns(lack: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the patterns of gaps, which of them each row has, and how many rows have each."""
    packed = np.packbits(lack, axis=-1)
    keys = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[-1]))).reshape(-1)
    _, first, which, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    return lack[first], which.reshape(-1), counts


def _size(counts: list[np.ndarray], d: int) -> int:
    """Return the size of tiles, a power of two, for which all of them take least time."""
    sizes = 2 ** np.arange(13)
    work = [sum(np.sum(-(-each // size)) for each in counts) * (size + _WORK * d) for size in sizes]
    return int(sizes[np.argmin(work)])
