"""Where to start: k-means++ (Arthur & Vassilvitskii 2007, greedy as in scikit-learn), random rows.

Draws are uniforms from a host generator, turned into rows by inverting cumulative weights. That happens on the host
in float64, so one seed gives one start on every library and in float32 too; under tracing, where there are no values
to carry to the host, it happens on the device.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.array import concrete, constant, leaves, map_leaves, set_at, swap
from emroute.backend import Array, Backend, compiled
from emroute.data import Rows, Stream

__all__ = ["STARTS", "seeds"]

STARTS = ("k-means++", "random")
"""The starts that have a name."""

_MOST_ROWS = 2**16  # more rows than this are represented by a sample of that many
_MOST_NUMBERS = 2**22  # or of fewer, if they are long
_SUSPECT = 1e-8  # a squared distance by products, as a share of the squares, below which differences take its place


def seeds(
    model: Any,
    params: Any,
    source: Rows | Stream,
    n_rows: int,
    name: str,
    n_components: int,
    n_init: int,
    rng: np.random.Generator,
) -> Array:
    """Draw starting points from the data.

    Parameters
    ----------
    model, params
        ``model.points(params, data)`` turns data into coordinates ``(..., n, p)``.
    source
        The data; of more than 65,536 rows a uniform sample stands for all.
    n_rows
        How many rows there are.
    name
        ``"k-means++"`` or ``"random"``.
    n_components
        How many points, k.
    n_init
        How many starts, R.
    rng
        Host generator.

    Returns
    -------
    Array
        ``(..., k, p)``, or ``(..., R, k, p)`` where R > 1.
    """
    width = sum(int(np.prod(x.shape[len(source.batch) + 1 :], dtype=int)) for x in source.arrays)
    most = max(16 * n_components, min(_MOST_ROWS, _MOST_NUMBERS // max(1, width)))
    if n_rows > most:
        rows = _represent(source, n_rows, most, rng)
    else:
        rows = _take(source, np.arange(n_rows)) if isinstance(source, Stream) else source
    by_distance = name == "k-means++"
    candidates = 2 + int(np.log(n_components)) if by_distance else 1
    restarts = (n_init,) if n_init > 1 else ()
    uniforms = np.moveaxis(rng.random((*rows.batch, *restarts, n_components, candidates)), -2, 0)
    if _visible(params, *rows.held):
        return _on_host(model, params, rows, by_distance, uniforms)
    backend = backends.get(*rows.arrays)
    z = compiled(backend, type(model).points, model)(params, rows.layout.pack(rows.arrays))
    weight = rows.weight
    if restarts:
        z, weight = z[..., None, :, :], None if weight is None else weight[..., None, :]
    return compiled(backend, _draw_rows, backend, by_distance)(z, weight, backend.from_numpy(uniforms, z))


def _visible(*tree: Any) -> bool:
    """Whether arrays have values, and are not being traced."""
    return all(concrete(backends.namespace(x).isnan(x[(0,) * x.ndim] * 1.0)) is not None for x in leaves(tree))


def _on_host(model: Any, params: Any, rows: Rows, by_distance: bool, uniforms: np.ndarray) -> Array:
    """Draw in float64, one problem and one restart after another where they are large."""

    def carry(x: Array) -> np.ndarray:
        host = backends.get(x).to_numpy(x)
        return host.astype(np.float64) if host.dtype.kind == "f" else host

    like, shape = leaves(params)[0], uniforms.shape[1:-1]
    n_problems = int(np.prod(rows.batch, dtype=int))
    z = np.asarray(model.points(map_leaves(carry, params), rows.layout.pack(tuple(map(carry, rows.arrays)))), float)
    z = np.broadcast_to(z, (*rows.batch, *z.shape[-2:])).reshape(n_problems, 1, *z.shape[-2:])
    unit = np.ldexp(1.0, np.frexp(np.max(np.abs(z)))[1] - 1)  # in units of it no square overflows or underflows
    z = z / unit
    weight = np.ones((n_problems, 1, 1)) if rows.weight is None else carry(rows.weight).reshape(n_problems, 1, -1)
    weight = np.broadcast_to(weight / weight.max(axis=-1, keepdims=True), z.shape[:-1])
    each = uniforms.reshape(len(uniforms), n_problems, -1, uniforms.shape[-1])
    size = max(1, _MOST_ROWS // z.shape[-2])
    host = backends.get(z)
    drawn = np.empty((*each.shape[1:3], len(uniforms), z.shape[-1]))
    for i in range(0, n_problems, size):
        few = max(1, size // len(z[i : i + size]))
        for j in range(0, each.shape[2], few):
            some = each[:, i : i + size, j : j + few]
            drawn[i : i + size, j : j + few] = _draw_rows(
                host, by_distance, z[i : i + size], weight[i : i + size], some
            )
    return backends.get(like).from_numpy(drawn.reshape(*shape, *drawn.shape[-2:]) * unit, like)


def _represent(source: Rows | Stream, n_rows: int, most: int, rng: np.random.Generator) -> Rows:
    """Draw `most` rows that stand for all, with weights that make up for how likely each was to be drawn.

    Rows are drawn half by number and half by weight, one from each of `most` strata: heavy rows are surely there,
    and the light ones between them too.
    """
    places = (np.arange(most) + rng.random(most)) / most
    if source.weight is None:
        return _take(source, np.minimum((places * n_rows).astype(np.int64), n_rows - 1))
    if not _visible(source.weight):
        return _take(source, np.sort(rng.choice(n_rows, most, replace=False, shuffle=False)))
    weight = np.asarray(backends.get(source.weight).to_numpy(source.weight), np.float64).reshape(-1, n_rows)
    weight = weight / weight.max(axis=-1, keepdims=True)
    heavy = np.mean(weight / np.sum(weight, axis=-1, keepdims=True), axis=0)
    some = heavy > 0
    odds = heavy / 2 + some / (2 * np.count_nonzero(some))
    cumulative = np.cumsum(odds)
    index = np.searchsorted(cumulative, places * cumulative[-1], side="right")
    index = np.minimum(index, np.flatnonzero(some)[-1])
    share = (weight[:, index] / odds[index]).reshape(*source.batch, most)
    rows = _take(source, index)
    return Rows(rows.arrays, backends.get(*rows.arrays).from_numpy(share / share.max(), rows.weight), rows.layout)


def _take(source: Rows | Stream, index: np.ndarray) -> Rows:
    """Take some rows, in order."""
    backend = backends.get(*source.arrays)
    xp = backend.namespace(source.arrays[0])
    if isinstance(source, Rows):
        axis, where = len(source.batch), backend.from_numpy(index, source.arrays[0])
        return source.like([xp.take(x, where, axis=axis) for x in source.held])
    parts, start = [], 0
    for rows in source:
        inside = index[(index >= start) & (index < start + rows.n)] - start
        start += rows.n
        if len(inside):
            parts.append(_take(rows, inside))
    held = [xp.concat(list(pieces), axis=0) for pieces in zip(*(rows.held for rows in parts), strict=True)]
    return parts[0].like(held)


def _draw_rows(backend: Backend, by_distance: bool, z: Array, sample_weight: Array | None, uniforms: Array) -> Array:
    """Draw ``uniforms.shape[0]`` rows, each with probability weight times squared distance to those before it.

    Without `by_distance` a row counts 1 until one that equals it has been drawn. Of the candidates
    ``uniforms.shape[-1]`` the one that leaves the least total distance is kept.
    """
    xp = backend.namespace(z)
    batch = tuple(uniforms.shape[1:-1])
    z = xp.broadcast_to(z, (*batch, *z.shape[-2:]))
    weight = xp.ones_like(z[..., 0]) if sample_weight is None else xp.broadcast_to(sample_weight, z.shape[:-1])
    n, square = z.shape[-2], xp.sum(z * z, axis=-1)

    def draw(mass: Array, uniform: Array) -> Array:
        """Invert the cumulative mass; where nothing is left, that of the weights."""
        mass = xp.where(xp.sum(mass, axis=-1, keepdims=True) > 0, mass, weight)
        cumulative = xp.cumulative_sum(mass, axis=-1)
        below = cumulative[..., None, :] <= uniform[..., None] * cumulative[..., None, -1:]
        return xp.minimum(xp.count_nonzero(below, axis=-1), constant(n - 1, like=xp.argmin(mass)))

    def distance(index: Array) -> tuple[Array, Array]:
        """Rows at the candidates' indices, and what of each row's distance they leave: ``(..., L, n)``."""
        wide = xp.broadcast_to(index[..., None], (*index.shape, z.shape[-1]))
        chosen = xp.take_along_axis(z, wide, axis=-2)
        if not by_distance:
            other = xp.any(chosen[..., None, :] != z[..., None, :, :], axis=-1)
            return chosen, xp.astype(other, z.dtype)
        size = square[..., None, :] + xp.sum(chosen * chosen, axis=-1)[..., None]
        gap = size - 2 * xp.matmul(chosen, swap(z))
        if isinstance(gap, np.ndarray):  # only there can rows be picked out one by one
            *outer, near, row = np.nonzero(gap < _SUSPECT * size)
            between = chosen[(*outer, near)] - z[(*outer, row)]
            gap[(*outer, near, row)] = np.vecdot(between, between)
        return chosen, xp.where(gap > 0, gap, xp.zeros_like(gap))

    def one_more(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        count, left, points = state
        index = draw(weight * left, uniforms[count, ...])
        chosen, gap = distance(index)
        after = xp.minimum(left[..., None, :], gap)
        best = xp.argmin(xp.sum(weight[..., None, :] * after, axis=-1), axis=-1)[..., None, None]
        left = xp.take_along_axis(after, xp.broadcast_to(best, (*left.shape[:-1], 1, n)), axis=-2)[..., 0, :]
        kept = xp.take_along_axis(chosen, xp.broadcast_to(best, (*left.shape[:-1], 1, z.shape[-1])), axis=-2)
        return count + 1, left, set_at(points, count, kept[..., 0, :])

    first, gap = distance(draw(weight, uniforms[0, ..., :1]))
    k = uniforms.shape[0]
    points = set_at(first[..., 0, :] + xp.zeros_like(uniforms[..., :1]), 0, first[..., 0, :])
    _, _, points = backend.loop(lambda state: state[0] < k, one_more, (1, gap[..., 0, :], points))
    return xp.moveaxis(points, 0, -2)
