"""Every backend member from the Array API standard alone: eager, for any conforming library.

It serves ``array_api_strict`` and is what other plug-ins borrow from; a library's own, faster form replaces a
member where there is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import array_api_compat
import numpy as np

Array = Any

namespace = array_api_compat.array_namespace

_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
_CACHE_BYTES = 2**21
_PIECE = 1024
_LARGE = 256  # from where on Stirling's series needs no recurrence

# The C library gives freed memory back to the system above a limit that grows with the largest block it saw freed, up
# to 32 MiB. This block, never touched, takes the limit there: else the arrays of every block of rows are fresh pages,
# which cost more than what is computed in them.
np.empty(2**25 - 2**16, dtype=np.uint8)


_PRODUCTS = ("matmul", "tensordot", "vecdot")


def replaced(space: ModuleType, wrap: Callable[[str, Callable[..., Array]], Callable[..., Array]]) -> ModuleType:
    """Return a namespace like `space`, its matrix products wrapped."""
    changed = ModuleType(f"{space.__name__} of emroute")
    products = {name: wrap(name, getattr(space, name)) for name in _PRODUCTS}
    vars(changed).update({**vars(space), **products})
    vars(changed)["linalg"] = SimpleNamespace(**{**vars(space.linalg), **products})
    return changed


def loop(condition: Callable[[Any], Array], body: Callable[[Any], Any], state: Any) -> Any:
    while bool(condition(state)):
        state = body(state)
    return state


def compile(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def eigh(x: Array, /) -> tuple[Array, Array]:
    """Matrices with a NaN or an infinity are kept from LAPACK, which would raise for the whole batch."""
    xp = namespace(x)
    finite = xp.all(xp.isfinite(x), axis=(-2, -1), keepdims=True)
    values, vectors = xp.linalg.eigh(xp.where(finite, x, xp.zeros_like(x)))
    nan = xp.asarray(math.nan, dtype=x.dtype, device=array_api_compat.device(x))
    return xp.where(finite[..., 0], values, nan), xp.where(finite, vectors, nan)


def gammaln(x: Array, /) -> Array:
    """Eight steps of the recurrence, then Stirling's series: 8e-15 (float64) everywhere, differentiable."""
    xp = namespace(x)
    one = xp.ones_like(x)
    small = xp.where(x < _LARGE, x, one)  # the product would overflow
    steps = one
    for step in range(8):
        steps = steps * (small + step)
    steps = xp.where(x < _LARGE, steps, one)
    shifted = xp.where(x < _LARGE, x + 8, x)
    series = xp.zeros_like(x)
    for coefficient in reversed(_STIRLING):
        series = series / (shifted * shifted) + coefficient
    stirling = (shifted - 0.5) * xp.log(shifted) - shifted + 0.5 * math.log(2 * math.pi) + series / shifted
    return stirling - xp.log(steps)


def digamma(x: Array, /) -> Array:
    """The derivative of `gammaln`, term by term."""
    xp = namespace(x)
    steps = xp.zeros_like(x)
    for step in range(8):
        steps = steps + 1 / (x + step)
    shifted = x + 8
    series = xp.zeros_like(x)
    for order, coefficient in reversed(list(enumerate(_STIRLING))):
        series = series / (shifted * shifted) + (2 * order + 1) * coefficient
    return xp.log(shifted) - 0.5 / shifted - series / (shifted * shifted) - steps


def segment_sum(values: Array, segments: Array, n_segments: int) -> Array:
    """Products with one-hot matrices, a piece of the rows each: one after another, float32 sums lose their digits."""
    xp, n = namespace(values), values.shape[-2]
    classes = xp.arange(n_segments, dtype=segments.dtype, device=array_api_compat.device(segments))[:, None]

    def piece(start: int) -> Array:
        part = slice(start, min(start + _PIECE, n))
        return xp.matmul(xp.astype(segments[..., None, part] == classes, values.dtype), values[..., part, :])

    sums = [piece(start) for start in range(0, max(n, 1), _PIECE)]
    while len(sums) > 1:
        sums = [sum(sums[at + 1 : at + 2], sums[at]) for at in range(0, len(sums), 2)]
    return sums[0]


def detach(x: Array, /) -> Array:
    return x


def to_numpy(x: Array, /) -> np.ndarray:
    return np.from_dlpack(x, device="cpu")


def from_numpy(value: np.ndarray, like: Array) -> Array:
    xp = namespace(like)
    floating = value.dtype.kind == "f" and xp.isdtype(like.dtype, "real floating")
    dtype = like.dtype if floating else None
    return xp.asarray(value, dtype=dtype, device=array_api_compat.device(like))


def chunk_size(bytes_per_row: int) -> int:
    return max(512, _CACHE_BYTES // max(1, bytes_per_row))


def map_blocks(function: Callable[..., Any], arrays: Sequence[Array], size: int, recompute: bool = False) -> Any:
    """A Python loop; libraries that differentiate bring their own for `recompute`."""
    n = arrays[0].shape[0]
    if n <= size:
        return function(*arrays)
    return join([function(*block) for block in blocks(arrays, size)])


def blocks(arrays: Sequence[Array], size: int) -> list[list[Array]]:
    """Cut the first axes into blocks of `size`."""
    n = arrays[0].shape[0]
    return [[x[start : min(start + size, n), ...] for x in arrays] for start in range(0, n, size)]


def join(results: list[Any]) -> tuple[Array, ...]:
    """Join tuples of arrays field by field along their first axes."""
    xp = namespace(results[0][0])
    return tuple(xp.concat(list(parts), axis=0) for parts in zip(*results, strict=True))
