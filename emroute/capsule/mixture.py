"""From EM for a mixture to EM routing, step by step (Su 2018), for parents that all see the same poses.

    E-step   R_ij = softmax_j [log p_j + log N(P_i | m_j, s²_j)]
    M-step   r_ij = R_ij a_i / sum_i R_ij a_i,   m_j = sum_i r_ij P_i,   s²_j = sum_i r_ij (P_i - m_j)² + epsilon

1. ``prior="weights"``: p_j = sum_i R_ij a_i / sum_i a_i, with a_i = 1, this is the mixture of diagonal Gaussians.
2. ``prior="cost"``: p_j = sigmoid(t (beta_a - sum_h (beta_u + log s_jh))).
3. The same with the activations a_i of the children.
4. ``summed=True``: the cost is the total over the children of the parent, (beta_u + log s_jh) sum_i R_ij a_i.

The last step uses votes instead of poses: `emroute.capsule.em_routing`. Parents that start equal stay equal, so the
start has distinct means, and the E-step comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emroute import backend as backends
from emroute.arrays.creation import itemsize, swap
from emroute.arrays.diagonal import log_peak, quadratic
from emroute.arrays.functions import log_sigmoid, log_softmax, safe_log
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.capsule.checks import check_activations, check_floats, for_statistics, widen
from emroute.capsule.gaussians import widen_betas
from emroute.capsule.routing import Children, Options, Plan, SoftmaxRule, Step, check_finite, finish, run
from emroute.capsule.schedules import temperatures
from emroute.capsule.shares import precisions, share_out
from emroute.errors import InputError
from emroute.validate import check_choice, check_count, check_number, require_values

__all__ = ["gmm_routing"]


@dataclass(frozen=True)
class Ladder(SoftmaxRule):
    """The step between the mixture and EM routing."""

    prior: str
    summed: bool
    epsilon: float

    def children(self, samples: tuple[Array, ...], shared: None) -> Children:
        """From poses ``(b, I, H)``, activations, means, variances, log-priors and costs."""
        poses, activations, *of_parents = for_statistics(samples[0], *samples)
        return Children(swap(poses)[..., None, :, :], activations, tuple(of_parents))

    def start(self, children: Children) -> tuple[Array, Array]:
        """Do the E-step with the given parents."""
        means, variances, log_prior, *_ = children.of_parents
        logits = self.logits((children.views - means[..., None]) ** 2, variances, log_prior)
        return self.assign(logits), logits

    def logits(self, squares: Array, variances: Array, log_prior: Array) -> Array:
        """log p_j + log N(P_i | j), ``(b, J, I)``."""
        offset = log_prior + log_peak(variances)
        return offset[..., None] + quadratic(-0.5 * precisions(variances), squares)

    def step(self, children: Children, assigned: Array, logits: Array, temperature: float, last: bool) -> Step:
        """Do the M-step. Parents without children keep the given means."""
        start, _, _, u, a = children.of_parents
        xp, shares = backends.namespace(logits), share_out(assigned, children.activations[..., None, :])
        means = shares.mean(children.views, start)
        squares = (children.views - means[..., None]) ** 2
        variances = shares.mean(squares, xp.zeros_like(means)) + self.epsilon
        if self.prior == "weights":
            log_prior = log_softmax(shares.log_total)
        else:
            cost = xp.sum(u[..., None] + xp.log(variances) / 2, axis=-1)
            log_prior = log_sigmoid(temperature * (a - (cost * shares.total if self.summed else cost)))
        after = None if last else self.logits(squares, variances, log_prior)
        return Step(means, xp.exp(log_prior), after)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def gmm_routing(
    poses: Array,
    init: tuple[Array, Array, Array],
    *,
    activations: Array | None = None,
    prior: str = "weights",
    summed: bool = False,
    beta_u: Array | None = None,
    beta_a: Array | None = None,
    n_iter: int = 3,
    inverse_temperature: Any = (1.0,),
    epsilon: float = 1e-6,
    recompute: bool = True,
    return_path: bool = False,
) -> Any:
    """Route poses that are the same for all parents: a mixture of Gaussians, and its steps towards EM routing.

    Parameters
    ----------
    poses
        The poses of the children, ``(..., I, H)``.
    init
        The start, ``(means, variances, weights)``: means and positive variances ``(..., J, H)``, and weights
        ``(..., J)`` in [0, 1]. Means must differ, because parents that start equal stay equal.
    activations
        How much each child counts, ``(..., I)`` in [0, 1]; None stands for 1.
    prior
        ``"weights"`` for mixing weights, ``"cost"`` for activations from costs.
    summed
        Whether the cost is the total over the children of a parent.
    beta_u, beta_a
        The cost of an entry of a vote and the cost at which a parent is as likely there as not (see `em_routing`),
        ``(J,)`` or broadcastable to ``(..., J)``; None stands for 0.
    n_iter
        The number of updates of the parents. Each update begins with the E-step.
    inverse_temperature
        The inverse temperature of the activations (see `em_routing`). A single value holds for all iterations.
    epsilon
        A constant that is added to variances.
    recompute
        Whether the backward pass computes blocks of samples again instead of keeping them, which takes less memory
        and more time.
    return_path
        Whether to return also a tuple with the routing after each iteration.

    Returns
    -------
    Routing
        Its activations are the last prior. Its assignments sum to 1 over the parents.

    Raises
    ------
    InputError
        If shapes or options are invalid, or inputs hold NaN or infinity.
    InputTypeError
        If a dtype is not floating, or arrays differ in library or device.

    References
    ----------
    Su, J. (2018). Matrix capsules and EM routing (in Chinese). Scientific Spaces.

    Examples
    --------
    >>> import numpy as np
    >>> poses = np.asarray([[0.0], [1.0], [10.0], [11.0]])
    >>> start = np.asarray([[0.0], [10.0]]), np.ones((2, 1)), np.full(2, 0.5)
    >>> found = gmm_routing(poses, start)
    >>> found.poses[:, 0].round(3).tolist(), found.activations.tolist()
    ([0.5, 10.5], [0.5, 0.5])
    """
    check_floats("poses", poses)
    check_choice("prior", prior, ("weights", "cost"))
    n_iter = check_count("n_iter", n_iter)
    if poses.ndim < 2 or 0 in poses.shape:
        raise InputError(f"poses have shape {tuple(poses.shape)}, expected (..., I, H), no axis of length 0")
    if not isinstance(init, tuple) or len(init) != 3:
        raise InputError("init must be a tuple (means, variances, weights)")
    check_floats("init", poses, *init)
    means, (i, h) = init[0], poses.shape[-2:]
    if means.ndim < 2 or means.shape[-1] != h or not means.shape[-2]:
        raise InputError(f"starting means have shape {tuple(means.shape)}, expected (..., J, H) with H = {h}")
    xp, batch, j = backends.namespace(poses), tuple(poses.shape[:-2]), means.shape[-2]
    start = [widen(name, x, (*batch, j, h)) for name, x in (("means", means), ("variances", init[1]))]
    require_values(lambda x: xp.min(x) > 0, start[1], lambda: "starting variances must be positive")
    weights = check_activations(init[2], batch, j, poses, "weights", "J")
    if activations is None:
        activations = xp.ones_like(poses[..., 0])
    given = check_activations(activations, batch, i, poses)
    zero = xp.zeros_like(weights)
    betas = widen_betas(zero if beta_u is None else beta_u, zero if beta_a is None else beta_a, (*batch, j), poses)
    if isinstance(inverse_temperature, tuple | list) and len(inverse_temperature) == 1:
        inverse_temperature = [*inverse_temperature] * n_iter
    schedule = temperatures(inverse_temperature, "hinton", n_iter)
    rule = Ladder(prior, bool(summed), check_number("epsilon", epsilon))
    options = Options(rule, schedule, bool(recompute), bool(return_path))
    plan = Plan(batch, i, 4 * itemsize(betas[0]) * j * h)
    history = run(options, plan, (poses, given, *start, safe_log(weights), *betas))
    check_finite(history, poses=poses, means=start[0], variances=start[1], beta_u=betas[0], beta_a=betas[1])
    return finish(history, poses, return_path)
