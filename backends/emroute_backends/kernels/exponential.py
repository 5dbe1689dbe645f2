"""The exponential function for loops: the C library's is called for one number at a time, this one runs in vectors.

A power of two is split off, ``exp(x) = 2**n exp(r)`` with ``|r| <= log(2) / 2``; the series sums the rest.
"""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import overload

__all__ = ["exponential"]

_PER_LOG2 = 1 / math.log(2)
_HIGH, _LOW = 355 / 512, -2.121944400546905827679e-4  # log 2; products of the first with whole numbers are exact
_SINGLE = tuple(np.float32(1 / math.factorial(n)) for n in range(8))
_DOUBLE = tuple(1 / math.factorial(n) for n in range(14))


def exponential(x):  # noqa: ANN201 - the compiler compares signatures
    """The exponential of a number of at most 88, to 2 units in the last place; 0 where that is below normal numbers."""
    raise NotImplementedError  # known to compiled code alone


@overload(exponential, jit_options={"nogil": True, "fastmath": {"contract"}, "forceinline": True})
def _of_type(x):
    return _single if x == types.float32 else _double


def _single(x):
    y = max(x, np.float32(-87.33))
    exponent = np.int32(y * np.float32(_PER_LOG2) + np.float32(127.5))
    n = np.float32(np.int32(exponent - 127))
    r = (y - n * np.float32(_HIGH)) - n * np.float32(_LOW)
    s = _SINGLE[4] + r * (_SINGLE[5] + r * (_SINGLE[6] + r * _SINGLE[7]))
    s = _SINGLE[0] + r * (_SINGLE[1] + r * (_SINGLE[2] + r * (_SINGLE[3] + r * s)))
    power = np.int32(exponent << 23).view(np.float32)
    return np.float32(0) if x < np.float32(-87.33) else s * power


def _double(x):
    y = max(x, -708.39)
    exponent = np.int64(y * _PER_LOG2 + 1023.5)
    n = np.float64(exponent - 1023)
    r = (y - n * _HIGH) - n * _LOW
    s = _DOUBLE[9] + r * (_DOUBLE[10] + r * (_DOUBLE[11] + r * (_DOUBLE[12] + r * _DOUBLE[13])))
    s = _DOUBLE[5] + r * (_DOUBLE[6] + r * (_DOUBLE[7] + r * (_DOUBLE[8] + r * s)))
    s = _DOUBLE[0] + r * (_DOUBLE[1] + r * (_DOUBLE[2] + r * (_DOUBLE[3] + r * (_DOUBLE[4] + r * s))))
    power = np.int64(exponent << 52).view(np.float64)
    return 0.0 if x < -708.39 else s * power
