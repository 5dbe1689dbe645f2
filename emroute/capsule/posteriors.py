"""Parents that are Gaussians with a posterior of their own (Ribeiro, Leontidis and Kollias 2020).

    prior    pi ~ Dirichlet(alpha0),   m_j | L_j ~ N(m0, (kappa0 L_j)^-1),   L_j ~ Wishart(W0, nu0)
    M-step   r = R a,   R_j = sum_i r,   alpha = alpha0 + R_j,   kappa = kappa0 + R_j,   nu = nu0 + R_j
             m = (sum_i r V + kappa0 m0) / kappa
             Psi = W0^-1 + sum_i r (V - m)(V - m)' + kappa0 (m - m0)(m - m0)'
    E-step   R_ij = softmax_j [E ln pi_j + ½ E ln|L_j| - ½ (H / kappa + nu (V_ij - m)' Psi^-1 (V_ij - m))]
             E ln pi_j = psi(alpha_j) - psi(sum_j alpha_j)
             E ln|L_j| = sum_h psi((nu - h) / 2) + H ln 2 - ln|Psi|,   h = 0, ..., H - 1
    last     a_j = sigmoid(beta_a - exp(E ln pi_j) (½ H ln(2 pi e) - ½ E ln|L_j|) - beta_u)

Psi is the paper's: the sum of squares about m, with the prior's pull, equals that about the mean of the votes. A parent
that nothing counts for has its prior, so no quotient is 0/0. The diagonal form keeps the diagonal of Psi.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import constant
from emroute.arrays.diagonal import weighted_sum
from emroute.arrays.functions import log_sigmoid, safe_log
from emroute.backend import Array
from emroute.capsule.cast import cast_children
from emroute.capsule.routing import Children, SoftmaxRule, Step
from emroute.capsule.spreads import SPREADS

__all__ = ["Posterior", "Prior", "VariationalGaussians"]


class Prior(NamedTuple):
    """Of the parents of variational routing."""

    alpha0: float = 1.0
    """Of the mixing weights, a parent."""
    m0: float = 0.0
    """The mean of each entry of a pose."""
    kappa0: float = 1.0
    """How many votes the mean is worth."""
    scale0: float = 1.0
    """The Wishart's scale matrix is this times the identity."""
    nu0: float | None = None
    """The Wishart's degrees of freedom, more than H - 1; None is H + 1."""


class Posterior(NamedTuple):
    """Of the parents, given assignments."""

    alpha: Array
    """``(b, J)``, as are `kappa` and `nu`."""
    kappa: Array
    nu: Array
    means: Array
    """``(b, J, H)``."""
    psi: Array
    """Inverse scale of the Wishart, ``(b, J, H)`` or ``(b, J, H, H)``."""
    gaps: Array
    """Votes less the means, ``(b, J, H, I)``."""


@dataclass(frozen=True)
class VariationalGaussians(SoftmaxRule):
    """Parents are posteriors; children choose by expected log-densities."""

    covariance: str
    prior: Prior

    def children(self, samples: tuple[Array, ...], shared: Any) -> Children:
        """From votes or poses, activations and costs."""
        return cast_children(samples, shared)

    def step(self, children: Children, assigned: Array, logits: Array, temperature: float, last: bool) -> Step:
        """Update the posteriors, then ask how well each explains each vote."""
        views, (u, a) = children.views, children.of_parents
        xp, psi, h = backends.namespace(views), backends.get(views).digamma, views.shape[-2]
        post = self.m_step(views, xp.exp(assigned) * children.activations[..., None, :])
        log_det, lengths = SPREADS[self.covariance].measure(post.psi, post.gaps)
        log_weight = psi(post.alpha) - psi(xp.sum(post.alpha, axis=-1, keepdims=True))
        log_precision = xp.sum(psi(self.halves(post.nu, h)), axis=-1) + h * math.log(2) - log_det
        entropy = h / 2 * math.log(2 * math.pi * math.e) - log_precision / 2
        activations = xp.exp(log_sigmoid(a - xp.exp(log_weight) * entropy - u))
        offset = log_weight + log_precision / 2 - h / 2 / post.kappa
        after = None if last else offset[..., None] - post.nu[..., None] / 2 * lengths
        return Step(post.means, activations, after)

    def m_step(self, views: Array, shares: Array) -> Posterior:
        """Posteriors of parents from views of votes and their shares R a, ``(b, J, I)`` or one J for all."""
        xp, spread, prior = backends.namespace(views), SPREADS[self.covariance], self.prior
        total = xp.sum(shares, axis=-1) + xp.zeros_like(views[..., 0, 0])
        kappa = prior.kappa0 + total
        means = (weighted_sum(views, shares) + prior.kappa0 * prior.m0) / kappa[..., None]
        gaps = views - means[..., None]
        psi = spread.scatter(gaps, shares) + prior.kappa0 * spread.outer(means - prior.m0)
        psi = spread.widened(psi, 1 / prior.scale0)
        return Posterior(prior.alpha0 + total, kappa, self.nu0(views.shape[-2]) + total, means, psi, gaps)

    def nu0(self, h: int) -> float:
        """Degrees of freedom of the prior for poses of `h` entries."""
        return h + 1.0 if self.prior.nu0 is None else self.prior.nu0

    def halves(self, nu: Array, h: int) -> Array:
        """(nu - 0) / 2, ..., (nu - (H - 1)) / 2, along a new last axis."""
        return (nu[..., None] - constant(np.arange(h), like=nu)) / 2

    def bound(self, views: Array, assignments: Array, active: Array) -> Array:
        """Evidence lower bound ``(b,)`` after the M-step of assignments ``(b, J, I)``."""
        xp, gammaln, (j, h) = backends.namespace(views), backends.get(views).gammaln, views.shape[-3:-1]
        post, prior = self.m_step(views, assignments * active[..., None, :]), self.prior
        log_det, _ = SPREADS["full"].measure(post.psi, post.gaps)

        def log_wishart(nu: Array, log_det: Array | float) -> Array:
            """Log-normalizer, but for a constant that cancels."""
            return nu / 2 * (h * math.log(2) - log_det) + xp.sum(gammaln(self.halves(nu, h)), axis=-1)

        logs = safe_log(assignments)
        logs = xp.where(xp.isfinite(logs), logs, xp.zeros_like(logs))
        entropy = -xp.sum(active[..., None, :] * assignments * logs, axis=(-2, -1))
        weights = xp.sum(gammaln(post.alpha), axis=-1) - gammaln(xp.sum(post.alpha, axis=-1))
        prior_weights = j * math.lgamma(prior.alpha0) - math.lgamma(j * prior.alpha0)
        nu0 = xp.full_like(post.nu, self.nu0(h))
        gaussians = h / 2 * xp.log(prior.kappa0 / post.kappa)
        gaussians = gaussians + log_wishart(post.nu, log_det) - log_wishart(nu0, -h * math.log(prior.scale0))
        votes = xp.sum(active, axis=-1) * h / 2 * math.log(2 * math.pi)
        return entropy + weights - prior_weights - votes + xp.sum(gaussians, axis=-1)
