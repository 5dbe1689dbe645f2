"""Exponentials, logarithms, lengths and quotients that neither overflow nor lose their gradients."""

from __future__ import annotations

import math

from emroute.arrays.creation import limits
from emroute.backend import Array, get, namespace
from emroute.capability import Capabilities

__all__ = [
    "divide",
    "eps",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "normalize",
    "ratio",
    "safe_log",
    "safe_norm",
    "softmax",
    "tiny",
]


def eps(x: Array) -> float:
    """Return the spacing of floating numbers at 1 in the dtype of `x`."""
    return float(limits(namespace(x), x.dtype).eps)


def tiny(x: Array) -> float:
    """Return the smallest normal number in the dtype of `x`."""
    return float(limits(namespace(x), x.dtype).smallest_normal)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def logsumexp(x: Array, *, axis: int = -1, keepdims: bool = False) -> Array:
    """Return the logarithm of the sum of exponentials along an axis, safe for any values including ±inf.

    >>> import numpy as np
    >>> round(float(logsumexp(np.asarray([1000.0, 1000.0]))), 6)
    1000.693147
    """
    share, top = _exponentials(x, axis)
    xp = namespace(x)
    total = xp.log(xp.sum(share, axis=axis, keepdims=True)) + top
    return total if keepdims else xp.squeeze(total, axis=axis)


def _exponentials(x: Array, axis: int) -> tuple[Array, Array]:
    """Return exp(x - top), and the top along an axis."""
    top = _finite_top(x, axis)
    return namespace(x).exp(x - top), top


def _finite_top(x: Array, axis: int) -> Array:
    """Return the largest entry along an axis, which is kept; 0 if that is infinite.

    A shift by it changes nothing, so it needs no gradient. That of JAX would be NaN if the compiler computes `x` twice
    and no entry equals the maximum to the last digit.
    """
    xp = namespace(x)
    top = get(x).detach(xp.max(x, axis=axis, keepdims=True))
    return xp.where(xp.isfinite(top), top, 0.0)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def normalize(log_joint: Array, *, axis: int, weight: Array | float = 1.0) -> tuple[Array, Array]:
    """Return the softmax along an axis times a weight, and the logsumexp, from the same exponentials. Axes are kept.

    If all entries are −inf, the softmax is 0 and the logsumexp is −inf.

    >>> import numpy as np
    >>> share, log_norm = normalize(np.asarray([[0.0, 0.0]]), axis=-1)
    >>> share.tolist(), round(float(log_norm[0, 0]), 6)
    ([[0.5, 0.5]], 0.693147)
    """
    xp = namespace(log_joint)
    top = _finite_top(log_joint, axis)
    gap, least = log_joint - top, math.log(tiny(log_joint) / eps(log_joint))
    # tiny responsibilities become 0: products with denormal numbers are a hundred times slower, and so is
    # Torch's exponential, thirty times, when it returns one
    share = xp.where(gap > least, xp.exp(xp.maximum(gap, xp.full_like(gap, least))), 0.0)
    total = xp.sum(share, axis=axis, keepdims=True)
    return share * (weight / xp.where(total == 0, 1.0, total)), safe_log(total) + top


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def softmax(x: Array, *, axis: int = -1) -> Array:
    """Return exponentials of `x`, scaled to sum to one along an axis.

    >>> import numpy as np
    >>> softmax(np.asarray([0.0, 0.0])).tolist()
    [0.5, 0.5]
    """
    share, _ = _exponentials(x, axis)
    return share / namespace(x).sum(share, axis=axis, keepdims=True)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def log_softmax(x: Array, *, axis: int = -1) -> Array:
    """Return the logarithm of the softmax along an axis, from differences, so that exponentials sum to one for any `x`.

    >>> import numpy as np
    >>> log_softmax(np.asarray([-1e5, 0.0])).tolist()
    [-100000.0, 0.0]
    """
    xp, gap = namespace(x), x - _finite_top(x, axis)
    return gap - xp.log(xp.sum(xp.exp(gap), axis=axis, keepdims=True))


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def log_sigmoid(x: Array) -> Array:
    """Return the logarithm of the logistic function, without overflow.

    >>> import numpy as np
    >>> log_sigmoid(np.asarray([0.0, -1000.0])).round(6).tolist()
    [-0.693147, -1000.0]
    """
    xp = namespace(x)
    return xp.minimum(x, xp.zeros_like(x)) - xp.log1p(xp.exp(-xp.abs(x)))


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def safe_log(x: Array) -> Array:
    """Return the logarithm of non-negative `x`. At 0 and below the smallest normal number it is −inf, with gradient 0.

    >>> import numpy as np
    >>> safe_log(np.asarray([1.0, 0.0])).tolist()
    [0.0, -inf]
    """
    xp = namespace(x)
    none = x < tiny(x)
    return xp.where(none, -xp.inf, xp.log(xp.where(none, 1.0, x)))


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def safe_norm(x: Array, *, axis: int = -1, keepdims: bool = False) -> Array:
    """Return lengths of vectors, without overflow and with a gradient of 0 at 0.

    >>> import numpy as np
    >>> safe_norm(np.asarray([[3e200, 0.0], [0.0, 0.0]])).tolist()
    [3e+200, 0.0]
    """
    xp = namespace(x)
    top = get(x).detach(xp.max(xp.abs(x), axis=axis, keepdims=True))
    top = xp.where((top > tiny(x)) & xp.isfinite(top), top, xp.ones_like(top))
    square = xp.sum((x / top) ** 2, axis=axis, keepdims=True)
    none = square == 0
    length = xp.where(none, xp.zeros_like(square), top * xp.sqrt(xp.where(none, xp.ones_like(square), square)))
    return length if keepdims else xp.squeeze(length, axis=axis)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def divide(part: Array | float, whole: Array) -> Array:
    """Return a quotient whose gradient is in range wherever the quotient is, although ``whole**2`` may overflow.

    If the square would be out of range, both are scaled by a power of two. (Dividing both by `whole` first does not
    help: compilers turn a quotient of two quotients into one of products.)

    >>> import numpy as np
    >>> float(divide(np.float32(1e-30), np.asarray(2e-30, dtype=np.float32)))
    0.5
    """
    xp, size, half = namespace(whole), namespace(whole).abs(whole), -math.log2(tiny(whole)) / 2
    large, small = size > 2.0 ** (half - 3), size < 2.0 ** (3 - half)
    scale = xp.where(small, 2.0 ** (half + 1), xp.where(large, 2.0 ** -(half + 3), xp.ones_like(whole)))
    return (part * scale) / (whole * scale)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def ratio(part: Array, whole: Array, otherwise: Array) -> Array:
    """Return `part` over `whole`, or `otherwise` if `whole` is almost 0."""
    xp = namespace(part, whole)
    none = whole <= tiny(whole)  # NaN counts as a value
    return xp.where(none, otherwise, divide(part, xp.where(none, 1.0, whole)))
