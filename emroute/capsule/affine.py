"""Affine poses of the stacked capsule autoencoder, and the templates that they move (Kosiorek et al. 2019).

A pose is the matrix ``(A | t)`` of 2 x 3 numbers, from six raw ones (sx, sy, theta, shear, tx, ty):

    A = [[1, h], [0, 1]] diag(s'x, s'y) R(2 pi theta),   s' = sigmoid(s) + 0.01,   h = tanh(5 shear),   t' = tanh(5 t)

A similarity has one scale s'x and no shear. A template is seen in the square [-1, 1]², x first, whose corners are
centres of pixels. At output position u the warped template is the template at A^-1 (u - t): linear between its pixels,
0 beyond.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import constant, itemsize, swap
from emroute.arrays.functions import log_sigmoid
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.capsule.checks import check_floats, for_statistics
from emroute.errors import InputError
from emroute.validate import check_count

__all__ = ["affine_poses", "compose_poses", "warp"]

_LEAST_SCALE = 0.01


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def affine_poses(raw: Array, *, similarity: bool = False) -> Array:
    """Affine matrices from six unbounded numbers each.

    Parameters
    ----------
    raw
        ``(..., 6)``: scales along x and y, rotation, shear, translation along x and y.
    similarity
        One scale, that along x, and no shear.

    Returns
    -------
    Array
        ``(..., 2, 3)``.

    Raises
    ------
    InputError
        If the last axis has not six entries.
    InputTypeError
        If `raw` is not floating.

    References
    ----------
    Kosiorek, A. R., Sabour, S., Teh, Y. W. and Hinton, G. E. (2019). Stacked capsule autoencoders. NeurIPS. The
    authors' code.

    Examples
    --------
    >>> import numpy as np
    >>> affine_poses(np.zeros(6)).tolist()
    [[0.51, 0.0, 0.0], [0.0, 0.51, 0.0]]
    """
    check_floats("raw", raw)
    if not raw.ndim or raw.shape[-1] != 6:
        raise InputError(f"raw poses have shape {tuple(raw.shape)}, expected (..., 6)")
    xp, (wide,) = backends.namespace(raw), for_statistics(raw, raw)
    sx, sy = (xp.exp(log_sigmoid(wide[..., entry])) + _LEAST_SCALE for entry in (0, 1))
    cos, sin = xp.cos(2 * math.pi * wide[..., 2]), xp.sin(2 * math.pi * wide[..., 2])
    tx, ty = xp.tanh(5 * wide[..., 4]), xp.tanh(5 * wide[..., 5])
    if similarity:
        rows = (sx * cos, -sx * sin, tx), (sx * sin, sx * cos, ty)
    else:
        shear = xp.tanh(5 * wide[..., 3])
        below = sy * sin, sy * cos
        rows = (sx * cos + shear * below[0], -sx * sin + shear * below[1], tx), (*below, ty)
    poses = xp.stack([xp.stack(list(row), axis=-1) for row in rows], axis=-2)
    return xp.astype(poses, raw.dtype, copy=False)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def compose_poses(outer: Array, inner: Array) -> Array:
    """Affine map of an affine map: the first two rows of the product of both, with (0, 0, 1) below.

    Parameters
    ----------
    outer, inner
        ``(..., 2, 3)``, which broadcast.

    Returns
    -------
    Array
        ``(..., 2, 3)``.

    Examples
    --------
    >>> import numpy as np
    >>> twice, moved = np.asarray([[2.0, 0, 0], [0, 2, 0]]), np.asarray([[1.0, 0, 3], [0, 1, 4]])
    >>> compose_poses(twice, moved).tolist()
    [[2.0, 0.0, 6.0], [0.0, 2.0, 8.0]]
    """
    _check_affine("outer", outer)
    _check_affine("inner", inner)
    xp = backends.namespace(outer, inner)
    product = xp.matmul(outer[..., :2], inner)
    shift = constant(np.asarray([0.0, 0.0, 1.0]), like=product)
    return product + outer[..., 2:] * shift


def _check_affine(name: str, poses: Array) -> None:
    check_floats(name, poses)
    if poses.ndim < 2 or tuple(poses.shape[-2:]) != (2, 3):
        raise InputError(f"{name} poses have shape {tuple(poses.shape)}, expected (..., 2, 3)")


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def warp(templates: Array, poses: Array, size: Sequence[int]) -> Array:
    """Draw templates where affine poses say.

    Parameters
    ----------
    templates
        ``(..., h, w)``, one channel each, at least 2 x 2.
    poses
        ``(..., 2, 3)``; leading dimensions broadcast with those of the templates.
    size
        Height and width of what is drawn, at least 2.

    Returns
    -------
    Array
        ``(..., *size)``.

    Raises
    ------
    InputError
        If shapes or the size cannot be used.
    InputTypeError
        If a dtype is not floating, or arrays differ in library or device.

    References
    ----------
    Jaderberg, M., Simonyan, K., Zisserman, A. and Kavukcuoglu, K. (2015). Spatial transformer networks. NeurIPS.
    Equation 5; as `torch.nn.functional.grid_sample` with ``align_corners=True``.

    Examples
    --------
    >>> import numpy as np
    >>> half = np.asarray([[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]])
    >>> warp(np.ones((2, 2)), half, (5, 5)).round(2).tolist()[2]
    [0.5, 1.0, 1.0, 1.0, 0.5]
    """
    check_floats("templates", poses, templates)
    _check_affine("poses", poses)
    if templates.ndim < 2 or min(templates.shape[-2:]) < 2:
        raise InputError(f"templates have shape {tuple(templates.shape)}, expected (..., h, w), at least 2 x 2")
    height, width = (check_count("size", value, 2) for value in size)
    backend, (h, w) = backends.get(templates, poses), templates.shape[-2:]
    xp = backend.namespace(templates)
    wide, placed = for_statistics(templates, templates, poses)
    batch = np.broadcast_shapes(tuple(wide.shape[:-2]), tuple(placed.shape[:-2]))
    n = math.prod(batch)
    flat = [xp.reshape(xp.broadcast_to(x, (*batch, *x.shape[-2:])), (n, *x.shape[-2:])) for x in (wide, placed)]

    def draw(images: Array, moves: Array) -> tuple[Array]:
        return (_drawn(images, moves, (height, width)),)

    size_of_block = max(1, backend.chunk_size(itemsize(wide) * height * width * 2 * (h + w)))
    (drawn,) = backend.map_blocks(draw, flat, size_of_block, True)
    return xp.astype(xp.reshape(drawn, (*batch, height, width)), templates.dtype, copy=False)


def _drawn(templates: Array, poses: Array, size: tuple[int, int]) -> Array:
    """Of templates ``(n, h, w)`` and poses ``(n, 2, 3)``: bilinear weights are products of hats along x and y."""
    xp, (h, w) = backends.namespace(templates), templates.shape[-2:]
    rows, columns = (np.linspace(-1, 1, length) for length in size)
    at = constant(np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2).T, like=poses)  # (2, pixels), x first
    (a, b, c, d) = (poses[:, row, column] for row in (0, 1) for column in (0, 1))
    adjugate = xp.stack([xp.stack([d, -b], axis=-1), xp.stack([-c, a], axis=-1)], axis=-2)
    seen = xp.matmul(adjugate / (a * d - b * c)[:, None, None], at - poses[:, :, 2:])
    by_column = xp.matmul(_hats((seen[:, 0, :] + 1) / 2 * (w - 1), w), swap(templates))  # (n, pixels, h)
    return xp.sum(_hats((seen[:, 1, :] + 1) / 2 * (h - 1), h) * by_column, axis=-1)


def _hats(places: Array, n: int) -> Array:
    """``max(0, 1 - |place - pixel|)`` along a new axis of `n` pixels."""
    xp = backends.namespace(places)
    left = 1 - xp.abs(places[..., None] - constant(np.arange(n), like=places))
    return xp.maximum(left, xp.zeros_like(left))
