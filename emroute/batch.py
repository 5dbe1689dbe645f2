"""Batches: many problems in one call, each of which stops for itself.

Inside the loop every batch has one leading axis of problems. Dimensions in which the data have 1 while the
parameters do not (restarts) stay behind that axis, so that restarts share their rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from emroute.array import leaves, map_leaves
from emroute.backend import Array, namespace
from emroute.data import Rows, Stream
from emroute.errors import InputError

__all__ = ["Batch", "rejoin", "select", "take"]


@dataclass(frozen=True)
class Batch:
    """The batch dimensions of a fit, and how they become one axis of problems.

    Parameters
    ----------
    shape
        The dimensions, as the objective has them.
    data
        Those of the data, 1 where problems share rows.
    """

    shape: tuple[int, ...]
    data: tuple[int, ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], data: tuple[int, ...]) -> Batch:
        """Return the batch of data whose dimensions fit those of the objective, or raise `InputError`."""
        data = (1,) * (len(shape) - len(data)) + tuple(data)
        if len(data) > len(shape) or any(a not in (1, b) for a, b in zip(data, shape, strict=True)):
            raise InputError(
                f"the data have batch dimensions {data}, the parameters make {shape}; every array in params must "
                "begin with the batch dimensions of the data"
            )
        return cls(shape, data)

    @property
    def by_problem(self) -> bool:
        """Whether problems differ in their data."""
        return any(size > 1 for size in self.data)

    @property
    def single(self) -> bool:
        """Whether the batch is of one problem, which runs as without a batch."""
        return bool(self.shape) and all(size == 1 for size in self.shape)

    @property
    def n_outer(self) -> int:
        """How many dimensions become the axis of problems; the others are restarts on shared rows."""
        outer = len(self.shape)
        while self.by_problem and self.data[outer - 1] == 1 and self.shape[outer - 1] > 1:
            outer -= 1
        return outer

    @property
    def outer(self) -> tuple[int, ...]:
        """The dimensions that become the axis of problems."""
        return self.shape[: self.n_outer]

    @property
    def n_problems(self) -> int:
        """Length of the axis of problems."""
        return int(np.prod(self.outer, dtype=int))

    def flatten_params(self, params: Any) -> Any:
        """Give every array one leading axis of problems, or of 1 where all share it; a single problem none."""

        def lead(x: Array) -> Array:
            xp, own = namespace(x), tuple(x.shape[: len(self.shape)])
            if len(own) < len(self.shape) or any(a not in (1, b) for a, b in zip(own, self.shape, strict=True)):
                raise InputError(f"an array in params has shape {x.shape}, expected it to begin with {self.shape}")
            rest = tuple(x.shape[self.n_outer :])
            if self.single:
                return xp.reshape(x, rest)
            if all(size == 1 for size in own[: self.n_outer]) and not self.by_problem:
                return xp.reshape(x, (1, *rest))
            return xp.reshape(xp.broadcast_to(x, (*self.outer, *rest)), (self.n_problems, *rest))

        return map_leaves(lead, params) if self.shape else params

    def flatten_rows(self, rows: Rows) -> Rows:
        """Give the data one leading axis of problems where those differ in data, and no batch where they do not."""
        n_batch, inner = len(rows.batch), self.data[self.n_outer :]

        def split(x: Array) -> Array:
            xp, rest = namespace(x), tuple(x.shape[n_batch:])
            if not self.by_problem:
                return xp.reshape(x, rest)
            x = xp.reshape(x, (*self.data[: self.n_outer], *inner, *rest))
            return xp.reshape(xp.broadcast_to(x, (*self.outer, *inner, *rest)), (self.n_problems, *inner, *rest))

        return rows.like([split(x) for x in rows.held]) if n_batch else rows

    def flatten(self, source: Rows | Stream) -> Rows | Stream:
        """As `flatten_rows`; a stream has no batch."""
        return self.flatten_rows(source) if isinstance(source, Rows) else source

    def restore(self, tree: Any) -> Any:
        """Give arrays that begin with the axis of problems their batch dimensions back."""

        def unflatten(x: Array) -> Array:
            if self.single:
                return namespace(x).reshape(x, (*self.shape, *x.shape))
            outer = self.outer if x.shape[0] == self.n_problems else (1,) * self.n_outer
            return namespace(x).reshape(x, (*outer, *x.shape[1:]))

        return map_leaves(unflatten, tree) if self.shape else tree


def select(mask: Array, new: Any, old: Any) -> Any:
    """Take each problem's arrays from `new` where `mask` holds; what all problems share does not change."""
    xp = namespace(mask)

    def choose(a: Array, b: Array) -> Array:
        if a.shape[: mask.ndim] != mask.shape:
            return b
        return xp.where(xp.reshape(mask, (*mask.shape, *(1,) * (a.ndim - mask.ndim))), a, b)

    return map_leaves(choose, new, old)


def take(tree: Any, index: Array, count: int) -> Any:
    """Return some of `count` problems; what has no axis of them is shared."""
    return map_leaves(lambda x: namespace(x).take(x, index, axis=0) if _leads(x, count) else x, tree)


def rejoin(parts: list[Any], counts: list[int], order: Array) -> Any:
    """Put problems that were taken apart together again, in `order`."""

    def join(*pieces: Array) -> Array:
        xp = namespace(order)
        if not all(_leads(piece, count) for piece, count in zip(pieces, counts, strict=True)):
            return pieces[0]
        return xp.take(xp.concat(list(pieces), axis=0), order, axis=0)

    return map_leaves(join, *parts)


def _leads(x: Array, count: int) -> bool:
    return x.ndim > 0 and x.shape[0] == count


def unmoved(new: Any, old: Any, n_batch: int, resolution: float) -> Array:
    """Whether no array of a problem moved by more than `resolution` of its largest entry."""
    still: Any = True
    for a, b in zip(leaves(new), leaves(old), strict=True):
        xp, event = namespace(a), tuple(range(n_batch, a.ndim))
        size, step = xp.abs(b), xp.abs(a - b)
        if event:
            size, step = xp.max(size, axis=event), xp.max(step, axis=event)
        still = (step <= resolution * size) & still
    return still
