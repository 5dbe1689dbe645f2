"""EM routing of whole samples, all iterations while their votes are in the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from emroute_backends.kernels.agreement import route, settings_of
from emroute_backends.kernels.gradients import route_back
from emroute_backends.kernels.lanes import (
    cast_poses,
    from_votes,
    lay_transforms,
    to_votes,
    transforms_of,
    uncast_poses,
)
from emroute_backends.kernels.parts import in_parts
from emroute_backends.numpy import holding_threads, map_blocks

__all__ = ["poses_back", "route_poses", "route_votes", "share_out_samples", "votes_back"]

Array = Any

_CACHED = 2**17  # numbers of votes that a core's cache holds


def route_votes(votes: Array, activations: Array, beta_u: Array, beta_a: Array, options: Any) -> tuple[Array, ...]:
    """As `emroute.capsule.gaussians.route_votes`; samples are shared out among threads."""
    _, n, j, d = votes.shape
    settings = settings_of(options, d, d, False, votes.dtype)

    def block(votes: Array, *rest: Array) -> tuple[Array, ...]:
        return route(from_votes(votes), *rest, settings)[:3]

    return _turned(share_out_samples(block, _undecided(votes, activations, beta_u, beta_a), n * j * d))


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
    (_, n, p, _), j = poses.shape, transforms.shape[1]
    settings, laid = settings_of(options, p * p, p, False, poses.dtype), _laid(transforms, shift)

    def block(poses: Array, *rest: Array) -> tuple[Array, ...]:
        return route(cast_poses(poses, *laid), *rest, settings)[:3]

    return _turned(share_out_samples(block, _undecided(poses, activations, beta_u, beta_a), n * j * p * p))


def votes_back(args: tuple[Any, ...], of_results: tuple[Array, ...]) -> tuple[Array | None, ...]:
    """Gradients of the arguments of `route_votes`."""
    votes, *rest, options = args
    _, n, j, d = votes.shape
    settings = settings_of(options, d, d, False, votes.dtype)

    def block(votes: Array, *rest: Array) -> tuple[Array, ...]:
        x, active, betas, _ = route_back(from_votes(votes), *_with_settings(rest, settings))
        return to_votes(x, votes), active, betas

    arrays = [*_undecided(votes, *rest), *_turned(of_results)]
    of_votes, of_active, of_betas = share_out_samples(block, arrays, n * j * d)
    return of_votes, of_active, of_betas[:, 0], of_betas[:, 1], None


def poses_back(args: tuple[Any, ...], of_results: tuple[Array, ...]) -> tuple[Array | None, ...]:
    """Gradients of the arguments of `route_poses`."""
    poses, *rest, transforms, shift, options = args
    (_, n, p, _), j = poses.shape, transforms.shape[1]
    settings, laid = settings_of(options, p * p, p, False, poses.dtype), _laid(transforms, shift)

    def block(poses: Array, *rest: Array) -> tuple[Array, ...]:
        x, active, betas, _ = route_back(cast_poses(poses, *laid), *_with_settings(rest, settings))
        own, of_transforms = uncast_poses(x, poses, laid[0])
        return own, active, betas, of_transforms

    arrays = [*_undecided(poses, *rest), *_turned(of_results)]
    own, active, of_betas, of_laid = share_out_samples(block, arrays, n * j * p * p, n_samples=3)
    return own, active, of_betas[:, 0], of_betas[:, 1], transforms_of(of_laid.sum(axis=0), j), None, None


def _undecided(children: Array, activations: Array, beta_u: Array, beta_a: Array) -> list[Array]:
    """Arguments of `route` for whole samples, whose children start with equal assignments."""
    first = np.empty((len(children), 0, 0), children.dtype)
    return [children, activations, np.stack([beta_u, beta_a], axis=1), first]


def _laid(transforms: Array, shift: Array | None) -> tuple[Array, Array]:
    """Transforms in lanes, and the shift as `cast_poses` takes it."""
    return lay_transforms(transforms), np.empty((0, 0), transforms.dtype) if shift is None else shift.T


def _with_settings(rest: tuple[Array, ...], settings: Array) -> tuple[Array, ...]:
    """Arguments of `route_back` but for the votes; there are no logsumexps, so no gradients of them."""
    *given, of_poses, of_active, of_assigned = rest
    return *given, settings, of_poses, of_active, of_assigned, np.empty((len(of_poses), 0), of_poses.dtype)


def share_out_samples(
    block: Callable[..., Any], arrays: list[Array], n_votes: int, n_samples: int = 3
) -> tuple[Array, ...]:
    """Run blocks of samples that the cache holds, each thread its own samples.

    Results beyond the first `n_samples` are of all samples together: they are added up, and come once a thread.
    """
    size = max(1, _CACHED // n_votes)

    def own(*arrays: Array) -> tuple[Array, ...]:
        totals: list[Array] = []

        def each(*part: Array) -> tuple[Array, ...]:
            found = block(*part)
            totals[:] = map(np.add, totals, found[n_samples:]) if totals else found[n_samples:]
            return found[:n_samples]

        with holding_threads(1):
            joined = map_blocks(each, arrays, size)
        return *joined, *(total[None] for total in totals)

    return in_parts(own, arrays, n_votes)


def _turned(routing: tuple[Array, ...]) -> tuple[Array, ...]:
    poses, active, assigned = routing
    return poses, active, np.swapaxes(assigned, -1, -2)
