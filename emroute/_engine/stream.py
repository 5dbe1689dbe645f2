"""Observations that are read one chunk at a time, the same in every pass."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from emroute import backend
from emroute._engine.rows import Block, Rows, outside
from emroute._foreign import obstacle
from emroute.arrays.trees import leaves, map_leaves, rebuild
from emroute.backend import Array, compiles
from emroute.errors import InputError, InputTypeError

__all__ = ["Seal", "Stream", "as_arrays"]

_SEALED = 2**12  # entries of each array of a first chunk that are compared between passes


class Seal:
    """The number and checksum of the rows of a source, which must be the same in every pass.

    The checksum, of each array its own, is over the bits of evenly spaced rows, of all where chunks are small: it
    detects any other order of rows, for any division into chunks, and costs almost nothing compared with an E-step.
    """

    def __init__(self, arrays: tuple[Array, ...]) -> None:
        self.step = max(math.ceil(math.prod(x.shape) / _SEALED) for x in arrays)
        self.first: tuple[int, ...] | None = None

    @property
    def n(self) -> int:
        """Number of rows of the first whole pass."""
        return self.first[0] if self.first else 0

    def add(self, seen: tuple[int, ...], arrays: tuple[Array, ...]) -> tuple[int, ...]:
        """Return number and checksums of rows with those of one more chunk."""
        n, *codes = seen
        for place, x in enumerate(arrays):
            here, some = backend.get(x), x
            if self.step > 1:
                index = np.arange(-n % self.step, x.shape[0], self.step)
                some = backend.namespace(x).take(x, here.from_numpy(index, x), axis=0)
            try:
                codes[place] = zlib.crc32(np.ascontiguousarray(here.to_numpy(some)).data, codes[place])
            except (TypeError, RuntimeError):  # a compiler is tracing and there are no values: told by the fit
                continue
        return n + arrays[0].shape[0], *codes

    def compare(self, seen: tuple[int, ...]) -> None:
        """Raise `InputError` unless a pass has seen the same rows as the first."""
        self.first = self.first or seen
        if seen == self.first:
            return
        found = (
            f"{seen[0]} rows, {self.first[0]} in the first" if seen[0] != self.first[0] else "others, or another order"
        )
        raise InputError(
            f"a pass over the source yielded other rows than the first ({found}); EM reads its source in every "
            "iteration, in the same order: leave out shuffle=True and random changes, or fit an array"
        )


@dataclass(frozen=True)
class Stream:
    """Observations read a chunk at a time, again in every pass; weights are those of all rows in order."""

    source: Any
    weight: Array | None
    head: Any
    """The first chunk that has rows, which tells library, dtype and width."""
    seal: Seal = field(compare=False)
    fills: bool = field(default=False, kw_only=True)
    """Whether chunks are filled as they are read."""

    batch = ()

    @property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays of the first chunk that has rows."""
        return tuple(leaves(self.head))

    @property
    def n(self) -> int:
        """Number of rows; the first pass counts them."""
        if self.seal.first is None:
            for _ in self:
                pass
        return self.seal.n

    def detached(self) -> Stream:
        """Return the same stream: its rows are outside any gradient."""
        return self

    def filled(self) -> Stream:
        """Return the stream whose chunks fill buckets, as `Rows.filled`."""
        return replace(self, fills=compiles(backend.get(*self.arrays)))

    def with_restarts(self) -> Stream:
        """Return the same stream: it has no batch to extend."""
        return self

    def first(self, n: int = 1) -> Rows:
        """Return the first rows, of the first chunk at most; one tells the shapes."""
        n = min(n, self.arrays[0].shape[0])
        weight = None if self.weight is None else self.weight[:n]
        return Rows(Block(map_leaves(lambda x: x[:n, ...], self.head), weight))

    def total_weight(self, index: None = None) -> Array | float:
        """Return the sum of the weights, of the one problem that a stream has."""
        if self.weight is None:
            return float(self.n)
        return backend.namespace(self.weight).sum(self.weight)

    def __iter__(self) -> Iterator[Rows]:
        start, seen = 0, (0,) * (1 + len(self.arrays))
        for number, chunk in enumerate(self.source):
            arrays = tuple(map(outside, as_arrays(chunk)))
            backend.get(*self.arrays, *arrays)
            expected = [(x.dtype, *x.shape[1:]) for x in self.arrays]
            got = [(x.dtype, *x.shape[1:]) for x in arrays]
            if got != expected:
                raise InputError(f"chunk {number} has rows {got}, the first chunk has {expected}; make them alike")
            n = arrays[0].shape[0]
            if any(x.shape[0] != n for x in arrays):
                raise InputError(f"chunk {number}: its arrays have {[x.shape[0] for x in arrays]} rows, expected equal")
            seen = self.seal.add(seen, arrays)
            weight = None if self.weight is None else self.weight[start : min(start + n, self.weight.shape[0])]
            start += n
            if weight is not None and weight.shape[0] != n:
                break
            if n:
                rows = Rows(Block(rebuild(self.head, arrays), weight))
                yield rows.filled() if self.fills else rows
        if self.weight is not None and self.weight.shape[0] != start:
            raise InputError(
                f"sample_weight has {self.weight.shape[0]} entries, not one per row of the source ({start} or more)"
            )
        self.seal.compare(seen)


def as_arrays(data: Any) -> tuple[Array, ...]:
    """Return an array, or a tuple of arrays, as a tuple, or raise an error."""
    arrays = data if isinstance(data, tuple) else (data,)
    if not arrays:
        raise InputError("got an empty tuple, expected at least one array")
    for x in arrays:
        if reason := obstacle(x):
            raise InputTypeError(reason)
        if not backend.is_array(x):
            raise InputTypeError(
                f"got {type(x).__qualname__}, expected an array, a tuple of arrays or a source of chunks of these; "
                f"{_remedy(x)}"
            )
    return arrays


def _remedy(x: Any) -> str:
    if isinstance(x, list) and x and all(map(backend.is_array, x)):
        call = "its one array, `chunk[0]`" if len(x) == 1 else "a tuple, `tuple(chunk)`, or one of its arrays"
        return f"a chunk is a list of {len(x)} array{'s' * (len(x) > 1)}, as data loaders yield it: yield {call}"
    return "convert lists with numpy.asarray"
