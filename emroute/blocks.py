"""The E-step over many rows: blocks that fit the cache, their statistics merged pair by pair.

Pairwise merging lets rounding grow with the logarithm of the number of blocks, and at most a few dozen sets of
statistics are held at once, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from emroute.array import leaves, map_leaves, rebuild
from emroute.backend import Array, Backend, namespace
from emroute.data import Rows
from emroute.errors import InputError

__all__ = ["Cascade", "at_once", "expect_rows", "expectation", "merge"]

_SHARE = 16  # a cache holds this many times the problems that had better run together
_FAN = 32  # sets of statistics held at once on one level


def merge(model: Any, a: Any, b: Any) -> Any:
    """Statistics of two sets of rows together: the model's own rule, or every field added."""
    return model.merge(a, b) if hasattr(model, "merge") else map_leaves(lambda x, y: x + y, a, b)


def expect_rows(model: Any, params: Any, rows: Rows) -> Any:
    """E-step over some rows at once; rows without weights count one each."""
    weight = _ones(rows, params, rows.n) if rows.weight is None else rows.weight
    return model.expect(params, rows.layout.pack(rows.arrays), weight)


def expectation(
    model: Any, backend: Backend, params: Any, rows: Rows, size: int | None = None, index: Array | None = None
) -> Any:
    """E-step over all rows, a block at a time.

    Parameters
    ----------
    model, backend, params
        As in `emroute.em.fit`. Either the rows have no batch, or they share their first axis, the problems, with
        the parameters.
    rows
        Rows in memory.
    size
        Rows a block; by default what fits the cache.
    index
        Which problems of `rows` the parameters belong to, where not to all.

    Returns
    -------
    Statistics
        Merged over the blocks.
    """
    size = size or _even(rows.n, _block_size(model, backend, params, rows))
    if not rows.batch:
        return _over_rows(model, backend, params, rows, size)
    n_params, n_batch, kind = len(leaves(params)), len(rows.batch), []
    problems = rows.batch[0] if index is None else index.shape[0]

    def some_problems(*block: Array) -> tuple[Array, ...]:
        own, held = rebuild(params, block[:n_params]), list(block[n_params:])
        if index is not None:
            held = [namespace(x).take(x, held[0], axis=0) for x in rows.held]
        if rows.n > size:  # one problem, itself in blocks of rows
            own = map_leaves(lambda x: x[0, ...], own)
            only = rows.like([namespace(x).reshape(x, x.shape[n_batch:]) for x in held])
            statistics = map_leaves(lambda x: x[None, ...], _over_rows(model, backend, own, only, size))
        else:
            statistics = expect_rows(model, own, rows.like(held))
        kind[:] = [statistics]
        return tuple(leaves(statistics))

    held = [*leaves(params), *(rows.held if index is None else [index])]
    parts = backend.map_blocks(some_problems, held, min(problems, max(1, size // rows.n)))
    return rebuild(kind[0], parts)


def _over_rows(model: Any, backend: Backend, params: Any, rows: Rows, size: int) -> Any:
    """A tree of blocks, `_FAN` to a level, for rows without batch."""
    if rows.n <= size:
        return expect_rows(model, params, rows)
    layout, n_arrays, kind = rows.layout, len(rows.arrays), []
    ones = _ones(rows, params, size)

    def over(held: Sequence[Array]) -> Any:
        n = held[0].shape[0]
        if n <= size:
            weight = held[n_arrays] if len(held) > n_arrays else ones[:n]
            return model.expect(params, layout.pack(tuple(held[:n_arrays])), weight)
        per_block = size * -(-n // (size * _FAN))
        stack = backend.map_blocks(some_rows, held, per_block)
        return _merge_stack(model, rebuild(kind[0], stack), -(-n // per_block))

    def some_rows(*held: Array) -> tuple[Array, ...]:
        kind[:] = [statistics := over(held)]
        return tuple(x[None, ...] for x in leaves(statistics))

    return over(rows.held)


def _merge_stack(model: Any, stack: Any, count: int) -> Any:
    """Merge statistics stacked along a first axis, halves upon halves."""

    def part(start: int, stop: int) -> Any:
        return map_leaves(lambda x: x[start:stop, ...], stack)

    while count > 1:
        half = count // 2
        merged, rest = merge(model, part(0, half), part(half, 2 * half)), part(2 * half, count)
        stack = map_leaves(lambda a, b: namespace(a).concat([a, b], axis=0), merged, rest) if count % 2 else merged
        count -= half
    return map_leaves(lambda x: x[0, ...], stack)


class Cascade:
    """Statistics that come one by one, as a stack of merged pieces of falling size."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._pieces: list[tuple[int, Any]] = []

    def add(self, statistics: Any) -> None:
        """Merge with pieces of the same size, as a binary counter carries."""
        level = 0
        while self._pieces and self._pieces[-1][0] == level:
            statistics = merge(self._model, self._pieces.pop()[1], statistics)
            level += 1
        self._pieces.append((level, statistics))

    def total(self) -> Any:
        """Return everything merged, or raise `InputError` if nothing came."""
        if not self._pieces:
            raise InputError("the source gave no rows in this pass; it must give all of them in every pass")
        *larger, (_, total) = self._pieces
        for _, piece in reversed(larger):
            total = merge(self._model, piece, total)
        return total


def at_once(model: Any, backend: Backend, params: Any, rows: Rows, n_problems: int) -> int:
    """How many problems a loop runs together that none can leave: as many as fill a part of the cache, or less."""
    most = max(1, _block_size(model, backend, params, rows) // (_SHARE * rows.n))
    return next(few for few in range(min(most, n_problems), 0, -1) if n_problems % few == 0)


def _ones(rows: Rows, params: Any, n: int) -> Array:
    like = rows.arrays[0]
    part = like[(slice(None),) * len(rows.batch) + (slice(0, n), *(0,) * rows.layout.ranks[0])]
    return namespace(like).ones_like(part, dtype=next((x.dtype for x in leaves(params)), like.dtype))


def _even(n: int, size: int) -> int:
    """Return the size of blocks that are alike, in eights, so that threads end together."""
    return size if n <= size else -(-n // (8 * -(-n // (8 * size))))


def _block_size(model: Any, backend: Backend, params: Any, rows: Rows) -> int:
    """From the working memory a row needs, as the model declares it or as its arrays suggest."""
    if rows.batch:  # a row belongs to one problem
        params = map_leaves(lambda x: x[:1, ...], params)
    if hasattr(model, "bytes_per_row"):
        return backend.chunk_size(model.bytes_per_row(params))
    row = sum(int(np.prod(x.shape[len(rows.batch) + 1 :], dtype=int)) for x in rows.arrays)
    widest = max((int(np.prod(x.shape, dtype=int)) for x in leaves(params)), default=1)
    return backend.chunk_size(8 * (row + widest))
