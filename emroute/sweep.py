"""One pass over data: statistics of all rows, or a result a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from emroute import backend as backends
from emroute.array import leaves, map_leaves, rebuild
from emroute.backend import Array, Backend, compiled
from emroute.batch import Batch
from emroute.blocks import Cascade, expectation
from emroute.data import Layout, Rows, Stream
from emroute.errors import InputError

__all__ = ["Extent", "Moments", "each_row", "gauge", "summarize", "sweep"]


def sweep(model: Any, params: Any, source: Rows | Stream, batch: tuple[int, ...], size: int | None = None) -> Any:
    """Statistics of all rows: one E-step of a model, over any source.

    Parameters
    ----------
    model
        Anything with ``expect`` (and perhaps ``merge``), hashable.
    params
        Its parameters; arrays begin with the dimensions of `batch`, or 1.
    source
        Rows in memory or a stream.
    batch
        The batch dimensions of the statistics.
    size
        Rows a block.
    """
    backend = backends.get(*leaves(params), *source.arrays)
    run = compiled(backend, _sweep, model, backend, source.layout, tuple(batch), size)
    if isinstance(source, Rows):
        return run(params, source.arrays, source.weight)
    total = Cascade(model)
    for rows in source:
        total.add(run(params, rows.arrays, rows.weight))
    return total.total()


def _sweep(
    model: Any,
    backend: Backend,
    layout: Layout,
    batch: tuple[int, ...],
    size: int | None,
    params: Any,
    arrays: tuple[Array, ...],
    weight: Array | None,
) -> Any:
    rows = Rows(arrays, weight, layout)
    shape = Batch.of(batch, rows.batch)
    statistics = expectation(model, backend, shape.flatten_params(params), shape.flatten_rows(rows), size)
    return shape.restore(statistics)


class Moments(NamedTuple):
    """Weight, mean and squared deviations of each feature; two of them merge exactly (Chan, Golub & LeVeque 1979)."""

    weight: Array
    mean: Array
    square: Array
    least: Array
    most: Array

    @property
    def centre(self) -> Array:
        """The mean of each feature from which the differences of all rows are exact (Sterbenz 1974), else 0.

        Rows near 0 are known to more digits than far ones, and a difference to a far mean would round these off.
        """
        xp = backends.namespace(self.mean)
        near, far = (xp.where(self.mean < 0, -x, y) for x, y in ((self.most, self.least), (self.least, self.most)))
        size = xp.abs(self.mean)
        return xp.where((near >= size / 2) & (far <= 2 * size), self.mean, xp.zeros_like(size))

    @property
    def variance(self) -> Array:
        """Weighted (population) variance of each feature."""
        return self.square / self.weight[..., None]


class _Summary:
    """First and second moments of ``x (..., n, d)``; the square is about the mean, so an offset costs no digits."""

    def expect(self, params: Array, x: Array, weight: Array) -> Moments:
        xp = backends.namespace(x)
        total = xp.sum(weight, axis=-1)
        share = (weight / xp.where(total > 0, total, xp.ones_like(total))[..., None])[..., None, :]
        rough = xp.matmul(share, x)
        gaps = x - rough
        rest = xp.matmul(share, gaps)[..., 0, :]
        square = xp.matmul(weight[..., None, :], gaps * gaps)[..., 0, :] - total[..., None] * rest * rest
        square = xp.where(square < 0, xp.zeros_like(square), square)
        return Moments(total, rough[..., 0, :] + rest, square, xp.min(x, axis=-2), xp.max(x, axis=-2))

    def merge(self, a: Moments, b: Moments) -> Moments:
        xp = backends.namespace(a.weight)
        total = a.weight + b.weight
        share = b.weight / xp.where(total > 0, total, xp.ones_like(total))
        gap = b.mean - a.mean
        mean = a.mean + share[..., None] * gap
        square = a.square + b.square + (a.weight * share)[..., None] * gap * gap
        return Moments(total, mean, square, xp.minimum(a.least, b.least), xp.maximum(a.most, b.most))

    def bytes_per_row(self, params: Array) -> int:
        return 16 * params.shape[-1]


_SUMMARY = _Summary()


def summarize(source: Rows | Stream) -> Moments:
    """Weight, mean, squared deviations and range of the features, per problem, in one pass."""
    first = source.first().arrays[0]
    with np.errstate(invalid="ignore", over="ignore"):  # whether they are finite is for the caller to judge
        return sweep(_SUMMARY, backends.get(first).detach(first)[..., 0, :], source, source.batch)


class Extent(NamedTuple):
    """Weight, sum and squared length of the rows, about the origin."""

    weight: Array
    total: Array
    length: Array


class _Gauge:
    """How far rows lie from the origin: two products, nothing held beside the rows."""

    def expect(self, params: Array, x: Array, weight: Array) -> Extent:
        xp = backends.namespace(x)
        length = xp.sum(weight * xp.vecdot(x, x), axis=-1)  # a product would add one row after another
        return Extent(xp.sum(weight, axis=-1), xp.matmul(weight[..., None, :], x)[..., 0, :], length)

    def bytes_per_row(self, params: Array) -> int:
        return params.shape[-1]


_GAUGE = _Gauge()


def gauge(source: Rows | Stream) -> Extent:
    """Weight, sum and squared length of the rows, per problem: what costs least to know of them."""
    first = source.first().arrays[0]
    with np.errstate(invalid="ignore", over="ignore"):
        return sweep(_GAUGE, backends.get(first).detach(first)[..., 0, :], source, source.batch)


def each_row(model: Any, name: str, params: Any, rows: Rows, batch: tuple[int, ...]) -> Any:
    """Apply ``model.name(params, data)``, whose arrays are ``(..., n)`` or ``(..., n, k)``, in blocks of rows.

    Parameters
    ----------
    model, name
        A hashable model and its method.
    params
        Parameters; arrays begin with `batch`, or 1.
    rows
        Rows in memory, whose batch dimensions broadcast against `batch`.
    batch
        Batch dimensions of the parameters.

    Returns
    -------
    Array or tuple of Array
        As the method's, in the joint batch dimensions.
    """
    backend = backends.get(*leaves(params), *rows.arrays)
    try:
        joint = np.broadcast_shapes(batch, rows.batch)
    except ValueError:
        raise InputError(f"the parameters have batch dimensions {batch}, the data {rows.batch}") from None
    run = compiled(backend, _each_row, model, name, backend, rows.layout, tuple(batch), joint)
    results = run(params, rows.arrays)
    return results if len(results) > 1 else results[0]


def _each_row(
    model: Any,
    name: str,
    backend: Backend,
    layout: Layout,
    batch: tuple[int, ...],
    joint: tuple[int, ...],
    params: Any,
    arrays: tuple[Array, ...],
) -> tuple[Array, ...]:
    xp = backend.namespace(arrays[0])
    n_batch = layout.n_batch(arrays)
    n = arrays[0].shape[n_batch]
    one = map_leaves(lambda x: x[(*(slice(0, 1),) * len(batch), ...)], params)
    size = backend.chunk_size(model.bytes_per_scored_row(one))

    def tupled(params: Any, held: Sequence[Array]) -> tuple[Array, ...]:
        result = getattr(model, name)(params, layout.pack(tuple(held)))
        return result if isinstance(result, tuple) else (result,)

    def over_rows(params: Any, held: Sequence[Array]) -> tuple[Array, ...]:
        return backend.map_blocks(lambda *rows: tupled(params, rows), held, size)

    def some_problems(*held: Array) -> tuple[Array, ...]:
        own, data = rebuild(params, held[:count]), held[count:]
        if n <= size:
            return tupled(own, data)
        own, data = map_leaves(lambda x: x[0, ...], (own, data))
        return map_leaves(lambda x: x[None, ...], over_rows(own, data))

    def widen(x: Array, n_own: int) -> Array:
        """Give an array all batch dimensions, as one."""
        own = (1,) * (len(joint) - n_own) + tuple(x.shape)
        rest = own[len(joint) :]
        return xp.reshape(xp.broadcast_to(xp.reshape(x, own), (*joint, *rest)), (-1, *rest))

    count, n_lead = len(leaves(params)), 1 if batch else 0
    if batch:
        held = [*(widen(x, len(batch)) for x in leaves(params)), *(widen(x, n_batch) for x in arrays)]
        results = backend.map_blocks(some_problems, held, max(1, size // n))
    else:  # all problems share the parameters, so their rows stand in one line
        results = over_rows(params, [xp.reshape(x, (-1, *x.shape[n_batch + 1 :])) for x in arrays])
    return tuple(xp.reshape(x, (*joint, n, *x.shape[n_lead + 1 :])) for x in results)
