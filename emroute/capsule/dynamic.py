"""Routing by scalar products: dynamic (Sabour, Frosst & Hinton 2017, procedure 1) and its k-means form (Su 2018).

    c_ij = softmax_j b_ij,   s_j = sum_i c_ij u_ij,   v_j = squash(s_j),   b_ij += u_ij . v_j

k-means routing replaces the logits by ``b_ij = u_ij . s_j / |s_j|`` instead of adding to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emroute import backend as backends
from emroute.arrays.creation import itemsize
from emroute.arrays.diagonal import quadratic, weighted_sum
from emroute.arrays.functions import divide, log_softmax, safe_norm, softmax
from emroute.arrays.kernels import kernel
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.capsule.checks import check_floats, check_votes, for_statistics, widen
from emroute.capsule.routing import (
    Children,
    Options,
    Plan,
    Routing,
    SoftmaxRule,
    Step,
    as_views,
    check_finite,
    finish,
    in_blocks,
    run,
)
from emroute.capsule.votes import capsule_lengths, squash
from emroute.validate import check_number

__all__ = ["Products", "dynamic_routing", "kmeans_routing"]


@dataclass(frozen=True)
class Products(SoftmaxRule):
    """Parents are squashed sums of votes; their agreement with a vote is a scalar product."""

    constant: float = 1.0
    detach_inner: bool = False
    n_more: int = 0
    """1 if a child may belong to no parent, with a logit that stays 0."""

    replaces = False
    """Whether logits are replaced instead of added to."""

    def children(self, samples: tuple[Array, ...], shared: None) -> Children:
        """Make views of votes ``(b, I, J, H)``, with a bias ``(b, J, H)``."""
        views, bias = for_statistics(samples[0], as_views(samples[0]), samples[1])
        return Children(views, None, (bias,))

    def route(self, options: Options, samples: tuple[Array, ...], shared: None) -> Routing:
        """Route votes, by a fused form where there is one; of leaky routing there is none."""
        return super().route(options, samples, shared) if self.n_more else Routing(*route_products(*samples, options))

    def assign(self, logits: Array) -> Array:
        """Return the softmax over parents, and over one more choice for children that agree with none."""
        if not self.n_more:
            return softmax(logits, axis=-2)
        xp = backends.namespace(logits)
        return softmax(xp.concat([logits, xp.zeros_like(logits[..., :1, :])], axis=-2), axis=-2)[..., :-1, :]

    def from_logarithms(self, log_assignments: Array) -> Array:
        """Return the assignments themselves."""
        return backends.namespace(log_assignments).exp(log_assignments)

    def shares(self, assigned: Array) -> Array:
        """Return the assignments unchanged."""
        return assigned

    def step(self, children: Children, assigned: Array, logits: Array, temperature: float, last: bool) -> Step:
        """Sum and squash the votes, then compare each vote with the poses."""
        views, (bias,) = children.views, children.of_parents
        if self.detach_inner and not last:
            views = backends.get(views).detach(views)
        poses = squash(weighted_sum(views, assigned) + bias, constant=self.constant)
        return Step(poses, capsule_lengths(poses), None if last else self.logits(views, poses, logits))

    def logits(self, views: Array, poses: Array, logits: Array) -> Array:
        """Add the scalar products to the logits."""
        return logits + quadratic(poses, views)


@dataclass(frozen=True)
class Directions(Products):
    """The k-means form: logits are replaced by scalar products with the directions of the sums."""

    replaces = True

    def logits(self, views: Array, poses: Array, logits: Array) -> Array:
        """Return scalar products with directions, which parents have however little they are assigned."""
        xp, detach = backends.namespace(views), backends.get(views).detach
        shares = log_softmax(logits, axis=-2)
        total = weighted_sum(views, xp.exp(shares - detach(xp.max(shares, axis=-1, keepdims=True))))
        length = safe_norm(total, keepdims=True)
        return quadratic(divide(total, xp.where(length > 0, length, xp.ones_like(length))), views)


@kernel
def route_products(votes: Array, bias: Array, options: Options) -> tuple[Array, ...]:
    """Route votes ``(b, I, J, H)`` whose sums a bias ``(b, J, H)`` is added to; return a `Routing`."""
    return in_blocks(options, (votes, bias), None)[-1]


def _run(options: Options, votes: Array, bias: Array | None) -> Any:
    *batch, i, j, h = votes.shape
    if bias is None:
        bias = backends.namespace(votes).zeros_like(votes[..., 0, :, :])
    bias = widen("bias", bias, (*batch, j, h))
    plan = Plan(tuple(batch), i, 2 * itemsize(*for_statistics(votes, bias)) * j * h)
    history = run(options, plan, (votes, bias))
    check_finite(history, votes=votes, bias=bias)
    return finish(history, votes, options.return_path)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def dynamic_routing(
    votes: Array,
    *,
    n_iter: int = 3,
    bias: Array | None = None,
    detach_inner: bool = False,
    leaky: bool = False,
    recompute: bool = True,
    return_path: bool = False,
) -> Any:
    """Route by dynamic routing: agreement is measured by scalar products.

    Parameters
    ----------
    votes
        Votes ``(..., I, J, H)`` of I children for J parents, with H entries, in any floating dtype. float16 and
        bfloat16 are computed in float32.
    n_iter
        The number of updates of the poses.
    bias
        A bias that is added to the sum of the votes, ``(J, H)`` or broadcastable to ``(..., J, H)``.
    detach_inner
        Whether gradients flow only through the last update.
    leaky
        Whether children may belong to no parent: the softmax then has one more class, whose logit stays 0.
    recompute
        Whether the backward pass computes blocks of samples again instead of keeping them, which takes less memory and
        more time.
    return_path
        Whether to return also a tuple with the routing after each iteration.

    Returns
    -------
    Routing
        Its activations are the lengths of the poses. Its assignments sum to 1 over the parents (leaky: to less).

    Raises
    ------
    InputError
        If shapes or options are invalid, or votes hold NaN or infinity.
    InputTypeError
        If a dtype is not floating, or arrays differ in library or device.

    References
    ----------
    Sabour, S., Frosst, N. and Hinton, G. E. (2017). Dynamic routing between capsules. NeurIPS. Procedure 1.

    Examples
    --------
    >>> import numpy as np
    >>> votes = np.asarray([[[2.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, -1.0]]])
    >>> dynamic_routing(votes).activations.round(3).tolist()
    [0.938, 0.0]
    """
    schedule = (1.0,) * check_votes(votes, n_iter)
    if bias is not None:
        check_floats("bias", votes, bias)
    rule = Products(detach_inner=bool(detach_inner), n_more=int(bool(leaky)))
    return _run(Options(rule, schedule, bool(recompute), bool(return_path)), votes, bias)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def kmeans_routing(
    votes: Array, *, n_iter: int = 3, constant: float = 0.5, recompute: bool = True, return_path: bool = False
) -> Any:
    """Route by k-means routing, which clusters directions: its logits are replaced, not added to.

    Parameters
    ----------
    votes
        Votes ``(..., I, J, H)`` of I children for J parents, with H entries, in any floating dtype.
    n_iter
        The number of updates of the poses.
    constant
        The constant of the `squash` that makes the result.
    recompute
        Whether the backward pass computes blocks of samples again instead of keeping them, which takes less memory
        and more time.
    return_path
        Whether to return also a tuple with the routing after each iteration.

    Returns
    -------
    Routing
        Its activations are the lengths of the poses. Its assignments sum to 1 over the parents.

    Raises
    ------
    InputError
        If shapes or options are invalid, or votes hold NaN or infinity.
    InputTypeError
        If the dtype is not floating.

    References
    ----------
    Su, J. (2018). From k-means to capsules (in Chinese). Scientific Spaces.

    Examples
    --------
    >>> import numpy as np
    >>> votes = np.asarray([[[2.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, -1.0]]])
    >>> kmeans_routing(votes).activations.round(3).tolist()
    [0.961, 0.0]
    """
    schedule = (1.0,) * check_votes(votes, n_iter)
    rule = Directions(check_number("constant", constant))
    return _run(Options(rule, schedule, bool(recompute), bool(return_path)), votes, None)
