"""A model of one's own for the cases."""

from __future__ import annotations

from typing import NamedTuple

from emroute.backend import Array, namespace

__all__ = ["NORMAL", "Moments", "Normal", "Sums"]


class Moments(NamedTuple):
    """Parameters."""

    mean: Array
    variance: Array


class Sums(NamedTuple):
    """Statistics."""

    weight: Array
    first: Array
    second: Array
    log_likelihood: Array


class Normal:
    """A model of one's own: a single Gaussian, feature by feature."""

    ranks = (1,)

    def expect(self, params: Moments, x: Array, sample_weight: Array) -> Sums:
        """E-step."""
        xp, gap = namespace(x), x - params.mean
        log_prob = xp.sum(-(gap**2) / params.variance - xp.log(params.variance), axis=-1) / 2
        sums = xp.sum(sample_weight[:, None] * gap, axis=0), xp.sum(sample_weight[:, None] * gap**2, axis=0)
        return Sums(xp.sum(sample_weight), *sums, xp.sum(sample_weight * log_prob))

    def maximize(self, sums: Sums, params: Moments) -> Moments:
        """M-step."""
        shift = sums.first / sums.weight
        return Moments(params.mean + shift, sums.second / sums.weight - shift**2)

    def objective(self, sums: Sums, params: Moments) -> Array:
        """Return the log-likelihood."""
        return sums.log_likelihood


NORMAL = Normal()
"""The one of all cases, so that what is compiled for it is kept."""
