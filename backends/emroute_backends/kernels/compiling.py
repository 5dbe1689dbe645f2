"""Loops over arrays, compiled by numba for float32 and float64, each when it is first asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
from numba import from_dtype, njit, types

__all__ = ["exact", "flat", "loops", "part", "piece"]

# sums may be taken in another order, so that they run in vectors; infinities and NaN stay what they are
_MATH = {"reassoc", "contract", "arcp", "nsz"}

_OPTIONS: Any = {"nogil": True, "fastmath": _MATH, "error_model": "numpy"}
_CALLED: Any = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_INSIDE: Any = {**_CALLED, "forceinline": True}
_EXACT: Any = {**_INSIDE, "fastmath": False}

piece = njit(**_INSIDE)
"""A part of loops, compiled within those that call it: only there are the sizes of its arrays known."""

part = njit(**_CALLED)
"""A large piece that is called, not compiled again within each function that calls it."""

exact = njit(**_EXACT)
"""A piece that rounds as it is written: there the difference of two equal products is 0."""


def loops(*kinds: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function of arrays that it only reads: ``"f2"`` is a matrix of the first's dtype, ``"i1"`` integers."""

    def of(function: Callable[..., Any]) -> Callable[..., Any]:
        compiled = cache(partial(_compile, function, kinds))

        def run(*arrays: np.ndarray) -> Any:
            return compiled(arrays[0].dtype)(*map(np.ascontiguousarray, arrays))

        return run

    return of


def _compile(function: Callable[..., Any], kinds: tuple[str, ...], dtype: np.dtype) -> Callable[..., Any]:
    numbers = {"f": from_dtype(dtype), "i": types.int64}
    # readonly takes arrays that can be written to as well
    signature = tuple(types.Array(numbers[kind[0]], int(kind[1]), "C", readonly=True) for kind in kinds)
    try:
        return njit([signature], cache=True, **_OPTIONS)(function)
    except (RuntimeError, OSError):  # no folder that can be written to: compile in every process
        return njit([signature], **_OPTIONS)(function)


def flat(batch: tuple[int, ...], *arrays: tuple[np.ndarray, int]) -> tuple[np.ndarray, ...]:
    """Return arrays, each with the rank of one problem of its own, with one axis of problems before that.

    Last come places ``(problems, arrays)``: which problem of each array belongs to each problem of the joint batch.
    """
    own = tuple(x.shape[: x.ndim - rank] for x, rank in arrays)
    return *(x.reshape(-1, *x.shape[x.ndim - rank :]) for x, rank in arrays), _places(batch, own)


@lru_cache(maxsize=256)
def _places(batch: tuple[int, ...], own: tuple[tuple[int, ...], ...]) -> np.ndarray:
    numbers = (np.arange(math.prod(shape)).reshape(shape) for shape in own)
    return np.stack([np.broadcast_to(each, batch).ravel() for each in numbers], axis=-1)
