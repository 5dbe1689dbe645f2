"""EM routing whose parents have whole covariance matrices, so that it does not matter in which basis poses are written.

    M-step   r = R a,   n_j = sum_i r,   m_j = sum_i r V / n_j,   C_j = sum_i r (V - m_j)(V - m_j)' / n_j + epsilon I
             cost_j = (H beta_u + ½ log|C_j|) n_j,   a_j = sigmoid(t (beta_a - cost_j))
    E-step   R_ij = softmax_j [log a_j - ½ log|C_j| - ½ (V_ij - m_j)' C_j^-1 (V_ij - m_j)]

With a diagonal C this is procedure 1 of Hinton, Sabour and Frosst (2018). With a full one it is equivariant: if all
votes are turned by an orthogonal Q, poses turn with them, C becomes Q C Q', and activations and assignments stay. For
votes ``V = P W``, a rotation of all the children's poses from the left is such a Q.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emroute import backend as backends
from emroute.arrays.functions import log_sigmoid, ratio
from emroute.backend import Array
from emroute.capsule.cast import cast_children
from emroute.capsule.routing import Children, SoftmaxRule, Step
from emroute.capsule.shares import share_out
from emroute.capsule.spreads import Full

__all__ = ["FullGaussians"]

_SPREAD = Full()


@dataclass(frozen=True)
class FullGaussians(SoftmaxRule):
    """Each parent fits a Gaussian with a full covariance to its votes."""

    epsilon: float = 1e-6

    def children(self, samples: tuple[Array, ...], shared: Any) -> Children:
        """From votes or poses, activations and costs."""
        return cast_children(samples, shared)

    def step(self, children: Children, assigned: Array, logits: Array, temperature: float, last: bool) -> Step:
        """Fit Gaussians, then ask how well each explains each vote."""
        views, (u, a) = children.views, children.of_parents
        xp, shares = backends.namespace(views), share_out(assigned, children.activations[..., None, :])
        poses = shares.mean(views, xp.zeros_like(views[..., 0]))
        gaps = views - poses[..., None]
        scatter = _SPREAD.scatter(gaps, shares.relative)
        covariances = ratio(scatter, shares.some[..., None, None], xp.zeros_like(scatter))
        log_det, lengths = _SPREAD.measure(_SPREAD.widened(covariances, self.epsilon), gaps)
        cost = (views.shape[-2] * u + log_det / 2) * shares.total
        log_activations = log_sigmoid(temperature * (a - cost))
        after = None if last else (log_activations - log_det / 2)[..., None] - lengths / 2
        return Step(poses, xp.exp(log_activations), after)
