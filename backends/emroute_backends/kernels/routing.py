"""EM routing of whole samples, all iterations while their votes are in the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from emroute_backends.kernels.agreement import route, settings_of
from emroute_backends.kernels.lanes import cast_poses, from_votes, lay_transforms
from emroute_backends.numpy import map_blocks, threads

__all__ = ["route_poses", "route_votes"]

Array = Any

_CACHED = 2**17  # numbers of votes that a core's cache holds


def route_votes(votes: Array, activations: Array, beta_u: Array, beta_a: Array, options: Any) -> tuple[Array, ...]:
    """As `emroute.capsule.gaussians.route_votes`; samples are shared out among threads."""
    _, n, j, d = votes.shape
    settings, first = settings_of(options, d, d, votes.dtype), np.empty((len(votes), 0, 0), votes.dtype)

    def block(votes: Array, *rest: Array) -> tuple[Array, ...]:
        return route(from_votes(votes), *rest, settings)[:3]

    betas = np.stack([beta_u, beta_a], axis=1)
    return _turned(_shared_out(block, [votes, activations, betas, first], n * j * d))


def route_poses(
    poses: Array,
    activations: Array,
    beta_u: Array,
    beta_a: Array,
    transforms: Array,
    shift: Array | None,
    options: Any,
) -> tuple[Array, ...]:
    """As `emroute.capsule.gaussians.route_poses`."""
    (_, n, p, _), j, dtype = poses.shape, transforms.shape[1], poses.dtype
    settings, first = settings_of(options, p * p, p, dtype), np.empty((len(poses), 0, 0), dtype)
    laid, moved = lay_transforms(transforms), np.empty((0, 0), dtype) if shift is None else shift.T

    def block(poses: Array, *rest: Array) -> tuple[Array, ...]:
        return route(cast_poses(poses, laid, moved), *rest, settings)[:3]

    betas = np.stack([beta_u, beta_a], axis=1)
    return _turned(_shared_out(block, [poses, activations, betas, first], n * j * p * p))


def _shared_out(block: Callable[..., Any], arrays: list[Array], n_votes: int) -> tuple[Array, ...]:
    """Run blocks of samples that the cache holds, each thread its own samples."""
    size, n = max(1, _CACHED // n_votes), len(arrays[0])

    def some(*own: Array) -> tuple[Array, ...]:
        cuts = range(0, len(own[0]), size)
        parts = [block(*(x[cut : cut + size] for x in own)) for cut in cuts]
        return tuple(map(np.concatenate, zip(*parts, strict=True)))

    return map_blocks(some, arrays, -(-n // threads()))


def _turned(routing: tuple[Array, ...]) -> tuple[Array, ...]:
    poses, active, assigned = routing
    return poses, active, np.swapaxes(assigned, -1, -2)
