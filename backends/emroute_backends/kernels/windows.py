"""An iteration of EM routing over the windows of a convolution; what couples windows is between iterations."""

from __future__ import annotations

from typing import Any

import numpy as np

from emroute_backends.kernels.agreement import route, settings_of
from emroute_backends.kernels.gradients import route_back
from emroute_backends.kernels.lanes import cast_poses, lay_transforms, transforms_of, uncast_poses
from emroute_backends.kernels.routing import share_out_samples

__all__ = ["route_windows", "windows_back"]

Array = Any


def route_windows(*args: Any) -> tuple[Array, ...]:
    """As `emroute.capsule.grids.route_windows`."""
    poses, activations, *windows, transforms, options, last = args
    (c, j, p, _), i = transforms.shape, activations.shape[-1]
    settings, laid = settings_of(options, p * p, p, not last, poses.dtype), lay_transforms(transforms)

    def block(index: Array, *rest: Array) -> tuple[Array, ...]:
        x = cast_poses(poses[index].reshape(-1, c, p, p), laid, poses[:0, :0, 0, 0])
        return route(x, activations[index].reshape(-1, c), *_first(*rest), settings)[: 2 if last else 4]

    found = share_out_samples(block, windows, c * j * p * p, n_samples=4)
    if last:
        return found
    poses_of_parents, active, logits, norms = found
    return poses_of_parents, active, np.swapaxes(logits, -1, -2), norms.reshape(len(norms), -1, i)


def windows_back(args: tuple[Any, ...], of_results: tuple[Array, ...]) -> tuple[Array | None, ...]:
    """Gradients of the arguments of `route_windows`."""
    poses, activations, *windows, transforms, options, last = args
    (c, j, p, _), index, dtype = transforms.shape, windows[0], poses.dtype
    settings, laid = settings_of(options, p * p, p, not last, dtype), lay_transforms(transforms)
    n = len(index)
    of_logits = np.zeros((n, c, j), dtype) if last else np.swapaxes(of_results[2], -1, -2)
    of_norms = np.zeros((n, c), dtype) if last else of_results[3].reshape(n, c)

    def block(index: Array, *rest: Array) -> tuple[Array, ...]:
        *given, of_poses, of_active, of_logits, of_norms = rest
        own = poses[index].reshape(-1, c, p, p)
        x, active = cast_poses(own, laid, poses[:0, :0, 0, 0]), activations[index].reshape(-1, c)
        *found, first = route_back(x, active, *_first(*given), settings, of_poses, of_active, of_logits, of_norms)
        of_poses, of_transforms = uncast_poses(found[0], own, laid)
        return of_poses, found[1], found[2], first, of_transforms

    arrays = [*windows, *of_results[:2], of_logits, of_norms]
    of_own, of_active_own, betas, first, of_laid = share_out_samples(block, arrays, c * j * p * p, n_samples=4)
    of_poses, of_active = np.zeros_like(poses), np.zeros_like(activations)
    for rows, own, active in zip(index, of_own, of_active_own, strict=True):  # a window sees a child once
        of_poses[rows] += own.reshape(-1, *poses.shape[1:])
        of_active[rows] += active.reshape(-1, activations.shape[1])
    of_first = np.swapaxes(first, -1, -2)
    of_norm = -first.sum(axis=-1)[:, None, :]
    of_transforms = transforms_of(of_laid.sum(axis=0), j)
    return of_poses, of_active, None, of_first, of_norm, betas[:, 0], betas[:, 1], of_transforms, None, None


def _first(logits: Array, norm: Array, beta_u: Array, beta_a: Array) -> tuple[Array, Array]:
    """Costs, and logarithms of assignments, children before parents."""
    return np.stack([beta_u, beta_a], axis=1), np.swapaxes(logits - norm, -1, -2)
