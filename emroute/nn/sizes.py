"""Sizes of images and of the grids that convolutions make of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from emroute.errors import InputError

__all__ = ["convolved", "pair"]


def pair(name: str, value: Any) -> tuple[int, int]:
    """Return a size as ``(height, width)``, from that or from one number for both."""
    sizes = value if isinstance(value, tuple | list) else (value, value)
    if len(sizes) != 2 or not all(isinstance(size, int | np.integer) and size > 0 for size in sizes):
        raise InputError(f"got {name}={value!r}, expected a positive integer or a pair of them")
    return int(sizes[0]), int(sizes[1])


def convolved(size: tuple[int, int], *windows: tuple[int, int]) -> tuple[int, int]:
    """Return the size of a grid after windows ``(kernel_size, stride)``, one after another and without padding.

    Raises
    ------
    InputError
        If nothing is left.
    """
    h, w = size
    for kernel, stride in windows:
        h, w = (h - kernel) // stride + 1, (w - kernel) // stride + 1
    if min(h, w) < 1:
        raise InputError(f"images of {size[0]} x {size[1]} are too small for windows of {[k for k, _ in windows]}")
    return h, w
