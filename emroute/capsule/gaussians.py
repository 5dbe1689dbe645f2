"""EM routing of matrix capsules (Hinton, Sabour & Frosst 2018, procedure 1): each parent fits a Gaussian to its votes.

    M-step   R' = R a,   m = sum_i R'V / sum_i R',   s² = sum_i R'(V - m)² / sum_i R' + epsilon
             cost_h = (beta_u + ½ log s²_h) sum_i R',   a_j = sigmoid(t (beta_a - sum_h cost_h))
    E-step   R_ij = softmax_j [log a_j + log N(V_ij | m_j, s²_j)]

Moments are taken about the current mean: sum R'V² - m² loses every digit where votes agree. Log a_j is the
logsigmoid itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from emroute import backend as backends
from emroute.arrays.diagonal import log_peak, quadratic
from emroute.arrays.functions import divide, eps, log_sigmoid, safe_norm
from emroute.arrays.kernels import kernel
from emroute.backend import Array
from emroute.capsule.cast import cast_children
from emroute.capsule.checks import check_floats, for_statistics, widen
from emroute.capsule.full import FullGaussians
from emroute.capsule.routing import Children, Options, Routing, SoftmaxRule, Step, in_blocks
from emroute.capsule.schedules import temperatures
from emroute.capsule.shares import Shares, precisions, share_out
from emroute.capsule.spreads import SPREADS
from emroute.errors import InputError
from emroute.validate import check_choice, check_count, check_number

__all__ = [
    "COSTS",
    "Betas",
    "FromPoses",
    "Gaussians",
    "em_options",
    "route_poses",
    "route_votes",
    "widen_betas",
    "widen_parents",
]

COSTS = ("hinton", "normalized")
"""The costs of a parent, by name: the paper's, and the tutorials'."""

_LEAST_VARIANCE, _TINY = 1e-8, 1e-9  # of the normalized cost; the first replaces the tutorials' missing variance floor
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
class Gaussians(SoftmaxRule):
    """EM routing: which cost, and what keeps variances from 0."""

    fused_windows = True
    cost: str = "hinton"
    epsilon: float = 1e-6

    def from_poses(self) -> FromPoses:
        """The same of votes that are cast in each block."""
        return FromPoses(self.cost, self.epsilon)

    def children(self, samples: tuple[Array, ...], shared: None) -> Children:
        """From votes ``(b, I, J, H)``, activations and costs."""
        return cast_children(samples, shared)

    def route(self, options: Options, samples: tuple[Array, ...], shared: None) -> Routing:
        """Route votes, by a fused form where there is one."""
        return Routing(*route_votes(*samples, options))

    def step(self, children: Children, assigned: Array, logits: Array, temperature: float, last: bool) -> Step:
        """Fit Gaussians, then ask how well each explains each vote."""
        shares = share_out(assigned, children.activations[..., None, :])
        parents, squares = self.m_step(children.views, shares, Betas(*children.of_parents), temperature)
        return Step(parents.poses, parents.activations, None if last else self.logits(parents, squares))

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


@kernel
def route_votes(votes: Array, activations: Array, beta_u: Array, beta_a: Array, options: Options) -> tuple[Array, ...]:
    """Route votes ``(b, I, J, H)`` from children ``(b, I)`` to parents of costs ``(b, J)``; return a `Routing`."""
    return in_blocks(options, (votes, activations, beta_u, beta_a), None)[-1]


@dataclass(frozen=True)
class FromPoses(Gaussians):
    """The same of votes that are cast in each block from poses ``(b, I, P, P)``."""

    def children(self, samples: tuple[Array, ...], shared: Any) -> Children:
        """From poses, activations and costs; all samples share wide transforms, and a shift ``(H, I)`` or None."""
        return cast_children(samples, shared)

    def route(self, options: Options, samples: tuple[Array, ...], shared: Any) -> Routing:
        """Route poses, by a fused form where there is one."""
        return Routing(*route_poses(*samples, *shared, options))


@kernel
def route_poses(*args: Any) -> tuple[Array, ...]:
    """Route the votes of poses; the arguments are poses, activations and costs, transforms and shift, options."""
    *samples, transforms, shift, options = args
    return in_blocks(options, tuple(samples), (transforms, shift))[-1]


def _standardized(costs: Array) -> Array:
    """How many deviations over parents each costs less than the mean, ``(b, J)``, from costs ``(b, J, H)``.

    This jumps where costs tie: a difference of nothing is 0 deviations, the least difference is one, and the gradient
    in between has no bound. Costs that rounding alone could tell apart tie; their differences are then measured by
    the costs themselves, so that the gradient keeps its sign and is bounded.
    """
    xp = backends.namespace(costs)
    cost = xp.sum(costs, axis=-1)
    cost = cost - cost[..., :1]  # so that equal costs stay exactly equal
    gap = xp.mean(cost, axis=-1, keepdims=True) - cost
    deviation = safe_norm(gap, keepdims=True) / gap.shape[-1] ** 0.5
    size = xp.max(xp.sum(xp.abs(backends.get(costs).detach(costs)), axis=-1), axis=-1, keepdims=True)
    tied = deviation <= _ROUNDING * eps(costs) * size
    return divide(gap, xp.where(tied, xp.maximum(size, xp.ones_like(size)), deviation + _TINY))


def em_options(
    cost: str,
    epsilon: float,
    inverse_temperature: Any,
    n_iter: int,
    *,
    recompute: bool,
    return_path: bool,
    covariance: str = "diagonal",
) -> Options:
    """Return the options of EM routing from votes, or raise `InputError`."""
    check_choice("cost", cost, COSTS)
    check_choice("covariance", covariance, tuple(SPREADS))
    if covariance == "full" and cost != "hinton":
        raise InputError(f"got cost={cost!r} with covariance='full', which has no cost an entry: expected 'hinton'")
    epsilon = check_number("epsilon", epsilon)
    rule = Gaussians(cost, epsilon) if covariance == "diagonal" else FullGaussians(epsilon)
    schedule = temperatures(inverse_temperature, cost, check_count("n_iter", n_iter))
    return Options(rule, schedule, bool(recompute), bool(return_path))


def widen_parents(given: Mapping[str, Array], shape: tuple[int, ...], like: Array) -> list[Array]:
    """Return what parents bring themselves, arrays by name, in a shape and in the dtype of statistics."""
    check_floats(" and ".join(given), like, *given.values())
    what = ": an entry a parent" if "beta_u" in given else ""
    return for_statistics(like, *(widen(name, x, shape, what) for name, x in given.items()))


def widen_betas(beta_u: Array, beta_a: Array, shape: tuple[int, ...], like: Array) -> list[Array]:
    """Return both costs in a shape that ends in J, in the dtype of statistics."""
    return widen_parents({"beta_u": beta_u, "beta_a": beta_a}, shape, like)
