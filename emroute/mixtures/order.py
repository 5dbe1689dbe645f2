"""Components of a mixture in another order."""

from __future__ import annotations

from typing import Any

from emroute import backend as backends
from emroute.arrays.trees import map_leaves
from emroute.backend import Array
from emroute.errors import InputError

__all__ = ["in_order", "order_of"]


def order_of(mixture: Any, by: Any) -> Array:
    """Return the order ``(..., k)`` of components by falling weights, by a parameter, or by keys of their own."""
    weights = mixture.weights
    keys: Any = getattr(mixture, by, None) if isinstance(by, str) else by
    shape = getattr(keys, "shape", ())
    if not shape or tuple(shape[: weights.ndim]) != tuple(weights.shape):
        raise InputError(f"got by={by!r}, expected 'weights', a parameter of each component, or keys (..., k)")
    while keys.ndim > weights.ndim:
        keys = keys[..., 0]
    falling = isinstance(by, str) and by == "weights"
    return backends.namespace(weights, keys).argsort(-keys if falling else keys, axis=-1)


def in_order(params: Any, axes: Any, order: Array) -> Any:
    """Take components ``order (..., k)`` along the axes, counted from the last, that have them."""
    xp = backends.namespace(order)

    def take(x: Array, axis: int | None) -> Array:
        if axis is None:
            return x
        index = xp.reshape(order, (*order.shape, *(1,) * (-1 - axis)))
        return xp.take_along_axis(x, xp.broadcast_to(index, x.shape), axis=axis)

    return map_leaves(take, params, axes)
