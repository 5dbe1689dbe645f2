"""Poses and votes: squash, vote, coordinate addition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.arrays import creation
from emroute.arrays.creation import swap
from emroute.arrays.functions import divide, eps, safe_norm
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.capsule.checks import check_floats, check_pairs, for_statistics
from emroute.errors import InputError
from emroute.validate import check_number

__all__ = [
    "capsule_lengths",
    "check_entry_pair",
    "coordinate_addition",
    "exponential_squash",
    "squash",
    "vector_views",
    "vote",
    "vote_views",
]


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def squash(s: Array, *, axis: int = -1, constant: float = 1.0) -> Array:
    """Shrink vectors to lengths below 1: ``s |s| / (constant + |s|²)``.

    Parameters
    ----------
    s
        Vectors of any length, in a floating dtype.
    axis
        The axis of the vectors.
    constant
        The constant, 1 (Sabour) or 0.5 (Su). The gain ``|v| / |s|`` is greatest at ``|s| = sqrt(constant)``: 0.5 for 1
        and 0.707 for 0.5, so neither lengthens a vector.

    Returns
    -------
    Array
        Vectors of the same shape. Value and gradient are 0 at 0. Only a length beyond the range of the dtype overflows.

    Raises
    ------
    InputError
        If `constant` is not positive, or the axis does not exist or is empty.
    InputTypeError
        If `s` is not floating.

    References
    ----------
    Sabour, S., Frosst, N. and Hinton, G. E. (2017). Dynamic routing between capsules. NeurIPS. Equation 1.

    Examples
    --------
    >>> import numpy as np
    >>> squash(np.asarray([[3.0, 4.0], [0.0, 0.0]])).round(4).tolist()
    [[0.5769, 0.7692], [0.0, 0.0]]
    """
    check_floats("s", s)
    constant = check_number("constant", constant)
    if not constant > 0:
        raise InputError(f"got constant={constant!r}, expected a positive number")
    if not (isinstance(axis, int | np.integer) and -s.ndim <= axis < s.ndim and s.shape[axis]):
        raise InputError(f"got axis={axis!r} for vectors of shape {tuple(s.shape)}")
    xp, (wide,) = backends.namespace(s), for_statistics(s, s)
    length = safe_norm(wide, axis=axis, keepdims=True)
    one, long = xp.ones_like(length), length > 1
    # |s| / (c + |s|²) in two forms, each used where neither it nor its gradient can overflow
    few, many = xp.where(long, one, length), xp.where(long, length, one)
    gain = xp.where(long, 1.0 / (constant / many + many), divide(few, constant + few * few))
    # rounding must not lengthen a vector beyond 1; a factor without gradient does not change the gradient
    most = 1 - max(4 * eps(wide), eps(s) if s.dtype != wide.dtype else 0.0)
    over = backends.get(s).detach(gain * length) / most
    return xp.astype(wide * (gain / xp.maximum(over, one)), s.dtype)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def exponential_squash(s: Array) -> Array:
    """Shrink vectors along the last axis to lengths below 1: ``(1 - exp(-|s|)) s / |s|``.

    It is nearly the identity for short vectors, which `squash` makes shorter still.

    Parameters
    ----------
    s
        Vectors ``(..., H)``, floating.

    Returns
    -------
    Array
        Of the same shape; at 0 the value is 0 and the gradient the identity.

    Raises
    ------
    InputTypeError
        If `s` is not floating.

    References
    ----------
    Mazzia, V., Salvetti, F. and Chiaberge, M. (2021). Efficient-CapsNet: capsule network with self-attention routing.
    Scientific Reports 11. Equation 2.

    Examples
    --------
    >>> import numpy as np
    >>> exponential_squash(np.asarray([[3.0, 4.0], [0.0, 0.0]])).round(4).tolist()
    [[0.596, 0.7946], [0.0, 0.0]]
    """
    check_floats("s", s)
    xp, (wide,) = backends.namespace(s), for_statistics(s, s)
    length = safe_norm(wide, keepdims=True)
    some = xp.where(length > 0, length, xp.ones_like(length))
    gain = xp.where(length > 0, divide(-xp.expm1(-some), some), xp.ones_like(length))
    return xp.astype(wide * gain, s.dtype)


def capsule_lengths(poses: Array) -> Array:
    """Return the lengths of squashed poses, at most 1 even if a sum of squares is rounded up."""
    lengths = safe_norm(poses)
    return backends.namespace(poses).minimum(lengths, backends.namespace(poses).ones_like(lengths))


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def vote(poses: Array, transforms: Array) -> Array:
    """Return the votes of children for the poses of their parents, ``V_ij = P_i W_ij``.

    For vectors ``(..., I, d)``, the votes are ``einsum("...id,ijdh->...ijh", poses, transforms)``.

    Parameters
    ----------
    poses
        The poses of the children, ``(..., I, P, P)``.
    transforms
        One transform per pair of child and parent, ``(I, J, P, P)``.

    Returns
    -------
    Array
        Votes ``(..., I, J, P * P)``, matrices flattened row by row.

    Raises
    ------
    InputError
        If shapes do not fit.

    References
    ----------
    Hinton, G. E., Sabour, S. and Frosst, N. (2018). Matrix capsules with EM routing. ICLR. Section 3.

    Examples
    --------
    >>> import numpy as np
    >>> vote(np.eye(2)[None], np.arange(8.0).reshape(1, 2, 2, 2)).tolist()
    [[[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]]
    """
    check_pairs(poses, transforms)
    xp, (i, j, p, _) = backends.namespace(poses), transforms.shape
    # a product of a layer: if the library has automatic precision for those, it applies here
    product = getattr(backends.get(poses), "layer_product", xp.matmul)
    votes = product(poses[..., None, :, :], transforms)
    return xp.reshape(votes, (*poses.shape[:-3], i, j, p * p))


def vote_views(poses: Array, transforms: Array) -> Array:
    """Return the votes of poses ``(b, I, P, P)`` as views ``(b, J, P * P, I)``, by one product per child."""
    xp, (b, _, p, _), (i, j, _, _) = backends.namespace(poses), poses.shape, transforms.shape
    rows = xp.reshape(xp.permute_dims(poses, (1, 0, 2, 3)), (i, b * p, p))
    columns = xp.reshape(xp.permute_dims(transforms, (0, 2, 1, 3)), (i, p, j * p))
    votes = xp.reshape(xp.matmul(rows, columns), (i, b, p, j, p))
    return swap(xp.reshape(xp.permute_dims(votes, (1, 3, 0, 2, 4)), (b, j, i, p * p)))


def vector_views(poses: Array, transforms: Array) -> Array:
    """Return the votes of vectors ``(b, I, D)``, by transforms ``(I, J, D, H)``, as views ``(b, J, H, I)``."""
    xp, (b, _, _), (i, j, d, h) = backends.namespace(poses), poses.shape, transforms.shape
    columns = xp.reshape(xp.permute_dims(transforms, (0, 2, 1, 3)), (i, d, j * h))
    votes = xp.reshape(xp.matmul(xp.permute_dims(poses, (1, 0, 2)), columns), (i, b, j, h))
    return swap(xp.permute_dims(votes, (1, 2, 0, 3)))


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def coordinate_addition(votes: Array, *, entries: Sequence[int] = (0, 1), coordinates: Any = None) -> Array:
    """Add the position of each child in the image to two entries of its votes.

    Parameters
    ----------
    votes
        Votes ``(..., h, w, I, J, H)``.
    entries
        The entries of a vote to which the positions of the row and the column are added. For 4x4 poses, 0 and 1 are the
        first of the first row, as in the tutorials; 3 and 7, as in the paper, hold the translation in a pose matrix.
    coordinates
        The positions: a pair for the rows ``(h,)`` and the columns ``(w,)``, or both for each position, ``(h, w, 2)``.
        None stands for positions in the grid, ``(y + 0.5) / h`` and ``(x + 0.5) / w``, as in the tutorials. The paper
        uses the centres of receptive fields in the image.

    Returns
    -------
    Array
        Votes of the same shape. Other entries do not change.

    Raises
    ------
    InputError
        If votes lack dimensions, entries are not two different ones of H, or coordinates do not fit the grid.

    References
    ----------
    Hinton, Sabour and Frosst (2018), section 4.

    Examples
    --------
    >>> import numpy as np
    >>> coordinate_addition(np.zeros((2, 1, 1, 1, 4)))[:, 0, 0, 0].tolist()
    [[0.25, 0.5, 0.0, 0.0], [0.75, 0.5, 0.0, 0.0]]
    """
    check_floats("votes", votes)
    if votes.ndim < 5:
        raise InputError(f"votes have shape {tuple(votes.shape)}, expected (..., h, w, I, J, H)")
    h, w, size = votes.shape[-5], votes.shape[-4], votes.shape[-1]
    return votes + creation.constant(centres(h, w, size, entries, coordinates), like=votes)[:, :, None, None, :]


def centres(h: int, w: int, size: int, entries: Sequence[int], coordinates: Any = None) -> np.ndarray:
    """Return the array that coordinate addition adds, ``(h, w, H)``, on the host."""
    shift = np.zeros((h, w, size))
    shift[..., list(check_entry_pair(entries, size))] = _places(h, w, coordinates)
    return shift


def _places(h: int, w: int, coordinates: Any) -> np.ndarray:
    """Return the positions, ``(h, w, 2)``, or raise `InputError`."""
    if coordinates is None:
        coordinates = (np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w
    try:
        by_axis = len(coordinates) == 2 and all(np.ndim(axis) == 1 for axis in coordinates)
        places = np.stack(np.meshgrid(*coordinates, indexing="ij"), axis=-1) if by_axis else coordinates
        places = np.asarray(places, dtype=np.float64)
    except (TypeError, ValueError):
        places = np.empty(0)
    if places.shape != (h, w, 2) or not np.all(np.isfinite(places)):
        raise InputError(
            f"got coordinates={coordinates!r}, expected finite numbers: {h} for the rows and {w} for the columns, or an"
            f" array of shape ({h}, {w}, 2)"
        )
    return places


def check_entry_pair(entries: Sequence[int], size: int) -> tuple[int, int]:
    """Return two different entries of a pose of `size` entries, counted from its start, or raise `InputError`."""
    try:
        row, column = (range(size)[entry] for entry in entries)
    except (TypeError, ValueError, IndexError):
        row = column = 0
    if row == column:
        raise InputError(f"got entries={entries!r}, expected two different entries of a pose, from 0 to {size - 1}")
    return row, column
