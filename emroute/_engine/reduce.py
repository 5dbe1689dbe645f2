"""The E-step over many rows: blocks that fit the cache, their statistics merged pair by pair.

With pairwise merging, rounding errors grow with the logarithm of the number of blocks, and at most a few dozen sets of
statistics are held at once, for any number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from emroute import backend as backends
from emroute._engine.nests import first, map_blocks, stacked
from emroute._engine.once import once
from emroute._engine.problems import Problems
from emroute.arrays.trees import leaves, map_leaves
from emroute.backend import Array, namespace
from emroute.data import Block, Rows, Stream
from emroute.errors import InputError

__all__ = ["Cascade", "Cut", "e_step", "e_step_over", "expect", "merge", "problems_at_once", "reduce"]

_SHARE = 16  # use at most this part of the cache for a group of problems
_FAN = 32  # sets of statistics held at once on one level


def merge(model: Any, a: Any, b: Any) -> Any:
    """Statistics of two sets of rows together: the model's own rule, or every field added."""
    return model.merge(a, b) if hasattr(model, "merge") else map_leaves(lambda x, y: x + y, a, b)


def expect(model: Any, params: Any, block: Block, n_batch: int) -> Any:
    """E-step over a block at once; rows without weights count one each."""
    weight = _ones(params, block.data, n_batch) if block.weight is None else block.weight
    return model.expect(params, block.data, weight)


def e_step_over(model: Any, params: Any, source: Rows | Stream, batch: tuple[int, ...], size: int | None = None) -> Any:
    """Statistics of all rows: one E-step of a model, over any source.

    Parameters
    ----------
    model
        A hashable object with ``expect`` and, optionally, ``merge``.
    params
        Its parameters; arrays begin with the dimensions of `batch`, or 1.
    source
        Rows in memory or a stream.
    batch
        The batch dimensions of the statistics.
    size
        Rows per block; by default as many as fit the cache.
    """
    problems = Problems(tuple(batch), source.batch)
    run = once(backends.get(source.arrays[0]), _with_batch, model, problems, size)
    return reduce(model, partial(run, params), source)


def reduce(model: Any, statistics_of: Callable[[Block], Any], source: Rows | Stream) -> Any:
    """Statistics of a source, from a function that gives those of rows in memory."""
    if isinstance(source, Rows):
        return statistics_of(source.counted)
    total = Cascade(model)
    for rows in source:
        total.add(statistics_of(rows.counted))
    return total.total()


def _with_batch(model: Any, problems: Problems, size: int | None, params: Any, block: Block) -> Any:
    params, block = problems.flatten_params(params), problems.flatten_rows(block)
    return problems.restore(e_step(model, params, block, Cut(problems.row_dims, size)))


class Cut(NamedTuple):
    """How rows are cut into blocks."""

    n_batch: int
    """How many dimensions come before the rows: none, or that of the problems first, as in the parameters."""
    size: int | None
    """Rows per block; None for as many as fit the cache."""


def e_step(model: Any, params: Any, block: Block, cut: Cut, index: Array | None = None) -> Any:
    """Return the statistics of rows in memory, block by block.

    Parameters
    ----------
    model, params
        The arguments of `emroute.em.fit`.
    block
        All rows.
    cut
        What comes before the rows, and how many make a block.
    index
        Which problems of the rows the parameters belong to, where not to all.
    """
    n, n_batch = _length(block, cut.n_batch), cut.n_batch
    size = cut.size or _even(n, _rows_per_block(model, params, block, n_batch))
    if not n_batch:
        return _of_rows(model, params, block, size)

    def some_problems(both: tuple[Any, Any]) -> Any:
        own, rows = both
        if index is not None:  # rows are taken here, so that a copy of all is never made
            rows = map_leaves(lambda x: namespace(x).take(x, rows, axis=0), block)
        if n > size:  # one problem, itself in blocks of rows
            rows = map_leaves(lambda x: namespace(x).reshape(x, x.shape[n_batch:]), rows)
            return stacked(_of_rows(model, first(own), rows, size))
        return expect(model, own, rows, n_batch)

    return map_blocks(some_problems, (params, block if index is None else index), max(1, size // n))


def _of_rows(model: Any, params: Any, block: Block, size: int) -> Any:
    """Statistics of rows without batch: a tree of blocks, `_FAN` to a level."""
    n = _length(block, 0)
    if n <= size:
        return expect(model, params, block, 0)
    per_block = size * math.ceil(n / (size * _FAN))
    stack = map_blocks(lambda some: stacked(_of_rows(model, params, some, size)), block, per_block)
    return _merge_stack(model, stack, leaves(stack)[0].shape[0])


def _merge_stack(model: Any, stack: Any, count: int) -> Any:
    """Merge stacked statistics pairwise: first half with second half, until one is left."""

    def part(start: int, stop: int) -> Any:
        return map_leaves(lambda x: x[start:stop, ...], stack)

    while count > 1:
        half = count // 2
        merged, rest = merge(model, part(0, half), part(half, 2 * half)), part(2 * half, count)
        stack = map_leaves(lambda a, b: namespace(a).concat([a, b], axis=0), merged, rest) if count % 2 else merged
        count -= half
    return first(stack)


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
            raise InputError("the source yielded no rows in this pass; it must yield all of them in every pass")
        *larger, (_, total) = self._pieces
        for _, piece in reversed(larger):
            total = merge(self._model, piece, total)
        return total


def problems_at_once(model: Any, params: Any, block: Block, n_batch: int) -> int:
    """How many problems a compiled loop solves together: a divisor of their number.

    None can leave such a loop before all have converged. So their rows fill at most 1/16 of the cache.
    """
    n_problems = leaves(block)[0].shape[0]
    most = max(1, _rows_per_block(model, params, block, n_batch) // (_SHARE * _length(block, n_batch)))
    return next(few for few in range(min(most, n_problems), 0, -1) if n_problems % few == 0)


def _length(block: Block, n_batch: int) -> int:
    """Number of rows of one problem."""
    return leaves(block.data)[0].shape[n_batch]


def _ones(params: Any, data: Any, n_batch: int) -> Array:
    like = leaves(data)[0]
    row = like[(..., *(0,) * (like.ndim - n_batch - 1))]
    return namespace(like).ones_like(row, dtype=next((x.dtype for x in leaves(params)), like.dtype))


def _even(n: int, size: int) -> int:
    """Round the block size so that the number of equal blocks is a multiple of 8, which keeps threads evenly loaded.

    Where it can be, none is shorter than the others: a compiler would trace it for itself.
    """
    if n <= size:
        return size
    fewest = 8 * math.ceil(n / (8 * size))
    return math.ceil(n / next((count for count in range(fewest, 2 * fewest, 8) if n % count == 0), fewest))


def _rows_per_block(model: Any, params: Any, block: Block, n_batch: int) -> int:
    """Rows that fit the cache, from the bytes a row that the model declares, or an estimate from array sizes."""
    backend = backends.get(*leaves(block)[:1])
    if n_batch:  # a row belongs to one problem
        params = map_leaves(lambda x: x[:1, ...], params)
    if hasattr(model, "bytes_per_row"):
        return backend.chunk_size(model.bytes_per_row(params))
    row = sum(int(np.prod(x.shape[n_batch + 1 :], dtype=int)) for x in leaves(block.data))
    widest = max((int(np.prod(x.shape, dtype=int)) for x in leaves(params)), default=1)
    return backend.chunk_size(8 * (row + widest))
