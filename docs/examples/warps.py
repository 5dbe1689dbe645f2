"""What is done to images before a network sees them: shifts, crops, affine maps; arrays ``(n, h, w, c)`` in and out.

Integers are rounded back to integers, floats stay floats; what comes in from outside an image is black.
"""

from __future__ import annotations

import numpy as np

from emroute.errors import InputError

__all__ = ["affine", "crops", "grid", "matrices", "preprocess_norb", "rotate", "scale", "shift", "translate", "turns"]


def shift(images: np.ndarray, rng: np.random.Generator, pixels: int = 2) -> np.ndarray:
    """Move each image by whole pixels of its own, up to `pixels` both ways (Sabour et al. 2017, section 5)."""
    corners = rng.integers(0, 2 * pixels, (2, len(images)), endpoint=True)
    return crops(images, *corners, images.shape[1:3], margin=pixels)


def crops(images: np.ndarray, top: np.ndarray, left: np.ndarray, size: tuple[int, int], margin: int = 0) -> np.ndarray:
    """Cut `size` out of each image from a corner of its own, which counts from a black frame of `margin` pixels."""
    framed = np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    views = np.lib.stride_tricks.sliding_window_view(framed, size, (1, 2))
    return np.ascontiguousarray(np.moveaxis(views[np.arange(len(images)), top, left], 1, -1))


def rotate(images: np.ndarray, degrees: float | np.ndarray) -> np.ndarray:
    """Turn images counterclockwise about their centres, by one angle or one each."""
    return affine(images, turns(degrees))


def scale(images: np.ndarray, factor: float | np.ndarray) -> np.ndarray:
    """Enlarge images about their centres, by one factor or one each."""
    if not np.all(np.asarray(factor) > 0):
        raise InputError(f"Images cannot be scaled by {factor}. Give positive factors.")
    return affine(images, matrices(factor, 0, 0, factor))


def translate(images: np.ndarray, dy: float | np.ndarray, dx: float | np.ndarray) -> np.ndarray:
    """Move images by `dy` pixels down and `dx` pixels to the right, the same for all or one each."""
    return affine(images, np.eye(2), np.stack(np.broadcast_arrays(dy, dx), -1))


def affine(
    images: np.ndarray, matrix: np.ndarray, move: np.ndarray | float = 0.0, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Send what is at ``(y, x)`` from an image's centre to ``matrix @ (y, x) + move`` from a canvas's; bilinear.

    Parameters
    ----------
    images
        ``(n, h, w, c)``.
    matrix
        ``(2, 2)`` or ``(n, 2, 2)``, invertible.
    move
        ``(2,)`` or ``(n, 2)``, in pixels.
    size
        Of the canvas; the images' unless given.
    """
    n, h, w, c = images.shape
    size = size or (h, w)
    canvas = grid(size).T
    inverse = np.broadcast_to(np.linalg.inv(matrix), (n, 2, 2))
    origin = np.array([h - 1, w - 1]) / 2 + 1 - (inverse @ np.broadcast_to(move, (n, 2))[..., None])[..., 0]
    result = np.empty((n, canvas.shape[1], c), images.dtype)
    for some in (slice(i, i + 64) for i in range(0, n, 64)):  # few enough for the cache
        at = inverse[some] @ canvas + origin[some, :, None]
        y, x = np.clip(at[:, 0], 0, h + 1), np.clip(at[:, 1], 0, w + 1)
        top, left = y.astype(np.intp), x.astype(np.intp)
        fy, fx = (y - top)[..., None], (x - left)[..., None]
        pixels = np.pad(images[some], ((0, 0), (1, 2), (1, 2), (0, 0))).reshape(-1, c)  # a black frame
        first = (np.arange(len(at))[:, None] * (h + 3) + top) * (w + 3) + left
        upper, lower = ((1 - fx) * pixels[row] + fx * pixels[row + 1] for row in (first, first + w + 3))
        values = (1 - fy) * upper + fy * lower
        result[some] = np.rint(values) if images.dtype.kind in "iu" else values
    return result.reshape(n, *size, c)


def grid(size: tuple[int, int]) -> np.ndarray:
    """``(h w, 2)``: where the pixels of an image are, from its centre."""
    return np.indices(size).reshape(2, -1).T - (np.asarray(size) - 1) / 2


def turns(degrees: float | np.ndarray) -> np.ndarray:
    """``(..., 2, 2)``: counterclockwise rotations, as seen with y pointing down."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return matrices(cos, -sin, sin, cos)


def matrices(*entries: float | np.ndarray) -> np.ndarray:
    """``(..., 2, 2)`` from four entries, row by row."""
    stacked = np.stack(np.broadcast_arrays(*entries), -1)
    return stacked.reshape(*stacked.shape[:-1], 2, 2)


def preprocess_norb(
    images: np.ndarray,
    size: int = 48,
    crop: int = 32,
    rng: np.random.Generator | None = None,
    brightness: float = 0.0,
    contrast: float = 0.0,
) -> np.ndarray:
    """Average down to `size`, normalise each image, both channels together, and crop: float32 ``(n, crop, crop, c)``.

    With `rng`, for training, crops are random, and are multiplied by ``1 ± contrast`` at most and moved by `brightness`
    at most; without, for testing, they are central. Hinton, Sabour and Frosst (2018), Matrix capsules with EM routing,
    Experiments, who do not say how much brightness and contrast varied.
    """
    n, h, w, _ = images.shape
    if h != w or h % size or crop > size:
        raise InputError(f"Images of {h}×{w} pixels cannot be averaged down to {size}×{size}, then cropped to {crop}.")
    step = h // size
    blocks = (images[:, y::step, x::step].astype(np.float32) for y in range(step) for x in range(step))
    small = sum(blocks) / np.float32(step**2)
    small -= small.mean((1, 2, 3), keepdims=True)
    small /= np.maximum(small.std((1, 2, 3), keepdims=True), 1e-6)
    if rng is None:
        return crops(small, *np.full((2, n), (size - crop) // 2), (crop, crop))
    corners = rng.integers(0, size - crop, (2, n), endpoint=True)
    gain, offset = (rng.uniform(-most, most, (n, 1, 1, 1)).astype(np.float32) for most in (contrast, brightness))
    return crops(small, *corners, (crop, crop)) * (1 + gain) + offset
