"""CuPy: eager on one CUDA device."""

from __future__ import annotations

import cupy as cp
import numpy as np

from emroute_backends.portable import Array, compile, detach, eigh, loop, map_blocks, namespace

__all__ = [
    "anchor",
    "at_hand",
    "chunk_size",
    "compile",
    "detach",
    "devices",
    "digamma",
    "eigh",
    "from_numpy",
    "gammaln",
    "loop",
    "map_blocks",
    "namespace",
    "segment_sum",
    "to_numpy",
]

_DEVICE_BYTES = 2**28


def gammaln(x: Array, /) -> Array:
    from cupyx.scipy.special import gammaln as native

    return native(x)


def digamma(x: Array, /) -> Array:
    from cupyx.scipy.special import digamma as native

    return native(x)


def segment_sum(values: Array, segments: Array, n_segments: int) -> Array:
    """In float64: one row after another, a float32 sum stands still at 2**24 times a row."""
    batch, (n, d) = values.shape[:-2], values.shape[-2:]
    flat = cp.broadcast_to(segments, (*batch, n)).reshape(-1, n)
    flat = flat + cp.arange(flat.shape[0])[:, None] * n_segments
    total = cp.zeros((flat.shape[0] * n_segments, d), cp.float64)
    cp.add.at(total, flat.ravel(), values.reshape(-1, d).astype(cp.float64))
    return total.reshape(*batch, n_segments, d).astype(values.dtype)


def at_hand(x: Array, /) -> bool:
    return False


def to_numpy(x: Array, /) -> np.ndarray:
    return cp.asnumpy(x)


def from_numpy(value: np.ndarray, like: Array) -> Array:
    floating = value.dtype.kind == "f" and like.dtype.kind == "f"
    with like.device:
        return cp.asarray(value, dtype=like.dtype if floating else None)


def chunk_size(bytes_per_row: int) -> int:
    return max(1024, _DEVICE_BYTES // max(1, bytes_per_row))


def devices() -> tuple[str, ...]:
    return tuple(f"cuda:{place}" for place in range(cp.cuda.runtime.getDeviceCount())) if cp.cuda.is_available() else ()


def anchor(device: str | None, dtype: str) -> Array:
    """CuPy computes on its current device, which this one becomes."""
    kind, _, place = (device or "cuda").partition(":")
    if kind != "cuda":
        raise ValueError("CuPy has CUDA devices alone")
    cp.cuda.Device(int(place or 0)).use()
    return cp.zeros(1, dtype=dtype)
