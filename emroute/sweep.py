"""One pass over data: statistics of all rows, or a result a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from emroute import backend as backends
from emroute.array import leaves, map_leaves, rebuild
from emroute.backend import Array, Backend
from emroute.batch import Batch
from emroute.blocks import Cascade, expectation
from emroute.data import Layout, Rows, Stream
from emroute.errors import InputError

__all__ = ["Moments", "each_row", "summarize", "sweep"]


@lru_cache(maxsize=512)
def _compiled_sweep(model: Any, backend: Backend, layout: Layout, size: int | None) -> Callable[..., Any]:
    def run(params: Any, arrays: tuple[Array, ...], weight: Array | None) -> Any:
        return expectation(model, backend, params, Rows(arrays, weight, layout), size)

    return backend.compile(run)


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
    shape = Batch.of(tuple(batch), tuple(source.batch))
    run = _compiled_sweep(model, backend, source.layout, size)
    params = shape.flatten_params(params)
    if isinstance(source, Rows):
        rows = shape.flatten_rows(source)
        return shape.restore(run(params, rows.arrays, rows.weight))
    total = Cascade(model)
    for rows in source:
        total.add(run(params, rows.arrays, rows.weight))
    return shape.restore(total.total())


class Moments(NamedTuple):
    """Weight, mean and squared deviations of each feature; two of them merge exactly (Chan, Golub & LeVeque 1979)."""

    weight: Array
    mean: Array
    square: Array

    @property
    def variance(self) -> Array:
        """Weighted (population) variance of each feature."""
        return self.square / self.weight[..., None]


class _Summary:
    """First and second moments of ``x (..., n, d)``, about a row of the data so that an offset costs no digits."""

    def expect(self, params: Array, x: Array, weight: Array) -> Moments:
        xp = backends.namespace(x)
        z = x - params[..., None, :]
        total = xp.sum(weight, axis=-1)
        share = weight / xp.where(total > 0, total, xp.ones_like(total))[..., None]
        mean = xp.matmul(share[..., None, :], z)
        centred = z - mean
        square = xp.matmul(weight[..., None, :], centred * centred)
        return Moments(total, mean[..., 0, :], square[..., 0, :])

    def merge(self, a: Moments, b: Moments) -> Moments:
        xp = backends.namespace(a.weight)
        total = a.weight + b.weight
        share = b.weight / xp.where(total > 0, total, xp.ones_like(total))
        gap = b.mean - a.mean
        mean = a.mean + share[..., None] * gap
        return Moments(total, mean, a.square + b.square + (a.weight * share)[..., None] * gap * gap)

    def bytes_per_row(self, params: Array) -> int:
        return 24 * params.shape[-1]


_SUMMARY = _Summary()


def summarize(source: Rows | Stream) -> Moments:
    """Weight, mean and squared deviations of the features, per problem, in one pass."""
    first = source.first().arrays[0]
    reference = backends.get(first).detach(first[..., 0, :])
    moments = sweep(_SUMMARY, reference, source, source.batch)
    return moments._replace(mean=moments.mean + reference)


@lru_cache(maxsize=512)
def _compiled_rows(model: Any, name: str, backend: Backend, layout: Layout, size: int, by_problem: bool) -> Any:
    function = getattr(model, name)

    def tupled(params: Any, held: Sequence[Array]) -> tuple[Array, ...]:
        result = function(params, layout.pack(tuple(held)))
        return result if isinstance(result, tuple) else (result,)

    def over_rows(params: Any, held: Sequence[Array]) -> tuple[Array, ...]:
        return backend.map_blocks(lambda *rows: tupled(params, rows), held, size)

    def run(params: Any, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        if not by_problem:
            return over_rows(params, arrays)
        count, n = len(leaves(params)), arrays[0].shape[1]

        def some_problems(*held: Array) -> tuple[Array, ...]:
            own, data = rebuild(params, held[:count]), held[count:]
            if n <= size:
                return tupled(own, data)
            own, data = map_leaves(lambda x: x[0, ...], (own, data))
            return map_leaves(lambda x: x[None, ...], over_rows(own, data))

        return backend.map_blocks(some_problems, [*leaves(params), *arrays], max(1, size // n))

    return backend.compile(run)


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
    xp = backend.namespace(rows.arrays[0])
    first = map_leaves(lambda x: x[(*(slice(0, 1),) * len(batch), ...)], params)
    size = backend.chunk_size(model.bytes_per_row(first))
    try:
        joint = np.broadcast_shapes(batch, rows.batch)
    except ValueError:
        raise InputError(f"the parameters have batch dimensions {batch}, the data {rows.batch}") from None
    lead: tuple[int, ...] = ()  # rows of all problems in one line, if all share the parameters
    arrays, n_batch = rows.arrays, len(rows.batch)
    if batch:
        lead = (int(np.prod(joint, dtype=int)),)

        def widen(x: Array, n_own: int) -> Array:
            own = (1,) * (len(joint) - n_own) + tuple(x.shape)
            rest = own[len(joint) :]
            return xp.reshape(xp.broadcast_to(xp.reshape(x, own), (*joint, *rest)), (*lead, *rest))

        params = map_leaves(lambda x: widen(x, len(batch)), params)
        arrays = tuple(widen(x, n_batch) for x in arrays)
    else:
        arrays = tuple(xp.reshape(x, (-1, *x.shape[n_batch + 1 :])) for x in arrays)
    results = _compiled_rows(model, name, backend, rows.layout, size, bool(batch))(params, arrays)
    shaped = tuple(xp.reshape(x, (*joint, rows.n, *x.shape[len(lead) + 1 :])) for x in results)
    return shaped if len(shaped) > 1 else shaped[0]
