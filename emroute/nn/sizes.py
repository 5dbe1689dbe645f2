"""What layers are made with, checked: sizes of images and of the grids that convolutions make of them, options."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from emroute.backend import Array
from emroute.capsule.agreement import check_floats
from emroute.capsule.em import check_form, temperatures
from emroute.capsule.votes import check_entry_pair
from emroute.errors import InputError
from emroute.validate import check_count

__all__ = [
    "capsnet_children",
    "check_capsules",
    "check_counts",
    "check_entries",
    "check_features",
    "check_images",
    "convolved",
    "counts",
    "em_options",
    "entry_pair",
    "matrix_capsnet_widths",
    "pair",
]


def check_counts(**values: Any) -> None:
    """Raise `InputError` unless all of these are positive integers."""
    for name, value in values.items():
        if not _is_count(value):  # a float, too, is no size to Torch
            raise InputError(f"got {name}={value!r}, expected an integer of at least 1")


def counts(name: str, values: Any, meaning: str, n: int | None = None) -> tuple[int, ...]:
    """Return positive integers, `n` of them where that is given, or raise `InputError` that tells their meaning."""
    given = tuple(values) if isinstance(values, Sequence | np.ndarray) and not isinstance(values, str) else None
    if given is None or not all(_is_count(value) for value in given) or len(given) != (len(given) if n is None else n):
        raise InputError(f"got {name}={values!r}, expected {meaning}")
    return tuple(int(value) for value in given)


def pair(name: str, value: Any, at_least: int = 1) -> tuple[int, int]:
    """Return a size as ``(height, width)``, from that or from one number for both.

    >>> pair("image_size", 28), pair("image_size", (28, 20))
    ((28, 28), (28, 20))
    """
    sizes = value if isinstance(value, tuple | list) else (value, value)
    if len(sizes) != 2 or not all(_is_count(size, at_least) for size in sizes):
        raise InputError(f"got {name}={value!r}, expected an integer of at least {at_least}, or a pair of them")
    return int(sizes[0]), int(sizes[1])


def _is_count(value: Any, at_least: int = 1) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= at_least


def convolved(size: tuple[int, int], *windows: tuple[int, int]) -> tuple[int, int]:
    """Return the size of a grid after windows ``(kernel_size, stride)``, one after another and without padding.

    Raises
    ------
    InputError
        If nothing is left.

    Examples
    --------
    >>> convolved((28, 28), (9, 1), (9, 2))
    (6, 6)
    """
    h, w = size
    for kernel, stride in windows:
        h, w = (h - kernel) // stride + 1, (w - kernel) // stride + 1
        if min(h, w) < 1:
            found = ", ".join(f"{k} x {k} with stride {s}" for k, s in windows)
            raise InputError(f"images of {size[0]} x {size[1]} are too small for windows of {found}")
    return h, w


def capsnet_children(size: tuple[int, int], kernel_size: int, primary_capsules: int) -> int:
    """Return how many primary capsules a `CapsNet` has in images of a size."""
    check_counts(kernel_size=kernel_size, primary_capsules=primary_capsules)
    h, w = convolved(size, (kernel_size, 1), (kernel_size, 2))
    return h * w * primary_capsules


def matrix_capsnet_widths(size: tuple[int, int], widths: Any) -> tuple[int, ...]:
    """Return the widths of a `MatrixCapsNet`, once they and the size of its images can be used."""
    convolved(size, (5, 2), (3, 2), (3, 1))
    return counts("widths", widths, "four positive integers, of A, B, C and D", 4)


def em_options(n_iter: int, cost: str, inverse_temperature: Any, epsilon: float, recompute: bool) -> dict[str, Any]:
    """Return options of EM routing, or raise `InputError` as the layer is made rather than when it first routes."""
    check_form(cost, epsilon)
    n_iter, named = check_count("n_iter", n_iter), inverse_temperature is None or isinstance(inverse_temperature, str)
    values = temperatures(inverse_temperature, cost, 1 if named else n_iter)  # n_iter may be any number in a file
    return {
        "n_iter": n_iter,
        "cost": cost,
        "inverse_temperature": inverse_temperature if named or callable(inverse_temperature) else values,
        "epsilon": float(epsilon),
        "recompute": bool(recompute),
    }


def entry_pair(entries: Sequence[int] | None, pose_size: int) -> tuple[int, int] | None:
    """Return which entries of a pose take a place, or raise `InputError` unless they are two of them, or None."""
    return None if entries is None else check_entry_pair(entries, pose_size**2)


def check_images(images: Array, shape: tuple[int, ...]) -> None:
    """Raise an error unless images are floating, ``(B, *shape)``, one at least."""
    check_floats("images", images)
    if tuple(images.shape[1:]) != shape or images.shape[0] == 0:
        expected = f"(B, {', '.join(map(str, shape))}) with B at least 1"
        raise InputError(f"images have shape {tuple(images.shape)}, expected {expected}")


def check_features(x: Array, channels: int, axis: int) -> None:
    """Raise an error unless features are floating, ``(B, C, h, w)`` or ``(B, h, w, C)``, of so many channels."""
    check_floats("features", x)
    if len(x.shape) != 4 or x.shape[axis] != channels:
        layout = "(B, C, h, w)" if axis == 1 else "(B, h, w, C)"
        raise InputError(f"features have shape {tuple(x.shape)}, expected {layout} with C = {channels}")


def check_capsules(poses: Array, transforms: Array) -> None:
    """Raise `InputError` unless poses ``(B, I, d)`` fit transforms ``(I, J, d, h)``."""
    i, _, d, _ = transforms.shape
    if len(poses.shape) != 3 or tuple(poses.shape[1:]) != (i, d):
        raise InputError(f"capsules have shape {tuple(poses.shape)}, expected (B, {i}, {d})")


def check_entries(poses: Array, in_features: int) -> None:
    """Raise `InputError` unless poses ``(B, classes, H)`` have so many entries an image."""
    if len(poses.shape) < 2 or math.prod(poses.shape[1:]) != in_features:
        raise InputError(
            f"poses have shape {tuple(poses.shape)}, expected (B, classes, H) with {in_features} entries an image"
        )
