"""Inverted dot-product attention routing (Tsai, Srivastava, Goh and Salakhutdinov 2020): parents compete for children.

    first    r_ij = 1 / J
    later    r_ij = softmax_j (p_j . V_ij / sqrt(H))
    each     p_j = LN(sum_i r_ij V_ij),   LN(x) = gain (x - mean) / sqrt(variance + 1e-5) + bias over the H entries

There are no activations. Layers on top of each other may be routed one after another, or all at once: *concurrently*,
each takes a step from the poses that the layer below had before, and from its own (`start`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emroute import backend as backends
from emroute.arrays.creation import itemsize
from emroute.arrays.diagonal import quadratic, weighted_sum
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.capsule.cast import cast_children
from emroute.capsule.checks import check_floats, check_votes, for_statistics, widen
from emroute.capsule.routing import Children, Options, Plan, SoftmaxRule, Step, check_finite, finish, run

__all__ = ["Attention", "attention_routing", "layer_norm"]

_EPSILON = 1e-5  # added to variances, as layers of the frameworks do


def layer_norm(x: Array, gain: Array | float = 1.0, bias: Array | float = 0.0) -> Array:
    """Standardize along the last axis, then scale and shift (Ba, Kiros and Hinton 2016).

    >>> import numpy as np
    >>> layer_norm(np.asarray([1.0, 3.0])).round(4).tolist()
    [-1.0, 1.0]
    """
    xp = backends.namespace(x)
    gap = x - xp.mean(x, axis=-1, keepdims=True)
    return gap / xp.sqrt(xp.mean(gap * gap, axis=-1, keepdims=True) + _EPSILON) * gain + bias


@dataclass(frozen=True)
class Attention(SoftmaxRule):
    """Parents are normalized sums of votes, and children choose by scaled scalar products."""

    def children(self, samples: tuple[Array, ...], shared: Any) -> Children:
        """From votes or poses, activations that do not count, gain and bias, and the poses to start from, if any."""
        return cast_children(samples, shared)

    def start(self, children: Children) -> tuple[Array, Array]:
        """Equal assignments, or those by the poses that are given."""
        if len(children.of_parents) == 2:
            return super().start(children)
        logits = self.logits(children.of_parents[2], children.views)
        return self.assign(logits), logits

    def logits(self, poses: Array, views: Array) -> Array:
        """Scalar products ``(b, J, I)`` of poses ``(b, J, H)`` with votes, over the root of H."""
        return quadratic(poses, views) / views.shape[-2] ** 0.5

    def step(self, children: Children, assigned: Array, logits: Array, temperature: float, last: bool) -> Step:
        """Sum and normalize; each vote is then compared with the poses."""
        xp, views, (gain, bias) = backends.namespace(logits), children.views, children.of_parents[:2]
        poses = layer_norm(weighted_sum(views, xp.exp(assigned)), gain, bias)
        return Step(poses, xp.ones_like(poses[..., 0]), None if last else self.logits(poses, views))


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def attention_routing(
    votes: Array,
    *,
    n_iter: int = 2,
    gain: Array | None = None,
    bias: Array | None = None,
    start: Array | None = None,
    recompute: bool = True,
    return_path: bool = False,
) -> Any:
    """Route by inverted dot-product attention.

    Parameters
    ----------
    votes, recompute, return_path
        As in `dynamic_routing`.
    n_iter
        How many times poses are updated. The first takes the mean of the votes: the paper's "1 iteration" of attention
        is 2 here, as in its authors' code.
    gain, bias
        Of the layer normalization, ``(H,)`` or broadcastable to ``(..., J, H)``; None is 1 and 0.
    start
        Poses ``(..., J, H)`` by which children choose at first; None lets all parents have the same.

    Returns
    -------
    Routing
        Activations are 1, for there are none; assignments sum to 1 over parents.

    Raises
    ------
    InputError
        If shapes or options cannot be used, or votes hold NaN or infinity.
    InputTypeError
        If a dtype is not floating, or arrays differ in library or device.

    References
    ----------
    Tsai, Y.-H. H., Srivastava, N., Goh, H. and Salakhutdinov, R. (2020). Capsules with inverted dot-product attention
    routing. ICLR. Algorithms 1 and 2.

    Examples
    --------
    >>> import numpy as np
    >>> votes = np.random.default_rng(0).normal(size=(6, 2, 4))
    >>> votes[:3, 0] = votes[3:, 1] = [2.0, -2.0, 2.0, -2.0]  # three children agree about each parent
    >>> attention_routing(votes, n_iter=4).assignments.argmax(axis=-1).tolist()
    [0, 0, 0, 1, 1, 1]

    Two layers, concurrently: each step takes what the step before has left.

    >>> transforms = np.random.default_rng(1).normal(size=(2, 3, 4, 4))
    >>> def upper(poses):
    ...     return np.einsum("id,ijdh->ijh", poses, transforms)
    >>> low = attention_routing(votes, n_iter=1).poses
    >>> high = attention_routing(upper(low), n_iter=1).poses
    >>> high = attention_routing(upper(low), n_iter=1, start=high).poses
    >>> low = attention_routing(votes, n_iter=1, start=low).poses
    """
    schedule = (1.0,) * check_votes(votes, n_iter)
    xp, (*batch, i, j, h) = backends.namespace(votes), votes.shape
    given = [xp.ones_like(votes[..., 0, :, :]) if gain is None else gain]
    given += [xp.zeros_like(votes[..., 0, :, :]) if bias is None else bias]
    given += [] if start is None else [start]
    named = dict(zip(("gain", "bias", "start"), given, strict=False))
    for name, x in named.items():
        check_floats(name, votes, x)
    of_parents = [widen(name, x, (*batch, j, h)) for name, x in named.items()]
    plan = Plan(tuple(batch), i, 2 * itemsize(*for_statistics(votes, votes[..., 0, 0])) * j * h)
    options = Options(Attention(), schedule, bool(recompute), bool(return_path))
    history = run(options, plan, (votes, xp.ones_like(votes[..., 0, 0]), *of_parents))
    check_finite(history, votes=votes, **named)
    return finish(history, votes, return_path)
