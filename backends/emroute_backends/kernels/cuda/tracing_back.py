"""Gradients of EM routing of samples and of windows; the kernel is `retracing`.

Votes of poses are cast into memory here, a block of samples or windows at a time, and so are their gradients: those of
poses and transforms are products of matrices.
"""

from __future__ import annotations

from typing import Any

import torch

from emroute_backends.kernels.cuda.launching import options as launch
from emroute_backends.kernels.cuda.launching import padded
from emroute_backends.kernels.cuda.retracing import retrace
from emroute_backends.kernels.cuda.routing import constants, routed
from emroute_backends.torch import namespace

__all__ = ["poses_back", "votes_back", "windows_back"]

Array = Any

_HELD = 2**13  # bytes of votes at once in a program of 4 warps: 16 registers a thread, of several such tiles
_BLOCK = 2**28  # votes that are cast at once: a gigabyte of float32


def votes_back(args: tuple[Any, ...], of_results: tuple[Array, ...]) -> tuple[Array | None, ...]:
    """Gradients of the arguments of `route_votes`."""
    *given, options = args
    of_poses, of_active, of_assigned = of_results
    of_votes, of_activations, of_betas, _ = _back(tuple(given), options, (of_poses, of_active), of_assigned.mT)
    return of_votes, of_activations, *of_betas.unbind(dim=1), None


def poses_back(args: tuple[Any, ...], of_results: tuple[Array, ...]) -> tuple[Array | None, ...]:
    """Gradients of the arguments of `route_poses`."""
    *given, transforms, shift, options = args
    moved = 0 if shift is None else shift.T[:, None, :]

    def block(some: slice) -> tuple[Array, ...]:
        poses, *rest = (x[some] for x in given)
        of_poses, of_active, of_assigned = (x[some] for x in of_results)
        votes = _cast(poses, transforms) + moved
        of_votes, *found, _ = _back((votes, *rest), options, (of_poses, of_active), of_assigned.mT)
        return *found, *_uncast(of_votes, poses, transforms)

    of_activations, of_betas, of_poses, of_transforms = _in_blocks(block, len(given[0]), transforms)
    return of_poses, of_activations, *of_betas.unbind(dim=1), of_transforms, None, None


def windows_back(args: tuple[Any, ...], of_results: tuple[Array, ...]) -> tuple[Array | None, ...]:
    """Gradients of the arguments of `route_windows`."""
    poses, activations, index, logits, norm, beta_u, beta_a, transforms, options, last = args
    c, of_all, of_light = len(transforms), torch.zeros_like(poses), torch.zeros_like(activations)

    def block(some: slice) -> tuple[Array, ...]:
        rows = index[some].flatten()
        own, light = poses[rows].reshape(-1, c, *poses.shape[2:]), activations[rows].reshape(-1, c)
        before = (logits[some] - norm[some]).mT
        explained = None if last else (of_results[2][some].mT, of_results[3][some].reshape(len(before), c))
        given = _cast(own, transforms), light, beta_u[some], beta_a[some]
        of_parents = of_results[0][some], of_results[1][some]
        of_votes, of_own_light, of_betas, of_first = _back(given, options, of_parents, None, (before, explained))
        of_own, of_transforms = _uncast(of_votes, own, transforms)
        of_all.index_add_(0, rows, of_own.reshape(-1, *poses.shape[1:]))
        of_light.index_add_(0, rows, of_own_light.reshape(-1, activations.shape[1]))
        return of_first, of_betas, index[some], of_transforms

    of_first, of_betas, _, of_transforms = _in_blocks(block, len(index), transforms)
    of_norm = -of_first.sum(dim=-1)[:, None, :]
    return of_all, of_light, None, of_first.mT, of_norm, *of_betas.unbind(dim=1), of_transforms, None, None


def _in_blocks(block: Any, n: int, transforms: Array) -> tuple[Array, ...]:
    """Join what blocks return, and add up what comes last, of transforms."""
    size = max(1, _BLOCK // transforms.numel())
    parts = [block(slice(start, start + size)) for start in range(0, n, size)]
    *joined, of_transforms = zip(*parts, strict=True)
    return *(torch.cat(each) for each in joined), sum(of_transforms[1:], of_transforms[0])


def _cast(poses: Array, transforms: Array) -> Array:
    """Votes ``(b, I, J, H)``, by one product a child."""
    (b, i, p, _), j = poses.shape, transforms.shape[1]
    votes = namespace(poses).matmul(*_sides(poses, transforms)).reshape(i, b, p, j, p)
    return votes.permute(1, 0, 3, 2, 4).reshape(b, i, j, p * p)


def _uncast(of_votes: Array, poses: Array, transforms: Array) -> tuple[Array, Array]:
    """Gradients of poses and transforms."""
    (b, i, p, _), j, matmul = poses.shape, transforms.shape[1], namespace(poses).matmul
    slopes = of_votes.reshape(b, i, j, p, p).permute(1, 0, 3, 2, 4).reshape(i, b * p, j * p)
    rows, columns = _sides(poses, transforms)
    of_poses = matmul(slopes, columns.mT).reshape(i, b, p, p).permute(1, 0, 2, 3)
    return of_poses, matmul(rows.mT, slopes).reshape(i, p, j, p).permute(0, 2, 1, 3)


def _sides(poses: Array, transforms: Array) -> tuple[Array, Array]:
    """All poses of a child, and all its transforms, as one matrix each."""
    (b, i, p, _), j = poses.shape, transforms.shape[1]
    return poses.transpose(0, 1).reshape(i, b * p, p), transforms.transpose(1, 2).reshape(i, p, j * p)


def _back(
    given: tuple[Array, ...], options: Any, of_parents: tuple[Array, Array], of_assigned: Any, windows: Any = None
) -> tuple[Array, ...]:
    """Gradients of votes, activations ``(b, I)``, costs ``(b, 2, J)``, and logarithms of the first assignments.

    Windows bring these, and, unless this is their last iteration, gradients of logits and of their logsumexps.
    """
    x, activations, beta_u, beta_a = (x.contiguous() for x in given)
    b, n, j, h = x.shape
    before, explained = windows or (None, None)
    if windows:
        rows = torch.arange(b, device=x.device)[:, None]  # each window has its children in one place
        windows = rows, before.mT, x.new_zeros((b, 1, n)), explained is None
    found = routed((x, activations, beta_u, beta_a), (n, j, h), options, None, windows, keep=True)
    of_logits = x.new_zeros((b, n, j))
    if explained:
        of_found, of_norms = explained
        of_logits += of_found + of_norms[..., None] * (found.logits - found.norms[..., None]).exp()
    of_x, of_activations, of_betas = torch.empty_like(x), torch.zeros_like(activations), x.new_empty((b, 2, j))
    tiles = {"BJ": padded(j), "BH": padded(h)}
    tiles["BI"] = max(1, min(_HELD // x.itemsize // tiles["BJ"] // tiles["BH"], padded(n)))
    of_assigned = torch.zeros_like(of_logits) if of_assigned is None else of_assigned.contiguous()
    retrace[(b,)](
        x, activations, beta_u, *constants(options, x), *found.kept, found.log_assigned,
        *(y.contiguous() for y in of_parents), of_assigned, of_logits, of_x, of_activations, of_betas,
        n, j, h, len(options.schedule), **tiles, EXPLAINED=explained is not None,
        NORMALIZED=options.rule.cost == "normalized", num_warps=4, **launch,
    )  # fmt: skip
    return of_x, of_activations, of_betas, of_logits
