"""Operations on nested tuples of arrays: parameters, statistics and blocks of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emroute.arrays.tracing import at_hand
from emroute.arrays.trees import leaves, map_leaves, rebuild
from emroute.backend import Array, get, namespace

__all__ = ["first", "map_blocks", "rejoin", "stacked", "take", "unmoved", "where_leading"]


def map_blocks(function: Callable[[Any], Any], tree: Any, size: int) -> Any:
    """Apply a function of a nest to blocks of `size` along the first axes of its arrays; join the nests it returns.

    >>> import numpy as np
    >>> map_blocks(lambda pair: (pair[0] + pair[1],), (np.arange(3), np.arange(3)), 2)
    (array([0, 2, 4]),)
    """
    structure = None

    def of_arrays(*block: Array) -> tuple[Array, ...]:
        nonlocal structure  # backends join flat tuples; the result of any block tells how to nest them again
        structure = function(rebuild(tree, block))
        return tuple(leaves(structure))

    arrays = leaves(tree)
    joined = get(arrays[0]).map_blocks(of_arrays, arrays, size)
    return rebuild(structure, joined)


def first(tree: Any) -> Any:
    """Return the first entries of all arrays, along their first axes."""
    return map_leaves(lambda x: x[0, ...], tree)


def stacked(tree: Any) -> Any:
    """Give all arrays a first axis of length 1."""
    return map_leaves(lambda x: x[None, ...], tree)


def where_leading(mask: Array, new: Any, old: Any) -> Any:
    """Take arrays of `new` where a mask over their first axes holds; arrays without these axes stay the old ones.

    >>> import numpy as np
    >>> where_leading(np.asarray([True, False]), np.ones((2, 2)), np.zeros((2, 2))).tolist()
    [[1.0, 1.0], [0.0, 0.0]]
    """
    xp = namespace(mask)
    everywhere = at_hand(xp.all(mask))
    if everywhere and not mask.ndim:
        return new

    def choose(a: Array, b: Array) -> Array:
        if a is b or a.shape[: mask.ndim] != mask.shape:
            return b
        return a if everywhere else xp.where(xp.reshape(mask, (*mask.shape, *(1,) * (a.ndim - mask.ndim))), a, b)

    return map_leaves(choose, new, old)


def take(tree: Any, index: Array, n_problems: int) -> Any:
    """Return some of the problems of a nest; arrays without an axis of problems are shared, and stay as they are."""
    return map_leaves(lambda x: namespace(x).take(x, index, axis=0) if _is_own(x, n_problems) else x, tree)


def rejoin(parts: list[Any], sizes: list[int], order: Array) -> Any:
    """Put nests of problems that were taken apart, so many in each, together again in an order."""

    def join(*pieces: Array) -> Array:
        xp = namespace(order)
        if not all(_is_own(piece, size) for piece, size in zip(pieces, sizes, strict=True)):
            return pieces[0]
        return xp.take(xp.concat(list(pieces), axis=0), order, axis=0)

    return map_leaves(join, *parts)


def _is_own(x: Array, n_problems: int) -> bool:
    """Whether the first axis of an array is that of the problems."""
    return x.ndim > 0 and x.shape[0] == n_problems


def unmoved(new: Any, old: Any, n_batch: int, resolution: float) -> Array:
    """Whether no array of a problem moved by more than `resolution` of its largest entry."""
    still: Any = True
    for a, b in zip(leaves(new), leaves(old), strict=True):
        if a is b:
            continue
        xp, axes = namespace(a), tuple(range(n_batch, a.ndim))
        size, step = xp.abs(b), xp.abs(a - b)
        if axes:
            size, step = xp.max(size, axis=axes), xp.max(step, axis=axes)
        still = (step <= resolution * size) & still
    return still
