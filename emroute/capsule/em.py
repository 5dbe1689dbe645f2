"""EM routing of matrix capsules (Hinton, Sabour & Frosst 2018, procedure 1): each parent fits a Gaussian to its votes.

    M-step   R' = R a,   m = sum_i R'V / sum_i R',   s² = sum_i R'(V - m)² / sum_i R' + epsilon
             cost_h = (beta_u + ½ log s²_h) sum_i R',   a_j = sigmoid(t (beta_a - sum_h cost_h))
    E-step   R_ij = softmax_j [log a_j + log N(V_ij | m_j, s²_j)]

Moments are taken about the current mean: sum R'V² - m² loses every digit where votes agree. Log a_j is the
logsigmoid itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from emroute import backend as backends
from emroute.arrays.creation import broadcast, itemsize
from emroute.arrays.diagonal import log_peak, quadratic
from emroute.arrays.functions import divide, eps, log_sigmoid, log_softmax, safe_norm
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.capsule.agreement import (
    Path,
    Routing,
    as_views,
    check_activations,
    check_finite,
    check_floats,
    check_pairs,
    check_votes,
    finish,
    for_statistics,
    over_samples,
    widen,
)
from emroute.capsule.shares import Shares, precisions, share_out
from emroute.capsule.votes import vote_views
from emroute.errors import InputError
from emroute.validate import check_choice, check_count, check_number

__all__ = ["COSTS", "SCHEDULES", "Betas", "Form", "check_form", "em_routing", "em_routing_from_poses", "temperatures"]

COSTS = ("hinton", "normalized")
"""The costs of a parent, by name: the paper's, and the tutorials'."""

SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "paper": lambda t, n_iter: 0.01 * (1 - 0.95 ** (t + 1)),
    "tutorial": lambda t, n_iter: 1 + (min(n_iter, 3) - 1) * t / max(n_iter - 1, 1),
}
"""Inverse temperatures by name: of the paper's authors, and of the tutorials, ``linspace(1, min(n, 3), n)``."""

_LEAST_VARIANCE, _TINY = 1e-8, 1e-9  # of the normalized cost; the first keeps what the tutorials' code leaves to chance
_ROUNDING = 16  # spacings of the dtype within which sums of costs are equal


class Betas(NamedTuple):
    """Costs of describing a vote without a parent, and of being active, ``(b, J)`` each."""

    u: Array
    a: Array


class Parents(NamedTuple):
    """Gaussians ``(b, J, H)`` and how active they are, ``(b, J)``."""

    poses: Array
    variances: Array
    activations: Array
    log_activations: Array


@dataclass(frozen=True)
class Form:
    """Which cost, and what keeps variances from 0."""

    cost: str = "hinton"
    epsilon: float = 1e-6

    def m_step(self, views: Array, shares: Shares, betas: Betas, temperature: float) -> tuple[Parents, Array]:
        """Fit parents to views ``(b, J, H, I)`` by their shares; also the squares (V - m)²."""
        xp, total = backends.namespace(views), shares.total[..., None]
        poses = shares.mean(views, xp.zeros_like(views[..., 0]))
        gaps = views - poses[..., None]
        squares = gaps * gaps
        variances = shares.mean(squares, xp.zeros_like(poses))
        if self.cost == "hinton":
            variances = variances + self.epsilon
            cost = xp.sum((betas.u[..., None] + xp.log(variances) / 2) * total, axis=-1)
            logit = temperature * (betas.a - cost)
        else:
            variances = xp.maximum(variances, xp.full_like(variances, _LEAST_VARIANCE))
            costs = (betas.u[..., None] + xp.log(xp.sqrt(variances) + _TINY)) * total
            logit = temperature * (betas.a + _standardized(costs))
        log_activations = log_sigmoid(logit)
        return Parents(poses, variances, xp.exp(log_activations), log_activations), squares

    def logits(self, parents: Parents, squares: Array) -> Array:
        """Return log a_j + log N(V | j), ``(b, J, I)``, but for terms that all parents share."""
        if self.cost == "hinton":
            offset = parents.log_activations + log_peak(parents.variances)
        else:
            xp = backends.namespace(squares)
            widths = xp.sum(xp.log(xp.sqrt(parents.variances) + _TINY), axis=-1)
            offset = xp.log(parents.activations + _TINY) - widths
        return offset[..., None] + quadratic(-0.5 * precisions(parents.variances), squares)

    def follow(self, views: Array, activations: Array, betas: Betas, schedule: Sequence[float], every: bool) -> Path:
        """Iterate over views ``(b, J, H, I)`` and activations ``(b, I)``, from equal assignments; keep all or one."""
        xp, path, shape = backends.namespace(views), (), tuple(views[..., 0, :].shape)
        log_assignments = xp.full_like(views[..., :1, 0, :], -math.log(views.shape[-3]))  # alike for all parents
        for iteration, temperature in enumerate(schedule, 1):
            shares = share_out(log_assignments, activations[..., None, :])
            parents, squares = self.m_step(views, shares, betas, temperature)
            if every or iteration == len(schedule):
                path += (Routing(parents.poses, parents.activations, broadcast(xp.exp(log_assignments), shape)),)
            if iteration < len(schedule):
                log_assignments = log_softmax(self.logits(parents, squares), axis=-2)
            del squares  # else they stay beside the next ones
        return path


def _standardized(costs: Array) -> Array:
    """How many deviations over parents each costs less than the mean, ``(b, J)``, from costs ``(b, J, H)``.

    This jumps where costs tie: a difference of nothing is 0 deviations, the least difference is one, and the gradient
    in between has no bound. Costs that rounding alone could tell apart tie; their differences are then measured by
    the costs themselves, so that the gradient keeps its sign and is bounded.
    """
    xp = backends.namespace(costs)
    cost = xp.sum(costs, axis=-1)
    cost = cost - cost[..., :1]  # else rounding would tell equal costs apart
    gap = xp.mean(cost, axis=-1, keepdims=True) - cost
    deviation = safe_norm(gap, keepdims=True) / gap.shape[-1] ** 0.5
    size = xp.max(xp.sum(xp.abs(backends.get(costs).detach(costs)), axis=-1), axis=-1, keepdims=True)
    tied = deviation <= _ROUNDING * eps(costs) * size
    return divide(gap, xp.where(tied, xp.maximum(size, xp.ones_like(size)), deviation + _TINY))


def _route_votes(form: Form, every: bool, shared: Any, votes: Array, activations: Array, u: Array, a: Array) -> Path:
    (views,) = for_statistics(votes, as_views(votes))
    return form.follow(views, activations, Betas(u, a), shared, every)


def _route_poses(form: Form, every: bool, shared: Any, poses: Array, activations: Array, u: Array, a: Array) -> Path:
    schedule, transforms, shift = shared
    views = vote_views(poses, transforms)
    if shift is not None:
        views = views + shift
    return form.follow(views, activations, Betas(u, a), schedule, every)


def temperatures(inverse_temperature: Any, cost: str, n_iter: int) -> tuple[float, ...]:
    """Return the inverse temperature of each iteration, from a name, a callable, values or None."""
    if inverse_temperature is None:
        inverse_temperature = "paper" if cost == "hinton" else "tutorial"
    if isinstance(inverse_temperature, str):
        check_choice("inverse_temperature", inverse_temperature, tuple(SCHEDULES))
        inverse_temperature = SCHEDULES[inverse_temperature]
    values: Any
    try:
        given: Any = inverse_temperature
        values = [given(t, n_iter) for t in range(n_iter)] if callable(given) else list(given)
        values = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        values = ()
    if len(values) != n_iter or not all(0 <= value < float("inf") for value in values):
        raise InputError(
            f"got inverse_temperature={inverse_temperature!r}, expected {n_iter} finite numbers of at least 0, a "
            f"callable (t, n_iter) that returns them, or one of {', '.join(map(repr, SCHEDULES))}"
        )
    return values


def check_form(cost: str, epsilon: float) -> Form:
    """Return the form of the costs, or raise `InputError`."""
    check_choice("cost", cost, COSTS)
    return Form(cost, check_number("epsilon", epsilon))


def widen_betas(beta_u: Array, beta_a: Array, shape: tuple[int, ...], like: Array) -> list[Array]:
    """Return both costs in a shape that ends in J, in the dtype of statistics."""
    check_floats("beta_u and beta_a", like, beta_u, beta_a)
    names = ("beta_u", beta_u), ("beta_a", beta_a)
    wide = [widen(name, beta, shape, ": an entry a parent") for name, beta in names]
    return for_statistics(like, *wide)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def em_routing(
    votes: Array,
    activations: Array,
    beta_u: Array,
    beta_a: Array,
    *,
    n_iter: int = 3,
    cost: str = "hinton",
    inverse_temperature: Any = None,
    epsilon: float = 1e-6,
    recompute: bool = True,
    return_path: bool = False,
) -> Any:
    """Route votes to parents by EM.

    Parameters
    ----------
    votes
        ``(..., I, J, H)``: of I children for J parents, in H entries; any floating dtype. float16 and bfloat16 are
        computed in float32.
    activations
        ``(..., I)`` in [0, 1]: how much each child is there.
    beta_u, beta_a
        ``(J,)`` or broadcastable to ``(..., J)``: what an entry of each vote costs beside the logarithm of its spread,
        and the cost at which a parent is as likely there as not.
    n_iter
        How many M-steps.
    cost
        ``"hinton"`` (the paper) or ``"normalized"`` (costs standardized over the parents, as the tutorials do).
    inverse_temperature
        Of the activations: a callable ``(t, n_iter)`` of the iteration from 0, values, or ``"paper"``
        (0.01 (1 - 0.95^(t+1))) or ``"tutorial"`` (from 1 to 3). None is the one that goes with the cost. The paper's
        keeps activations near 0.5 unless children are thousands; small networks learn with ``0.01 (t + 1)``.
    epsilon
        Added to variances; under the normalized cost they are kept above 1e-8 instead.
    recompute
        Backward runs blocks of samples again instead of keeping what they computed: less memory, more time.
    return_path
        Return also a tuple of the routings after each iteration.

    Returns
    -------
    Routing
        Of the votes' library, dtype and device; assignments sum to 1 over parents.

    Raises
    ------
    InputError
        If shapes or options cannot be used, activations are outside [0, 1], or votes hold NaN or infinity.
    InputTypeError
        If a dtype is not floating, or arrays differ in library or device.

    References
    ----------
    Hinton, G. E., Sabour, S. and Frosst, N. (2018). Matrix capsules with EM routing. ICLR. Procedure 1.

    Examples
    --------
    >>> import numpy as np
    >>> votes = np.random.default_rng(0).normal(size=(6, 2, 4))
    >>> votes[:3, 0] = votes[3:, 1] = 1.0  # three children agree about each parent
    >>> found = em_routing(votes, np.ones(6), np.zeros(2), np.zeros(2))
    >>> found.assignments.round(2).tolist()
    [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    """
    check_votes(votes, n_iter)
    form, (i, j, h) = check_form(cost, epsilon), votes.shape[-3:]
    schedule, batch = temperatures(inverse_temperature, cost, int(n_iter)), tuple(votes.shape[:-3])
    activations = check_activations(activations, batch, i, votes)
    u, a = widen_betas(beta_u, beta_a, (*batch, j), votes)
    (given,) = for_statistics(votes, activations)
    work = 3 * itemsize(u) * j * h // 2
    arrays = votes, given, u, a
    static = form, bool(return_path)
    path = over_samples(_route_votes, static, batch, arrays, schedule, work, i, bool(recompute), return_path)
    check_finite(path, votes=votes, beta_u=u, beta_a=a)
    return finish(path, votes, return_path)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def em_routing_from_poses(
    poses: Array,
    transforms: Array,
    activations: Array,
    beta_u: Array,
    beta_a: Array,
    *,
    n_iter: int = 3,
    cost: str = "hinton",
    inverse_temperature: Any = None,
    epsilon: float = 1e-6,
    recompute: bool = True,
    return_path: bool = False,
) -> Any:
    """Route the votes ``V_ij = P_i W_ij`` without ever holding them all: they are cast block by block.

    Parameters
    ----------
    poses
        ``(..., I, P, P)``.
    transforms
        ``(I, J, P, P)``.
    activations, beta_u, beta_a, n_iter, cost, inverse_temperature, epsilon, recompute, return_path
        As in `em_routing`.

    Returns
    -------
    Routing
        As `em_routing` of `vote(poses, transforms)`, H being P * P.

    Raises
    ------
    InputError, InputTypeError
        As in `em_routing`.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> poses, transforms = rng.normal(size=(7, 5, 4, 4)), rng.normal(size=(5, 3, 4, 4))
    >>> em_routing_from_poses(poses, transforms, np.ones((7, 5)), np.zeros(3), np.zeros(3)).poses.shape
    (7, 3, 16)
    """
    check_pairs(poses, transforms)
    return route_poses(
        poses,
        transforms,
        activations,
        (beta_u, beta_a),
        None,
        check_form(cost, epsilon),
        temperatures(inverse_temperature, cost, check_count("n_iter", n_iter)),
        bool(recompute),
        return_path,
    )


def route_poses(
    poses: Array,
    transforms: Array,
    activations: Array,
    betas: tuple[Array, Array],
    shift: Array | None,
    form: Form,
    schedule: tuple[float, ...],
    recompute: bool,
    return_path: bool,
) -> Any:
    """Route poses whose votes are moved by ``shift (H, I)``."""
    (i, p, _), j = poses.shape[-3:], transforms.shape[1]
    batch = tuple(poses.shape[:-3])
    activations = check_activations(activations, batch, i, poses)
    u, a = widen_betas(*betas, (*batch, j), poses)
    wide, kernels, given = for_statistics(poses, poses, transforms, activations)
    if shift is not None:
        (shift,) = for_statistics(poses, shift)
    arrays, shared = (wide, given, u, a), (schedule, kernels, shift)
    work = 2 * itemsize(u) * j * p * p
    static = form, bool(return_path)
    path = over_samples(_route_poses, static, batch, arrays, shared, work, i, recompute, return_path)
    check_finite(path, poses=poses, transforms=transforms, beta_u=u, beta_a=a)
    return finish(path, poses, return_path)
