"""Sources of observations: arrays, tuples of arrays, and sources that are read one chunk at a time.

An observation is a row. ``x (..., n, d)`` holds `n` rows of rank 1, ``heads (..., n)`` rows of rank 0; leading
dimensions are batch. Any other object that can be iterated repeatedly, except a tuple, is read as a source of chunks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from emroute import backend
from emroute._engine.rows import Block, Rows, outside
from emroute._engine.stream import Seal, Stream, as_arrays
from emroute._foreign import obstacle
from emroute.arrays.trees import map_leaves, rebuild
from emroute.backend import Array
from emroute.errors import InputError, tell
from emroute.sources import Source, csv, npy, parquet

__all__ = ["Block", "Chunks", "Rows", "Source", "Stream", "csv", "npy", "open_source", "parquet", "real_weight"]


class Chunks:
    """Chunks of one data set: arrays in memory, or tuples of arrays, that hold its rows in order.

    A list of arrays is read the same way, but with a warning if it could also be meant as a batch.

    Parameters
    ----------
    chunks
        The arrays, each ``(rows, d)``, or tuples of arrays if the data consist of several.

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


def real_weight(weight: Any, like: Array) -> Any:
    """Return integer and boolean weights as floating numbers, in the dtype of a fit of arrays like `like`."""
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
        An array, a tuple of arrays, or an iterable of either that can be read repeatedly.
    sample_weight
        The weight of each row, ``(n,)`` or ``(..., n)``; not for streams of unknown order.
    ranks
        The rank of one row of each array. By default 1 if all arrays have the same rank, else 0 for those of least
        rank.

    Raises
    ------
    InputError
        If shapes disagree, there are no rows, or a source can be read only once.
    InputTypeError
        If the data are not arrays, or are from two libraries or devices.
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
    ranks = _usual_ranks(arrays) if ranks is None else ranks
    wrong = [x.shape for x, rank in zip(arrays, ranks, strict=False) if x.ndim != 1 + rank]
    if wrong or len(arrays) != len(ranks):
        expected = ", ".join(f"(n{', d' * rank})" for rank in ranks)
        raise InputError(
            f"a chunk has shapes {[tuple(x.shape) for x in arrays]}, expected {expected}; anything but an array or "
            "a tuple is read as chunks of rows: stack a list of single rows"
        )
    _ask(data)
    return Stream(data, map_leaves(outside, sample_weight), map_leaves(outside, chunk), Seal(arrays))


def _usual_ranks(arrays: tuple[Array, ...]) -> tuple[int, ...]:
    """Return the rank of one row of each array, for models that do not declare it.

    If all arrays have the same rank of at least 2, each is ``(..., n, d)``. Otherwise those of least rank are ``(...,
    n)``.
    """
    least = min(x.ndim for x in arrays)
    scalar = least == 1 or any(x.ndim != least for x in arrays)
    return tuple(x.ndim - least + (not scalar) for x in arrays)


def _first_chunk(source: Any) -> tuple[Any, tuple[Array, ...]]:
    """Return the first chunk that has rows, as it came and as arrays."""
    n_chunks = 0
    for chunk in source:
        n_chunks += 1
        arrays = as_arrays(chunk)
        if not arrays[0].shape or arrays[0].shape[0]:
            return chunk, arrays
    what = f"all {n_chunks} chunks of the source are empty" if n_chunks else "the source of chunks is empty"
    raise InputError(f"{what}; expected at least one chunk with one row")


def _ask(source: Any) -> None:
    """Warn about a list of arrays of one shape, which may be meant as a batch."""
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
    arrays = as_arrays(data)
    xp = backend.get(*arrays, sample_weight).namespace(arrays[0])
    sample_weight = real_weight(sample_weight, arrays[0])
    ranks = _usual_ranks(arrays) if ranks is None else ranks
    shapes = [tuple(x.shape) for x in arrays]
    if len(arrays) != len(ranks) or any(len(shape) <= rank for shape, rank in zip(shapes, ranks, strict=False)):
        expected = [f"(..., n{', d' * rank})" for rank in ranks]
        hint = "; for one feature pass x[:, None], for one row x[None, :]" if shapes[0][1:] == () else ""
        raise InputError(f"got shapes {shapes}, expected {', '.join(expected)}{hint if ranks == (1,) else ''}")
    lead = [shape[: len(shape) - rank] for shape, rank in zip(shapes, ranks, strict=True)]
    if sample_weight is not None:
        if not sample_weight.ndim:
            raise InputError("got a scalar sample_weight, expected one weight per row, shape (n,) or (..., n)")
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
    wide = [
        xp.broadcast_to(x, batch + shape[len(shape) - rank :])
        for x, shape, rank in zip(arrays, shapes, ranks, strict=True)
    ]
    weight = None if sample_weight is None else xp.broadcast_to(sample_weight, batch)
    return Rows(Block(rebuild(data, wide), weight), batch[:-1])
