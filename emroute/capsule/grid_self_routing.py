"""Self-routing between grids of capsules, and from a grid to class capsules.

Between grids, children are those of a window; a class capsule sees the whole grid. Nothing is repeated, so windows are
samples of their own.
"""

from __future__ import annotations

from typing import Any

from emroute import backend as backends
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.capsule.checks import check_activations, check_floats, check_grid
from emroute.capsule.classes import flat_grid
from emroute.capsule.routing import Routing
from emroute.capsule.self_routing import self_routing
from emroute.capsule.windows import check_windows
from emroute.errors import InputError

__all__ = ["class_self_routing", "conv_self_routing"]


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def conv_self_routing(
    poses: Array,
    activations: Array,
    route_weights: Array,
    route_bias: Array,
    transforms: Array,
    *,
    stride: int = 1,
    padding: int = 0,
    recompute: bool = True,
) -> Any:
    """Route a grid of capsules to a smaller one by self-routing.

    Parameters
    ----------
    poses, activations, stride, padding, recompute
        As in `conv_em_routing`.
    route_weights, route_bias
        ``(K, K, I, J, P * P)`` and ``(K, K, I, J)``: by which children choose among the parents of each window.
    transforms
        ``(K, K, I, J, P * P, P * P)``, of poses as vectors.

    Returns
    -------
    Routing
        As of `conv_em_routing`; assignments sum to 1 in each window, those of padding included.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> shapes = (1, 5, 5, 2, 2, 2), (3, 3, 2, 4, 4), (3, 3, 2, 4), (3, 3, 2, 4, 4, 4)
    >>> poses, *learned = (rng.normal(size=shape) for shape in shapes)
    >>> conv_self_routing(poses, np.ones((1, 5, 5, 2)), *learned).poses.shape
    (1, 3, 3, 4, 2, 2)
    """
    check_grid(poses)
    check_floats("activations and transforms", poses, activations, route_weights, route_bias, transforms)
    *batch, h, w, i, p, _ = poses.shape
    if transforms.ndim != 6 or transforms.shape[0] != transforms.shape[1]:
        raise InputError(f"transforms have shape {tuple(transforms.shape)}, expected (K, K, I, J, P * P, P * P)")
    xp, (kernel, _, _, j, *_) = backends.namespace(poses), transforms.shape
    active = check_activations(activations, (*batch, h, w), i, poses)
    windows = check_windows(h, w, kernel, stride, padding, "window")
    vectors = xp.reshape(poses, (-1, h * w, i, p * p))
    index = windows.index(vectors.shape[0], poses)

    def seen(x: Array, *tail: int) -> Array:
        rows = xp.reshape(x, (-1, *x.shape[2:]))
        rows = xp.take(xp.concat([rows, xp.zeros_like(rows[:1, ...])]), xp.reshape(index, (-1,)), axis=0)
        return xp.reshape(rows, (*batch, *windows.grid, kernel * kernel * i, *tail))

    learned = (xp.reshape(x, (-1, *x.shape[3:])) for x in (route_weights, route_bias, transforms))
    children = seen(vectors, p * p), seen(xp.reshape(active, (-1, h * w, i)))
    found = self_routing(*children, *learned, recompute=recompute)
    lead = (*batch, *windows.grid)
    assignments = xp.reshape(found.assignments, (*lead, kernel, kernel, i, j))
    return Routing(xp.reshape(found.poses, (*lead, j, p, p)), found.activations, assignments)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def class_self_routing(
    poses: Array,
    activations: Array,
    route_weights: Array,
    route_bias: Array,
    transforms: Array,
    *,
    recompute: bool = True,
) -> Any:
    """Route a whole grid to class capsules by self-routing, with what is learned shared by all positions.

    Parameters
    ----------
    poses, activations, recompute
        As in `class_em_routing`.
    route_weights, route_bias, transforms
        ``(I, J, P * P)``, ``(I, J)`` and ``(I, J, P * P, P * P)``, as in `self_routing`.

    Returns
    -------
    Routing
        As of `class_em_routing`.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> poses, *learned = map(rng.normal, map(np.zeros, ((1, 5, 5, 2, 2, 2), (2, 10, 4), (2, 10), (2, 10, 4, 4))))
    >>> class_self_routing(poses, np.ones((1, 5, 5, 2)), *learned).poses.shape
    (1, 10, 4)
    """
    check_grid(poses)
    capsules, active = flat_grid(poses, activations)
    xp, (*lead, n, p, _), i = backends.namespace(poses), capsules.shape, poses.shape[-3]
    shared = (
        xp.reshape(xp.broadcast_to(x, (n // i, *x.shape)), (n // i * x.shape[0], *x.shape[1:]))
        for x in (route_weights, route_bias, transforms)
    )
    return self_routing(xp.reshape(capsules, (*lead, n, p * p)), active, *shared, recompute=recompute)
