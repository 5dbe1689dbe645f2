"""JAX: what other libraries do step by step is compiled whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from emroute_backends.portable import Array, replaced

__all__ = [
    "anchor",
    "chunk_size",
    "compile",
    "detach",
    "devices",
    "digamma",
    "eigh",
    "enable_float64",
    "from_numpy",
    "gammaln",
    "gradient",
    "loop",
    "map_blocks",
    "namespace",
    "segment_sum",
    "to_numpy",
]

compile = jax.jit
loop = jax.lax.while_loop
gammaln = jax.scipy.special.gammaln
digamma = jax.scipy.special.digamma
to_numpy = np.asarray

_CPU_BYTES = 2**22
_CPU_ROWS = 2**12  # products add up rows one after another: more of them cost digits
_DEVICE_BYTES = 2**28
_PIECE = 64

# By default, GPUs multiply float32 in TF32, which has three digits; whatever the default, ours have seven.
_HIGHEST = {"precision": jax.lax.Precision.HIGHEST}
_SPACE = replaced(jnp, lambda name, product: partial(product, **_HIGHEST))


def _first(best: Callable[..., Array], x: Array, /, *, axis: int | None = None, keepdims: bool = False) -> Array:
    """Index of the first that is best, or NaN.

    XLA's own argmin goes through pairs of numbers and indices one by one; two plain minima run in vectors.
    """
    if axis is None:
        found = _first(best, x.ravel(), axis=0)
        return found.reshape((1,) * x.ndim) if keepdims else found
    index = jax.lax.broadcasted_iota(jnp.int32, x.shape, axis % x.ndim)
    is_best = (x == best(x, axis=axis, keepdims=True)) | (x != x)  # integers have no `isnan`
    return jnp.min(index, axis=axis, keepdims=keepdims, initial=x.shape[axis], where=is_best).astype(int)


vars(_SPACE).update(argmin=partial(_first, jnp.min), argmax=partial(_first, jnp.max))


def namespace(x: Array, /) -> ModuleType:
    return _SPACE


def detach(x: Array, /) -> Array:
    """What is not traced has no gradient, and to be told so would cost it an operation."""
    return jax.lax.stop_gradient(x) if isinstance(x, Tracer) else x


def eigh(x: Array, /) -> tuple[Array, Array]:
    """On CUDA a matrix with NaN has finite eigenvalues; ours are NaN."""
    finite = jnp.all(jnp.isfinite(x), axis=(-2, -1), keepdims=True)
    values, vectors = jnp.linalg.eigh(jnp.where(finite, x, 0))
    return jnp.where(finite[..., 0], values, math.nan), jnp.where(finite, vectors, math.nan)


def segment_sum(values: Array, segments: Array, n_segments: int) -> Array:
    """In pieces, added as a tree: one row after another, a float32 sum stands still at 2**24 times a row."""
    (*batch, n, d), problems = values.shape, math.prod(values.shape[:-2])
    length = n if values.dtype == jnp.float64 else max(_PIECE, 2 * n_segments)
    pieces = 1 << (max(1, -(-n // length)) - 1).bit_length()
    first = (jnp.arange(problems)[:, None] * pieces + jnp.arange(n) // length) * n_segments
    index = (jnp.broadcast_to(segments, (*batch, n)).reshape(problems, n) + first).ravel()
    sums = jax.ops.segment_sum(values.reshape(-1, d), index, num_segments=problems * pieces * n_segments)
    sums = sums.reshape(problems, pieces, n_segments, d)
    while pieces > 1:
        pieces //= 2
        sums = sums[:, :pieces] + sums[:, pieces:]
    return sums.reshape(*batch, n_segments, d)


def from_numpy(value: np.ndarray, like: Array) -> Array:
    floating = value.dtype.kind == "f" and jnp.issubdtype(like.dtype, jnp.floating)
    value = value.astype(like.dtype if floating else jax.dtypes.canonicalize_dtype(value.dtype))
    if isinstance(like, Tracer):
        return jnp.asarray(value)
    # device_put compiles nothing, where jnp.asarray compiles a conversion for each shape
    return jax.device_put(value, like.device if len(like.devices()) == 1 else None)


def chunk_size(bytes_per_row: int) -> int:
    if jax.default_backend() == "cpu":
        return min(_CPU_ROWS, max(256, _CPU_BYTES // max(1, bytes_per_row)))
    return max(256, _DEVICE_BYTES // max(1, bytes_per_row))


def map_blocks(function: Callable[..., Any], arrays: Sequence[Array], size: int, recompute: bool = False) -> Any:
    """`lax.map` over the full blocks; the rest, shorter, is traced once more."""
    function = jax.checkpoint(function) if recompute else function
    n = arrays[0].shape[0]
    if n <= size:
        return function(*arrays)
    whole = n // size
    stacked = [x[: whole * size].reshape(whole, size, *x.shape[1:]) for x in arrays]
    parts = jax.lax.map(lambda block: function(*block), stacked)
    parts = [part.reshape(-1, *part.shape[2:]) for part in parts]
    if whole * size < n:
        tail = function(*(x[whole * size :] for x in arrays))
        parts = [jnp.concat([part, last]) for part, last in zip(parts, tail, strict=True)]
    return tuple(parts)


def devices() -> tuple[str, ...]:
    return ("cpu", *(f"{x.platform}:{place}" for place, x in enumerate(jax.devices()) if x.platform != "cpu"))


def anchor(device: str | None, dtype: str) -> Array:
    if dtype == "float64" and not jax.config.read("jax_enable_x64"):
        raise ValueError('JAX has no float64 until told: jax.config.update("jax_enable_x64", True)')
    kind, _, place = (device or "").partition(":")
    return jnp.zeros(1, dtype=dtype, device=jax.devices(kind or None)[int(place or 0)])


def enable_float64() -> None:
    jax.config.update("jax_enable_x64", True)


def gradient(function: Callable[..., Array], *arrays: Array) -> tuple[Array, ...]:
    found = jax.jit(jax.grad(function, argnums=tuple(range(len(arrays)))))(*arrays)
    # a gradient that is constant forgets where the arguments are
    return tuple(jax.device_put(each, x.sharding) for each, x in zip(found, arrays, strict=True))
