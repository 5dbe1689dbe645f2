"""Starts: k-means++ (Arthur & Vassilvitskii 2007, greedy as in scikit-learn) and random rows.

Draws are uniforms from a host generator, turned into rows by inverting the cumulative weights. That is done on the host
in float64, because float32 sums on devices differ in their last digits, and so would the rows. So the same seed gives
the same start on every library. While a compiler is tracing, values are unknown, and the device draws.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import array_api_compat
import numpy as np

from emroute import backend as backends
from emroute._engine.nests import map_blocks
from emroute._engine.once import once
from emroute._engine.rows import joined
from emroute.arrays.creation import constant, itemsize, swap
from emroute.arrays.tracing import concrete
from emroute.arrays.trees import map_leaves
from emroute.backend import Array
from emroute.data import Rows, Stream
from emroute.validate import as_generator

__all__ = ["STARTS", "draw_starts", "sample_rows"]

STARTS = ("k-means++", "random")
"""The named starts."""

_MOST_ROWS = 2**16  # more rows than this are represented by a sample of that many
_MOST_NUMBERS = 2**23  # or of fewer, if they are long
_BLUR = 1e-8  # squared distances by products that are a smaller share than this of the squares have lost their digits


def draw_starts(model: Any, params: Any, source: Rows | Stream, n_components: int, options: Any) -> Array:
    """Draw starting points from the data, according to `options`.

    Parameters
    ----------
    model, params
        ``model.points(params, data)`` turns data into coordinates ``(..., n, p)``.
    source
        The data; a sample is used if there are more than 65,536 rows or 8 million numbers.
    n_components
        The number of points, k.
    options
        With `init`, ``"k-means++"`` or ``"random"``; `n_init`, how many starts, R; and `rng`.

    Returns
    -------
    Array
        Starting points ``(..., k, p)``, or ``(..., R, k, p)`` if R > 1.
    """
    rng = as_generator(options.rng)
    width = sum(math.prod(x.shape[len(source.batch) + 1 :]) for x in source.arrays)
    most = max(16 * n_components, min(_MOST_ROWS, _MOST_NUMBERS // max(1, width)))
    rows = _representatives(source, most, rng) if source.n > most else sample_rows(source, np.arange(source.n))
    rows = rows.filled()
    by_distance = options.init == "k-means++"
    candidates = 2 + int(np.log(n_components)) if by_distance else 1
    restarts = (options.n_init,) if options.n_init > 1 else ()
    uniforms = rng.random((*rows.batch, *restarts, n_components, candidates))
    index = _draw_indices(model, params, rows, uniforms, by_distance)
    return once(backends.get(*rows.arrays), _picked, model, len(rows.batch))(params, rows.block.data, index)


def sample_rows(source: Rows | Stream, index: np.ndarray) -> Rows:
    """Take some rows, by their numbers in ascending order; all of rows in memory are these rows themselves."""
    if isinstance(source, Rows):
        return source if len(index) == source.n else source.taken(index)
    parts, start = [], 0
    for rows in source:
        inside = index[(index >= start) & (index < start + rows.n)] - start
        start += rows.n
        if len(inside):
            parts.append(rows.taken(inside).block)
    return Rows(map_leaves(lambda *pieces: joined(list(pieces), 0), *parts))


def _picked(model: Any, n_batch: int, params: Any, data: Any, index: Array) -> Array:
    """Points ``(..., R, k, p)`` of each problem's rows at the indices ``(..., R, k)``."""
    z = model.points(params, data)
    xp, (n, p), problems = backends.namespace(z), z.shape[-2:], math.prod(z.shape[:n_batch])
    last = math.prod(index.shape[n_batch:])
    rows = _rows_at(xp.reshape(z, (problems, n, p)), xp.reshape(index, (problems, last)))
    return xp.reshape(rows, (*index.shape, p))


def _rows_at(z: Array, index: Array) -> Array:
    """Rows ``(m, L, p)`` of ``z (m, n, p)``, or of one for all, at the indices ``(m, L)``."""
    xp, (problems, n, p) = backends.namespace(z), z.shape
    place = index if problems == 1 else index + constant(np.arange(problems)[:, None] * n, like=index)
    rows = xp.take(xp.reshape(z, (-1, p)), xp.reshape(place, (-1,)), axis=0)
    return xp.reshape(rows, (*index.shape, p))


def _draw_indices(model: Any, params: Any, rows: Rows, uniforms: np.ndarray, by_distance: bool) -> Array:
    """Draw rows on the host, or on the device where a compiler is tracing; indices ``(..., R, k)``."""
    backend, host = backends.get(*rows.arrays), rows.on_host()
    if host is None:
        z = model.points(params, rows.block.data)
        return _draw_all(by_distance, z, rows.counted.weight, backend.from_numpy(uniforms, z))
    z = model.points(map_leaves(_coarse, map_leaves(backend.to_numpy, params)), host.block.data)
    index = _draw_all(by_distance, z, host.weight, uniforms)
    return backend.from_numpy(index, rows.arrays[0])


def _coarse(x: np.ndarray) -> np.ndarray:
    """Round to 12 bits: a start must not depend on the last digits of a scale, in which libraries differ."""
    if x.dtype.kind != "f":
        return x
    mantissa, exponent = np.frexp(x.astype(np.float64))
    return np.ldexp(np.round(mantissa * 2**12), exponent - 12)


def _draw_all(by_distance: bool, z: Array, weight: Array | None, uniforms: Array) -> Array:
    """Draw for every problem and every restart, some at a time: what is held is ``(L, n)`` for each."""
    backend, n = backends.get(z), z.shape[-2]
    xp = backend.namespace(z)
    batch, (k, candidates) = tuple(uniforms.shape[:-2]), uniforms.shape[-2:]
    restarts = tuple(batch[len(z.shape[:-2]) :])
    place = xp.arange(math.prod(z.shape[:-2]), device=array_api_compat.device(z))
    place = xp.reshape(xp.broadcast_to(place[:, None], (place.shape[0], math.prod(restarts))), (-1,))
    rows = xp.reshape(_in_unit(z - xp.mean(z, axis=-2, keepdims=True), (-2, -1)), (-1, *z.shape[-2:]))
    mass = None if weight is None else xp.reshape(xp.broadcast_to(_in_unit(weight, -1), z.shape[:-1]), (-1, n))

    def some(block: tuple[Array, Array]) -> Array:
        place, uniforms = block
        if rows.shape[0] == 1:
            own, its = rows, mass
        else:
            own, its = xp.take(rows, place, axis=0), None if mass is None else xp.take(mass, place, axis=0)
        return _draw_rows(by_distance, own, its, uniforms)

    size = max(1, backend.chunk_size(itemsize(z) * 4 * candidates) // n)
    index = map_blocks(some, (place, xp.reshape(uniforms, (-1, k, candidates))), size)
    return xp.reshape(index, (*batch, k))


def _representatives(source: Rows | Stream, most: int, rng: np.random.Generator) -> Rows:
    """Return about `most` rows that stand for all.

    Half of them are drawn by weight, half regardless of weight, and each is weighted by its chance of being drawn. So
    heavy rows are included, and light ones count according to their weight.
    """
    weight = source.weight
    if weight is None or concrete(backends.namespace(weight).all(weight >= 0)) is None:
        return sample_rows(source, np.sort(rng.choice(source.n, most, replace=False, shuffle=False)))
    host = backends.get(weight).to_numpy(weight)[..., : source.n].astype(np.float64).reshape(-1, source.n)
    part = np.mean(host / host.sum(axis=-1, keepdims=True), axis=0)
    counting = part > 0
    chance = np.where(counting, np.minimum(1, most / 2 * (1 / np.count_nonzero(counting) + part)), 0)
    index = np.flatnonzero(np.diff(np.floor(np.cumsum(chance) + rng.random()), prepend=0))
    rows = sample_rows(source, index)
    stands_for = backends.get(weight).from_numpy(1 / chance[index], rows.arrays[0])
    return replace(rows, block=rows.block._replace(weight=rows.weight * stands_for))


def _in_unit(x: Array, axis: int | tuple[int, ...]) -> Array:
    """Divide by the largest magnitude, so that no square over- or underflows."""
    xp = backends.namespace(x)
    top = xp.max(xp.abs(x), axis=axis, keepdims=True)
    return x / xp.where(top > 0, top, xp.ones_like(top))


def _draw_rows(by_distance: bool, z: Array, sample_weight: Array | None, uniforms: Array) -> Array:
    """Draw `k` rows of centred ``z (..., n, p)`` for each of the uniforms ``(m, k, L)``; indices ``(m, k)``.

    Each has probability weight times squared distance to those before it; without `by_distance` a row counts 1 until
    one like it has been drawn. Of the `L` candidates the one that leaves the least total distance is kept.
    """
    backend, xp = backends.get(z), backends.namespace(z)
    (m, k, candidates), n = uniforms.shape, z.shape[-2]
    weight = xp.ones_like(z[..., 0]) if sample_weight is None else sample_weight
    square, rows = xp.sum(z * z, axis=-1), xp.broadcast_to(z, (m, *z.shape[-2:]))
    numbers = constant(np.arange(k), like=xp.argmin(uniforms[:, :, 0]))
    first_candidates = constant(np.arange(m) * candidates, like=numbers)

    def draw(mass: Array, uniform: Array) -> Array:
        """Invert the cumulative mass; where nothing is left, that of the weights."""
        mass = xp.where(xp.sum(mass, axis=-1, keepdims=True) > 0, mass, weight)
        cumulative = xp.cumulative_sum(mass, axis=-1)
        below = cumulative[..., None, :] <= uniform[..., None] * cumulative[..., None, -1:]
        index = xp.count_nonzero(below, axis=-1)
        return xp.where(index < n, index, n - 1)

    def distance(index: Array) -> Array:
        """What of each row's distance the candidates ``(m, L)`` leave: ``(m, L, n)``."""
        chosen = _rows_at(z, index)
        own = xp.sum(chosen * chosen, axis=-1)[..., None]
        if not by_distance:
            same = xp.all(chosen[..., None, :] == rows[..., None, :, :], axis=-1)
            return xp.astype(~same, z.dtype)
        size = square[..., None, :] + own
        gap = size - 2 * xp.matmul(chosen, swap(rows))
        if isinstance(gap, np.ndarray):  # there the few that products blur can be picked out
            problem, candidate, row = np.nonzero(gap < _BLUR * size)
            between = chosen[problem, candidate] - rows[problem, row]
            gap[problem, candidate, row] = np.vecdot(between, between)
        return xp.where(gap > 0, gap, 0.0)

    def one_more(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        count, left, found = state
        index = draw(weight * left, xp.take(uniforms, xp.reshape(count, (1,)), axis=1)[:, 0, :])
        after = xp.minimum(left[..., None, :], distance(index))
        best = first_candidates + xp.argmin(xp.sum(weight[..., None, :] * after, axis=-1), axis=-1)
        left = xp.take(xp.reshape(after, (-1, n)), best, axis=0)
        kept = xp.take(xp.reshape(index, (-1,)), best, axis=0)
        return count + 1, left, xp.where(numbers == count, kept[:, None], found)

    first = draw(xp.broadcast_to(weight, (m, n)), uniforms[:, 0, :1])
    start = (numbers[1] if k > 1 else numbers[0] + 1, distance(first)[:, 0, :], first + 0 * numbers)
    return backend.loop(lambda state: state[0] < k, one_more, start)[2]
