"""Covariances decomposed, each in units of its own, so that the units of the features matter nowhere."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import constant, swap
from emroute.backend import Array

__all__ = ["Spread", "diagonal", "inverse", "least", "truncated"]


class Spread(NamedTuple):
    """Covariances and what the E-step needs of them, of one type's shape."""

    covariances: Array
    factors: Array
    """F of the precisions F'F: unlike triangular ones, continuous functions of the covariance."""
    log_det: Array
    """Log-determinants of the precisions, ``(..., k)``; for tied ``(..., 1)``."""
    bound: Array
    """Diagonals E of the bounds S >= E, ``(..., k, d)``; tied ``(..., 1, d)``. Variances have them for a unit only."""
    narrowest: Array
    """Least eigenvalues of the covariances in units of `bound`, like `log_det`."""
    trace: Array
    """Traces of the covariances in units of `bound`, like `log_det`."""
    floored: Array
    """1 where a covariance rests on its bound in some direction, else 0; like `log_det`."""


def _equilibrated(matrices: Array) -> tuple[Array, Array]:
    """Matrices with a diagonal of ones, and the square roots of their own; in whatever units the features are."""
    xp = backends.namespace(matrices)
    diagonal = xp.abs(xp.linalg.diagonal(matrices))
    root = xp.sqrt(xp.where(diagonal > 0, diagonal, xp.ones_like(diagonal)))
    return matrices / root[..., :, None] / root[..., None, :], root


def least(matrices: Array) -> Array:
    """Eigenvalues of matrices whose features are brought to variance 1."""
    return backends.get(matrices).eigh(_equilibrated(matrices)[0])[0]


def inverse(matrices: Array) -> Array:
    """Inverses of positive definite matrices."""
    even, root = _equilibrated(matrices)
    return backends.namespace(even).linalg.inv(even) / root[..., :, None] / root[..., None, :]


def _bound(variances: Array, floor: Array, resolution: float, bound: Array | None = None) -> Array:
    xp, own = backends.namespace(variances), resolution * variances
    own = own if bound is None else xp.maximum(xp.minimum(own, bound), own / 8)  # an eighth is still resolved
    return xp.maximum(own, floor[..., None])


def diagonal(variances: Array, floor: Array, resolution: float) -> Spread:
    """Return what `truncated` makes of diagonal matrices, whose eigenvalues are there to see."""
    xp, unit = backends.namespace(variances), constant(np.eye(variances.shape[-1]), like=variances)
    bound = _bound(variances, floor, resolution)
    kept = xp.maximum(variances, bound)
    return Spread(
        kept[..., None] * unit,
        kept[..., None] ** -0.5 * unit,
        -xp.sum(xp.log(kept), axis=-1),
        bound,
        xp.min(kept / bound, axis=-1),
        xp.sum(kept / bound, axis=-1),
        xp.astype(xp.any(variances <= bound, axis=-1), variances.dtype),
    )


def truncated(covariances: Array, floor: Array, resolution: float, bound: Array | None) -> Spread:
    """Truncate the eigenvalues of E^-1/2 S E^-1/2 at 1, with E the floor or, where that is more, what is resolved."""
    backend = backends.get(covariances)
    xp = backend.namespace(covariances)
    covariances = (covariances + swap(covariances)) / 2
    bound = _bound(xp.linalg.diagonal(covariances), floor, resolution, bound)
    root = xp.sqrt(bound)
    values, vectors = backend.eigh(covariances / root[..., :, None] / root[..., None, :])
    least = xp.min(values, axis=-1)
    values = xp.maximum(values, xp.ones_like(values))

    def square(half: Array) -> Array:
        return xp.matmul(half, swap(half))  # of a matrix with itself BLAS computes one triangle

    return Spread(
        square(root[..., :, None] * vectors * values[..., None, :] ** 0.5),
        square(vectors * values[..., None, :] ** -0.25) / root[..., None, :],
        -xp.sum(xp.log(values) + xp.log(bound), axis=-1),
        bound,
        xp.min(values, axis=-1),
        xp.sum(values, axis=-1),
        xp.astype(least <= 1, values.dtype),
    )
