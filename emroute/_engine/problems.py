"""Many problems in one call, each of which stops on its own.

Inside the loop every batch has one leading axis of problems. Restart dimensions, which are 1 in the data, follow that
axis, so that restarts broadcast against the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emroute.arrays.creation import broadcast
from emroute.arrays.trees import map_leaves
from emroute.backend import Array, namespace
from emroute.data import Block, Rows, Stream
from emroute.errors import InputError

__all__ = ["Problems", "align", "lead_ones"]


@dataclass(frozen=True)
class Problems:
    """The batch dimensions of a fit, and how they become one axis of problems.

    Parameters
    ----------
    shape
        The dimensions, as the objective has them.
    data
        Those of the data.
    """

    shape: tuple[int, ...]
    data: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.data) > len(self.shape) or any(a not in (1, b) for a, b in zip(self.wide, self.shape, strict=True)):
            raise InputError(
                f"the data have batch dimensions {self.wide}, the parameters have {self.shape}; every array in params "
                "must begin with the batch dimensions of the data"
            )

    @property
    def wide(self) -> tuple[int, ...]:
        """The dimensions of the data, 1 where problems share rows."""
        return (1,) * (len(self.shape) - len(self.data)) + self.data

    @property
    def own_rows(self) -> bool:
        """Whether problems differ in their data."""
        return any(size > 1 for size in self.data)

    @property
    def is_one(self) -> bool:
        """Whether the batch has one problem, which runs without a batch."""
        return bool(self.shape) and all(size == 1 for size in self.shape)

    @property
    def n_outer(self) -> int:
        """How many dimensions become the axis of problems; the others are restarts on shared rows."""
        outer = len(self.shape)
        while self.own_rows and self.wide[outer - 1] == 1 and self.shape[outer - 1] > 1:
            outer -= 1
        return outer

    @property
    def outer(self) -> tuple[int, ...]:
        """The dimensions that become the axis of problems."""
        return self.shape[: self.n_outer]

    @property
    def row_dims(self) -> int:
        """How many dimensions come before the rows of flattened data."""
        return 1 + len(self.wide) - self.n_outer if self.own_rows else 0

    @property
    def n(self) -> int:
        """Length of the axis of problems."""
        return math.prod(self.outer)

    def flatten_params(self, params: Any) -> Any:
        """Flatten batch dimensions into one axis; of length 1 for shared arrays, absent for a single problem."""

        def flatten(x: Array) -> Array:
            xp, own = namespace(x), tuple(x.shape[: len(self.shape)])
            if len(own) < len(self.shape) or any(a not in (1, b) for a, b in zip(own, self.shape, strict=True)):
                raise InputError(f"an array in params has shape {x.shape}, expected it to begin with {self.shape}")
            rest = tuple(x.shape[self.n_outer :])
            if self.is_one:
                return xp.reshape(x, rest)
            if all(size == 1 for size in own[: self.n_outer]) and not self.own_rows:
                return xp.reshape(x, (1, *rest))
            return xp.reshape(xp.broadcast_to(x, (*self.outer, *rest)), (self.n, *rest))

        return map_leaves(flatten, params) if self.shape else params

    def flatten_rows(self, block: Block) -> Block:
        """Give rows one leading axis of problems where those differ in data, and none where they do not."""
        inner = self.wide[self.n_outer :]

        def flatten(x: Array) -> Array:
            xp, rest = namespace(x), tuple(x.shape[len(self.data) :])
            if not self.own_rows:
                return xp.reshape(x, rest)
            x = xp.reshape(x, (*self.wide[: self.n_outer], *inner, *rest))
            return xp.reshape(xp.broadcast_to(x, (*self.outer, *inner, *rest)), (self.n, *inner, *rest))

        return map_leaves(flatten, block) if self.data else block

    def flatten(self, source: Rows | Stream) -> Rows | Stream:
        """As `flatten_rows`, for a whole source; a stream has no batch."""
        if isinstance(source, Stream):
            return source
        batch = (self.n, *self.wide[self.n_outer :]) if self.own_rows else ()
        return Rows(self.flatten_rows(source.counted), batch, source.surplus)

    def restore(self, tree: Any) -> Any:
        """Give arrays that begin with the axis of problems their batch dimensions back."""

        def unflatten(x: Array) -> Array:
            if self.is_one:
                return namespace(x).reshape(x, (*self.shape, *x.shape))
            outer = self.outer if x.shape[0] == self.n else (1,) * self.n_outer
            return namespace(x).reshape(x, (*outer, *x.shape[1:]))

        return map_leaves(unflatten, tree) if self.shape else tree


def align(batch: tuple[int, ...], own: Sequence[tuple[Array, int]], shared: Any) -> tuple[list[Array], Any]:
    """Give the arrays of a start the same batch dimensions: those of the data, and what the start adds in front.

    Parameters
    ----------
    batch
        Batch dimensions of the data.
    own
        What each problem has for itself: arrays, and their ranks without batch.
    shared
        A nest of arrays that begin with `batch`; they get 1 in every dimension that is added.

    Returns
    -------
    list of Array
        The own arrays, in all dimensions.
    nest
        The shared ones.
    """
    leads = [tuple(x.shape[: x.ndim - rank]) for x, rank in own]
    try:
        joint = np.broadcast_shapes(batch, *leads)
    except ValueError:
        raise InputError(f"batch dimensions of the start and the data do not broadcast: {leads} and {batch}") from None
    wide = [
        broadcast(x, joint + tuple(x.shape[len(lead) :]))  # the user's own arrays, or those of a start that is drawn
        for (x, _), lead in zip(own, leads, strict=True)
    ]
    return wide, lead_ones(shared, len(joint) - len(batch))


def lead_ones(tree: Any, n: int) -> Any:
    """Give all arrays of a nest `n` more first dimensions, of length 1."""
    return map_leaves(lambda x: namespace(x).reshape(x, (*(1,) * n, *x.shape)), tree) if n else tree
