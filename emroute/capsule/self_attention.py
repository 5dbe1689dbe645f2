"""Self-attention routing (Mazzia, Salvetti and Chiaberge 2021): a child is heard by how well it fits all the others.

    c_ij = softmax_j (V_ij . sum_k V_kj / sqrt(H)),   s_j = sum_i (c_ij + b_ij) V_ij,   v_j = (1 - e^-|s_j|) s_j / |s_j|

Nothing is repeated. The sum over k stands for the paper's matrix of all scalar products, of which only sums are used.
The bias b is added after the softmax.
"""

from __future__ import annotations

from typing import Any

from emroute import backend as backends
from emroute.arrays.creation import itemsize, swap
from emroute.arrays.diagonal import quadratic, weighted_sum
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.capsule.checks import check_floats, check_votes, for_statistics, widen
from emroute.capsule.routing import Children, Options, Plan, SoftmaxRule, Step, as_views, check_finite, finish, run
from emroute.capsule.votes import capsule_lengths, exponential_squash

__all__ = ["SelfAttention", "self_attention_routing"]


class SelfAttention(SoftmaxRule):
    """Children choose by the scalar products of their votes with the sums of all votes."""

    def children(self, samples: tuple[Array, ...], shared: Any) -> Children:
        """From votes ``(b, I, J, H)`` and a bias ``(I, J)`` that all samples share."""
        views, bias = for_statistics(samples[0], as_views(samples[0]), shared)
        return Children(views, None, (swap(bias),))

    def start(self, children: Children) -> tuple[Array, Array]:
        """Choose."""
        xp, views = backends.namespace(children.views), children.views
        logits = quadratic(xp.sum(views, axis=-1), views) / views.shape[-2] ** 0.5
        return self.assign(logits), logits

    def step(self, children: Children, assigned: Array, logits: Array, temperature: float, last: bool) -> Step:
        """Sum and squash."""
        (bias,) = children.of_parents
        poses = exponential_squash(weighted_sum(children.views, backends.namespace(bias).exp(assigned) + bias))
        return Step(poses, capsule_lengths(poses), None)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def self_attention_routing(votes: Array, bias: Array | None = None, *, recompute: bool = True) -> Any:
    """Route by self-attention, as Efficient-CapsNet does: one pass, no iterations.

    Parameters
    ----------
    votes, recompute
        As in `dynamic_routing`.
    bias
        Log-priors of the paper, ``(I, J)``, though they are added to the assignments themselves; None is 0.

    Returns
    -------
    Routing
        Activations are the lengths of the poses; assignments, without the bias, sum to 1 over parents.

    Raises
    ------
    InputError
        If shapes cannot be used, or votes hold NaN or infinity.
    InputTypeError
        If a dtype is not floating, or arrays differ in library or device.

    References
    ----------
    Mazzia, V., Salvetti, F. and Chiaberge, M. (2021). Efficient-CapsNet: capsule network with self-attention routing.
    Scientific Reports 11. Equations 3 to 6.

    Examples
    --------
    >>> import numpy as np
    >>> votes = np.asarray([[[2.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, -1.0]]])
    >>> self_attention_routing(votes).activations.round(3).tolist()
    [0.981, 0.0]
    """
    check_votes(votes, 1)
    xp, (*batch, i, j, h) = backends.namespace(votes), votes.shape
    bias = xp.zeros_like(votes[(0,) * len(batch) + (..., 0)]) if bias is None else bias
    check_floats("bias", votes, bias)
    bias = widen("bias", bias, (i, j))
    plan = Plan(tuple(batch), i, 2 * itemsize(*for_statistics(votes, votes[..., 0, 0])) * j * h)
    history = run(Options(SelfAttention(), (1.0,), bool(recompute), False), plan, (votes,), bias)
    check_finite(history, votes=votes, bias=bias)
    return finish(history, votes, False)
