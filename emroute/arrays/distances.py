"""Nearest centres, found by products, or by differences if products lose too many digits."""

from __future__ import annotations

from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import swap
from emroute.arrays.functions import eps
from emroute.arrays.tracing import either
from emroute.backend import Array
from emroute.capability import Capabilities

__all__ = ["alike", "distances", "nearest"]

_BLUR = 2**8  # products cannot separate centres whose squared distance is below this many roundings of their squares


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def distances(points: Array, centres: Array) -> Array:
    """Return half the squared distances ``(..., n, k)`` of points to centres, minus half the squares of the points."""
    xp = backends.namespace(points)
    half = xp.matmul(points, -swap(centres))
    half += xp.sum(centres * centres, axis=-1)[..., None, :] / 2
    return half


@Capabilities(jit=True, batch=True, half=True)
def nearest(points: Array, centres: Array, close: Array | None = None) -> Array:
    """Return the index of the nearest centre, ``(..., n)``, by products, or by differences if these are imprecise.

    `close` is a truth value that says whether they are; by default it is computed.
    """
    xp, backend = backends.namespace(points), backends.get(points)
    points, centres = backend.detach(points), backend.detach(centres)
    k = centres.shape[-2]

    def by_products(points: Array) -> Array:
        return xp.argmin(distances(points, centres), axis=-1)

    def by_differences(points: Array) -> Array:
        each = xp.moveaxis(centres, -2, 0)[..., None, :]

        def square(i: Any) -> Array:
            gaps = points - each[i, ...]
            return xp.vecdot(gaps, gaps)

        def one_more(state: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
            i, least, labels = state
            new = square(i)
            return i + 1, xp.minimum(new, least), xp.where(new < least, i, labels)

        first = square(0)
        labels = xp.argmin(first[..., None], axis=-1)
        return backend.loop(lambda state: state[0] < k, one_more, (1, first, labels))[2]

    return either(xp.any(alike(centres) > 0) if close is None else close, by_differences, by_products, points)


def alike(centres: Array) -> Array:
    """Return 1 if products cannot tell some two of the centres ``(..., k, d)`` apart, else 0, ``(...,)``."""
    xp, k = backends.namespace(centres), centres.shape[-2]
    square = xp.vecdot(centres, centres)
    between = square[..., None, :] + square[..., None] - 2 * xp.matmul(centres, swap(centres))
    other = backends.get(centres).from_numpy(~np.eye(k, dtype=bool), centres)
    blurred = between <= _BLUR * eps(between) * xp.max(square, axis=-1)[..., None, None]
    return xp.astype(xp.any(blurred & other, axis=(-2, -1)), centres.dtype)
