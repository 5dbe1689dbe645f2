"""Moments and log-densities of diagonal Gaussians that each have their own view of the points.

Points, or their differences to the means, are ``(..., k, d, n)``; shares of them ``(..., k, n)``. A row vector times a
matrix and a matrix times a column vector both read each point's features together, so XLA lays the points out once.
"""

from __future__ import annotations

import math

from emroute.arrays.creation import swap
from emroute.backend import Array, namespace
from emroute.capability import Capabilities

__all__ = ["log_peak", "quadratic", "weighted_sum"]


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def weighted_sum(points: Array, shares: Array) -> Array:
    """Return the sum of the points weighted by their shares, ``(..., k, d)``.

    >>> import numpy as np
    >>> weighted_sum(np.asarray([[[1.0, 3.0]]]), np.asarray([[0.5, 0.5]])).tolist()
    [[2.0]]
    """
    return namespace(points).matmul(shares[..., None, :], swap(points))[..., 0, :]


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def quadratic(precisions: Array, squares: Array) -> Array:
    """Return squared Mahalanobis lengths ``(..., k, n)`` from squared differences and precisions ``(..., k, d)``.

    >>> import numpy as np
    >>> quadratic(np.asarray([[4.0]]), np.asarray([[[1.0, 9.0]]])).tolist()
    [[4.0, 36.0]]
    """
    return namespace(squares).matmul(swap(squares), precisions[..., None])[..., 0]


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def log_peak(variances: Array) -> Array:
    """Return log-densities at the means, ``(..., k)``.

    >>> import numpy as np
    >>> log_peak(np.asarray([[1.0]])).round(6).tolist()
    [-0.918939]
    """
    xp, d = namespace(variances), variances.shape[-1]
    return -(xp.sum(xp.log(variances), axis=-1) + d * math.log(2 * math.pi)) / 2
