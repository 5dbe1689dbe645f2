"""What the Array API standard lacks, from the standard alone; each works on every library and under tracing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import array_api_extra as xpx
import numpy as np

from emroute.backend import Array, get, is_array, namespace
from emroute.capability import Capabilities

__all__ = [
    "broadcast",
    "concrete",
    "constant",
    "divide",
    "either",
    "eps",
    "full",
    "itemsize",
    "leaves",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "map_leaves",
    "normalize",
    "one_hot",
    "rebuild",
    "safe_log",
    "safe_norm",
    "set_at",
    "softmax",
    "swap",
    "tiny",
    "traced",
]


def eps(x: Array) -> float:
    """Spacing of the floating numbers at 1 in the dtype of `x`."""
    return float(namespace(x).finfo(x.dtype).eps)


def tiny(x: Array) -> float:
    """Return the smallest normal number in the dtype of `x`."""
    return float(namespace(x).finfo(x.dtype).smallest_normal)


def itemsize(x: Array) -> int:
    """Bytes a number in the dtype of floating `x`."""
    return namespace(x).finfo(x.dtype).bits // 8


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def logsumexp(x: Array, *, axis: int = -1, keepdims: bool = False) -> Array:
    """Logarithm of the sum of exponentials along an axis, safe for rows of any size, ±inf included.

    >>> import numpy as np
    >>> round(float(logsumexp(np.asarray([1000.0, 1000.0]))), 6)
    1000.693147
    """
    share, top = _exponentials(x, axis)
    xp = namespace(x)
    total = xp.log(xp.sum(share, axis=axis, keepdims=True)) + top
    return total if keepdims else xp.squeeze(total, axis=axis)


def _exponentials(x: Array, axis: int) -> tuple[Array, Array]:
    """exp(x - top) and the top along an axis, 0 where that is infinite."""
    xp = namespace(x)
    top = xp.max(x, axis=axis, keepdims=True)
    top = xp.where(xp.isfinite(top), top, 0.0)
    return xp.exp(x - top), top


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def normalize(log_joint: Array, *, axis: int, weight: Array | float = 1.0) -> tuple[Array, Array]:
    """Return the softmax along an axis times a weight, and the logsumexp, from one pass of exponentials; axes are kept.

    Where all is −inf, the softmax is 0 and the logsumexp −inf.

    >>> import numpy as np
    >>> share, log_norm = normalize(np.asarray([[0.0, 0.0]]), axis=-1)
    >>> share.tolist(), round(float(log_norm[0, 0]), 6)
    ([[0.5, 0.5]], 0.693147)
    """
    xp = namespace(log_joint)
    share, top = _exponentials(log_joint, axis)
    # next to nothing is nothing: products with denormal numbers take a hundred times as long
    share = xp.where(share > tiny(share) / eps(share), share, 0.0)
    total = xp.sum(share, axis=axis, keepdims=True)
    return share * (weight / xp.where(total == 0, xp.ones_like(total), total)), safe_log(total) + top


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def softmax(x: Array, *, axis: int = -1) -> Array:
    """Exponentials of `x` scaled to sum to one along an axis.

    >>> import numpy as np
    >>> softmax(np.asarray([0.0, 0.0])).tolist()
    [0.5, 0.5]
    """
    share, _ = _exponentials(x, axis)
    return share / namespace(x).sum(share, axis=axis, keepdims=True)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def log_softmax(x: Array, *, axis: int = -1) -> Array:
    """Logarithm of the softmax along an axis; differences come first, so that exponentials sum to one for any `x`.

    >>> import numpy as np
    >>> log_softmax(np.asarray([-1e5, 0.0])).tolist()
    [-100000.0, 0.0]
    """
    xp = namespace(x)
    top = xp.max(x, axis=axis, keepdims=True)
    gap = x - xp.where(xp.isfinite(top), top, 0.0)
    return gap - xp.log(xp.sum(xp.exp(gap), axis=axis, keepdims=True))


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def divide(part: Array | float, whole: Array) -> Array:
    """Quotient whose gradient is in range wherever it is itself: ``-part / whole**2`` has a square that may not be.

    Both are scaled first, by a power of two: a quotient of two quotients compilers turn into one of products, and those
    are out of range again.

    >>> import numpy as np
    >>> float(divide(np.float32(1e-30), np.asarray(2e-30, dtype=np.float32)))
    0.5
    """
    xp, most = namespace(whole), -math.log2(tiny(whole))
    exponent = xp.round(xp.log2(xp.abs(get(whole).detach(whole))))
    scale = 2.0 ** -xp.clip(exponent, -most, most)
    return (part * scale) / (whole * scale)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def safe_log(x: Array) -> Array:
    """Logarithm of non-negative `x`: −inf at 0, and below the smallest normal number; the gradient is 0 there.

    >>> import numpy as np
    >>> safe_log(np.asarray([1.0, 0.0])).tolist()
    [0.0, -inf]
    """
    xp = namespace(x)
    none = x < tiny(x)
    return xp.where(none, -xp.inf, xp.log(xp.where(none, xp.ones_like(x), x)))


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def safe_norm(x: Array, *, axis: int = -1, keepdims: bool = False) -> Array:
    """Lengths of vectors: no overflow, and the gradient at 0 is 0.

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
def log_sigmoid(x: Array) -> Array:
    """Logarithm of the logistic function, without overflow.

    >>> import numpy as np
    >>> log_sigmoid(np.asarray([0.0, -1000.0])).round(6).tolist()
    [-0.693147, -1000.0]
    """
    xp = namespace(x)
    return xp.minimum(x, xp.zeros_like(x)) - xp.log1p(xp.exp(-xp.abs(x)))


@Capabilities(jit=True, batch=True, half=True)
def one_hot(labels: Array, n_classes: int, *, like: Array) -> Array:
    """Rows of zeros with a one at each label, in the dtype of `like`; classes along a new second-last axis.

    >>> import numpy as np
    >>> one_hot(np.asarray([0, 2]), 3, like=np.ones(1)).tolist()
    [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    """
    xp = namespace(labels)
    classes = constant(np.arange(n_classes), like=labels)
    return xp.astype(labels[..., None, :] == classes[:, None], like.dtype)


@Capabilities(jit=True, half=True)
def constant(value: Any, *, like: Array) -> Array:
    """Return a small host value as an array of `like`'s library, device and dtype."""
    return namespace(like).astype(get(like).from_numpy(np.asarray(value), like), like.dtype, copy=False)


@Capabilities(jit=True, half=True)
def full(shape: tuple[int, ...], value: float, *, like: Array) -> Array:
    """Return a small array of one value, of `like`'s library, device and dtype."""
    return constant(np.full(shape, value), like=like)


@Capabilities(jit=True, half=True)
def set_at(x: Array, index: Any, value: Array) -> Array:
    """`x` with one entry along its first axis replaced; in place where the library allows, so use the result."""
    return xpx.at(x)[index, ...].set(value)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def swap(x: Array) -> Array:
    """Exchange the last two axes."""
    return namespace(x).matrix_transpose(x)


@Capabilities(jit=True)
def traced(x: Array) -> bool:
    """Whether a compiler is tracing that would keep, in what it exports, the operations of checks that nobody reads."""
    return getattr(get(x), "tracing", bool)()


@Capabilities(jit=True)
def concrete(flag: Array) -> bool | None:
    """Return a truth value, or None where a compiler is tracing and there are no values yet."""
    if is_array(flag) and traced(flag):
        return None
    try:
        return bool(flag)
    except (TypeError, RuntimeError):  # jax and torch.func refuse in these two ways
        return None


@Capabilities(gradients=True, jit=True, half=True)
def broadcast(x: Array, shape: tuple[int, ...]) -> Array:
    """`x` in a shape; itself where it has that already, which is most often and saves the call."""
    # tuples of other lengths compare entries too, which would tie an exported batch to a number
    same = x.ndim == len(shape) and tuple(x.shape) == shape
    return x if same else namespace(x).broadcast_to(x, shape)


@Capabilities(jit=True, half=True)
def either(flag: Array, yes: Callable[[Array], Any], no: Callable[[Array], Any], x: Array) -> Any:
    """Return ``yes(x)`` where `flag` holds, else ``no(x)``, of the same shapes; `yes` is run only then, traced or not.

    >>> import numpy as np
    >>> either(np.asarray(True), lambda x: (x + 1,), lambda x: (x,), np.zeros(1))
    (array([1.]),)
    """
    known = concrete(flag)
    if known is not None:
        return yes(x) if known else no(x)
    # a loop of at most one turn is the only branch that every library can compile; a compiler would move what does
    # not depend on the loop's state out of it, and so run it always
    zero = namespace(x).zeros_like(x)

    def turn(state: tuple[Array, Any]) -> tuple[Array, Any]:
        return ~state[0], yes(namespace(x).where(state[0], x, zero))

    return get(flag).loop(lambda state: state[0], turn, (flag, no(x)))[1]


@Capabilities(gradients=True, jit=True, half=True)
def leaves(tree: Any) -> list[Array]:
    """Arrays of a nest of tuples, in order; None is passed over.

    >>> leaves((1, (2, None), 3))
    [1, 2, 3]
    """
    if isinstance(tree, tuple):
        return [leaf for branch in tree for leaf in leaves(branch)]
    return [] if tree is None else [tree]


@Capabilities(gradients=True, jit=True, half=True)
def rebuild(tree: Any, arrays: Iterable[Array]) -> Any:
    """Return a nest of the same structure over other arrays, in the order of `leaves`.

    >>> rebuild((1, (2,)), [10, 20])
    (10, (20,))
    """
    following = iter(arrays)
    return map_leaves(lambda _: next(following), tree)


@Capabilities(gradients=True, jit=True, half=True)
def map_leaves(function: Callable[..., Array], tree: Any, *rest: Any) -> Any:
    """Apply a function to the matching arrays of nests of tuples (named ones keep their type).

    >>> map_leaves(lambda a, b: a + b, (1, (2,)), (10, (20,)))
    (11, (22,))
    """
    if isinstance(tree, tuple):
        branches = [map_leaves(function, *group) for group in zip(tree, *rest, strict=True)]
        return type(tree)(*branches) if hasattr(tree, "_fields") else tuple(branches)
    return None if tree is None else function(tree, *rest)
