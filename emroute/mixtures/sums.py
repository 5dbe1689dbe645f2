"""What is summed over the rows of a mixture."""

from __future__ import annotations

from typing import Any

from emroute import backend as backends
from emroute.arrays.functions import safe_log
from emroute.backend import Array

__all__ = ["certainty", "weighted"]


def certainty(model: Any, params: Any, data: Any) -> Array:
    """Log-probability of the likeliest component of each observation, ``(..., n)``."""
    shares = model.responsibilities(params, data)
    return safe_log(backends.namespace(shares).max(shares, axis=-1))


def weighted(value: Array, weight: Array | None) -> tuple[Array, Array]:
    """Sums of weighted values, and of the weights."""
    xp = backends.namespace(value)
    if weight is None:
        return xp.sum(value, axis=-1), xp.zeros_like(value[..., 0]) + float(value.shape[-1])
    value = xp.where(weight > 0, value, 0.0)  # 0 times −inf is 0
    return xp.sum(weight * value, axis=-1), xp.sum(weight, axis=-1)
