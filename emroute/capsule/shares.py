"""How much children count in the moments of their parents, however little a parent is assigned.

A mean is a ratio, sum_i R_ij a_i V_ij / sum_i R_ij a_i. For a parent that other parents explain better, log R_ij may be
-1e5 for every child: both sums are 0 in floating point, the mean is not. So shares are relative to the largest one of
each parent, exp(log R_ij - top_j) a_i with top_j = max_i [log R_ij + log a_i], and sum_i R_ij a_i is given by its
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
    """The shares of the children, for each parent."""

    relative: Array
    """R a over the largest of the parent, ``(b, J, I)`` (one J if all are equal); 0 if no child is active."""
    some: Array
    """Their sum, ``(b, J)``: 0, or at least about 1."""
    log_scale: Array
    """The logarithm of the largest R a of the parent, ``(b, J)``; without a gradient."""

    @property
    def total(self) -> Array:
        """The sum of R a, ``(b, J)``; it may underflow to 0, as do its products."""
        return backends.namespace(self.some).exp(self.log_scale) * self.some

    @property
    def log_total(self) -> Array:
        """The logarithm of the sum of R a, ``(b, J)``, finite; 0 if no child is active."""
        xp = backends.namespace(self.some)
        return self.log_scale + xp.log(xp.where(self.some > 0, self.some, xp.ones_like(self.some)))

    def mean(self, points: Array, otherwise: Array) -> Array:
        """Return the mean of points ``(b, J, H, I)``, or a given value if no child is active."""
        return ratio(weighted_sum(points, self.relative), self.some[..., None], otherwise)


def share_out(log_assignments: Array, activations: Array) -> Shares:
    """Divide children with activations ``(b, 1, I)`` among parents by log R ``(b, J, I)``."""
    xp, detach, least = backends.namespace(log_assignments), backends.get(log_assignments).detach, tiny(activations)
    brightest = detach(xp.max(activations, axis=-1, keepdims=True))
    brightest = xp.where(brightest > least, brightest, xp.ones_like(brightest))
    activations = activations / brightest  # the logarithm of a tiny number would have fewer digits
    there = activations > least
    # tiny shares are 0 but keep their gradient: quotients of denormal numbers are out of range
    activations = activations - detach(xp.where(there, xp.zeros_like(activations), activations))
    log_active = xp.log(xp.where(there, activations, xp.ones_like(activations)))
    log_active = xp.where(there, log_active, xp.full_like(log_active, -float("inf")))
    top = xp.max(detach(log_assignments + log_active), axis=-1)
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    # an inactive child may be much nearer than all active ones: it counts as 0, not as 0 times infinity
    gap = log_assignments - top[..., None]
    relative = xp.exp(xp.minimum(gap, xp.full_like(gap, -math.log(least)))) * activations
    return Shares(relative, xp.sum(relative, axis=-1), top + xp.log(brightest)[..., 0])


def precisions(variances: Array) -> Array:
    """Return one over variances, from deviations: the derivative of 1/x is -1/x², which overflows before 1/x does."""
    xp = backends.namespace(variances)
    inverse = 1 / xp.sqrt(variances)
    return inverse * inverse
