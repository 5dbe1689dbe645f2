"""Mixing weights and responsibilities, exact if a weight or a density is 0."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

from emroute import backend as backends
from emroute.arrays.creation import swap
from emroute.arrays.functions import normalize, safe_log, tiny
from emroute.arrays.kernels import kernel
from emroute.arrays.tracing import concrete
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.validate import check_floating

__all__ = ["Scored", "posterior", "share", "share_rows"]


@Capabilities(gradients=True, jit=True, batch=True)
def posterior(log_prob: Array, weights: Array) -> tuple[Array, Array]:
    """Return p(k | x), ``(..., k, n)``, and log p(x), ``(..., n)``, of log p(x | k) and weights ``(..., k)``.

    If x is impossible for all components, p(k | x) are the weights. Weights of 0 have derivatives like others.

    >>> import numpy as np
    >>> shares, log_prob = posterior(np.asarray([[-5000.0], [0.0]]), np.asarray([1.0, 0.0]))
    >>> shares.tolist(), log_prob.tolist()
    ([[1.0], [0.0]], [-5000.0])
    """
    check_floating("log_prob", log_prob)
    xp = backends.namespace(log_prob)
    shares, log_norm = normalize(log_prob + safe_log(weights)[..., None], axis=-2)
    impossible = log_norm == -xp.inf
    none = weights < tiny(weights)
    if concrete(xp.any(none)) is not False:
        # w p(x | k) / p(x) is 0 at w = 0, but has a slope
        extra = weights[..., None] * _odds(log_prob, log_norm, none[..., None] & ~impossible)
        total = xp.sum(extra, axis=-2, keepdims=True)
        shares, log_norm = shares + extra - shares * total, log_norm + total
    return xp.where(impossible, weights[..., None], shares), log_norm[..., 0, :]


class Scored(ABC):
    """A model of a mixture that scores rows by log p(x | k)."""

    @abstractmethod
    def log_joint(self, params: Any, data: Any) -> Array:
        """log w_k p(x | k), ``(..., k, n)``."""

    @abstractmethod
    def log_prob_of(self, params: Any, data: Any) -> Array:
        """log p(x | k), ``(..., k, n)``."""

    def log_prob(self, params: Any, data: Any) -> Array:
        """log p(x), ``(..., n)``."""
        return posterior(self.log_prob_of(params, data), params.weights)[1]

    def responsibilities(self, params: Any, data: Any) -> Array:
        """p(k | x), ``(..., n, k)``."""
        return swap(posterior(self.log_prob_of(params, data), params.weights)[0])

    def predict(self, params: Any, data: Any) -> Array:
        """Return the likeliest component, ``(..., n)``."""
        return backends.namespace(params.weights).argmax(self.log_joint(params, data), axis=-2)


@kernel
def share_rows(log_joint: Array, weight: Array) -> tuple[Array, Array]:
    """Responsibilities ``(..., k, n)`` times the weight ``(..., n)`` of each row, and log p(x), of log w_k p(x | k)."""
    shares, log_norm = normalize(log_joint, axis=-2, weight=weight[..., None, :])
    return shares, log_norm[..., 0, :]


def _odds(log_prob: Array, log_norm: Array, where: Array) -> Array:
    """p(x | k) / p(x), a constant, at most the root of the largest number; elsewhere 0."""
    xp = backends.namespace(log_prob)
    where = where & (log_prob > -xp.inf)
    most = math.log(xp.finfo(log_prob.dtype).max) / 2
    gap = xp.clip(xp.where(where, log_prob, 0.0) - xp.where(where, log_norm, 0.0), None, most)
    return backends.get(log_prob).detach(xp.where(where, xp.exp(gap), 0.0))


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def share(counts: Array) -> Array:
    """Mixing weights from the weight each component answers for."""
    xp = backends.namespace(counts)
    total = xp.sum(counts, axis=-1, keepdims=True)
    return counts / xp.where(total == 0, 1.0, total)
