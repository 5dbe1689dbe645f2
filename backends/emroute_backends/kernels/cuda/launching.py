"""What all launches share: sizes of tiles, precision, problems of a batch as one axis."""

from __future__ import annotations

import math
from typing import Any

import torch

__all__ = ["flat", "options", "padded", "precision"]

Array = Any

options: dict[str, Any] = {"enable_fp_fusion": True}
"""For every launch: a product and a sum are one operation, as in cuBLAS."""


def padded(n: int, least: int = 1) -> int:
    """Return the power of two that holds `n`: Triton's tiles have no other sizes."""
    return max(least, 1 << (n - 1).bit_length())


def precision(x: Array) -> str:
    """How `tl.dot` multiplies in full precision.

    Three products of TF32 carry 22 bits, and tensor cores make them twice as fast as the other units make one of
    float32; float64 has tensor cores of its own.
    """
    return "tf32x3" if x.dtype == torch.float32 else "ieee"


def flat(batch: tuple[int, ...], *arrays: tuple[Array, int]) -> tuple[Array, ...]:
    """Return arrays, each with the rank of one problem of its own, contiguous, with one axis of problems before that.

    Last come places, ``(problems,)`` for each array: which of its problems belongs to each problem of the joint batch.
    """
    own = [tuple(x.shape[: x.ndim - rank]) for x, rank in arrays]
    flattened = [x.contiguous().reshape(-1, *x.shape[x.ndim - rank :]) for x, rank in arrays]
    return *flattened, *(_places(batch, shape, arrays[0][0].device) for shape in own)


def _places(batch: tuple[int, ...], own: tuple[int, ...], device: torch.device) -> Array:
    numbers = torch.arange(math.prod(own), device=device).reshape(own)
    return numbers.expand(batch).reshape(-1).contiguous()
