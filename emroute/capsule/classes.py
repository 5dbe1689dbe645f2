"""Class capsules: every capsule of a grid votes for each of them (Hinton et al. 2018, section 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import constant
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.capsule.checks import check_floats, check_grid, check_transforms
from emroute.capsule.em import route_poses
from emroute.capsule.gaussians import em_options
from emroute.capsule.routing import Options
from emroute.capsule.votes import centres
from emroute.errors import InputError

__all__ = ["class_em_routing", "flat_grid", "route_classes"]


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
        The poses of the children, ``(..., h, w, I, P, P)``.
    activations
        How much each child is there, ``(..., h, w, I)`` in [0, 1].
    transforms
        Transforms ``(I, J, P, P)``, which all positions share.
    entries
        The entries of a vote to which `coordinate_addition` adds the position of the child; None for no addition.
    coordinates
        The positions for `coordinate_addition`; None for those in the grid.
    beta_u, beta_a
        The cost of an entry of a vote, and the cost at which a parent is as likely there as not, ``(J,)`` or
        broadcastable to ``(..., J)``.
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
        Its poses are ``(..., J, P * P)``, its activations ``(..., J)``, and its assignments ``(..., h * w * I, J)``.

    Raises
    ------
    InputError, InputTypeError
        For the same reasons as in `em_routing`.

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
    how = {"recompute": recompute, "return_path": return_path, "covariance": covariance}
    options = em_options(cost, epsilon, inverse_temperature, n_iter, **how)
    betas = {"beta_u": beta_u, "beta_a": beta_a}
    return route_classes((poses, activations), transforms, betas, options, (entries, coordinates))


def route_classes(
    capsules: tuple[Array, Array],
    transforms: Array,
    of_parents: Mapping[str, Array],
    options: Options,
    places: tuple[Any, Any],
    by_entry: bool = False,
) -> Any:
    """Route a whole grid, as `route_poses` does capsules; places are the arguments `entries` and `coordinates`."""
    poses, activations = capsules
    check_grid(poses)
    check_transforms(poses, transforms)
    (h, w, i, p, _), j, shift = poses.shape[-5:], transforms.shape[1], None
    xp = backends.namespace(poses)
    shared = xp.reshape(xp.broadcast_to(transforms, (h * w, i, j, p, p)), (h * w * i, j, p, p))
    entries, coordinates = places
    if entries is not None:
        added = np.repeat(centres(h, w, p * p, entries, coordinates).reshape(h * w, p * p), i, axis=0)
        shift = constant(added.T, like=poses)
    return route_poses(flat_grid(poses, activations), shared, of_parents, options, shift, by_entry)


def flat_grid(poses: Array, activations: Array) -> tuple[Array, Array]:
    """Return the capsules of a grid one after another: poses ``(..., h * w * I, P, P)`` and activations."""
    check_floats("activations", poses, activations)
    *batch, h, w, i, p, _ = poses.shape
    if tuple(activations.shape[-3:]) != (h, w, i):
        raise InputError(f"activations have shape {tuple(activations.shape)}, expected (..., {h}, {w}, {i})")
    xp = backends.namespace(poses)
    flat = xp.reshape(activations, (*activations.shape[:-3], h * w * i))
    return xp.reshape(poses, (*batch, h * w * i, p, p)), flat
