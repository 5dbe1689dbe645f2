"""Routing with a net score for each parent (Heinsen 2019): parents gain by what they use and lose by what they ignore.

    f_i = sigmoid(s_i),   use_ij = f_i R_ij,   ignore_ij = f_i - use_ij
    a_j = sum_i (beta_use_ij use_ij - beta_ignore_ij ignore_ij)
    w_ij = use_ij / (sum_i use_ij + epsilon),   m_j = sum_i w V,   s²_j = sum_i w (V - m_j)² + epsilon
    R_ij = softmax_j [log sigmoid(a_j) - sum_h ((V_ij - m_j)² / s²_j + log s²_j) / 2]

Scores are numbers of any size, logits of the activations of other routings. The k-means form has log softmax_j of minus
the squared distances in place of the Gaussians' log-densities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emroute import backend as backends
from emroute.arrays.creation import itemsize, swap
from emroute.arrays.diagonal import weighted_sum
from emroute.arrays.functions import log_sigmoid, log_softmax
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.capsule.checks import check_floats, check_votes, for_statistics, widen
from emroute.capsule.routing import Children, Options, Plan, SoftmaxRule, Step, as_views, check_finite, finish, run
from emroute.capsule.spreads import Diagonal
from emroute.errors import InputError
from emroute.validate import check_choice, check_number

__all__ = ["NetScores", "heinsen_matrix_routing"]

_METRICS = ("gaussian", "k-means")


@dataclass(frozen=True)
class NetScores(SoftmaxRule):
    """Parents are Gaussians, or centroids, with scores."""

    metric: str
    epsilon: float

    def children(self, samples: tuple[Array, ...], shared: Any) -> Children:
        """From votes ``(b, I, J, H)``, scores ``(b, I)`` and both betas ``(I, J)``, which all samples share."""
        xp, (views, scores) = (
            backends.namespace(samples[0]),
            for_statistics(samples[0], as_views(samples[0]), samples[1]),
        )
        return Children(views, xp.exp(log_sigmoid(scores)), tuple(map(swap, for_statistics(samples[0], *shared))))

    def step(self, children: Children, assigned: Array, logits: Array, temperature: float, last: bool) -> Step:
        """Weigh the votes, fit the parents, and compare each vote with them."""
        views, f, (gain, loss) = children.views, children.activations[..., None, :], children.of_parents
        xp = backends.namespace(views)
        use = xp.exp(assigned) * f
        scores = xp.sum(gain * use - loss * (f - use), axis=-1)
        shares = use / (xp.sum(use, axis=-1, keepdims=True) + self.epsilon)
        poses = weighted_sum(views, shares)
        gaps = views - poses[..., None]
        if self.metric == "gaussian":
            variances = weighted_sum(gaps * gaps, shares) + self.epsilon
            log_det, lengths = Diagonal().measure(variances, gaps)
            fit = -(log_det[..., None] + lengths) / 2
        else:
            fit = log_softmax(-xp.sum(gaps * gaps, axis=-2), axis=-2)
        return Step(poses, scores, None if last else log_sigmoid(scores)[..., None] + fit)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def heinsen_matrix_routing(
    votes: Array,
    scores: Array,
    beta_use: Array,
    beta_ignore: Array,
    *,
    n_iter: int = 3,
    metric: str = "gaussian",
    epsilon: float = 1e-5,
    recompute: bool = True,
    return_path: bool = False,
) -> Any:
    """Route votes to parents that are scored by what they use and what they ignore.

    Parameters
    ----------
    votes, n_iter, recompute, return_path
        As in `em_routing`. The paper's votes are ``vote(poses, transforms)`` plus a learned bias.
    scores
        ``(..., I)``: logits of how much each child is there.
    beta_use, beta_ignore
        ``(I, J)`` or broadcastable: what a child brings a parent that uses it, and what it costs one that does not.
    metric
        ``"gaussian"`` or ``"k-means"``: by what children compare their votes with parents.
    epsilon
        Added to variances and to sums of shares; positive.

    Returns
    -------
    Routing
        Activations are the parents' scores, logits themselves; assignments sum to 1 over parents.

    Raises
    ------
    InputError
        If shapes or options cannot be used, or inputs hold NaN or infinity.
    InputTypeError
        If a dtype is not floating, or arrays differ in library or device.

    References
    ----------
    Heinsen, F. A. (2019). An algorithm for routing capsules in all domains. arXiv:1911.00792. Algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> votes = np.random.default_rng(0).normal(size=(6, 2, 4))
    >>> votes[:3, 0] = votes[3:, 1] = 1.0  # three children agree about each parent
    >>> found = heinsen_matrix_routing(votes, np.full(6, 5.0), np.ones((6, 2)), np.ones((6, 2)))
    >>> found.assignments.argmax(axis=-1).tolist()
    [0, 0, 0, 1, 1, 1]
    """
    schedule = (1.0,) * check_votes(votes, n_iter)
    check_choice("metric", metric, _METRICS)
    if not check_number("epsilon", epsilon):
        raise InputError(f"got epsilon={epsilon!r}, expected a positive number")
    *batch, i, j, h = votes.shape
    named = {"scores": scores, "beta_use": beta_use, "beta_ignore": beta_ignore}
    for name, x in named.items():
        check_floats(name, votes, x)
    samples = votes, widen("scores", scores, (*batch, i))
    betas = widen("beta_use", beta_use, (i, j)), widen("beta_ignore", beta_ignore, (i, j))
    options = Options(NetScores(metric, float(epsilon)), schedule, bool(recompute), bool(return_path))
    plan = Plan(tuple(batch), i, 3 * itemsize(*for_statistics(votes, votes[..., 0, 0])) * j * h)
    history = run(options, plan, samples, betas)
    check_finite(history, votes=votes, **named)
    return finish(history, votes, return_path)
