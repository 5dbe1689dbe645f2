"""What layers are made with, checked: sizes of images and of the grids that convolutions make of them, options."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from emroute.arrays.tracing import traced
from emroute.backend import Array, namespace
from emroute.capsule.checks import check_floats
from emroute.capsule.gaussians import COSTS
from emroute.capsule.schedules import temperatures
from emroute.capsule.votes import check_entry_pair
from emroute.errors import InputError
from emroute.validate import check_choice, check_count, check_number, require

__all__ = [
    "ACTIVATIONS",
    "Window",
    "as_numbers",
    "capsnet_children",
    "check_activation",
    "check_capsules",
    "check_counts",
    "check_drawable",
    "check_entries",
    "check_features",
    "check_images",
    "convolved",
    "counts",
    "em_options",
    "entry_pair",
    "field_centres",
    "matrix_capsnet_places",
    "matrix_capsnet_widths",
    "pair",
    "place_tuples",
    "routing_std",
    "window",
]

ACTIVATIONS: dict[str, tuple[float, float] | None] = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "linear": None}
"""Last activations of a decoder, and between which values its images are."""

_MATRIX_WINDOWS = (5, 2), (1, 1), (3, 2), (3, 1)  # kernel and stride of the layers A, B, C and D


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


class Window(NamedTuple):
    """What a convolution sees at a time, in height and width."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]


def window(kernel_size: Any, stride: Any = 1, padding: Any = 0) -> Window:
    """Return the window of a convolution, or raise `InputError`.

    >>> window(3, (1, 2)).stride
    (1, 2)
    """
    return Window(pair("kernel_size", kernel_size), pair("stride", stride), pair("padding", padding, 0))


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
    convolved(size, *_MATRIX_WINDOWS)
    return counts("widths", widths, "four positive integers, of A, B, C and D", 4)


def matrix_capsnet_places(
    size: tuple[int, int], pose_size: int, coordinates: Any, entries: Any
) -> tuple[Any, tuple[int, int] | None]:
    """Return the coordinates and the entries of a `MatrixCapsNet`, names of them resolved."""
    if isinstance(coordinates, str):
        check_choice("coordinates", coordinates, ("grid", "paper"))
    if isinstance(entries, str):
        check_choice("entries", entries, ("default",))
        entries = (pose_size - 1, 2 * pose_size - 1) if _is(coordinates, "paper") else (0, 1)
    if _is(coordinates, "paper"):
        coordinates = tuple(field_centres(n, *_MATRIX_WINDOWS) for n in size)
    return None if _is(coordinates, "grid") else coordinates, entry_pair(entries, pose_size)


def _is(value: Any, name: str) -> bool:
    return isinstance(value, str) and value == name


def field_centres(size: int, *windows: tuple[int, int]) -> tuple[float, ...]:
    """Return where, in an image of 0 to 1, the centres of receptive fields are after windows ``(kernel, stride)``.

    >>> [round(place, 3) for place in field_centres(28, (5, 2), (3, 2), (3, 1))]
    [0.304, 0.446, 0.589]
    """
    first, step, n = 0.5, 1, size
    for kernel, stride in windows:
        first, step, n = first + step * (kernel - 1) / 2, step * stride, (n - kernel) // stride + 1
    return tuple((first + step * index) / size for index in range(n))


def place_tuples(coordinates: Any) -> Any:
    """Return coordinates as nested tuples of numbers, or raise `InputError`; None as None."""
    if coordinates is None:
        return None
    try:
        return as_numbers(coordinates.tolist() if hasattr(coordinates, "tolist") else coordinates)
    except (TypeError, ValueError):
        raise InputError(
            f"got coordinates={coordinates!r}, expected those of rows and of columns, or (h, w, 2)"
        ) from None


def as_numbers(value: Any) -> Any:
    """Nested sequences of numbers as tuples of floats.

    >>> as_numbers([0, [1, 2]])
    (0.0, (1.0, 2.0))
    """
    nested = hasattr(value, "__len__") and not isinstance(value, str)
    return tuple(map(as_numbers, value)) if nested else float(value)


def check_activation(name: str, value: Any) -> str:
    """Return the name of a decoder's last activation, or raise `InputError`; None is none: ``"linear"``."""
    value = "linear" if value is None else value
    check_choice(name, value, tuple(ACTIVATIONS))
    return value


def routing_std(in_capsules: int, out_capsules: int, out_features: int, leaky: bool) -> float:
    """Return the standard deviation of the transforms with which a layer of dynamic routing starts.

    With equal assignments 1 / J, the sum of votes has ``E|s_j|² = I (std / J)² H |u|²`` where the I capsules below have
    the length ``|u|`` and the entries of transforms are independent. This is ``2 |u|²``: squashing takes half of a
    vector at best, and routing, which then shares children out to those that agree with them, gives most of that back,
    so that lengths between 0.3 and 0.9 remain what they are through layers of any sizes. The 1152 primary capsules and
    10 classes of 16 entries of Sabour et al. (2017) have 0.104, their authors 0.1.
    """
    return (out_capsules + leaky) * math.sqrt(2 / (in_capsules * out_features))


def em_options(n_iter: int, cost: str, inverse_temperature: Any, epsilon: float, recompute: bool) -> dict[str, Any]:
    """Return options of EM routing, or raise `InputError` as the layer is made rather than when it first routes."""
    check_choice("cost", cost, COSTS)
    check_number("epsilon", epsilon)
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


def check_drawable(images: Array, bounds: tuple[float, float] | None) -> None:
    """Raise `InputError` if images that a decoder shall learn to draw lie outside its range, rounding aside."""
    if bounds is None or traced(images):
        return
    xp, (low, high) = namespace(images), bounds
    least, most, slack = xp.min(images), xp.max(images), 1e-3 * (high - low)
    require(
        (least >= low - slack) & (most <= high + slack),
        lambda: (
            f"images lie between {float(least):.4g} and {float(most):.4g}, the decoder draws between {low:g} and"
            f' {high:g}: scale them, or make the network with decoder_activation="linear"'
        ),
    )


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
