"""What the count families share: log-probabilities without cancellation, however large the counts.

A row of counts x_j comes from independent Poissons with means m_kj, or from these given the sum N, with m_kj = N p_kj:

    log p(x | k) = sum_j log Pois(x_j | m_kj)  [- log Pois(N | N)]

Small counts use T(x) = (1, x), eta_k = (-sum_j m_kj, log m_kj), or (0, log p_kj). For large counts that loses digits,
so they use Loader's form, whose terms are no larger than their sum (Fast and accurate computation of binomial
probabilities, 2000):

    log Pois(x | m) = peak(x) - deviance(x, m),   deviance(x, m) = x log(x / m) + m - x >= 0
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from emroute import backend as backends
from emroute._engine.nests import map_blocks
from emroute.arrays.functions import safe_log
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.family import Family
from emroute.validate import check_floating

__all__ = ["Counts", "deviance", "peak"]

_CELLS = 2**17  # how many numbers the deviances of some categories hold at once
_NEAR = 0.1  # |x - m| / (x + m) below which a series takes over
_SERIES = tuple(1 / (2 * j + 1) for j in range(1, 8))  # of atanh
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)  # to 1e-16 from there on:
_LARGE = 16


@Capabilities(gradients=True, jit=True, batch=True)
def deviance(x: Array, mean: Array) -> Array:
    """Return x log(x / m) + m − x: how much less likely a count is under a Poisson with mean m than with mean x.

    Parameters
    ----------
    x
        Non-negative counts.
    mean
        Non-negative means that broadcast against the counts. A mean of 0 allows only the count 0.

    Returns
    -------
    Array
        The deviance, non-negative and accurate to a few spacings. Infinite for a positive count with mean 0, with a
        gradient of 0.

    References
    ----------
    Loader, C. (2000). Fast and accurate computation of binomial probabilities. The function ``bd0``.

    Examples
    --------
    >>> import numpy as np
    >>> deviance(np.asarray([0.0, 10.0, 1.0]), np.asarray([2.0, 10.0, 0.0])).tolist()
    [2.0, 0.0, inf]
    """
    check_floating("counts and means", x, mean)
    xp, gap = backends.namespace(x, mean), x - mean
    both = x + mean
    part = gap / xp.where(both > 0, both, xp.ones_like(both))
    near = (xp.abs(part) < _NEAR) & (x > 0)
    part = xp.where(near, part, xp.zeros_like(part))
    square, series = part * part, xp.zeros_like(part)
    for coefficient in reversed(_SERIES):
        series = (series + coefficient) * square
    close = part * (gap + 2 * x * series)
    # roots, whose quotient cannot overflow
    far = ~near & (x > 0) & (mean > 0)
    one = xp.ones_like(both)
    quotient = xp.sqrt(xp.where(far, x + 0 * mean, one)) / xp.sqrt(xp.where(far, mean + 0 * x, one))
    wide = 2 * x * xp.log(quotient) - gap
    return xp.where((mean == 0) & (x > 0), xp.inf, xp.where(near, close, wide))


@Capabilities(gradients=True, jit=True, batch=True)
def peak(x: Array) -> Array:
    """Return the log-probability of a count under a Poisson with that mean, x log x − x − log x!.

    Large counts use Stirling's series.

    >>> import numpy as np
    >>> peak(np.asarray([1.0, 100.0, 1e7])).round(6).tolist()
    [-1.0, -3.222357, -8.977986]
    """
    check_floating("counts", x)
    xp, gammaln = backends.namespace(x), backends.get(x).gammaln
    small, limit = x < _LARGE, xp.full_like(x, _LARGE)
    few, many = xp.where(small, x, limit), xp.where(small, limit, x)
    inverse, series = 1 / many, xp.zeros_like(x)
    for coefficient in reversed(_STIRLING):
        series = series * (inverse * inverse) + coefficient
    exact = few * xp.log(xp.where(few > 0, few, xp.ones_like(few))) - few - gammaln(few + 1)
    return xp.where(small, exact, -0.5 * xp.log(2 * math.pi * many) - inverse * series)


@dataclass(frozen=True)
class Counts(Family):
    """A family over rows of counts: Poissons, or Poissons given their sum."""

    precise = True
    conditional: ClassVar[bool] = True
    """Whether the sum of a row is given, so that `means` are shares of it."""

    @abstractmethod
    def cells(self, params: Any, data: Any) -> Array:
        """Counts ``(..., d, n)`` in the dtype of `params`."""

    @abstractmethod
    def means(self, params: Any) -> Array:
        """Rates, or probabilities, ``(..., k, d)``."""

    def sufficient_statistics(self, params: Any, data: Any) -> Array:
        """(1, x)."""
        x = self.cells(params, data)
        xp = backends.namespace(x)
        return xp.concat([xp.ones_like(x[..., :1, :]), x], axis=-2)

    def natural_parameters(self, params: Any) -> Array:
        """(−sum m, log m), or (0, log p)."""
        means = self.means(params)
        xp = backends.namespace(means)
        first = -xp.sum(means, axis=-1, keepdims=True)
        return xp.concat([0 * first if self.conditional else first, safe_log(means)], axis=-1)

    def log_base_measure(self, params: Any, data: Any) -> Array:
        """−sum log x!, or the log multinomial coefficient."""
        x = self.cells(params, data)
        xp, gammaln = backends.namespace(x), backends.get(x).gammaln
        base = -xp.sum(gammaln(x + 1), axis=-2)
        return base + gammaln(xp.sum(x, axis=-2) + 1) if self.conditional else base

    def size(self, params: Any, data: Any) -> Array:
        """The sum of each row."""
        x = self.cells(params, data)
        return backends.namespace(x).sum(x, axis=-2)

    def peak(self, params: Any, data: Any) -> Array:
        """Return the log-probability of each row under its own rates or shares."""
        x = self.cells(params, data)
        xp = backends.namespace(x)
        own = xp.sum(peak(x), axis=-2)
        return own - peak(xp.sum(x, axis=-2)) if self.conditional else own

    def deviance(self, params: Any, data: Any) -> Array:
        """Return the sums of the deviances of the categories, ``(..., k, n)``, some categories at a time."""
        x, means = self.cells(params, data), self.means(params)
        xp = backends.namespace(x)
        total = xp.sum(x, axis=-2)[..., None, :] if self.conditional else 1.0
        k, n = means.shape[-2], x.shape[-1]

        def some(categories: tuple[Array, Array]) -> Array:
            x, means = categories
            each = deviance(x[..., None, :], means[..., None] * total)
            return xp.sum(each, axis=0, keepdims=True)

        size = max(1, _CELLS // (k * n * math.prod(means.shape[:-2])))
        parts = map_blocks(some, (xp.moveaxis(x, -2, 0), xp.moveaxis(means, -1, 0)), size)
        return xp.sum(parts, axis=0)
