"""Arrays with a given library, device and dtype, made from small host arrays; changes of shape and dtype."""

from __future__ import annotations

from functools import cache
from typing import Any

import array_api_extra as xpx
import numpy as np

from emroute.backend import Array, get, namespace
from emroute.capability import Capabilities

__all__ = ["as_integers", "as_real", "broadcast", "constant", "full", "itemsize", "one_hot", "set_at", "swap"]


@cache
def limits(xp: Any, dtype: Any) -> Any:
    """Return what the standard's `finfo` says of a dtype; libraries make it anew each time."""
    return xp.finfo(dtype)


def itemsize(x: Array) -> int:
    """Return the number of bytes per entry of floating `x`."""
    return limits(namespace(x), x.dtype).bits // 8


@Capabilities(jit=True, half=True)
def constant(value: Any, *, like: Array) -> Array:
    """Return a small host value as an array with the library, device and dtype of `like`."""
    return namespace(like).astype(get(like).from_numpy(np.asarray(value), like), like.dtype, copy=False)


@Capabilities(jit=True, half=True)
def full(shape: tuple[int, ...], value: float, *, like: Array) -> Array:
    """Return a small array of one value, with the library, device and dtype of `like`."""
    return constant(np.full(shape, value), like=like)


@Capabilities(jit=True, batch=True, half=True)
def one_hot(labels: Array, n_classes: int, *, like: Array) -> Array:
    """Return rows of zeros with a one at each label, in the dtype of `like`, with classes along a new second-last axis.

    >>> import numpy as np
    >>> one_hot(np.asarray([0, 2]), 3, like=np.ones(1)).tolist()
    [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    """
    xp = namespace(labels)
    classes = constant(np.arange(n_classes), like=labels)
    return xp.astype(labels[..., None, :] == classes[:, None], like.dtype)


@Capabilities(jit=True, half=True)
def set_at(x: Array, index: Any, value: Array) -> Array:
    """Return `x` with one entry along its first axis replaced, in place if the library allows it: use the result."""
    return xpx.at(x)[index, ...].set(value)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def swap(x: Array) -> Array:
    """Exchange the last two axes."""
    return namespace(x).matrix_transpose(x)


@Capabilities(gradients=True, jit=True, half=True)
def broadcast(x: Array, shape: tuple[int, ...]) -> Array:
    """Broadcast `x` to a shape. An array that already has the shape, the common case, is returned itself."""
    # tuples of other lengths compare entries too, which would tie an exported batch to a number
    same = x.ndim == len(shape) and tuple(x.shape) == shape
    return x if same else namespace(x).broadcast_to(x, shape)


@Capabilities(gradients=True, jit=True, batch=True, integers=True, half=True)
def as_real(x: Array, like: Array) -> Array:
    """Return counts in the dtype of the parameters."""
    return namespace(x).astype(x, like.dtype, copy=False)


@Capabilities(gradients=True, jit=True, batch=True, integers=True, half=True)
def as_integers(x: Array) -> Array:
    """Return integers in the library's default dtype, in which sums do not wrap around; other numbers as they are."""
    xp, backend = namespace(x), get(x)
    if not xp.isdtype(x.dtype, "integral"):
        return x
    return xp.astype(x, backend.from_numpy(np.zeros((), np.int64), x).dtype, copy=False)
