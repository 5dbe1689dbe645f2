"""How votes spread about the poses of their parents: variances, or whole covariance matrices.

Both kinds measure the same two things of a Gaussian, its log-determinant and squared Mahalanobis lengths. A diagonal
one measures along the entries of a pose; a full one is equivariant: under any rotation of the entries the matrix turns
and the measures stay.
"""

from __future__ import annotations

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import constant, swap
from emroute.arrays.diagonal import quadratic, weighted_sum
from emroute.arrays.functions import eps
from emroute.backend import Array
from emroute.capsule.shares import precisions

__all__ = ["SPREADS", "Diagonal", "Full"]

_ROUNDING = 4  # spacings of the dtype, an entry, by which rounding may leave a covariance short of positive definite


class Diagonal:
    """Variances ``(b, J, H)``."""

    def scatter(self, gaps: Array, shares: Array) -> Array:
        """Sum of squared gaps ``(b, J, H, I)``, each as often as its share ``(b, J, I)`` says."""
        return weighted_sum(gaps * gaps, shares)

    def outer(self, x: Array) -> Array:
        """Squares of vectors ``(b, J, H)``."""
        return x * x

    def widened(self, spread: Array, amount: float) -> Array:
        """Add a number to every variance."""
        return spread + amount

    def measure(self, spread: Array, gaps: Array) -> tuple[Array, Array]:
        """Log-determinants ``(b, J)``, and squared Mahalanobis lengths ``(b, J, I)`` of the gaps."""
        xp = backends.namespace(gaps)
        return xp.sum(xp.log(spread), axis=-1), quadratic(precisions(spread), gaps * gaps)


class Full:
    """Covariance matrices ``(b, J, H, H)``."""

    def scatter(self, gaps: Array, shares: Array) -> Array:
        """Sum of the gaps' outer products, each as often as its share says."""
        return backends.namespace(gaps).matmul(gaps * shares[..., None, :], swap(gaps))

    def outer(self, x: Array) -> Array:
        """Outer products of vectors with themselves."""
        return x[..., :, None] * x[..., None, :]

    def widened(self, spread: Array, amount: float) -> Array:
        """Add a multiple of the identity."""
        return spread + amount * _identity(spread)

    def measure(self, spread: Array, gaps: Array) -> tuple[Array, Array]:
        """Log-determinants, and squared Mahalanobis lengths: those of the whitened gaps, ``L^-1 (V - m)``."""
        xp, (triangle, inverse) = backends.namespace(gaps), _factors(spread)
        white = xp.matmul(inverse, gaps)
        log_det = 2 * xp.sum(xp.log(xp.linalg.diagonal(triangle)), axis=-1)
        return log_det, xp.sum(white * white, axis=-2)


SPREADS = {"diagonal": Diagonal(), "full": Full()}
"""Both kinds, by the names that a user gives."""


def _identity(like: Array) -> Array:
    return constant(np.eye(like.shape[-1]), like=like)


def _factors(spread: Array) -> tuple[Array, Array]:
    """Cholesky factors L and their inverses; NaN for a matrix that is not finite, which libraries refuse."""
    xp, unit = backends.namespace(spread), _identity(spread)
    trace = backends.get(spread).detach(xp.sum(xp.linalg.diagonal(spread), axis=-1))[..., None, None]
    finite = xp.isfinite(trace)
    safe = xp.where(finite, spread + _ROUNDING * eps(spread) * trace * unit, unit)
    triangle = xp.linalg.cholesky(safe)
    inverse = xp.linalg.solve(triangle, xp.broadcast_to(unit, triangle.shape))
    nan = xp.full_like(trace, float("nan"))
    return xp.where(finite, triangle, nan), xp.where(finite, inverse, nan)
