"""Convolutional capsules: routing between grids, with transforms shared by all positions (Hinton et al. 2018).

Blocks consist of windows, (image, parent position) pairs, whose children are the C = K * K * I capsules in them. Votes
are computed again for every block and iteration. Only the logits, one for H entries of votes, and their logsumexp over
all parents of a child are kept from one iteration to the next, so that R_ij = exp(logits - norm).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import constant, itemsize
from emroute.arrays.functions import logsumexp
from emroute.arrays.kernels import kernel
from emroute.backend import Array, compiled
from emroute.capsule.checks import check_activations, check_floats, check_grid, for_statistics
from emroute.capsule.gaussians import widen_parents
from emroute.capsule.routing import Children, History, Options, Routing, check_finite, finish, follow
from emroute.capsule.votes import vote_views
from emroute.capsule.windows import Windows, check_windows
from emroute.errors import InputError

__all__ = ["route_grid", "route_windows", "step_windows"]


class _Grid(NamedTuple):
    """Capsules on a grid, and their parents."""

    poses: Array
    """Poses ``(n, h * w, I, P, P)``."""
    activations: Array
    """Activations ``(n, h * w, I)``."""
    transforms: Array
    """Transforms ``(C, J, P, P)``."""
    of_parents: tuple[Array, ...]
    """For example costs ``(n * Q, J)``."""


class _Logits(NamedTuple):
    """The state between iterations: assignments are exp(logits - norm)."""

    logits: Array
    """Logits ``(n * Q, J, C)``."""
    norm: Array
    """Their logsumexp over all parents of a child, ``(n * Q, 1, C)``."""


@dataclass(frozen=True)
class _OverWindows:
    """An iteration over blocks of windows, whose votes are computed again each time."""

    options: Options
    windows: Windows
    grid: _Grid
    children: tuple[Array, Array]
    """Poses and activations of all images, one capsule position after another, as `_padded` has them."""

    def start(self) -> _Logits:
        (n, _, i, *_), (c, j, *_) = self.grid.poses.shape, self.grid.transforms.shape
        xp, q = backends.namespace(self.grid.poses), self.windows.children.shape[0]
        first = constant(np.repeat(self.windows.first_norm(j), i, axis=1), like=self.grid.activations)
        norm = xp.reshape(xp.broadcast_to(first, (n, q, c)), (n * q, 1, c))
        return _Logits(xp.broadcast_to(xp.zeros_like(norm), (n * q, j, c)), norm)

    def update(self, state: _Logits, temperature: float, last: bool) -> tuple[Array, Array, _Logits | None]:
        n, i, (q, s) = self.grid.poses.shape[0], self.grid.poses.shape[2], self.windows.children.shape
        xp, of_parents = backends.namespace(self.grid.poses), self.grid.of_parents
        index = self.windows.index(n, self.grid.poses)
        options = self.options._replace(schedule=(temperature,))
        step = route_windows if options.rule.fused_windows else step_windows
        args = *self.children, index, state.logits, state.norm, *of_parents, self.grid.transforms
        poses, activations, *rest = step(*args, options, last)
        if last:
            return poses, activations, None
        logits, log_sums = rest
        norm = self.windows.norm(xp.reshape(log_sums, (n, q, s, i)))
        return poses, activations, _Logits(logits, xp.reshape(norm, (n * q, 1, -1)))

    def assignments(self, state: _Logits) -> Array:
        return backends.namespace(state.logits).exp(state.logits - state.norm)


def step_windows(poses: Array, activations: Array, *rest: Any) -> tuple[Array, ...]:
    """Make one iteration over windows, block by block.

    Parameters
    ----------
    poses, activations
        Of all images, ``(rows, I, P, P)`` and ``(rows, I)``.
    *rest
        Of windows: the rows of their children ``(b, S)``, logits ``(b, J, C)`` and norms ``(b, 1, C)``, what parents
        bring themselves. Then transforms ``(C, J, P, P)``, options, and whether this is the last iteration.

    Returns
    -------
    tuple of Array
        Poses and activations of the parents; unless this is the last, logits and their logsumexps ``(b, S, I)``.
    """
    *windows, transforms, options, last = rest
    (c, j, p, _), rule, backend = transforms.shape, options.rule, backends.get(poses)
    xp, (temperature,) = backend.namespace(poses), options.schedule

    def some(index: Array, logits: Array, norm: Array, *of_parents: Array) -> tuple[Array, ...]:
        rows = xp.reshape(index, (-1,))
        views = vote_views(xp.reshape(xp.take(poses, rows, axis=0), (-1, c, p, p)), transforms)
        active = xp.reshape(xp.take(activations, rows, axis=0), (-1, c))
        children = Children(views, active, of_parents or (xp.zeros_like(views[..., 0]),))
        found = rule.step(children, rule.from_logarithms(logits - norm), logits, temperature, last)
        if last:
            return found.poses, found.activations
        return *found, xp.reshape(logsumexp(found.logits, axis=-2), (*index.shape, -1))

    size = max(1, backend.chunk_size(2 * itemsize(activations) * j * p * p) // c)
    return backend.map_blocks(some, list(windows), size, options.recompute)


@kernel
def route_windows(*args: Any) -> tuple[Array, ...]:
    """Make an iteration of EM routing as `step_windows` does."""
    return step_windows(*args)


def _padded(x: Array) -> Array:
    """Rows ``(n * h * w + 1, ...)``: those of all images followed by one of zeros."""
    xp = backends.namespace(x)  # one for each would do, but XLA's vectorizer (jaxlib 0.9.2) crashes on 8 types of them
    rows = xp.reshape(x, (-1, *x.shape[2:]))
    return xp.concat([rows, xp.zeros_like(rows[:1, ...])])


def _follow(options: Options, windows: Windows, grid: _Grid, schedule: tuple[float, ...]) -> History:
    iteration = _OverWindows(options, windows, grid, (_padded(grid.poses), _padded(grid.activations)))
    return follow(iteration, iteration.start(), schedule, options.return_path)


def route_grid(
    capsules: tuple[Array, Array | None],
    transforms: Array,
    of_parents: Mapping[str, Array],
    geometry: tuple[int, int, str],
    options: Options,
    by_entry: bool = False,
) -> Any:
    """Validate, flatten batch and grid, run, restore shapes.

    Parameters
    ----------
    capsules
        Poses ``(..., h, w, I, P, P)`` and activations ``(..., h, w, I)``; None for a rule in which they do not count.
    transforms
        ``(K, K, I, J, P, P)``.
    of_parents
        What parents bring themselves, by name; none for a rule without.
    geometry
        Stride, padding, and over what assignments are normalized.
    options
        With the rule, whose `step` is given views of the votes in `Children`; its `children` is not called.
    by_entry
        Whether parents bring a number for each entry of a pose, or one each.

    Returns
    -------
    Routing
        As of `emroute.capsule.conv_em_routing`.
    """
    poses, activations = capsules
    check_grid(poses)
    check_floats("transforms", poses, transforms)
    *batch, h, w, i, p, _ = poses.shape
    shape = tuple(transforms.shape)
    if len(shape) != 6 or shape[0] != shape[1] or (shape[2], *shape[4:]) != (i, p, p) or 0 in shape:
        raise InputError(f"transforms have shape {shape}, expected (K, K, I, J, P, P) with I = {i} and P = {p}")
    kernel, j = shape[0], shape[3]
    windows = check_windows(h, w, kernel, *geometry)
    xp, n = backends.namespace(poses), math.prod(batch)
    if activations is None:
        activations = xp.ones_like(poses[..., 0, 0])
    activations = check_activations(activations, (*batch, h, w), i, poses)
    wide, active, kernels = for_statistics(poses, poses, activations, transforms)
    lead = (*batch, *windows.grid)
    tail = (j, p * p) if by_entry else (j,)
    own = widen_parents(of_parents, (*lead, *tail), poses) if of_parents else ()
    grid = _Grid(
        xp.reshape(wide, (n, h * w, i, p, p)),
        xp.reshape(active, (n, h * w, i)),
        xp.reshape(kernels, (-1, j, p, p)),
        tuple(xp.reshape(x, (-1, *tail)) for x in own),
    )
    static = options._replace(schedule=())  # other temperatures compile nothing
    history = compiled(backends.get(poses), _follow, static, windows)(grid, options.schedule)
    check_finite(history, poses=poses, transforms=transforms, **of_parents)

    def arrange(routing: Routing) -> Routing:
        return Routing(
            xp.reshape(routing.poses, (*lead, j, p, p)),
            xp.reshape(routing.activations, (*lead, j)),
            xp.reshape(routing.assignments, (*lead, kernel, kernel, i, j)),
        )

    return finish(history, poses, options.return_path, arrange)
