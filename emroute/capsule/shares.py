"""What children count for in the moments of their parents, however little a parent gets.

A mean is a ratio, sum_i R_ij a_i V_ij / sum_i R_ij a_i. For a parent that other parents explain better, log R_ij may be
-1e5 for every child: both sums are 0 in floating point, the mean is not. So shares are taken relative to each parent's
largest one, exp(log R_ij - top_j) a_i with top_j = max_i [log R_ij + log a_i], and sum_i R_ij a_i is told by its
logarithm.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from emroute import backend as backends
from emroute.arrays.diagonal import weighted_sum
from emroute.arrays.functions import ratio, tiny
from emroute.backend import Array

__all__ = ["Shares", "precisions", "share_out"]


class Shares(NamedTuple):
    """Of the children, for each parent."""

    relative: Array
    """``(b, J, I)``: R a over the parent's largest; all 0 where no child is active. One J where all are alike."""
    some: Array
    """Their sum, at least about 1, or 0, ``(b, J)``."""
    log_scale: Array
    """``(b, J)``: logarithm of the parent's largest R a; no gradient flows through it."""

    @property
    def total(self) -> Array:
        """``(b, J)``: the sum of R a; it underflows to 0, and so does all that it multiplies."""
        return backends.namespace(self.some).exp(self.log_scale) * self.some

    @property
    def log_total(self) -> Array:
        """``(b, J)``: its logarithm, finite; 0 where no child is active."""
        xp = backends.namespace(self.some)
        return self.log_scale + xp.log(xp.where(self.some > 0, self.some, xp.ones_like(self.some)))

    def mean(self, points: Array, otherwise: Array) -> Array:
        """Mean of points ``(b, J, H, I)``, or what to return where no child is active."""
        return ratio(weighted_sum(points, self.relative), self.some[..., None], otherwise)


def share_out(log_assignments: Array, activations: Array) -> Shares:
    """Share out children of activations ``(b, 1, I)`` among parents by log R ``(b, J, I)``."""
    xp, detach, least = backends.namespace(log_assignments), backends.get(log_assignments).detach, tiny(activations)
    brightest = detach(xp.max(activations, axis=-1, keepdims=True))
    brightest = xp.where(brightest > least, brightest, xp.ones_like(brightest))
    activations = activations / brightest  # a logarithm of something faint would have fewer digits
    there = activations > least
    # next to nothing is nothing, but for its gradient: quotients of denormal numbers are not in range
    activations = activations - detach(xp.where(there, xp.zeros_like(activations), activations))
    log_active = xp.log(xp.where(there, activations, xp.ones_like(activations)))
    log_active = xp.where(there, log_active, xp.full_like(log_active, -float("inf")))
    top = xp.max(detach(log_assignments + log_active), axis=-1)
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    # a child that is not there may be nearer by far than all that are: it counts for 0, not for 0 times infinity
    gap = log_assignments - top[..., None]
    relative = xp.exp(xp.minimum(gap, xp.full_like(gap, -math.log(least)))) * activations
    return Shares(relative, xp.sum(relative, axis=-1), top + xp.log(brightest)[..., 0])


def precisions(variances: Array) -> Array:
    """One over variances, by way of deviations: the derivative of 1/x is -1/x², beyond the dtype before 1/x is."""
    xp = backends.namespace(variances)
    inverse = 1 / xp.sqrt(variances)
    return inverse * inverse
