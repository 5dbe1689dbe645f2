"""Observations in memory, as blocks that an E-step takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from emroute import backend
from emroute.arrays.tracing import on_host
from emroute.arrays.trees import leaves, map_leaves
from emroute.backend import Array, compiles

__all__ = ["Block", "Rows", "bucket", "cut", "joined", "outside"]

_COARSE, _FINE = 2**12, 16  # rows that cost less than a program of their own, and steps from a half of more to all
_MOST = 2**23  # numbers; an array of more is not copied


class Block(NamedTuple):
    """Observations as an E-step takes them: a nest, so that compilers take it whole and blocks of rows cut it."""

    data: Any
    """An array, or a tuple of arrays, as the user gave it."""
    weight: Array | None
    """``(..., n)``; None where every row counts one."""


@dataclass(frozen=True)
class Rows:
    """Observations in memory (or in a memory map), every array with the same batch dimensions."""

    block: Block
    batch: tuple[int, ...] = ()
    surplus: int | None = None
    """How many rows at the end only fill a bucket: copies of the last, which count nothing. None: not filled."""

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays of the data."""
        return tuple(leaves(self.block.data))

    @property
    def weight(self) -> Array | None:
        """The weights, None where every row counts one."""
        return self.block.weight

    @property
    def n(self) -> int:
        """Number of rows of one problem."""
        return self.arrays[0].shape[len(self.batch)] - (self.surplus or 0)

    @cached_property
    def counted(self) -> Block:
        """The block as an E-step takes it: where it is filled, with weights, which are 0 for surplus rows."""
        if self.surplus is None or self.weight is not None:
            return self.block
        like, n = self.arrays[0], self.n
        counts = np.broadcast_to((np.arange(n + self.surplus) < n).astype(np.float64), (*self.batch, n + self.surplus))
        return self.block._replace(weight=backend.get(like).from_numpy(counts, like))

    def filled(self) -> Rows:
        """Return rows that fill a bucket, where a library compiles a program for each number of rows.

        That is done on the host: on the device it would be a program for each number too.
        """
        n, size = self.n, bucket(self.n)
        many = any(size * math.prod(x.shape) > n * _MOST for x in self.arrays)
        if self.surplus is not None or many or not compiles(backend.get(*self.arrays)):
            return self
        if any(on_host(x) is None for x in leaves(self.block)):
            return self
        axis = len(self.batch)

        def fill(x: Array, mode: Any = "edge") -> Array:
            width = [(0, size - n if place == axis else 0) for place in range(x.ndim)]
            return backend.get(x).from_numpy(np.pad(backend.get(x).to_numpy(x), width, mode), x)

        weight = None if self.weight is None else fill(self.weight, "constant")
        return Rows(Block(map_leaves(fill, self.block.data), weight), self.batch, size - n)

    def map(self, function: Callable[[Array], Array]) -> Rows:
        """Return rows whose arrays, and weights, a function has changed, but for the batch dimensions."""
        return replace(self, block=map_leaves(function, self.block))

    def taken(self, index: np.ndarray) -> Rows:
        """Return some rows of every problem."""
        where = backend.get(self.arrays[0]).from_numpy(index, self.arrays[0])
        rows = self.map(lambda x: backend.namespace(x).take(x, where, axis=len(self.batch)))
        return replace(rows, surplus=None)

    def detached(self) -> Rows:
        """Return the same rows, outside any gradient."""
        return self.map(outside)

    def with_restarts(self) -> Rows:
        """Give batched rows one more batch dimension of 1, along which restarts share them."""
        axis = len(self.batch)
        if not axis:
            return self
        return replace(self.map(lambda x: backend.namespace(x).expand_dims(x, axis=axis)), batch=(*self.batch, 1))

    def first(self, n: int = 1) -> Rows:
        """Return the first rows; one tells the shapes."""
        rows = (slice(None),) * len(self.batch) + (slice(0, min(n, self.n)), ...)
        return replace(self.map(lambda x: x[rows]), surplus=None)

    def on_host(self) -> Rows | None:
        """Return the rows on the host, in float64; None where a compiler is tracing and has no values to show.

        What is decided there is decided alike on every library: on devices float32 sums differ in their last digits.
        """
        if any(on_host(x) is None for x in leaves(self.block)):
            return None
        rows = (slice(None),) * len(self.batch) + (slice(self.n),)
        host = replace(self.map(lambda x: backend.get(x).to_numpy(x)[rows]), surplus=None)
        return host.map(lambda x: x.astype(np.float64, copy=False) if x.dtype.kind == "f" else x)

    def total_weight(self, index: Array | None = None) -> Array | float:
        """Return the sum of the weights of each problem, or of those problems that `index` names."""
        if self.weight is None:
            return float(self.n)
        xp = backend.namespace(self.weight)
        total = xp.sum(self.weight, axis=-1)
        return total if index is None else xp.take(total, index, axis=0)


def outside(x: Array) -> Array:
    """Return an array, outside any gradient."""
    return backend.get(x).detach(x)


def bucket(n: int) -> int:
    """Return the number of rows that `n` rows are filled up to: powers of two, and eight steps between large ones.

    >>> [bucket(n) for n in (100, 128, 129, 5000)]
    [128, 128, 256, 5120]
    """
    whole = 1 << (n - 1).bit_length()
    step = whole if whole <= _COARSE else whole // _FINE
    return -(-n // step) * step


def cut(tree: Any, n: int, axis: int) -> Any:
    """Return the first `n` entries along an axis of results for filled rows."""

    def shorten(x: Array) -> Array:
        part, host = (slice(None),) * axis + (slice(n), ...), None
        if x.shape[axis] == n:
            return x
        host = on_host(x)  # on the device each length would be a program
        return x[part] if host is None else backend.get(x).from_numpy(host[part], x)

    return map_leaves(shorten, tree)


def joined(parts: list[Array], axis: int) -> Array:
    """Join arrays along an axis, on the host where every length would be a program."""
    here = backend.get(*parts)
    if len(parts) == 1:
        return parts[0]
    host = [x for x in map(on_host, parts) if x is not None] if compiles(here) else []
    if len(host) < len(parts):
        return here.namespace(parts[0]).concat(parts, axis=axis)
    return here.from_numpy(np.concatenate(host, axis=axis), parts[0])
