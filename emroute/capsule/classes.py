"""Class capsules: every capsule of a grid votes for each of them (Hinton et al. 2018, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import constant
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.capsule.checks import check_floats, check_grid, check_transforms
from emroute.capsule.em import route_poses
from emroute.capsule.gaussians import em_options
from emroute.capsule.votes import centres
from emroute.errors import InputError

__all__ = ["class_em_routing"]


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def class_em_routing(
    poses: Array,
    activations: Array,
    transforms: Array,
    beta_u: Array,
    beta_a: Array,
    *,
    entries: Sequence[int] | None = (0, 1),
    coordinates: Any = None,
    n_iter: int = 3,
    cost: str = "hinton",
    inverse_temperature: Any = None,
    epsilon: float = 1e-6,
    covariance: str = "diagonal",
    recompute: bool = True,
    return_path: bool = False,
) -> Any:
    """Route a whole grid to one layer of class capsules, with transforms shared by all positions.

    Parameters
    ----------
    poses
        ``(..., h, w, I, P, P)``.
    activations
        ``(..., h, w, I)`` in [0, 1].
    transforms
        ``(I, J, P, P)``.
    entries
        Where votes take the place of their child, as in `coordinate_addition`; None leaves it out.
    coordinates
        The places, as in `coordinate_addition`.
    beta_u, beta_a, n_iter, cost, inverse_temperature, epsilon, covariance, recompute, return_path
        As in `emroute.capsule.em_routing`.

    Returns
    -------
    Routing
        Poses ``(..., J, P * P)``, activations ``(..., J)``, assignments ``(..., h * w * I, J)``.

    Raises
    ------
    InputError, InputTypeError
        As in `emroute.capsule.em_routing`.

    References
    ----------
    Hinton, Sabour and Frosst (2018), section 4.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> poses, activations = rng.normal(size=(2, 4, 4, 3, 4, 4)), np.ones((2, 4, 4, 3))
    >>> found = class_em_routing(poses, activations, rng.normal(size=(3, 10, 4, 4)), np.zeros(10), np.zeros(10))
    >>> found.activations.shape
    (2, 10)
    """
    check_grid(poses)
    check_transforms(poses, transforms)
    check_floats("activations", poses, activations)
    *batch, h, w, i, p, _ = poses.shape
    if tuple(activations.shape[-3:]) != (h, w, i):
        raise InputError(f"activations have shape {tuple(activations.shape)}, expected (..., {h}, {w}, {i})")
    xp, j = backends.namespace(poses), transforms.shape[1]
    shared = xp.reshape(xp.broadcast_to(transforms, (h * w, i, j, p, p)), (h * w * i, j, p, p))
    shift = None
    if entries is not None:
        places = np.repeat(centres(h, w, p * p, entries, coordinates).reshape(h * w, p * p), i, axis=0)
        shift = constant(places.T, like=poses)
    how = {"recompute": recompute, "return_path": return_path, "covariance": covariance}
    options = em_options(cost, epsilon, inverse_temperature, n_iter, **how)
    capsules = xp.reshape(poses, (*batch, h * w * i, p, p))
    activations = xp.reshape(activations, (*activations.shape[:-3], h * w * i))
    return route_poses(capsules, shared, activations, (beta_u, beta_a), options, shift)
