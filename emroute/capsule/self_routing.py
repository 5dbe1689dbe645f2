"""Self-routing (Hahn, Pyeon and Kim 2019): each child chooses its parents by itself, without regard to agreement.

    c_ij = softmax_j (w_ij . u_i + b_ij),   V_ij = u_i W_ij
    a_j = sum_i c_ij a_i / sum_i a_i,   u_j = sum_i c_ij a_i V_ij / sum_i c_ij a_i

Nothing is repeated. Activations of parents sum to 1. Where no child is active, all results are 0.
"""

from __future__ import annotations

from typing import Any

from emroute import backend as backends
from emroute.arrays.creation import itemsize
from emroute.arrays.functions import ratio
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.capsule.checks import check_activations, check_floats, for_statistics
from emroute.capsule.routing import Children, Options, Plan, SoftmaxRule, Step, check_finite, finish, run
from emroute.capsule.shares import share_out
from emroute.capsule.votes import vector_views
from emroute.errors import InputError

__all__ = ["SelfRouting", "self_routing"]


class SelfRouting(SoftmaxRule):
    """Children choose by a linear function of their own poses."""

    def children(self, samples: tuple[Array, ...], shared: Any) -> Children:
        """From poses ``(b, I, D)``, activations, and what all samples share: transforms, weights and biases."""
        poses, activations = for_statistics(samples[0], *samples)
        transforms, weights, bias = shared
        xp = backends.namespace(poses)
        chosen = xp.permute_dims(poses, (1, 0, 2)) @ xp.permute_dims(weights, (0, 2, 1))  # (I, b, J)
        logits = xp.permute_dims(chosen + bias[:, None, :], (1, 2, 0))
        return Children(vector_views(poses, transforms), activations, (logits,))

    def start(self, children: Children) -> tuple[Array, Array]:
        """Choose."""
        (logits,) = children.of_parents
        return self.assign(logits), logits

    def step(self, children: Children, assigned: Array, logits: Array, temperature: float, last: bool) -> Step:
        """Take the means of the votes, and what each parent has of all activation."""
        xp, active = backends.namespace(logits), children.activations
        shares = share_out(assigned, active[..., None, :])
        poses = shares.mean(children.views, xp.zeros_like(children.views[..., 0]))
        total = shares.total
        return Step(poses, ratio(total, xp.sum(active, axis=-1, keepdims=True), xp.zeros_like(total)), None)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def self_routing(
    poses: Array,
    activations: Array,
    route_weights: Array,
    route_bias: Array,
    transforms: Array,
    *,
    recompute: bool = True,
) -> Any:
    """Route by what each child says of itself: a mixture of experts rather than an agreement.

    Parameters
    ----------
    poses
        Vectors ``(..., I, D)``, floating.
    activations
        ``(..., I)`` in [0, 1].
    route_weights, route_bias
        ``(I, J, D)`` and ``(I, J)``: by which child i chooses among J parents.
    transforms
        ``(I, J, D, H)``: votes are ``einsum("...id,ijdh->...ijh", poses, transforms)``. They are cast block by block.
    recompute
        As in `dynamic_routing`.

    Returns
    -------
    Routing
        Poses ``(..., J, H)``. Activations sum to 1 over parents, as assignments do; poses and activations are 0 where
        no child is active.

    Raises
    ------
    InputError
        If shapes do not fit, activations are outside [0, 1], or inputs hold NaN or infinity.
    InputTypeError
        If a dtype is not floating, or arrays differ in library or device.

    References
    ----------
    Hahn, T., Pyeon, M. and Kim, G. (2019). Self-routing capsule networks. NeurIPS. Equations 3 to 6.

    Examples
    --------
    >>> import numpy as np
    >>> poses, transforms = np.asarray([[1.0], [-1.0]]), np.ones((2, 2, 1, 3))
    >>> weights = np.asarray([[[3.0], [-3.0]], [[3.0], [-3.0]]])  # positive poses choose the first parent
    >>> self_routing(poses, np.ones(2), weights, np.zeros((2, 2)), transforms).assignments.round(2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    given = {"poses": poses, "route_weights": route_weights, "route_bias": route_bias, "transforms": transforms}
    for name, x in given.items():
        check_floats(name, poses, x)
    if poses.ndim < 2 or 0 in poses.shape:
        raise InputError(f"poses have shape {tuple(poses.shape)}, expected (..., I, D), no axis of length 0")
    *batch, i, d = poses.shape
    shape = tuple(transforms.shape)
    if len(shape) != 4 or (shape[0], shape[2]) != (i, d) or 0 in shape:
        raise InputError(f"transforms have shape {shape}, expected (I, J, D, H) with I = {i} and D = {d}")
    j, h = shape[1], shape[3]
    for name, x, expected in (("route_weights", route_weights, (i, j, d)), ("route_bias", route_bias, (i, j))):
        if tuple(x.shape) != expected:
            raise InputError(f"{name} have shape {tuple(x.shape)}, expected {expected}")
    active = check_activations(activations, tuple(batch), i, poses)
    shared = tuple(for_statistics(poses, transforms, route_weights, route_bias))
    plan = Plan(tuple(batch), i, 2 * itemsize(shared[0]) * j * h)
    history = run(Options(SelfRouting(), (1.0,), bool(recompute), False), plan, (poses, active), shared)
    check_finite(history, **given)
    return finish(history, poses, False)
