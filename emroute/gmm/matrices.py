"""Covariance types that are matrices: one for each component, and one for all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import swap
from emroute.backend import Array
from emroute.gmm.differences import full_moments, full_squares
from emroute.gmm.kind import Covariance, ones_and
from emroute.gmm.parsimonious import matrices
from emroute.gmm.spread import Spread, diagonal, inverse, least, truncated

__all__ = ["Full", "Tied"]

# Differences to the means cost k products with d x d matrices, monomials d²/2 numbers a row. Measured on NumPy, one
# thread, 6,000 and 20,000 rows: they are level at d = 8 for k of 1 and 2, at 40 for 8, at 70 for 16, at 190 for 32
# (float32 alike); at d = 128 differences take a tenth of the time for k of 1 and 2, half for 8.
_NARROW_ROWS, _PER_COMPONENT = 16, 6
_FUSED_ROWS = 40  # numba, k = 16: fused differences are level with monomials at d = 32, twice as fast at 64
_WIDE_ROWS = 256  # whatever k is, monomials of a block of 512 rows would fill 134 MB


def _outer(a: Array, b: Array) -> Array:
    return a[..., :, None] * b[..., None, :]


@cache
def _pairs(d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Upper triangle of a matrix of d rows: its row and column indices, its flat indices, and where each entry is."""
    i, j = np.triu_indices(d)
    place = np.zeros((d, d), dtype=np.int64)
    place[i, j] = place[j, i] = np.arange(len(i))
    return i, j, i * d + j, place.ravel()


def _packed(number: Array, vector: Array, matrix: Array) -> Array:
    """A number, a vector and the upper triangle of a matrix in the order of the products of (1, z) with itself."""
    xp, d = backends.namespace(matrix), matrix.shape[-1]
    flat = backends.get(matrix).from_numpy(_pairs(d)[2], matrix)
    upper = xp.take(xp.reshape(matrix, (*matrix.shape[:-2], d * d)), flat, axis=-1)
    return xp.concat([number[..., None], vector, upper], axis=-1)


@cache
def _halved(d: int) -> np.ndarray:
    """What a quadratic form counts each entry of a packed matrix: those on the diagonal half."""
    i, j, _, _ = _pairs(d)
    return np.concatenate([np.ones(d + 1), np.where(i == j, 0.5, 1.0)])


@dataclass(frozen=True)
class Full(Covariance):
    """A matrix for each component: ``(..., k, d, d)``. Monomials are the products of (1, z) with itself."""

    code: str = "VVV"

    rank = 3
    feature_axes = (-2, -1)

    def shape(self, k: int, d: int) -> tuple[int, ...]:
        return (k, d, d)

    def plain(self, k: int, d: int) -> bool:
        return d >= max(_NARROW_ROWS, min(_PER_COMPONENT * k, _WIDE_ROWS))

    def fuses(self, spread: Spread, z: Array, means: Array) -> bool:
        args = z, means, spread.factors
        return full_squares.cheap(*args) or (means.shape[-1] >= _FUSED_ROWS and full_squares.form(*args) is not None)

    def monomials(self, z: Array) -> Array:
        z = ones_and(z)
        xp, backend = backends.namespace(z), backends.get(z)
        z = xp.reshape(xp.reshape(z, (-1,)), z.shape)  # C-contiguous once; `take` would copy it so twice
        i, j, _, _ = _pairs(z.shape[-2])
        products = xp.take(z, backend.from_numpy(i, z), axis=-2)
        products *= xp.take(z, backend.from_numpy(j, z), axis=-2)
        return products

    def natural_parameters(self, means: Array, spread: Spread, offset: Array) -> Array:
        """The quadratic form in (1, z); of the precisions, entries off the diagonal stand for two."""
        xp, backend = backends.namespace(means), backends.get(means)
        precision = xp.matmul(swap(spread.factors), spread.factors)
        linear = xp.matmul(precision, means[..., None])[..., 0]
        at_zero = offset - 0.5 * xp.sum(linear * means, axis=-1)
        return _packed(at_zero, linear, -precision) * backend.from_numpy(_halved(means.shape[-1]), means)

    def sums_about_means(self, z: Array, means: Array, shares: Array) -> tuple[Array, ...]:
        counts = backends.namespace(shares).sum(shares, axis=-1)
        return self.pack(counts, *full_moments(z, means, shares))

    def pack(self, counts: Array, first: Array, second: Array) -> tuple[Array, ...]:
        return (_packed(counts, first, second),)

    def unpack(self, sums: tuple[Array, ...], d: int) -> tuple[Array, Array, Array]:
        (packed,) = sums
        place = backends.get(packed).from_numpy(_pairs(d)[3], packed)
        xp = backends.namespace(packed)
        second = xp.reshape(xp.take(packed[..., d + 1 :], place, axis=-1), (*packed.shape[:-1], d, d))
        return packed[..., 0], packed[..., 1 : d + 1], second

    def squares(self, spread: Spread, z: Array, means: Array) -> Array:
        return full_squares(z, means, spread.factors)[0]

    def covariances_from(self, counts: Array, shift: Array, second: Array) -> Array:
        return second / counts[..., None, None] - _outer(shift, shift)

    def couple(self, own: Array, weights: Array, floor: Array, axes: Array | None = None) -> tuple[Array, Array | None]:
        return matrices(self.code, own, weights, floor, axes)

    def decompose(
        self, covariances: Array, floor: Array, d: int, resolution: float, bound: Array | None = None
    ) -> Spread:
        return truncated(covariances, floor[..., None], resolution, bound)

    def uncorrelated(self, variances: Array, floor: Array, resolution: float) -> Spread:
        return diagonal(variances, floor[..., None], resolution)

    def least(self, covariances: Array) -> Array:
        return least(covariances)

    def inverse(self, covariances: Array) -> Array:
        return inverse(covariances)

    def scaled(self, covariances: Array, scale: Array) -> Array:
        return covariances * _outer(scale, scale)[..., None, :, :]

    def dense(self, covariances: Array, k: int, d: int) -> Array:
        return covariances


class Tied(Covariance):
    """One matrix for all components: ``(..., d, d)``. z'P z is common, so the monomials are 1 and z alone."""

    code = "EEE"
    shared = True
    rank = 2
    feature_axes = (-2, -1)

    def shape(self, k: int, d: int) -> tuple[int, ...]:
        return (d, d)

    def monomials(self, z: Array) -> Array:
        return ones_and(z)

    def common(self, spread: Spread, z: Array) -> Array:
        xp = backends.namespace(z)
        return -0.5 * xp.sum(xp.matmul(spread.factors, z) ** 2, axis=-2)

    def natural_parameters(self, means: Array, spread: Spread, offset: Array) -> Array:
        xp = backends.namespace(means)
        linear = xp.matmul(means, xp.matmul(swap(spread.factors), spread.factors))
        offset = offset - 0.5 * xp.sum(linear * means, axis=-1)
        return xp.concat([offset[..., None], linear], axis=-1)

    def sums_about_centre(self, monomials: Array, shares: Array, z: Array, weight: Array) -> tuple[Array, ...]:
        xp = backends.namespace(z)
        scatter = xp.matmul(z * weight[..., None, :], swap(z))
        scatter = xp.broadcast_to(scatter, (*shares.shape[:-2], *scatter.shape[-2:]))  # restarts share z
        return *super().sums_about_centre(monomials, shares, z, weight), scatter

    def sums_about_means(self, z: Array, means: Array, shares: Array) -> tuple[Array, ...]:
        return self.pack(backends.namespace(z).sum(shares, axis=-1), *full_moments(z, means, shares))

    def pack(self, counts: Array, first: Array, second: Array) -> tuple[Array, ...]:
        xp = backends.namespace(counts)
        return xp.concat([counts[..., None], first], axis=-1), xp.sum(second, axis=-3)

    def unpack(self, sums: tuple[Array, ...], d: int) -> tuple[Array, Array, Array]:
        return sums[0][..., 0], sums[0][..., 1:], sums[1]

    def squares(self, spread: Spread, z: Array, means: Array) -> Array:
        return full_squares(z, means, spread.factors[..., None, :, :])[0]

    def covariances_from(self, counts: Array, shift: Array, second: Array) -> Array:
        xp = backends.namespace(shift)
        between = xp.matmul(swap(counts[..., None] * shift), shift)
        return (second - between) / xp.sum(counts, axis=-1)[..., None, None]

    def decompose(
        self, covariances: Array, floor: Array, d: int, resolution: float, bound: Array | None = None
    ) -> Spread:
        return self._shared(truncated(covariances, floor, resolution, None if bound is None else bound[..., 0, :]))

    def uncorrelated(self, variances: Array, floor: Array, resolution: float) -> Spread:
        return self._shared(diagonal(variances[..., 0, :], floor, resolution))

    @staticmethod
    def _shared(spread: Spread) -> Spread:
        log_det, bound, *rest = spread[2:]
        return Spread(*spread[:2], log_det[..., None], bound[..., None, :], *(x[..., None] for x in rest))

    def least(self, covariances: Array) -> Array:
        return least(covariances)

    def inverse(self, covariances: Array) -> Array:
        return inverse(covariances)

    def scaled(self, covariances: Array, scale: Array) -> Array:
        return covariances * _outer(scale, scale)

    def dense(self, covariances: Array, k: int, d: int) -> Array:
        shape = *covariances.shape[:-2], k, d, d
        return backends.namespace(covariances).broadcast_to(covariances[..., None, :, :], shape)
