"""EM routing of votes, and of poses whose votes are never all held; the algorithm is in `emroute.capsule.gaussians`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emroute.arrays.creation import itemsize
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.capsule.checks import check_activations, check_pairs, check_votes, for_statistics
from emroute.capsule.gaussians import em_options, widen_betas, widen_parents
from emroute.capsule.routing import Options, Plan, check_finite, finish, run

__all__ = ["em_routing", "em_routing_from_poses", "route_poses"]


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
    covariance: str = "diagonal",
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
    covariance
        ``"diagonal"`` (the paper) or ``"full"``: equivariant, for a rotation of all votes rotates the poses and changes
        nothing else, at H times the work. It has the cost ``"hinton"``.
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
    how = {"recompute": recompute, "return_path": return_path, "covariance": covariance}
    options = em_options(cost, epsilon, inverse_temperature, n_iter, **how)
    *batch, i, j, h = votes.shape
    activations = check_activations(activations, tuple(batch), i, votes)
    betas = widen_betas(beta_u, beta_a, (*batch, j), votes)
    plan = Plan(tuple(batch), i, 3 * itemsize(betas[0]) * j * h // 2)
    history = run(options, plan, (votes, activations, *betas))
    check_finite(history, votes=votes, beta_u=betas[0], beta_a=betas[1])
    return finish(history, votes, return_path)


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
    covariance: str = "diagonal",
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
    activations, beta_u, beta_a, n_iter, cost, inverse_temperature, epsilon, covariance, recompute, return_path
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
    how = {"recompute": recompute, "return_path": return_path, "covariance": covariance}
    options = em_options(cost, epsilon, inverse_temperature, n_iter, **how)
    return route_poses((poses, activations), transforms, {"beta_u": beta_u, "beta_a": beta_a}, options)


def route_poses(
    capsules: tuple[Array, Array],
    transforms: Array,
    of_parents: Mapping[str, Array],
    options: Options,
    shift: Any = None,
    by_entry: bool = False,
) -> Any:
    """Route poses without holding all their votes.

    Parameters
    ----------
    capsules
        Poses ``(..., I, P, P)`` and activations ``(..., I)``.
    transforms
        ``(I, J, P, P)``.
    of_parents
        What parents bring themselves, by name.
    options
        With the rule.
    shift
        Added to the votes, ``(H, I)``, or None.
    by_entry
        Whether parents bring a number for each entry of a pose, or one each.
    """
    poses, activations = capsules
    (i, p, _), j = poses.shape[-3:], transforms.shape[1]
    batch = tuple(poses.shape[:-3])
    activations = check_activations(activations, batch, i, poses)
    own = widen_parents(of_parents, (*batch, j, p * p) if by_entry else (*batch, j), poses)
    options = options._replace(rule=options.rule.from_poses())
    plan = Plan(batch, i, 2 * itemsize(own[0]) * j * p * p)
    wide = for_statistics(poses, transforms)[0]  # before blocks are cut: their gradients are summed in this dtype
    history = run(options, plan, (poses, activations, *own), (wide, shift))
    check_finite(history, poses=poses, transforms=transforms, **of_parents)
    return finish(history, poses, options.return_path)
