"""Routing by scalar products: dynamic (Sabour, Frosst & Hinton 2017, procedure 1) and its k-means form (Su 2018).

    c_ij = softmax_j b_ij,   s_j = sum_i c_ij u_ij,   v_j = squash(s_j),   b_ij += u_ij . v_j

k-means routing replaces the logits by ``b_ij = u_ij . s_j / |s_j|`` instead of adding to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emroute import backend as backends
from emroute.array import divide, itemsize, log_softmax, safe_norm, softmax
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.capsule.agreement import (
    Path,
    Routing,
    as_views,
    check_finite,
    check_floats,
    check_votes,
    finish,
    for_statistics,
    over_samples,
    widen,
)
from emroute.capsule.votes import capsule_lengths, squash
from emroute.gmm.diagonal import quadratic, weighted_sum
from emroute.validate import check_number

__all__ = ["dynamic_routing", "kmeans_routing"]


@dataclass(frozen=True)
class _Rule:
    """How parents follow from assignments, and logits from parents."""

    n_iter: int
    constant: float
    accumulate: bool
    detach_inner: bool = False
    leaky: bool = False

    def share(self, logits: Array) -> Array:
        """Softmax over parents; leaky, over them and one more that takes what agrees with none."""
        if not self.leaky:
            return softmax(logits, axis=-2)
        xp = backends.namespace(logits)
        return softmax(xp.concat([logits, xp.zeros_like(logits[..., :1, :])], axis=-2), axis=-2)[..., :-1, :]

    def route(self, shared: None, votes: Array, bias: Array) -> Path:
        """All iterations over votes ``(b, I, J, H)`` and a bias ``(b, J, H)``."""
        (views,) = for_statistics(votes, as_views(votes))
        xp, detach = backends.namespace(views), backends.get(views).detach
        logits, path = xp.zeros_like(views[..., 0, :]), ()
        for iteration in range(self.n_iter):
            last = iteration == self.n_iter - 1
            seen = detach(views) if self.detach_inner and not last else views
            assignments = self.share(logits)
            total = weighted_sum(seen, assignments) + bias
            poses = squash(total, constant=self.constant)
            path += (Routing(poses, capsule_lengths(poses), assignments),)
            if last:
                break
            logits = logits + quadratic(poses, seen) if self.accumulate else quadratic(_direction(logits, seen), seen)
        return path


def _direction(logits: Array, views: Array) -> Array:
    """Directions of parents ``(b, J, H)``, which they have however little they get: shares relative to the largest."""
    xp, detach = backends.namespace(views), backends.get(views).detach
    shares = log_softmax(logits, axis=-2)
    total = weighted_sum(views, xp.exp(shares - detach(xp.max(shares, axis=-1, keepdims=True))))
    length = safe_norm(total, keepdims=True)
    return divide(total, xp.where(length > 0, length, xp.ones_like(length)))


def _run(rule: _Rule, votes: Array, bias: Array | None, recompute: bool, return_path: bool) -> Any:
    xp, (i, j, h) = backends.namespace(votes), votes.shape[-3:]
    batch = tuple(votes.shape[:-3])
    bias = xp.zeros_like(votes[..., 0, :, :]) if bias is None else widen("bias", bias, (*batch, j, h))
    (bias,) = for_statistics(votes, bias)
    work = 2 * itemsize(bias) * j * h
    path = over_samples(_Rule.route, (rule,), batch, (votes, bias), None, work, i, recompute, return_path)
    check_finite(path, votes=votes, bias=bias)
    return finish(path, votes, return_path)


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
    """Route by agreement, measured by scalar products.

    Parameters
    ----------
    votes
        ``(..., I, J, H)``: of I children for J parents, in H entries; any floating dtype. float16 and bfloat16 are
        computed in float32.
    n_iter
        How many times poses are updated.
    bias
        Added to the sum of the votes, ``(J, H)`` or broadcastable to ``(..., J, H)``.
    detach_inner
        Gradients flow through the last update alone.
    leaky
        Children may belong to none: the softmax has one more class, whose logit stays 0.
    recompute
        Backward runs blocks of samples again instead of keeping what they computed.
    return_path
        Return also a tuple of the routings after each iteration.

    Returns
    -------
    Routing
        Activations are the lengths of the poses; assignments sum to 1 over parents (leaky: to less).

    Raises
    ------
    InputError
        If shapes or options cannot be used, or votes hold NaN or infinity.
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
    rule = _Rule(check_votes(votes, n_iter), 1.0, True, bool(detach_inner), bool(leaky))
    if bias is not None:
        check_floats("bias", votes, bias)
    return _run(rule, votes, bias, bool(recompute), return_path)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def kmeans_routing(
    votes: Array, *, n_iter: int = 3, constant: float = 0.5, recompute: bool = True, return_path: bool = False
) -> Any:
    """Route by clustering directions: dynamic routing whose logits are replaced, not added to.

    Parameters
    ----------
    votes, n_iter, recompute, return_path
        As in `dynamic_routing`.
    constant
        Of the `squash` that makes the result.

    Returns
    -------
    Routing
        Activations are the lengths of the poses; assignments sum to 1 over parents.

    Raises
    ------
    InputError
        If shapes or options cannot be used, or votes hold NaN or infinity.
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
    rule = _Rule(check_votes(votes, n_iter), check_number("constant", constant), False)
    return _run(rule, votes, None, bool(recompute), return_path)
