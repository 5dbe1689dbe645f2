"""Mixtures of von Mises-Fisher distributions over unit vectors: on the circle, the sphere, or in many dimensions.

    p(x) = sum_k w_k C_d(kappa_k) exp(kappa_k m_k . x),    log C_d(kappa) = -d/2 log 2 pi - log(I_v(kappa) / kappa^v)

with v = d/2 - 1 and I_v the modified Bessel function. It is an exponential family in the vectors kappa m, whose length
is the concentration and whose direction the mean direction. The M-step takes the mean direction from the sum
s = sum_n r_nk x_n, and the concentration from its length: A(kappa) = I_{v+1}(kappa) / I_v(kappa) = |s| / sum_n r_nk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import as_real, itemsize, swap
from emroute.arrays.functions import divide, eps, ratio, safe_norm
from emroute.backend import Array
from emroute.errors import InputError
from emroute.family import Family
from emroute.validate import as_parameter, check_width, require
from emroute.von_mises_fisher.bessel import log_bessel

__all__ = ["VonMisesFisher", "highest"]

_UNIT = 1e-3  # how much the length of a row may differ from 1
_NEWTON = 3
_HIGHEST = {4: 1e4, 8: 1e8}  # concentrations in float32 and float64, so that log-densities keep three digits or more


class Params(NamedTuple):
    """Parameters of a mixture of von Mises-Fisher distributions."""

    weights: Array
    vectors: Array
    """Mean directions times concentrations, ``(..., k, d)``."""
    constant: Array
    """Always 0, because the log-likelihood is complete."""


def highest(like: Array) -> float:
    """Return the concentration at which fits stop: beyond it, rounding decides densities."""
    return _HIGHEST[itemsize(like)]


@dataclass(frozen=True)
class VonMisesFisher(Family):
    """The von Mises-Fisher family over unit vectors ``x (..., n, d)``."""

    params = Params
    closes = False
    starts_at_points = True
    complaint = "rows must be unit vectors; divide each by its length"

    @property
    def ranks(self) -> tuple[int, ...]:
        """The rank of one row of each data array."""
        return (1,)

    def sufficient_statistics(self, params: Params, data: Array) -> Array:
        """(1, x)."""
        x = swap(as_real(data, params.weights))
        xp = backends.namespace(x)
        return xp.concat([xp.ones_like(x[..., :1, :]), x], axis=-2)

    def natural_parameters(self, params: Params) -> Array:
        """(log C, kappa m)."""
        xp, d = backends.namespace(params.vectors), params.vectors.shape[-1]
        log_value, _ = log_bessel(d / 2 - 1, xp.sum(params.vectors**2, axis=-1, keepdims=True))
        return xp.concat([-d / 2 * math.log(2 * math.pi) - log_value, params.vectors], axis=-1)

    def from_sums(self, sums: Array, params: Params) -> Params:
        """Mean directions and concentrations; a component without weight keeps its own."""
        weight, total = sums[..., :1], sums[..., 1:]
        length = safe_norm(total, keepdims=True)
        kappa = concentration(ratio(length, weight, 0 * length), total.shape[-1])
        vectors = kappa * direction(total)
        return params._replace(vectors=backends.namespace(sums).where(weight > 0, vectors, params.vectors))

    def log_base_measure(self, params: Params, data: Array) -> Array:
        """0."""
        return 0 * as_real(data, params.weights)[..., 0]

    def start_coordinates(self, params: Params, data: Array) -> Array:
        """The vectors themselves."""
        return as_real(data, params.weights)

    def neutral(self, *arrays: Array) -> np.ndarray:
        """Return a concentration of 0: all directions are equally likely."""
        d = arrays[0].shape[-1]
        if d < 2:
            raise InputError(f"rows have {d} entries, expected at least 2: directions are unit vectors")
        return np.zeros(d)

    def checked(self, value: Any, like: Array, shape: tuple[int, ...]) -> Array:
        """Return mean directions times concentrations, as a user gives them."""
        directions, kappa = value
        directions = as_parameter("means", directions, like, shape)
        kappa = as_parameter("concentrations", kappa, like, shape[:-1])
        xp = backends.namespace(directions)
        require(xp.all(kappa >= 0), lambda: "concentrations must not be negative")
        require(xp.all(self.is_valid(directions)), lambda: "means must be unit vectors; divide each by its length")
        return kappa[..., None] * directions

    def is_valid(self, *arrays: Array) -> Array:
        """Return whether rows have length 1."""
        x = as_real(arrays[0], backends.get(arrays[0]).from_numpy(np.zeros(()), arrays[0]))
        xp = backends.namespace(x)
        return xp.abs(xp.sum(x * x, axis=-1) - 1) < 2 * _UNIT

    def check(self, params: Params, *arrays: Array) -> None:
        """Check that rows have as many entries as the components."""
        check_width(arrays[0], params.vectors.shape[-1])

    def n_parameters(self, params: Params) -> int:
        """A direction and a concentration per component."""
        return math.prod(params.vectors.shape[-2:])

    def draw(self, rng: np.random.Generator, params: Params, labels: np.ndarray, *extra: Any) -> np.ndarray:
        """Draw unit vectors of the labelled components, on the host (Wood 1994, algorithm VM*)."""
        vectors = np.take_along_axis(params.vectors.astype(np.float64), labels[..., None], axis=-2)
        kappa, d = np.linalg.norm(vectors, axis=-1), vectors.shape[-1]
        b = (d - 1) / (2 * kappa + np.sqrt(4 * kappa**2 + (d - 1) ** 2))
        top = (1 - b) / (1 + b)
        bound = kappa * top + (d - 1) * np.log1p(-(top**2))
        along, open_ = np.zeros_like(kappa), np.ones(kappa.shape, dtype=bool)
        while open_.any() and np.isfinite(kappa).all():
            z = rng.beta((d - 1) / 2, (d - 1) / 2, kappa.shape)
            cosine = (1 - (1 + b) * z) / (1 - (1 - b) * z)
            height = kappa * cosine + (d - 1) * np.log1p(-top * cosine) - bound
            taken = open_ & (height >= np.log(rng.random(kappa.shape)))
            along, open_ = np.where(taken, cosine, along), open_ & ~taken
        mean = vectors / np.where(kappa > 0, kappa, 1)[..., None]
        mean[kappa == 0, 0] = 1
        across = rng.standard_normal(vectors.shape)
        across -= np.sum(across * mean, axis=-1, keepdims=True) * mean
        across /= np.linalg.norm(across, axis=-1, keepdims=True)
        return along[..., None] * mean + np.sqrt(1 - along**2)[..., None] * across


def direction(vectors: Array) -> Array:
    """Return vectors divided by their lengths; 0 for those of length 0."""
    xp, length = backends.namespace(vectors), safe_norm(vectors, keepdims=True)
    return divide(vectors, xp.where(length > 0, length, xp.ones_like(length)))


def concentration(mean_length: Array, d: int) -> Array:
    """Return kappa with A(kappa) equal to the mean resultant length, from 0 to the highest that is fitted.

    The start is that of Banerjee et al. (2005), eq. 4.4; the steps are Newton's (Sra 2012). The slope of A is taken
    from A while that keeps its digits; beyond, it is what the slope tends to.
    """
    xp, limit = backends.namespace(mean_length), highest(mean_length)
    r = xp.clip(mean_length, 0.0, 1 - eps(mean_length))
    kappa = xp.clip(r * (d - r * r) / (1 - r * r), 0.0, limit)
    for _ in range(_NEWTON):
        _, per_kappa = log_bessel(d / 2 - 1, kappa * kappa)
        a = kappa * per_kappa
        slope = 1 - a * a - (d - 1) * per_kappa
        steady = (1 - a) / xp.where(kappa > 0, kappa, xp.ones_like(kappa))
        slope = xp.where(eps(kappa) * kappa * kappa < 1e-3, slope, steady)
        kappa = xp.clip(kappa - (a - r) / slope, 0.0, limit)
    return kappa
