"""Where to start: k-means++ (Arthur & Vassilvitskii 2007, greedy as in scikit-learn), random rows.

Draws are uniforms from a host generator, turned into rows by inverting the cumulative weights on the device, so
one seed gives one start on every library, under tracing too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.array import concrete, constant, set_at, swap
from emroute.backend import Array, Backend, compiled
from emroute.data import Rows, Stream

__all__ = ["STARTS", "seeds"]

STARTS = ("k-means++", "random")
"""The starts that have a name."""

_MOST_ROWS = 2**16  # more rows than this are represented by a uniform sample of that many


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
    most = max(_MOST_ROWS, 16 * n_components)
    rows = source
    if n_rows > most:
        counting = _counting(source.weight, n_rows)
        if len(counting) > most:
            counting = np.sort(rng.choice(counting, most, replace=False, shuffle=False))
        rows = _sample(source, counting)
    if isinstance(rows, Stream):
        rows = _sample(rows, np.arange(n_rows))
    backend = backends.get(*rows.arrays)
    by_distance = name == "k-means++"
    candidates = 2 + int(np.log(n_components)) if by_distance else 1
    restarts = (n_init,) if n_init > 1 else ()
    uniforms = np.moveaxis(rng.random((*rows.batch, *restarts, n_components, candidates)), -2, 0)
    z = compiled(backend, type(model).points, model)(params, rows.layout.pack(rows.arrays))
    weight = rows.weight
    if restarts:
        z, weight = z[..., None, :, :], None if weight is None else weight[..., None, :]
    return compiled(backend, _draw_rows, backend, by_distance)(z, weight, backend.from_numpy(uniforms, z))


def _counting(weight: Array | None, n_rows: int) -> np.ndarray:
    """Rows of positive weight in some problem, as far as values can be seen."""
    if weight is None or concrete(backends.namespace(weight).all(weight >= 0)) is None:
        return np.arange(n_rows)
    host = backends.get(weight).to_numpy(weight)
    return np.flatnonzero((host > 0).reshape(-1, n_rows).any(axis=0))


def _sample(source: Rows | Stream, index: np.ndarray) -> Rows:
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
            parts.append(_sample(rows, inside))
    held = [xp.concat(list(pieces), axis=0) for pieces in zip(*(rows.held for rows in parts), strict=True)]
    return parts[0].like(held)


def _draw_rows(backend: Backend, by_distance: bool, z: Array, sample_weight: Array | None, uniforms: Array) -> Array:
    """Draw ``uniforms.shape[0]`` rows, each with probability weight times squared distance to those before it.

    Without `by_distance` a row counts 1 until it has been drawn. Of the candidates ``uniforms.shape[-1]`` the one
    that leaves the least total distance is kept.
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
            return chosen, xp.astype(index[..., None] != constant(np.arange(n), like=index), z.dtype)
        gap = square[..., None, :] - 2 * xp.matmul(chosen, swap(z)) + xp.sum(chosen * chosen, axis=-1)[..., None]
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
