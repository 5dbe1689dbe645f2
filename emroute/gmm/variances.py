"""Covariance types that are variances: one for each feature of a component, and one for each component."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import constant
from emroute.backend import Array
from emroute.gmm.differences import diagonal_moments, diagonal_squares
from emroute.gmm.kind import Covariance, ones_and
from emroute.gmm.parsimonious import variances
from emroute.gmm.spread import Spread

__all__ = ["Diagonal", "Spherical"]


@dataclass(frozen=True)
class Diagonal(Covariance):
    """A variance for each feature of each component: ``(..., k, d)``. Monomials are 1, z and z²."""

    code: str = "VVI"

    rank = 2
    feature_axes = (-1,)

    def shape(self, k: int, d: int) -> tuple[int, ...]:
        return (k, d)

    def fuses(self, spread: Spread, z: Array, means: Array) -> bool:
        return diagonal_squares.cheap(z, means, means)  # in place of the factors, which have this shape

    def monomials(self, z: Array) -> Array:
        return backends.namespace(z).concat([ones_and(z), z * z], axis=-2)

    def natural_parameters(self, means: Array, spread: Spread, offset: Array) -> Array:
        xp = backends.namespace(means)
        precision = spread.factors**2
        linear = precision * means
        offset = offset - 0.5 * xp.sum(linear * means, axis=-1)
        return xp.concat([offset[..., None], linear, -0.5 * precision], axis=-1)

    def unpack(self, sums: tuple[Array, ...], d: int) -> tuple[Array, Array, Array]:
        return sums[0][..., 0], sums[0][..., 1 : d + 1], sums[0][..., d + 1 :]

    def sums_about_means(self, z: Array, means: Array, shares: Array) -> tuple[Array, ...]:
        xp, moments = backends.namespace(z), diagonal_moments(z, means, shares)
        return (xp.concat([xp.sum(shares, axis=-1)[..., None], *moments], axis=-1),)

    def pack(self, counts: Array, first: Array, second: Array) -> tuple[Array, ...]:
        xp = backends.namespace(counts)
        return (xp.concat([counts[..., None], first, xp.linalg.diagonal(second)], axis=-1),)

    def squares(self, spread: Spread, z: Array, means: Array) -> Array:
        return diagonal_squares(z, means, spread.factors)[0]

    def covariances_from(self, counts: Array, shift: Array, second: Array) -> Array:
        return second / counts[..., None] - shift**2

    def couple(self, own: Array, weights: Array, floor: Array, axes: Array | None = None) -> tuple[Array, None]:
        return variances(self.code, own, weights, floor), None

    def decompose(
        self, covariances: Array, floor: Array, d: int, resolution: float, bound: Array | None = None
    ) -> Spread:
        variances, floored = _raised(covariances, floor[..., None, None])
        xp = backends.namespace(variances)
        log_det = -xp.sum(xp.log(variances), axis=-1)
        one, floored = xp.ones_like(log_det), xp.max(floored, axis=-1)
        return Spread(variances, variances**-0.5, log_det, variances, one, d * one, floored)

    def uncorrelated(self, variances: Array, floor: Array, resolution: float) -> Spread:
        return self.decompose(variances, floor, variances.shape[-1], resolution)

    def scaled(self, covariances: Array, scale: Array) -> Array:
        return covariances * scale[..., None, :] ** 2

    def dense(self, covariances: Array, k: int, d: int) -> Array:
        return covariances[..., None] * constant(np.eye(d), like=covariances)


@dataclass(frozen=True)
class Spherical(Covariance):
    """A variance for each component: ``(..., k)``. Monomials are 1, z and z'z."""

    code: str = "VII"

    rank = 1
    feature_axes = ()

    def shape(self, k: int, d: int) -> tuple[int, ...]:
        return (k,)

    def fuses(self, spread: Spread, z: Array, means: Array) -> bool:
        return diagonal_squares.cheap(z, means, means)

    def monomials(self, z: Array) -> Array:
        xp = backends.namespace(z)
        return xp.concat([ones_and(z), xp.sum(z * z, axis=-2, keepdims=True)], axis=-2)

    def natural_parameters(self, means: Array, spread: Spread, offset: Array) -> Array:
        xp = backends.namespace(means)
        precision = spread.factors[..., None] ** 2
        linear = precision * means
        offset = offset - 0.5 * xp.sum(linear * means, axis=-1)
        return xp.concat([offset[..., None], linear, -0.5 * precision], axis=-1)

    def unpack(self, sums: tuple[Array, ...], d: int) -> tuple[Array, Array, Array]:
        return sums[0][..., 0], sums[0][..., 1 : d + 1], sums[0][..., -1]

    def sums_about_means(self, z: Array, means: Array, shares: Array) -> tuple[Array, ...]:
        xp, (first, second) = backends.namespace(z), diagonal_moments(z, means, shares)
        each = xp.sum(shares, axis=-1)[..., None], first, xp.sum(second, axis=-1, keepdims=True)
        return (xp.concat([*each], axis=-1),)

    def pack(self, counts: Array, first: Array, second: Array) -> tuple[Array, ...]:
        xp = backends.namespace(counts)
        return (xp.concat([counts[..., None], first, xp.linalg.trace(second)[..., None]], axis=-1),)

    def squares(self, spread: Spread, z: Array, means: Array) -> Array:
        factors = backends.namespace(means).zeros_like(means) + spread.factors[..., None]
        return diagonal_squares(z, means, factors)[0]

    def covariances_from(self, counts: Array, shift: Array, second: Array) -> Array:
        return (second / counts - backends.namespace(shift).sum(shift**2, axis=-1)) / shift.shape[-1]

    def couple(self, own: Array, weights: Array, floor: Array, axes: Array | None = None) -> tuple[Array, None]:
        xp = backends.namespace(own)
        return xp.zeros_like(own) + xp.sum(weights * own, axis=-1, keepdims=True), None

    def decompose(
        self, covariances: Array, floor: Array, d: int, resolution: float, bound: Array | None = None
    ) -> Spread:
        variances, floored = _raised(covariances, floor[..., None])
        xp = backends.namespace(variances)
        log_det, one = -d * xp.log(variances), xp.ones_like(variances)
        wide = xp.broadcast_to(variances[..., None], (*variances.shape, d))
        return Spread(variances, variances**-0.5, log_det, wide, one, d * one, floored)

    def uncorrelated(self, variances: Array, floor: Array, resolution: float) -> Spread:
        return self.decompose(variances[..., 0], floor, variances.shape[-1], resolution)

    def scaled(self, covariances: Array, scale: Array) -> Array:
        return covariances * scale[..., :1] ** 2

    def dense(self, covariances: Array, k: int, d: int) -> Array:
        return covariances[..., None, None] * constant(np.eye(d), like=covariances)


def _raised(variances: Array, floor: Array) -> tuple[Array, Array]:
    """Variances of at least the floor, and 1 where they were no more."""
    xp = backends.namespace(variances)
    return xp.maximum(variances, xp.zeros_like(variances) + floor), xp.astype(variances <= floor, variances.dtype)
