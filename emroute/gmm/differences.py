"""Squared Mahalanobis lengths and moments from differences of rows to means, which lose no digits.

Rows ``(..., d, n)`` have their features first. What a row is to all components is ``(..., k, d, n)`` here; fused forms
hold none of it.
"""

from __future__ import annotations

from emroute import backend as backends
from emroute.arrays.creation import swap
from emroute.arrays.diagonal import quadratic, weighted_sum
from emroute.arrays.kernels import kernel
from emroute.backend import Array

__all__ = ["diagonal_moments", "diagonal_squares", "full_moments", "full_squares"]


def _gaps(z: Array, means: Array) -> Array:
    return z[..., None, :, :] - means[..., None]


@kernel
def diagonal_squares(z: Array, means: Array, factors: Array) -> tuple[Array]:
    """Squared lengths ``(..., k, n)`` about means ``(..., k, d)``; factors are one over the deviations."""
    gaps = _gaps(z, means)
    return (quadratic(factors**2, gaps * gaps),)


@kernel
def full_squares(z: Array, means: Array, factors: Array) -> tuple[Array]:
    """Squared lengths ``(..., k, n)`` by factors ``(..., k, d, d)`` of the precisions, or one for all components."""
    xp = backends.namespace(z)
    return (xp.sum(xp.matmul(factors, _gaps(z, means)) ** 2, axis=-2),)


@kernel
def diagonal_moments(z: Array, means: Array, shares: Array) -> tuple[Array, Array]:
    """First and second moments ``(..., k, d)`` about the means, by shares ``(..., k, n)``."""
    gaps = _gaps(z, means)
    return weighted_sum(gaps, shares), weighted_sum(gaps * gaps, shares)


@kernel
def full_moments(z: Array, means: Array, shares: Array) -> tuple[Array, Array]:
    """First moments ``(..., k, d)`` and second ones ``(..., k, d, d)``."""
    xp, gaps = backends.namespace(z), _gaps(z, means)
    weighted = gaps * xp.sqrt(shares)[..., None, :]  # of a matrix with itself BLAS computes one triangle
    return weighted_sum(gaps, shares), xp.matmul(weighted, swap(weighted))
