"""EM routing of samples, from votes or from poses, and of the windows of a convolution; the kernel is `agreement`."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch

from emroute_backends.kernels.cuda.agreement import route
from emroute_backends.kernels.cuda.launching import options as launch
from emroute_backends.kernels.cuda.launching import padded

__all__ = ["route_poses", "route_votes", "route_windows"]

Array = Any

_HELD = 2**14  # bytes of votes at once in a program of 4 warps: 32 registers a thread, of some 170; 3 programs fit


def route_votes(votes: Array, activations: Array, beta_u: Array, beta_a: Array, options: Any) -> tuple[Array, ...]:
    """As `emroute.capsule.gaussians.route_votes`."""
    sizes = votes.shape[1:]
    poses, active, log_assigned, *_ = _route((votes, activations, beta_u, beta_a), sizes, options)
    return poses, active, log_assigned.exp().mT


def route_poses(*args: Any) -> tuple[Array, ...]:
    """As `emroute.capsule.gaussians.route_poses`."""
    poses, activations, beta_u, beta_a, transforms, shift, options = args
    sizes = poses.shape[1], transforms.shape[1], poses.shape[-1] ** 2
    given = poses, activations, beta_u, beta_a
    poses, active, log_assigned, *_ = _route(given, sizes, options, (transforms, shift))
    return poses, active, log_assigned.exp().mT


def route_windows(*args: Any) -> tuple[Array, ...]:
    """As `emroute.capsule.grids.route_windows`."""
    poses, activations, index, logits, norm, beta_u, beta_a, transforms, options, last = args
    sizes = transforms.shape[0], transforms.shape[1], poses.shape[-1] ** 2
    given = poses, activations, beta_u, beta_a
    windows = index, logits, norm, last
    poses, active, _, logits, norms = _route(given, sizes, options, (transforms, None), windows)
    return (poses, active) if last else (poses, active, logits.mT, norms.reshape(*index.shape, -1))


def _route(given: tuple[Array, ...], sizes: Any, options: Any, cast: Any = None, windows: Any = None) -> Any:
    x, activations, beta_u, beta_a = (x.contiguous() for x in given)
    (n, j, h), b, none = sizes, len(beta_u), x
    transforms, shift = (None if y is None else y.contiguous() for y in cast or (None, None))
    index, logits, norm, last = windows or (none, none, none, True)
    tiles = {"BJ": padded(j), "BH": padded(h)}
    held = _HELD // x.itemsize // (1 if transforms is None else 2)  # beside votes, the transforms that cast them
    tiles["BI"] = max(1, min(held // tiles["BJ"] // tiles["BH"], padded(n)))
    poses, active, log_assigned = x.new_empty((b, j, h)), x.new_empty((b, j)), x.new_empty((b, n, j))
    further, norms = (none, none) if last else (x.new_empty((b, n, j)), x.new_empty((b, n)))
    settings = _settings(options.rule.epsilon, x.dtype, x.device)
    temperatures = _numbers(tuple(map(float, options.schedule)), x.dtype, x.device)
    route[(b,)](
        x, none if transforms is None else transforms, none if shift is None else shift,
        index.contiguous(), activations, beta_u, beta_a, logits, norm.contiguous(), settings, temperatures,
        poses, active, log_assigned, further, norms, n, activations.shape[-1], j, h, len(options.schedule),
        *(logits.stride() if windows else (0, 0, 0)), **tiles, P=0 if transforms is None else transforms.shape[-1],
        MOVED=shift is not None, WINDOWS=windows is not None, EXPLAIN=not last,
        NORMALIZED=options.rule.cost == "normalized", num_warps=4, **launch,
    )  # fmt: skip
    return poses, active, log_assigned, further, norms


def _settings(epsilon: float, dtype: torch.dtype, device: torch.device) -> Array:
    """What keeps variances from 0, roundings within which costs tie, the least variance, and two numbers of a dtype."""
    numbers = torch.finfo(dtype)
    return _numbers((epsilon, 16 * numbers.eps, 1e-8, math.log(2 * math.pi) / 2, numbers.tiny), dtype, device)


@lru_cache(maxsize=256)
def _numbers(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Array:
    """Numbers on the device, copied there once; as arguments they would be rounded to float32."""
    return torch.tensor(values, dtype=dtype, device=device)
