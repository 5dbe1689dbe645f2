"""EM for mixtures of Student-t distributions (Peel & McLachlan 2000; McLachlan & Peel 2000, chapter 7).

A row of component k is Gaussian with covariance S_k / u, and u has a gamma distribution of mean 1: rows far out have a
small u and count little. With q_nk = (x_n - m_k)' S_k^-1 (x_n - m_k) and d features,

    E-step   r_nk = w_k t(x_n | m_k, S_k, v_k) / p(x_n),   u_nk = (v_k + d) / (v_k + q_nk)
    M-step   w_k = N_k / N,   m_k = sum_n r_nk u_nk x_n / sum_n r_nk u_nk,
             S_k = sum_n r_nk u_nk (x_n - m_k)(x_n - m_k)' / N_k,
             v_k solves  log(v/2) - psi(v/2) = -1 - sum_n r_nk (log u_nk - u_nk) / N_k + log(h_k) - psi(h_k)

with N_k = sum_n r_nk, h_k = (v_k + d) / 2 of the last v_k, and psi the digamma function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from emroute import backend as backends
from emroute.arrays.functions import ratio
from emroute.backend import Array
from emroute.counts import peak
from emroute.data import Rows
from emroute.gmm.model import GaussianModel
from emroute.gmm.params import Params as Gaussians
from emroute.gmm.params import offset, standardize
from emroute.mixtures.posterior import Scored, share_rows

__all__ = ["ByDifferences", "Params", "Statistics", "StudentTModel"]

LEAST, MOST = 1e-3, 200.0
"""Degrees of freedom that are fitted: above, a component is as good as Gaussian."""
_STEPS = 8  # of a fixed point whose error falls to a fifth each time


class ByDifferences(GaussianModel):
    """Gaussians whose moments are taken about their means, as those of weighted rows must be."""

    def plain(self, params: Gaussians) -> bool:
        """True."""
        return True


class Params(NamedTuple):
    """Weights, means and scale matrices as a Gaussian mixture has them, and degrees of freedom."""

    gaussians: Gaussians
    dofs: Array
    """``(..., k)``."""

    @property
    def weights(self) -> Array:
        """``(..., k)``."""
        return self.gaussians.weights


class Statistics(NamedTuple):
    """What an E-step leaves behind."""

    sums: tuple[Array, ...]
    """Moments about the means, weighted by r u."""
    rows: Array
    """Sums of r, ``(..., k)``."""
    log_u_less_u: Array
    """Sums of r (log u − u), ``(..., k)``."""
    log_likelihood: Array
    """``(...,)``."""


@dataclass(frozen=True)
class StudentTModel(Scored):
    """EM of a Student-t mixture of one covariance type, for `emroute.em.fit`."""

    covariance_type: str = "full"
    freedom: str = "own"
    """Whose degrees of freedom are fitted: each component's ``"own"``, one ``"common"``, or none, ``"fixed"``."""

    ranks = (1,)
    fixed_weights = False

    @property
    def gaussian(self) -> ByDifferences:
        """The model of weights, means and scale matrices."""
        return ByDifferences(self.covariance_type)

    def bytes_per_row(self, params: Params) -> int:
        """Differences to all means, and their products."""
        return self.gaussian.bytes_per_scored_row(params.gaussians)

    bytes_per_scored_row = bytes_per_row

    def expect(self, params: Params, x: Array, sample_weight: Array) -> Statistics:
        """E-step."""
        xp, g = backends.namespace(x), params.gaussians
        z, dofs, covariance = standardize(g, x), params.dofs[..., None], self.gaussian.covariance
        squares = covariance.squares(g.spread, z, g.means)
        shares, log_prob = share_rows(self._joint(params, squares), sample_weight)
        u = (dofs + z.shape[-2]) / (dofs + squares)
        return Statistics(
            covariance.sums_about_means(z, g.means, shares * u),
            xp.sum(shares, axis=-1),
            xp.sum(shares * (xp.log(u) - u), axis=-1),
            xp.sum(sample_weight * log_prob, axis=-1),
        )

    def maximize(self, statistics: Statistics, params: Params) -> Params:
        """M-step; a component without weight keeps its parameters."""
        gaussians = self.gaussian.update(statistics.sums, params.gaussians, statistics.rows)
        if self.freedom == "fixed":
            return params._replace(gaussians=gaussians)
        xp, digamma, dofs = backends.namespace(params.dofs), backends.get(params.dofs).digamma, params.dofs
        h = (dofs + gaussians.means.shape[-1]) / 2
        rows, parts = statistics.rows, statistics.rows * (xp.log(h) - digamma(h) - 1) - statistics.log_u_less_u
        if self.freedom == "common":
            rows, parts = (xp.sum(x, axis=-1, keepdims=True) + 0 * x for x in (rows, parts))
        c = ratio(parts, rows, xp.zeros_like(rows))
        return Params(gaussians, xp.where(rows > 0, solved(c, dofs), dofs))

    def pack(self, params: Params) -> tuple[Any, Array]:
        """Coordinates that may be extrapolated: those of the Gaussians, and log degrees of freedom."""
        return self.gaussian.pack(params.gaussians), backends.namespace(params.dofs).log(params.dofs)

    def unpack(self, coordinates: tuple[Any, Array], params: Params) -> Params:
        """Parameters from them."""
        gaussians, log_dofs = coordinates
        xp = backends.namespace(log_dofs)
        dofs = params.dofs if self.freedom == "fixed" else xp.clip(xp.exp(log_dofs), LEAST, MOST)
        return Params(self.gaussian.unpack(gaussians, params.gaussians), dofs)

    def objective(self, statistics: Statistics, params: Params) -> Array:
        """Return the total log-likelihood."""
        return statistics.log_likelihood

    def _joint(self, params: Params, squares: Array) -> Array:
        """log w_k t(x | k), ``(..., k, n)``."""
        xp, dofs, d = backends.namespace(squares), params.dofs, params.gaussians.means.shape[-1]
        a, b = dofs / 2, d / 2
        # log Gamma(a + b) - log Gamma(a) - b log a without cancellation; the Gaussian's peak has (2 pi)^(-b) already
        beyond = (a + b - 1) * xp.log1p(b / a) - b + peak(a) - peak(a + b)
        highest = offset(params.gaussians) + beyond
        return highest[..., None] - (a + b)[..., None] * xp.log1p(squares / dofs[..., None])

    def log_joint(self, params: Params, data: Array) -> Array:
        """log w_k t(x | k), ``(..., k, n)``."""
        g = params.gaussians
        return self._joint(params, self.gaussian.covariance.squares(g.spread, standardize(g, data), g.means))

    def log_prob_of(self, params: Params, data: Array) -> Array:
        """log t(x | k), ``(..., k, n)``."""
        ones = backends.namespace(params.weights).ones_like(params.weights)
        return self.log_joint(params._replace(gaussians=params.gaussians._replace(weights=ones)), data)

    def check(self, params: Params, rows: Rows) -> None:
        """Raise an error for data that cannot be scored."""
        self.gaussian.check(params.gaussians, rows)

    def describe(self) -> dict[str, Any]:
        """Return what a saved mixture must know beside its arrays."""
        return {"covariance_type": self.covariance_type, "freedom": self.freedom}


def solved(c: Array, v: Array) -> Array:
    """Solve log(v/2) − psi(v/2) = c, from `LEAST` to `MOST`, beginning at `v`.

    The left side is about 2/v for small v and 1/v for large v, so multiplying v by its ratio to c divides the error by
    about five.
    """
    xp, digamma = backends.namespace(c), backends.get(c).digamma
    c = xp.clip(c, 0.5 / MOST, None)  # below that there is no solution up to `MOST`
    v = xp.clip(v, LEAST, MOST)
    for _ in range(_STEPS):
        v = xp.clip(v * (xp.log(v / 2) - digamma(v / 2)) / c, LEAST, MOST)
    return v
