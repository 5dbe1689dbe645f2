"""Loops over arrays, compiled by numba for float32 and float64, each when it is first asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from numba import from_dtype, njit, types

__all__ = ["exact", "flat", "loops", "piece"]

# sums may be taken in another order, so that they run in vectors; infinities and NaN stay what they are
_MATH = {"reassoc", "contract", "arcp", "nsz"}

_OPTIONS: Any = {"nogil": True, "fastmath": _MATH, "error_model": "numpy"}
_INSIDE: Any = {**_OPTIONS, "forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_EXACT: Any = {**_INSIDE, "fastmath": False}

piece = njit(**_INSIDE)
"""A part of loops, compiled within those that call it: only there are the sizes of its arrays known."""

exact = njit(**_EXACT)
"""A piece that rounds as it is written: there the difference of two equal products is 0."""


def loops(*ranks: int, places: int = 0) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function of arrays of these ranks and one dtype, and of `places` vectors of indices: all read only."""

    def of(function: Callable[..., Any]) -> Callable[..., Any]:
        compiled = cache(partial(_compile, function, ranks, places))

        def run(*arrays: np.ndarray) -> Any:
            return compiled(arrays[0].dtype)(*map(np.ascontiguousarray, arrays))

        return run

    return of


def _compile(function: Callable[..., Any], ranks: tuple[int, ...], places: int, dtype: np.dtype) -> Callable[..., Any]:
    kinds = [(from_dtype(dtype), rank) for rank in ranks] + [(types.int64, 1)] * places
    signature = tuple(types.Array(kind, rank, "C", readonly=True) for kind, rank in kinds)  # takes writable ones too
    try:
        return njit([signature], cache=True, **_OPTIONS)(function)
    except (RuntimeError, OSError):  # no folder that can be written to: compile in every process
        return njit([signature], **_OPTIONS)(function)


def flat(x: np.ndarray, rank: int, batch: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return an array whose batch dimensions are one, and which of its problems belongs to each problem of a batch."""
    own = x.shape[: x.ndim - rank]
    place = np.broadcast_to(np.arange(math.prod(own)).reshape(own), batch)
    return x.reshape(-1, *x.shape[x.ndim - rank :]), place.ravel()
