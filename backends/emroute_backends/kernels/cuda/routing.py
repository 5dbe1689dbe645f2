"""EM routing of samples, from votes or from poses, and of the windows of a convolution; the kernel is `agreement`."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from emroute_backends.kernels.cuda.agreement import route
from emroute_backends.kernels.cuda.launching import options as launch
from emroute_backends.kernels.cuda.launching import padded

__all__ = ["Routed", "constants", "route_poses", "route_votes", "route_windows", "routed"]

Array = Any

_HELD = 2**14  # bytes of votes at once in a program of 4 warps: 32 registers a thread, of some 170; 3 programs fit


class Routed(NamedTuple):
    """What the kernel wrote."""

    poses: Array
    active: Array
    log_assigned: Array
    """``(b, t, I, J)``: of every iteration that is kept, else of the last."""
    logits: Array
    """``(b, I, J)``, of windows unless this is the last iteration; so are the next."""
    norms: Array
    kept: tuple[Array, Array, Array]
    """Means and squares ``(b, t, J, H)``; logarithms of the largest R a, sums over these, logits ``(b, t, 3, J)``."""


def route_votes(votes: Array, activations: Array, beta_u: Array, beta_a: Array, options: Any) -> tuple[Array, ...]:
    """As `emroute.capsule.gaussians.route_votes`."""
    found = routed((votes, activations, beta_u, beta_a), votes.shape[1:], options)
    return found.poses, found.active, found.log_assigned[:, 0].exp().mT


def route_poses(*args: Any) -> tuple[Array, ...]:
    """As `emroute.capsule.gaussians.route_poses`."""
    *given, transforms, shift, options = args
    sizes = given[0].shape[1], transforms.shape[1], given[0].shape[-1] ** 2
    found = routed(tuple(given), sizes, options, (transforms, shift))
    return found.poses, found.active, found.log_assigned[:, 0].exp().mT


def route_windows(*args: Any) -> tuple[Array, ...]:
    """As `emroute.capsule.grids.route_windows`."""
    poses, activations, index, logits, norm, beta_u, beta_a, transforms, options, last = args
    sizes = transforms.shape[0], transforms.shape[1], poses.shape[-1] ** 2
    given = poses, activations, beta_u, beta_a
    found = routed(given, sizes, options, (transforms, None), (index, logits, norm, last))
    if last:
        return found.poses, found.active
    return found.poses, found.active, found.logits.mT, found.norms.reshape(*index.shape, -1)


def routed(
    given: tuple[Array, ...], sizes: Any, options: Any, cast: Any = None, windows: Any = None, keep: bool = False
) -> Routed:
    """Launch the kernel.

    Parameters
    ----------
    given
        Votes or poses, activations, and both costs.
    sizes
        Children of a sample or window, parents, entries of a vote.
    options
        As of `route_votes`.
    cast
        Transforms of poses, and a shift or None.
    windows
        Rows of children, logits, norms, and whether this is the last iteration, as of `route_windows`.
    keep
        Whether to keep what the way back needs.
    """
    x, activations, beta_u, beta_a = (x.contiguous() for x in given)
    (n, j, h), b, none, t = sizes, len(beta_u), x, len(options.schedule) if keep else 1
    transforms, shift = (None if y is None else y.contiguous() for y in cast or (None, None))
    index, logits, norm, last = windows or (none, none, none, True)
    tiles = {"BJ": padded(j), "BH": padded(h)}
    held = _HELD // x.itemsize // (1 if transforms is None else 2)  # beside votes, the transforms that cast them
    tiles["BI"] = max(1, min(held // tiles["BJ"] // tiles["BH"], padded(n)))
    poses, active, log_assigned = x.new_empty((b, j, h)), x.new_empty((b, j)), x.new_empty((b, t, n, j))
    further, norms = (none, none) if last else (x.new_empty((b, n, j)), x.new_empty((b, n)))
    means, squares, parents = (x.new_empty((b, t, *rest)) if keep else x for rest in ((j, h), (j, h), (3, j)))
    route[(b,)](
        x, none if transforms is None else transforms, none if shift is None else shift,
        index.contiguous(), activations, beta_u, beta_a, logits, norm.contiguous(), *constants(options, x),
        poses, active, log_assigned, further, norms, means, squares, parents,
        n, activations.shape[-1], j, h, len(options.schedule), *(logits.stride() if windows else (0, 0, 0)), **tiles,
        P=0 if transforms is None else transforms.shape[-1], MOVED=shift is not None, WINDOWS=windows is not None,
        EXPLAIN=not last, NORMALIZED=options.rule.cost == "normalized", KEEP=keep, num_warps=4, **launch,
    )  # fmt: skip
    return Routed(poses, active, log_assigned, further, norms, (means, squares, parents))


def constants(options: Any, like: Array) -> tuple[Array, Array]:
    """What keeps variances from 0, roundings within which costs tie, the least variance, two numbers; temperatures."""
    numbers, where = torch.finfo(like.dtype), (like.dtype, like.device)
    fixed = options.rule.epsilon, 16 * numbers.eps, 1e-8, math.log(2 * math.pi) / 2, numbers.tiny
    return _numbers(fixed, *where), _numbers(tuple(map(float, options.schedule)), *where)


@lru_cache(maxsize=256)
def _numbers(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Array:
    """Numbers on the device, copied there once; as arguments they would be rounded to float32."""
    return torch.tensor(values, dtype=dtype, device=device)
