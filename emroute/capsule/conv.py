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
        ``(..., h, w, I, P, P)``; any floating dtype, float16 and bfloat16 being computed in float32.
    activations
        ``(..., h, w, I)`` in [0, 1].
    transforms
        ``(K, K, I, J, P, P)``, shared by all positions.
    beta_u, beta_a
        ``(J,)`` or broadcastable to ``(..., oh, ow, J)``.
    stride, padding
        Of the K x K windows; ``oh = (h + 2 padding - K) // stride + 1``.
    n_iter, cost, inverse_temperature, epsilon, covariance, recompute
        As in `emroute.capsule.em_routing`.
    normalize_over
        ``"parents"``: a child's assignments sum to 1 over all parents at all positions that see it. ``"window"``: over
        those of each window, as the tutorials' code does, so that a child seen by nine positions counts nine times.
    return_path
        Return also a tuple of the routings after each iteration.

    Returns
    -------
    Routing
        Poses ``(..., oh, ow, J, P, P)``, activations ``(..., oh, ow, J)``, assignments ``(..., oh, ow, K, K, I, J)``: 0
        on padding.

    Raises
    ------
    InputError
        If shapes or options cannot be used, the kernel is larger than the grid, or poses or transforms hold NaN or
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
    poses, transforms, stride, padding, n_iter, normalize_over, recompute, return_path
        As in `conv_em_routing`.

    Returns
    -------
    Routing
        As of `conv_em_routing`; activations are the lengths of the poses.

    Raises
    ------
    InputError, InputTypeError
        As in `conv_em_routing`.

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
