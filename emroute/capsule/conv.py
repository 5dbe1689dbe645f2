"""Convolutional capsules: routing between grids, with transforms shared by all positions (Hinton et al. 2018).

Blocks are of windows, (image, parent position) pairs, whose children are the C = K * K * I capsules in them. Votes are
cast anew for every block and iteration. What lasts from one iteration to the next are the logits, one for H entries
of votes, and their logsumexp over all parents of a child, so that R_ij = exp(logits - norm).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import constant, itemsize
from emroute.arrays.diagonal import quadratic, weighted_sum
from emroute.arrays.functions import logsumexp
from emroute.backend import Array, Backend, compiled
from emroute.capability import Capabilities
from emroute.capsule.agreement import (
    Path,
    Routing,
    check_activations,
    check_finite,
    check_floats,
    check_grid,
    check_transforms,
    finish,
    for_statistics,
)
from emroute.capsule.em import Betas, Form, check_form, route_poses, temperatures, widen_betas
from emroute.capsule.shares import share_out
from emroute.capsule.votes import capsule_lengths, centres, squash, vote_views
from emroute.capsule.windows import Windows, check_windows
from emroute.errors import InputError
from emroute.validate import check_count

__all__ = ["class_em_routing", "conv_dynamic_routing", "conv_em_routing"]


class _Step(NamedTuple):
    """What one iteration finds of some windows."""

    poses: Array
    activations: Array
    logits: Array
    log_sums: Array


class _Rule(Protocol):
    def update(
        self, views: Array, log_assignments: Array, given: Array, logits: Array, parents: Any, temperature: float
    ) -> tuple[Array, Array, Array]:
        """Return poses, activations and logits of some windows from what is there."""
        ...


@dataclass(frozen=True)
class _EM:
    form: Form

    def update(
        self, views: Array, log_assignments: Array, given: Array, logits: Array, parents: Any, temperature: float
    ) -> tuple[Array, Array, Array]:
        shares = share_out(log_assignments, given[..., None, :])
        found, squares = self.form.m_step(views, shares, Betas(*parents), temperature)
        return found.poses, found.activations, self.form.logits(found, squares)


@dataclass(frozen=True)
class _Dynamic:
    def update(
        self, views: Array, log_assignments: Array, given: Array, logits: Array, parents: Any, temperature: float
    ) -> tuple[Array, Array, Array]:
        poses = squash(weighted_sum(views, backends.namespace(views).exp(log_assignments)))
        return poses, capsule_lengths(poses), logits + quadratic(poses, views)


def _follow(
    rule: _Rule,
    windows: Windows,
    backend: Backend,
    recompute: bool,
    return_path: bool,
    poses: Array,
    given: Array,
    transforms: Array,
    parents: tuple[Array, ...],
    schedule: Sequence[float],
) -> Path:
    """All iterations for poses ``(n, h * w, I, P, P)``, activations ``(n, h * w, I)``, transforms ``(C, J, P, P)``."""
    xp, (n, _, i, p, _) = backend.namespace(poses), poses.shape
    (q, s), (c, j) = windows.children.shape, transforms.shape[:2]
    held = [_padded(poses), _padded(given)]
    first = constant(np.repeat(windows.first_norm(j), i, axis=1), like=given)
    norm = xp.reshape(xp.broadcast_to(first, (n, q, c)), (n * q, 1, c))
    logits = xp.broadcast_to(xp.zeros_like(norm), (n * q, j, c))
    size = max(1, backend.chunk_size(2 * itemsize(given) * j * p * p) // c)
    path: Path = ()
    for iteration, temperature in enumerate(schedule, 1):

        def some(index: Array, norm: Array, logits: Array, *own: Array, temperature: float = temperature) -> _Step:
            rows = xp.reshape(index, (-1,))
            children = xp.reshape(xp.take(held[0], rows, axis=0), (-1, c, p, p))
            active = xp.reshape(xp.take(held[1], rows, axis=0), (-1, c))
            views = vote_views(children, transforms)
            found = rule.update(views, logits - norm, active, logits, own, temperature)
            return _Step(*found, xp.reshape(logsumexp(found[2], axis=-2), (-1, s, i)))

        arrays = [windows.index(n, poses), norm, logits, *parents]
        step = _Step(*backend.map_blocks(some, arrays, size, recompute))
        if return_path or iteration == len(schedule):
            path = (*path, Routing(step.poses, step.activations, xp.exp(logits - norm)))
        logits = step.logits
        norm = xp.reshape(windows.norm(xp.reshape(step.log_sums, (n, q, s, i))), (n * q, 1, c))
    return path


def _padded(x: Array) -> Array:
    """Rows ``(n * h * w + 1, ...)``: those of all images followed by one of zeros."""
    xp = backends.namespace(x)  # one for each would do, but XLA's vectorizer (jaxlib 0.9.2) crashes on 8 types of them
    rows = xp.reshape(x, (-1, *x.shape[2:]))
    return xp.concat([rows, xp.zeros_like(rows[:1, ...])])


def _route(
    rule: _Rule,
    poses: Array,
    activations: Array | None,
    transforms: Array,
    betas: tuple[Array, ...],
    geometry: tuple[int, int, str],
    schedule: tuple[float, ...],
    recompute: bool,
    return_path: bool,
) -> Any:
    """Check, flatten, follow, and give everything its axes back."""
    check_grid(poses)
    check_floats("transforms", poses, transforms)
    *batch, h, w, i, p, _ = poses.shape
    shape = tuple(transforms.shape)
    if len(shape) != 6 or shape[0] != shape[1] or (shape[2], *shape[4:]) != (i, p, p) or 0 in shape:
        raise InputError(f"transforms have shape {shape}, expected (K, K, I, J, P, P) with I = {i} and P = {p}")
    kernel, j = shape[0], shape[3]
    windows = check_windows(h, w, kernel, *geometry)
    xp, backend, n = backends.namespace(poses), backends.get(poses), math.prod(batch)
    if activations is None:
        activations = xp.ones_like(poses[..., 0, 0])
    given = check_activations(activations, (*batch, h, w), i, poses)
    wide, kernels, given = for_statistics(poses, poses, transforms, given)
    lead = (*batch, *windows.grid)
    parents = tuple(xp.reshape(x, (-1, j)) for x in widen_betas(betas[0], betas[1], (*lead, j), poses)) if betas else ()
    path = compiled(backend, _follow, rule, windows, backend, recompute, return_path)(
        xp.reshape(wide, (n, h * w, i, p, p)),
        xp.reshape(given, (n, h * w, i)),
        xp.reshape(kernels, (-1, j, p, p)),
        parents,
        schedule,
    )
    check_finite(path, poses=poses, transforms=transforms, **dict(zip(("beta_u", "beta_a"), betas, strict=False)))

    def arrange(routing: Routing) -> Routing:
        return Routing(
            xp.reshape(routing.poses, (*lead, j, p, p)),
            xp.reshape(routing.activations, (*lead, j)),
            xp.reshape(routing.assignments, (*lead, kernel, kernel, i, j)),
        )

    return finish(path, poses, return_path, arrange)


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
    n_iter, cost, inverse_temperature, epsilon, recompute
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
    schedule = temperatures(inverse_temperature, cost, check_count("n_iter", n_iter))
    geometry, rule = (stride, padding, normalize_over), _EM(check_form(cost, epsilon))
    betas = beta_u, beta_a
    return _route(rule, poses, activations, transforms, betas, geometry, schedule, bool(recompute), return_path)


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
    geometry = stride, padding, normalize_over
    return _route(_Dynamic(), poses, None, transforms, (), geometry, schedule, bool(recompute), return_path)


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
    beta_u, beta_a, n_iter, cost, inverse_temperature, epsilon, recompute, return_path
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
    return route_poses(
        xp.reshape(poses, (*batch, h * w * i, p, p)),
        shared,
        xp.reshape(activations, (*activations.shape[:-3], h * w * i)),
        (beta_u, beta_a),
        shift,
        check_form(cost, epsilon),
        temperatures(inverse_temperature, cost, check_count("n_iter", n_iter)),
        bool(recompute),
        return_path,
    )
