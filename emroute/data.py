"""Where observations come from: arrays, tuples of arrays, and sources that are read a chunk at a time.

An observation is a row. ``x (..., n, d)`` holds `n` rows of rank 1, ``heads (..., n)`` rows of rank 0; leading
dimensions are batch. A source of chunks is anything but a tuple that can be iterated again and again.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from emroute import backend
from emroute._foreign import obstacle
from emroute.array import concrete
from emroute.backend import Array
from emroute.errors import InputError, InputTypeError, tell

__all__ = ["Chunks", "Layout", "Rows", "Stream", "open_source", "real_weight"]

_SEALED = 2**12  # entries of each array of a first chunk that are compared between passes


class Chunks:
    """Arrays in memory, or tuples of arrays, that hold the rows of one data set one after another.

    A list of them is read the same way, but with a warning where it could as well be meant as a batch.

    Parameters
    ----------
    chunks
        The arrays, each ``(rows, d)``; tuples of arrays where the data are several.

    Examples
    --------
    >>> import numpy as np
    >>> from emroute import kmeans
    >>> kmeans.fit(Chunks([np.asarray([[0.0], [1.0]]), np.asarray([[9.0], [10.0]])]), 2, rng=0).labels.tolist()
    [1, 1, 0, 0]
    """

    def __init__(self, chunks: Iterable[Any]) -> None:
        self._chunks = tuple(chunks)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._chunks)

    def __len__(self) -> int:
        return len(self._chunks)


@dataclass(frozen=True)
class Layout:
    """How arrays hold observations: the rank of one row of each, and whether there is but one array."""

    ranks: tuple[int, ...]
    single: bool

    @classmethod
    def of(cls, arrays: tuple[Array, ...], single: bool, ranks: tuple[int, ...] | None) -> Layout:
        """Return the layout a model declares, or else the usual one.

        The arrays of least rank hold scalars, ``(..., n)``, unless all have the same rank of two or more: then
        each is ``(..., n, d)``.
        """
        if ranks is None:
            least = min(x.ndim for x in arrays)
            scalar = least == 1 or any(x.ndim != least for x in arrays)
            ranks = tuple(x.ndim - least + (not scalar) for x in arrays)
        return cls(ranks, single)

    def n_batch(self, arrays: tuple[Array, ...]) -> int:
        """Return the number of leading batch dimensions."""
        return max(x.ndim - 1 - rank for x, rank in zip(arrays, self.ranks, strict=True))

    def pack(self, arrays: tuple[Array, ...]) -> Any:
        """Return the arrays as the user handed them: one array, or a tuple."""
        return arrays[0] if self.single else arrays


@dataclass(frozen=True)
class Rows:
    """Observations in memory (or in a memory map), every array with the same batch dimensions."""

    arrays: tuple[Array, ...]
    weight: Array | None
    layout: Layout

    @property
    def batch(self) -> tuple[int, ...]:
        """The leading dimensions."""
        return tuple(self.arrays[0].shape[: self.layout.n_batch(self.arrays)])

    @property
    def n(self) -> int:
        """Number of rows of one problem."""
        return self.arrays[0].shape[len(self.batch)]

    @property
    def held(self) -> list[Array]:
        """Every array, the weights last where there are any."""
        return [*self.arrays] if self.weight is None else [*self.arrays, self.weight]

    def like(self, held: list[Array]) -> Rows:
        """Return other rows of the same kind, from their arrays as `held` lists them."""
        n = len(self.arrays)
        return Rows(tuple(held[:n]), held[n] if len(held) > n else None, self.layout)

    def detached(self) -> Rows:
        """Return the same rows, outside any gradient."""
        return self.like([*_outside(self.held)])

    def with_restarts(self) -> Rows:
        """Give batched rows one more batch dimension of 1, along which restarts share them."""
        axis = len(self.batch)
        return self.like([backend.namespace(x).expand_dims(x, axis=axis) for x in self.held]) if axis else self

    def first(self, n: int = 1) -> Rows:
        """Return the first rows; one tells the shapes."""
        rows = (slice(None),) * len(self.batch) + (slice(0, min(n, self.n)), ...)
        return self.like([x[rows] for x in self.held])

    def on_host(self) -> Rows | None:
        """Return the rows on the host, in float64; None where a compiler is tracing and has no values to show.

        What is decided there is decided alike on every library: on devices float32 sums differ in their last digits.
        """
        if any(concrete(backend.namespace(x).any(x[..., :0] != 0)) is None for x in self.held):
            return None
        host = [backend.get(x).to_numpy(x) for x in self.held]
        return self.like([x.astype(np.float64, copy=False) if x.dtype.kind == "f" else x for x in host])

    def total_weight(self, index: Array | None = None) -> Array | float:
        """Return the sum of the weights of each problem, or of those problems that `index` names."""
        if self.weight is None:
            return float(self.n)
        xp = backend.namespace(self.weight)
        total = xp.sum(self.weight, axis=-1)
        return total if index is None else xp.take(total, index, axis=0)


class _Seal:
    """Number and checksum of the rows of a source, which every pass must find as the first did.

    The checksum, of each array its own, is over the bits of evenly spaced rows, of all where chunks are small: it sees
    any other order of rows, whatever the chunks they come in, and costs next to nothing beside an E-step.
    """

    def __init__(self, arrays: tuple[Array, ...]) -> None:
        self.step = max(math.ceil(math.prod(x.shape) / _SEALED) for x in arrays)
        self.first: tuple[int, ...] | None = None

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
        """Raise `InputError` unless a whole pass has seen what the first saw."""
        self.first = self.first or seen
        if seen == self.first:
            return
        found = (
            f"{seen[0]} rows, {self.first[0]} in the first" if seen[0] != self.first[0] else "others, or another order"
        )
        raise InputError(
            f"a pass over the source gave other rows than the first ({found}); EM reads its source in every iteration, "
            "and labels are those of rows in order: leave out shuffle=True and random changes, or fit an array"
        )


@dataclass(frozen=True)
class Stream:
    """Observations read a chunk at a time, again in every pass; weights are those of all rows in order."""

    source: Any
    weight: Array | None
    layout: Layout
    arrays: tuple[Array, ...]
    """The first chunk that has rows, which tells library, dtype and width."""
    seal: _Seal = field(compare=False)

    batch = ()

    def detached(self) -> Stream:
        """Return the same stream: its rows are outside any gradient."""
        return self

    def with_restarts(self) -> Stream:
        """Return the same stream: it has no batch to extend."""
        return self

    def first(self, n: int = 1) -> Rows:
        """Return the first rows, of the first chunk at most; one tells the shapes."""
        n = min(n, self.arrays[0].shape[0])
        weight = None if self.weight is None else self.weight[:n]
        return Rows(tuple(x[:n, ...] for x in self.arrays), weight, self.layout)

    def __iter__(self) -> Iterator[Rows]:
        start, seen = 0, (0,) * (1 + len(self.arrays))
        for number, chunk in enumerate(self.source):
            arrays = _outside(_as_arrays(chunk))
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
                yield Rows(arrays, weight, self.layout)
        if self.weight is not None and self.weight.shape[0] != start:
            raise InputError(
                f"sample_weight has {self.weight.shape[0]} entries, the source other than that: {start} rows or more"
            )
        self.seal.compare(seen)


def _outside(arrays: Iterable[Array]) -> tuple[Array, ...]:
    return tuple(backend.get(x).detach(x) for x in arrays)


def _as_arrays(data: Any) -> tuple[Array, ...]:
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
        return f"a chunk is a list of {len(x)} array{'s' * (len(x) > 1)}, as loaders of data sets give it: yield {call}"
    return "convert lists with numpy.asarray"


def real_weight(weight: Any, like: Array) -> Any:
    """Return whole and boolean weights as floating ones, of the dtype of fits of arrays like `like`."""
    if not backend.is_array(weight):
        return weight
    xp = backend.namespace(like, weight)
    if not xp.isdtype(weight.dtype, ("integral", "bool")):
        return weight
    return xp.astype(weight, backend.get(like).from_numpy(np.zeros(()), like).dtype)


def open_source(data: Any, sample_weight: Array | None = None, ranks: tuple[int, ...] | None = None) -> Rows | Stream:
    """Return data as rows in memory or as a stream.

    Parameters
    ----------
    data
        An array, a tuple of arrays, or an iterable of either that can be read more than once.
    sample_weight
        ``(n,)`` or ``(..., n)``; not for streams of unknown order.
    ranks
        Rank of one row of each array; see `Layout.of` for the default.

    Raises
    ------
    InputError
        If shapes disagree, nothing is there, or a source can be read only once.
    InputTypeError
        If the data are no arrays, or of two libraries or devices.
    """
    whole = isinstance(data, (tuple, str, bytes, Mapping)) or obstacle(data) is not None or backend.is_array(data)
    if whole or not hasattr(data, "__iter__"):
        return _open_rows(data, sample_weight, ranks)
    if isinstance(data, Iterator):
        raise InputError(
            f"got {type(data).__qualname__}, which can be read only once; EM reads its data in every iteration: "
            "pass a list of chunks, emroute.data.Chunks(source), or an object whose __iter__ starts again"
        )
    chunk, arrays = _first_chunk(data)
    backend.get(*arrays, sample_weight)
    sample_weight = real_weight(sample_weight, arrays[0])
    layout = Layout.of(arrays, not isinstance(chunk, tuple), ranks)
    wrong = [x.shape for x, rank in zip(arrays, layout.ranks, strict=False) if x.ndim != 1 + rank]
    if wrong or len(arrays) != len(layout.ranks):
        expected = ", ".join(f"(n{', d' * rank})" for rank in layout.ranks)
        raise InputError(
            f"a chunk has shapes {[tuple(x.shape) for x in arrays]}, expected {expected}; what is neither an array nor "
            "a tuple is read as chunks of rows: stack a list of single rows"
        )
    _ask(data)
    weight = None if sample_weight is None else _outside((sample_weight,))[0]
    return Stream(data, weight, layout, _outside(arrays), _Seal(arrays))


def _first_chunk(source: Any) -> tuple[Any, tuple[Array, ...]]:
    """Return the first chunk that has rows, as it is and as arrays."""
    n_chunks = 0
    for chunk in source:
        n_chunks += 1
        arrays = _as_arrays(chunk)
        if not arrays[0].shape or arrays[0].shape[0]:
            return chunk, arrays
    what = f"all {n_chunks} chunks of the source are empty" if n_chunks else "the source of chunks is empty"
    raise InputError(f"{what}; expected at least one chunk with one row")


def _ask(source: Any) -> None:
    """Warn of a list of arrays that may be meant as a batch: several of one shape."""
    if type(source) is not list or len(source) < 2 or not all(map(backend.is_array, source)):
        return
    shapes = {tuple(x.shape) for x in source}
    if len(shapes) > 1:
        return
    (shape,) = shapes
    tell(
        [
            f"a list of {len(source)} arrays of shape {shape} is read as chunks of one data set of "
            f"{len(source) * shape[0]} rows; say so with emroute.data.Chunks(arrays), or stack them, (..., n, d), "
            "to fit each on its own"
        ]
    )


def _open_rows(data: Any, sample_weight: Array | None, ranks: tuple[int, ...] | None) -> Rows:
    arrays = _as_arrays(data)
    xp = backend.get(*arrays, sample_weight).namespace(arrays[0])
    sample_weight = real_weight(sample_weight, arrays[0])
    layout = Layout.of(arrays, not isinstance(data, tuple), ranks)
    shapes = [tuple(x.shape) for x in arrays]
    if len(arrays) != len(layout.ranks) or any(
        len(shape) <= rank for shape, rank in zip(shapes, layout.ranks, strict=False)
    ):
        expected = [f"(..., n{', d' * rank})" for rank in layout.ranks]
        hint = "; of one feature pass x[:, None], of one row x[None, :]" if shapes[0][1:] == () else ""
        raise InputError(f"got shapes {shapes}, expected {', '.join(expected)}{hint if layout.ranks == (1,) else ''}")
    lead = [shape[: len(shape) - rank] for shape, rank in zip(shapes, layout.ranks, strict=True)]
    if sample_weight is not None:
        if not sample_weight.ndim:
            raise InputError("got a scalar sample_weight, expected one weight a row, shape (n,) or (..., n)")
        lead.append(tuple(sample_weight.shape))
    if len({shape[-1] for shape in lead}) > 1:
        what = "arrays" if sample_weight is None else "arrays and sample_weight"
        raise InputError(f"the {what} have {[shape[-1] for shape in lead]} rows; expected equal numbers")
    if not lead[0][-1]:
        raise InputError(f"got no rows (shapes {shapes}); expected at least one")
    try:
        batch = np.broadcast_shapes(*lead)
    except ValueError:
        raise InputError(f"batch dimensions {[shape[:-1] for shape in lead]} do not broadcast") from None
    arrays = tuple(
        xp.broadcast_to(x, batch + shape[len(shape) - rank :])
        for x, shape, rank in zip(arrays, shapes, layout.ranks, strict=True)
    )
    weight = None if sample_weight is None else xp.broadcast_to(sample_weight, batch)
    return Rows(arrays, weight, layout)
