"""Observations in memory, as blocks that an E-step takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from emroute import backend
from emroute.arrays.tracing import concrete
from emroute.arrays.trees import leaves, map_leaves
from emroute.backend import Array

__all__ = ["Block", "Rows", "outside"]


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
        return self.arrays[0].shape[len(self.batch)]

    def map(self, function: Callable[[Array], Array]) -> Rows:
        """Return rows whose arrays, and weights, a function has changed, but for the batch dimensions."""
        return Rows(map_leaves(function, self.block), self.batch)

    def taken(self, index: np.ndarray) -> Rows:
        """Return some rows of every problem."""
        where = backend.get(self.arrays[0]).from_numpy(index, self.arrays[0])
        return self.map(lambda x: backend.namespace(x).take(x, where, axis=len(self.batch)))

    def detached(self) -> Rows:
        """Return the same rows, outside any gradient."""
        return self.map(outside)

    def with_restarts(self) -> Rows:
        """Give batched rows one more batch dimension of 1, along which restarts share them."""
        axis = len(self.batch)
        if not axis:
            return self
        return Rows(map_leaves(lambda x: backend.namespace(x).expand_dims(x, axis=axis), self.block), (*self.batch, 1))

    def first(self, n: int = 1) -> Rows:
        """Return the first rows; one tells the shapes."""
        rows = (slice(None),) * len(self.batch) + (slice(0, min(n, self.n)), ...)
        return self.map(lambda x: x[rows])

    def on_host(self) -> Rows | None:
        """Return the rows on the host, in float64; None where a compiler is tracing and has no values to show.

        What is decided there is decided alike on every library: on devices float32 sums differ in their last digits.
        """
        if any(concrete(backend.namespace(x).any(x[..., :0] != 0)) is None for x in leaves(self.block)):
            return None
        host = self.map(lambda x: backend.get(x).to_numpy(x))
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
