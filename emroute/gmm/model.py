"""EM for mixtures of Gaussians (Dempster, Laird & Rubin 1977; Bishop 2006, section 9.2).

    E-step   r_nk = w_k N(x_n | m_k, S_k) / sum_j w_j N(x_n | m_j, S_j)
    M-step   w_k = N_k / N,   m_k = sum_n r_nk x_n / N_k,   S_k = sum_n r_nk (x_n - m_k)(x_n - m_k)' / N_k

in standard coordinates, S_k kept above a floor by truncating its eigenvalues: the likelihood's maximum under that
constraint, so the trace stays monotone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import constant, itemsize, one_hot, swap
from emroute.arrays.functions import eps, ratio, safe_log, softmax, tiny
from emroute.arrays.tracing import at_hand, either
from emroute.backend import Array
from emroute.data import Rows
from emroute.family import Statistics, share
from emroute.gmm.covariance import COVARIANCES, Covariance
from emroute.gmm.params import Params, offset, standardize
from emroute.gmm.spread import Spread
from emroute.mixtures.posterior import Scored, share_rows
from emroute.validate import check_floating, check_scored, check_width

__all__ = ["FIXED", "MISSING", "GaussianModel", "log_known"]

MISSING = ("refuse", "marginalize")
"""What NaN in the data may be."""

FIXED = ("weights", "means", "covariances")
"""What a fit may keep."""

_TOLERATED = {4: 1e-3, 8: 1e-8}  # of float32 and float64: log-densities err by about 3 % of this


@dataclass(frozen=True)
class GaussianModel(Scored):
    """EM of a Gaussian mixture of one covariance type, for `emroute.em.fit`."""

    covariance_type: str = "full"
    missing: str = "refuse"
    """What NaN in the data are: refused, or gaps over which the density is summed (``"marginalize"``)."""

    fixed: tuple[str, ...] = ()
    """Which of weights, means and covariances are kept as they are at the start."""

    ranks = (1,)

    @property
    def fixed_weights(self) -> bool:
        """Whether the weights are no parameters."""
        return "weights" in self.fixed

    @cached_property
    def covariance(self) -> Covariance:
        """What the covariance type makes of moments."""
        return COVARIANCES[self.covariance_type]

    def plain(self, params: Params) -> bool:
        """Whether the E-step always takes differences to the means: monomials would cost more, or the means stay."""
        return "means" in self.fixed or self.covariance.plain(*params.means.shape[-2:])

    def bytes_per_row(self, params: Params) -> int:
        """Monomials and responsibilities."""
        if self.plain(params):
            return self.bytes_per_scored_row(params)
        k, d = params.means.shape[-2:]
        monomials = (d + 1) * (d + 2) // 2 if self.covariance.rank == 3 else 2 * d + 1
        restarts = math.prod(params.weights.shape[:-1])
        return itemsize(params.means) * (monomials + 3 * k * restarts)

    def bytes_per_scored_row(self, params: Params) -> int:
        """Differences to all means, and their products."""
        return 3 * itemsize(params.means) * math.prod(params.means.shape)

    def expect(self, params: Params, x: Any, sample_weight: Array) -> Statistics:
        """E-step: about the common centre where that is cheap and loses no digits, else about each component's mean.

        `x` are rows, or rows and what is known of their components, as `log_known` takes it.
        """
        x, hint = (x[0], log_known(x[1], params.weights)) if isinstance(x, tuple) else (x, None)
        z = standardize(params, x)
        if self.plain(params) or self.covariance.fuses(params.spread, z, params.means):
            return self._about_means(params, z, sample_weight, hint)
        return either(
            backends.namespace(x).any(params.narrow > 0),
            lambda z: self._about_means(params, z, sample_weight, hint),
            lambda z: self._about_centre(params, z, sample_weight, hint),
            z,
        )

    def _about_centre(self, params: Params, z: Array, sample_weight: Array, hint: Array | None) -> Statistics:
        xp, covariance = backends.namespace(z), self.covariance
        monomials = covariance.monomials(z)
        log_joint = _hinted(xp.matmul(params.natural, monomials), hint)
        shares, log_norm = share_rows(log_joint, sample_weight)
        log_prob = log_norm + covariance.common(params.spread, z)
        sums = covariance.sums_about_centre(monomials, shares, z, sample_weight)
        return Statistics(sums, xp.sum(sample_weight * log_prob, axis=-1))

    def _about_means(self, params: Params, z: Array, sample_weight: Array, hint: Array | None) -> Statistics:
        xp = backends.namespace(z)
        shares, log_norm = share_rows(_hinted(self._joint(params, z), hint), sample_weight)
        return self._gather(params, z, shares, xp.sum(sample_weight * log_norm, axis=-1))

    def _gather(self, params: Params, z: Array, shares: Array, log_likelihood: Array) -> Statistics:
        # in a batch, other problems may be the narrow ones
        return Statistics(self.covariance.sums_about_means(z, self.reference(params), shares), log_likelihood)

    def reference(self, params: Params) -> Array:
        """The point about which each component's moments are taken, ``(..., k, d)``."""
        return params.means if self.plain(params) else params.narrow[..., None, None] * params.means

    def _joint(self, params: Params, z: Array) -> Array:
        """log w_k N(x | k), by differences of z to the means, ``(..., k, n)``."""
        squares = self.covariance.squares(params.spread, z, params.means)
        return offset(params)[..., None] - squares / 2

    def maximize(self, statistics: Statistics, params: Params) -> Params:
        """M-step; a component without weight keeps its mean and covariance, and all that is fixed stays."""
        return self.update(statistics.sums, params)

    def update(self, sums: tuple[Array, ...], params: Params, rows: Array | None = None) -> Params:
        """M-step from sums of the moments; each part is the best for the others as they are, so the likelihood rises.

        Where moments are weighted by more than responsibilities, as in Student-t mixtures, `rows` ``(..., k)`` has the
        sums of these: mixing weights are shares of it, and second moments are divided by it.
        """
        counts, first, second = self.covariance.unpack(sums, params.means.shape[-1])
        xp = backends.namespace(counts)
        held = counts > tiny(counts) / eps(counts)
        safe = xp.where(held, counts, 1.0)
        moves = held[..., None] & ("means" not in self.fixed)
        shift = xp.where(moves, first / safe[..., None], 0.0)
        means = xp.where(moves, self.reference(params) + shift, params.means)
        covariance, shares, axes = self.covariance, share(counts if rows is None else rows), params.axes
        params = params._replace(weights=params.weights if self.fixed_weights else shares, means=means)
        if "covariances" in self.fixed:
            return self.complete(params)
        shared = covariance.shared  # by all rows, whose number is no more for a component without any
        covariances = covariance.covariances_from(counts if shared else safe, shift, second)
        if rows is not None:
            part, whole = (xp.sum(counts, axis=-1), xp.sum(rows, axis=-1)) if shared else (counts, rows)
            covariances = covariances * trailing(ratio(part, whole, part), covariances)
        if covariance.coupled:
            covariances = _chosen(held, covariances, params.spread.covariances)
            # less than the floor, so that what rests on it is seen when it is decomposed
            covariances, axes = covariance.couple(covariances, shares, params.floor / 2, axes)
        spread = self.decompose(covariances, params, params.spread.bound)
        if not shared and not covariance.coupled:
            spread = _keep(held, spread, params.spread)
        return self.complete(params._replace(spread=spread, axes=axes))

    def decompose(self, covariances: Array, params: Params, bound: Array | None = None) -> Spread:
        """Decompose the covariances that the data ask for, kept above the floor."""
        d = params.means.shape[-1]
        return self.covariance.decompose(covariances, params.floor, d, self.resolution(covariances, d), bound)

    def resolution(self, like: Array, d: int) -> float:
        """Return the share of its own variances below which an eigenvalue would be rounding."""
        return 10 * d * eps(like)

    def complete(self, params: Params) -> Params:
        """Derive from weights, means and covariances what the E-step needs."""
        xp = backends.namespace(params.means)
        if self.plain(params):
            peaks = offset(params)
            return params._replace(natural=peaks[..., None], narrow=xp.ones_like(peaks[..., 0]))
        natural = self.covariance.natural_parameters(params.means, params.spread, offset(params))
        far = xp.sum(params.means**2 / params.spread.bound, axis=-1) + params.spread.trace
        error = eps(far) * xp.max(far / params.spread.narrowest, axis=-1)
        narrow = xp.astype(error > _TOLERATED[itemsize(far)], far.dtype)
        return params._replace(natural=natural, narrow=narrow)

    def means(self, params: Params) -> Array:
        """Means, in the users' coordinates."""
        return params.means * params.scale[..., None, :] + params.centre[..., None, :]

    def covariances(self, params: Params) -> Array:
        """Covariances, in the users' coordinates."""
        return self.covariance.scaled(params.spread.covariances, params.scale)

    def pack(self, params: Params) -> tuple[Array, Array, Array]:
        """Coordinates that may be extrapolated: log weights, means and covariances."""
        weights = backends.namespace(params.weights).clip(params.weights, tiny(params.weights), None)
        return safe_log(weights), params.means, params.spread.covariances

    def unpack(self, coordinates: tuple[Array, Array, Array], params: Params) -> Params:
        """Parameters from them; covariances are kept above the floor."""
        log_weights, means, covariances = coordinates
        d = means.shape[-1]
        resolution, bound = self.resolution(means, d), params.spread.bound
        spread = self.covariance.decompose(covariances, params.floor, d, resolution, bound)
        return self.complete(params._replace(weights=softmax(log_weights), means=means, spread=spread))

    def widen(self, params: Params) -> Params:
        """Give floored components no variance below D, the floor's unit."""
        floor, d = params.floor * 0 + 1, params.means.shape[-1]
        covariances, old = params.spread.covariances, params.spread
        wide = self.covariance.decompose(covariances, floor, d, self.resolution(covariances, d))
        return self.complete(params._replace(spread=_keep(old.floored > 0, wide, old)))

    def marginal(self, params: Params, features: Array) -> Params:
        """Return the parameters of some features alone."""
        xp = backends.namespace(params.means)
        covariances = params.spread.covariances
        for axis in self.covariance.feature_axes:
            covariances = xp.take(covariances, features, axis=axis)
        centre, scale, reach = (xp.take(x, features, axis=-1) for x in (params.centre, params.scale, params.reach))
        means, d = xp.take(params.means, features, axis=-1), features.shape[0]
        spread = self.covariance.decompose(covariances, 0 * params.floor, d, self.resolution(covariances, d))
        return self.complete(
            params._replace(
                means=means, spread=spread, centre=centre, scale=scale, reach=reach, narrow=params.floor, axes=None
            )
        )

    def objective(self, statistics: Statistics, params: Params) -> Array:
        """Return the total log-likelihood."""
        return statistics.log_likelihood

    def gather(self, params: Params, x: Array, shares: Array, log_likelihood: Array) -> Statistics:
        """Moments under given responsibilities ``(..., k, n)``."""
        return self._gather(params, standardize(params, x), shares, log_likelihood)

    def points(self, params: Params, x: Array) -> Array:
        """Coordinates of unit variance, ``(..., n, d)``, in which starts are drawn."""
        return swap(standardize(params, x)) / params.reach[..., None, :]

    def around(self, params: Params, points: Array) -> Params:
        """Components at starting points, about which their first moments are taken."""
        return params._replace(means=points * params.reach[..., None, :], narrow=0 * params.narrow + 1)

    def log_prob_of(self, params: Params, data: Any) -> Array:
        """log N(x | k), ``(..., k, n)``."""
        return self.log_joint(
            params._replace(weights=backends.namespace(params.weights).ones_like(params.weights)), data
        )

    def log_joint(self, params: Params, data: Any) -> Array:
        """log w_k N(x | k), ``(..., k, n)``."""
        return self._joint(params, standardize(params, data))

    def check(self, params: Params, rows: Rows) -> None:
        """Raise an error for data that cannot be scored."""
        (x,) = rows.arrays
        check_floating("x", params.means, x)
        check_width(x, params.means.shape[-1])
        check_scored(rows, gaps=self.missing == "marginalize")

    def describe(self) -> dict[str, Any]:
        """Return what a saved mixture must know beside its arrays."""
        return {"covariance_type": self.covariance_type, "missing": self.missing, "fixed": self.fixed}


def log_known(known: Array, weights: Array) -> Array:
    """Logarithms ``(..., k, n)`` of what rows are known to be: labels ``(..., n)``, −1 unknown, or ``(..., n, k)``."""
    xp, k = backends.namespace(weights), weights.shape[-1]
    if not xp.isdtype(known.dtype, "integral"):
        return swap(safe_log(known))
    possible = (one_hot(known, k, like=weights) > 0) | (known[..., None, :] < 0)
    return xp.where(possible, 0.0, constant(-np.inf, like=weights))


def _hinted(log_joint: Array, hint: Array | None) -> Array:
    return log_joint if hint is None else log_joint + hint


def _keep(held: Array, new: Spread, old: Spread) -> Spread:
    """`new` where components are held, else `old`."""
    xp = backends.namespace(held)
    return new if at_hand(xp.all(held)) else Spread(*(_chosen(held, a, b) for a, b in zip(new, old, strict=True)))


def _chosen(held: Array, new: Array, old: Array) -> Array:
    return backends.namespace(held).where(trailing(held, new), new, old)


def trailing(x: Array, like: Array) -> Array:
    """`x` with dimensions of one at the end, as many as `like` has more."""
    return backends.namespace(x).reshape(x, (*x.shape, *(1,) * max(0, like.ndim - x.ndim)))
