"""Convolutional capsules: the rules of routing between grids (Hinton et al. 2018); the loop is in `grids`."""

from __future__ import annotations

from typing import Any

from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.capsule.dynamic import Products
from emroute.capsule.gaussians import em_options
from emroute.capsule.grids import route_grid
from emroute.capsule.routing import Options
from emroute.validate import check_count

__all__ = ["conv_dynamic_routing", "conv_em_routing"]


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def conv_em_routing(
    poses: Array,
    activations: Array,
    transforms: Array,
    beta_u: Array,
    beta_a: Array,
    *,
    stride: int = 1,
    padding: int = 0,
    n_iter: int = 3,
    normalize_over: str = "parents",
    cost: str = "hinton",
    inverse_temperature: Any = None,
    epsilon: float = 1e-6,
    covariance: str = "diagonal",
    recompute: bool = True,
    return_path: bool = False,
) -> Any:
    """Route a grid of capsules to a smaller one by EM.

    Parameters
    ----------
    poses
        The poses of the children, ``(..., h, w, I, P, P)``, in any floating dtype. float16 and bfloat16 are computed in
        float32.
    activations
        How much each child is there, ``(..., h, w, I)`` in [0, 1].
    transforms
        Transforms ``(K, K, I, J, P, P)``, which all positions share.
    stride, padding
        The stride and padding of the K x K windows; ``oh = (h + 2 padding - K) // stride + 1``.
    normalize_over
        With ``"parents"``, the assignments of a child sum to 1 over all parents at all positions that see it. With
        ``"window"``, they sum to 1 in each window, as in the code of the tutorials, so that a child seen by nine
        positions counts nine times.
    beta_u, beta_a
        The cost of an entry of a vote, and the cost at which a parent is as likely there as not, ``(J,)`` or
        broadcastable to ``(..., oh, ow, J)``.
    n_iter
        The number of M-steps.
    cost
        ``"hinton"`` (the paper) or ``"normalized"`` (costs standardized over the parents, as in the tutorials).
    inverse_temperature
        The inverse temperature of the activations: a callable ``(t, n_iter)``, values, or a name; see `em_routing`.
    epsilon
        A constant that is added to variances.
    covariance
        ``"diagonal"``, or ``"full"``; see `em_routing`.
    recompute
        Whether the backward pass computes blocks of samples again instead of keeping them, which takes less memory
        and more time.
    return_path
        Whether to return also a tuple with the routing after each iteration.

    Returns
    -------
    Routing
        Its poses are ``(..., oh, ow, J, P, P)``, its activations ``(..., oh, ow, J)``, and its assignments ``(..., oh,
        ow, K, K, I, J)``, which are 0 on padding.

    Raises
    ------
    InputError
        If shapes or options are invalid, the kernel is larger than the grid, or poses or transforms hold NaN or
        infinity.
    InputTypeError
        If a dtype is not floating, or arrays differ in library or device.

    References
    ----------
    Hinton, G. E., Sabour, S. and Frosst, N. (2018). Matrix capsules with EM routing. ICLR. Section 4.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> poses, activations = rng.normal(size=(1, 5, 5, 2, 4, 4)), np.ones((1, 5, 5, 2))
    >>> transforms = rng.normal(size=(3, 3, 2, 4, 4, 4))
    >>> found = conv_em_routing(poses, activations, transforms, np.zeros(4), np.zeros(4), stride=2)
    >>> found.poses.shape, found.assignments.shape
    ((1, 2, 2, 4, 4, 4), (1, 2, 2, 3, 3, 2, 4))
    >>> round(float(found.assignments.sum()), 6)  # each of the 50 children is shared out once
    50.0
    """
    how = {"recompute": recompute, "return_path": return_path, "covariance": covariance}
    options = em_options(cost, epsilon, inverse_temperature, n_iter, **how)
    geometry = stride, padding, normalize_over
    return route_grid((poses, activations), transforms, {"beta_u": beta_u, "beta_a": beta_a}, geometry, options)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def conv_dynamic_routing(
    poses: Array,
    transforms: Array,
    *,
    stride: int = 1,
    padding: int = 0,
    n_iter: int = 3,
    normalize_over: str = "parents",
    recompute: bool = True,
    return_path: bool = False,
) -> Any:
    """Route a grid of capsules to a smaller one by dynamic routing.

    Parameters
    ----------
    poses
        The poses of the children, ``(..., h, w, I, P, P)``, in any floating dtype.
    transforms
        Transforms ``(K, K, I, J, P, P)``, which all positions share.
    stride, padding
        The stride and padding of the K x K windows; ``oh = (h + 2 padding - K) // stride + 1``.
    n_iter
        The number of updates of the poses.
    normalize_over
        Whether assignments sum to 1 over all ``"parents"`` of a child, or in each ``"window"``.
    recompute
        Whether the backward pass computes blocks of samples again instead of keeping them, which takes less memory
        and more time.
    return_path
        Whether to return also a tuple with the routing after each iteration.

    Returns
    -------
    Routing
        Arrays with the shapes of `conv_em_routing`. The activations are the lengths of the poses.

    Raises
    ------
    InputError, InputTypeError
        For the same reasons as in `conv_em_routing`.

    References
    ----------
    Sabour, S., Frosst, N. and Hinton, G. E. (2017). Dynamic routing between capsules. NeurIPS. Procedure 1.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> found = conv_dynamic_routing(rng.normal(size=(1, 5, 5, 2, 4, 4)), rng.normal(size=(3, 3, 2, 4, 4, 4)))
    >>> found.poses.shape
    (1, 3, 3, 4, 4, 4)
    """
    schedule = (1.0,) * check_count("n_iter", n_iter)
    options = Options(Products(), schedule, bool(recompute), bool(return_path))
    geometry = stride, padding, normalize_over
    return route_grid((poses, None), transforms, {}, geometry, options)
