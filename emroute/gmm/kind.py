"""What a covariance type must be able to do; the types are in `emroute.gmm.covariance`."""

from __future__ import annotations

from abc import ABC, abstractmethod

from emroute import backend as backends
from emroute.arrays.creation import swap
from emroute.backend import Array
from emroute.gmm.spread import Spread

__all__ = ["Covariance", "ones_and"]


class Covariance(ABC):
    """One covariance type. Shapes: means ``(..., k, d)``, z ``(..., d, n)``, monomials ``(..., f, n)``."""

    code: str
    """Volume, shape and orientation, each equal (E), varying (V) or the identity (I); see `gmm.parsimonious`."""
    rank: int
    """Rank of the covariances without batch."""
    feature_axes: tuple[int, ...]
    """Axes of the covariances that go through the features."""
    shared = False
    """Whether all components have one covariance."""

    @property
    def matrices(self) -> bool:
        """Whether covariances are matrices, and not variances."""
        return len(self.feature_axes) == 2

    @property
    def isotropic(self) -> bool:
        """Whether the model holds in no other units of the features: what is equal would no longer be so."""
        _, shape, orientation = self.code
        return shape == "I" or {shape, orientation} == {"E", "V"}

    def of_some(self, name: str) -> str:
        """Return the type, or its `name`, of some features alone; what features share need not be shared by some."""
        _, shape, orientation = self.code
        if shape == "E" or self.code == "EII" or "E" not in self.code:
            return name if orientation != "V" else "full"
        return "full" if self.matrices else "diag"

    @property
    def coupled(self) -> bool:
        """Whether components have covariances of their own that share something."""
        return "E" in self.code and not self.shared

    @abstractmethod
    def shape(self, k: int, d: int) -> tuple[int, ...]:
        """Shape of the covariances without batch."""

    def plain(self, k: int, d: int) -> bool:
        """Whether differences to the means cost less than monomials."""
        return False

    def fuses(self, spread: Spread, z: Array, means: Array) -> bool:
        """Whether a fused form of differences costs less than monomials."""
        return False

    @abstractmethod
    def monomials(self, z: Array) -> Array:
        """The functions of z in which the log-densities are linear; 1 and z come first."""

    def common(self, spread: Spread, z: Array) -> Array | float:
        """The part of the log-density that all components share, ``(..., n)``."""
        return 0.0

    @abstractmethod
    def natural_parameters(self, means: Array, spread: Spread, offset: Array) -> Array:
        """Coefficients of the monomials, ``(..., k, f)``, in log-densities that are `offset` at the means."""

    def sums_about_centre(self, monomials: Array, shares: Array, z: Array, weight: Array) -> tuple[Array, ...]:
        """Sums of the monomials weighted by `shares` ``(..., k, n)``, which add up to `weight` ``(..., n)``."""
        return (backends.namespace(shares).matmul(shares, swap(monomials)),)

    @abstractmethod
    def sums_about_means(self, z: Array, means: Array, shares: Array) -> tuple[Array, ...]:
        """Return the same of the differences to means ``(..., k, d)`` in place of z."""

    @abstractmethod
    def unpack(self, sums: tuple[Array, ...], d: int) -> tuple[Array, Array, Array]:
        """Weight ``(..., k)``, first moments ``(..., k, d)`` and second moments from sums."""

    @abstractmethod
    def pack(self, counts: Array, first: Array, second: Array) -> tuple[Array, ...]:
        """Sums of weights ``(..., k)``, first moments and second ones ``(..., k, d, d)``, as `unpack` takes them."""

    @abstractmethod
    def squares(self, spread: Spread, z: Array, means: Array) -> Array:
        """Squared Mahalanobis lengths ``(..., k, n)`` of the differences to means ``(..., k, d)``."""

    @abstractmethod
    def covariances_from(self, counts: Array, shift: Array, second: Array) -> Array:
        """Covariances about the means, `shift` from where the second moments are taken.

        `counts` are positive, but where one covariance is shared.
        """

    def couple(self, own: Array, weights: Array, floor: Array, axes: Array | None = None) -> tuple[Array, Array | None]:
        """Covariances of the model, of those that components of these weights have by themselves.

        Also the axes that all share, if they are the only thing that is equal; `axes` are the last ones.
        """
        return own, axes

    @abstractmethod
    def decompose(
        self, covariances: Array, floor: Array, d: int, resolution: float, bound: Array | None = None
    ) -> Spread:
        """Decompose covariances S, kept above a bound E: the exact maximum of the likelihood under S >= E.

        Parameters
        ----------
        covariances
            What the data ask for.
        floor
            ``(...,)``: the least variance in any direction; 1 is D.
        d
            The number of features.
        resolution
            The share of its own variances below which an eigenvalue of a matrix is rounding.
        bound
            The bounds of the last M-step. None grows as far as numbers resolve it, so that what was allowed stays so
            and the likelihood does not fall.
        """

    @abstractmethod
    def uncorrelated(self, variances: Array, floor: Array, resolution: float) -> Spread:
        """Decompose covariances of features ``(..., k, d)`` without correlation; tied and spherical ones are alike."""

    def least(self, covariances: Array) -> Array:
        """Least variances in any direction, in units of the features' own."""
        return covariances

    def inverse(self, covariances: Array) -> Array:
        """Precisions of covariances, and the other way round."""
        return 1 / covariances

    @abstractmethod
    def scaled(self, covariances: Array, scale: Array) -> Array:
        """Covariances of z times `scale`, ``(..., d)``."""

    def n_parameters(self, k: int, d: int) -> int:
        """Free parameters of all covariances: volumes, shapes of determinant 1, and rotations."""
        times = {"I": 0, "E": 1, "V": k}
        volume, shape, orientation = (times[letter] for letter in self.code)
        return volume + shape * (d - 1) + orientation * d * (d - 1) // 2

    @abstractmethod
    def dense(self, covariances: Array, k: int, d: int) -> Array:
        """Full matrices ``(..., k, d, d)``."""


def ones_and(z: Array) -> Array:
    """The monomials 1 and z."""
    xp = backends.namespace(z)
    return xp.concat([xp.ones_like(z[..., :1, :]), z], axis=-2)
