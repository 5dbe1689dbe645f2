"""EM routing of whole samples, all iterations while their votes are in the cache."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from emroute_backends.kernels.agreement import iterate, room_for_parents
from emroute_backends.kernels.compiling import loops, piece
from emroute_backends.kernels.lanes import GROUP, empty_votes, lay_out
from emroute_backends.kernels.shares import room_for_shares
from emroute_backends.numpy import map_blocks, threads

__all__ = ["route_votes"]

Array = Any


def route_votes(votes: Array, activations: Array, beta_u: Array, beta_a: Array, options: Any) -> tuple[Array, ...]:
    """As `emroute.capsule.gaussians.route_votes`; samples are shared out among threads."""
    dtype = votes.dtype
    settings = np.asarray([options.rule.epsilon, options.rule.cost == "normalized", votes.shape[-1]], dtype)
    temperatures = np.asarray(options.schedule, dtype)

    def route(votes: Array, activations: Array, betas: Array) -> tuple[Array, ...]:
        return from_votes(votes, activations, betas, temperatures, settings)

    arrays = votes, activations, np.stack([beta_u, beta_a], axis=1)
    poses, active, assigned = map_blocks(route, arrays, -(-len(votes) // threads()))
    return poses, active, np.swapaxes(assigned, -1, -2)


@loops("f4", "f2", "f3", "f1", "f1")
def from_votes(votes: Array, activations: Array, betas: Array, temperatures: Array, settings: Array) -> Any:
    """Poses ``(b, J, H)``, activations ``(b, J)`` and assignments ``(b, I, J)`` of votes ``(b, I, J, H)``."""
    b, n, k, d = votes.shape
    x = empty_votes(n, k, d, votes)
    shares, parents = room_for_shares(x, 1), room_for_parents(x, 1, k)
    poses, active = np.empty((b, k, d), votes.dtype), np.empty((b, k), votes.dtype)
    assigned = np.empty((b, n, k), votes.dtype)
    for p in range(b):
        lay_out(votes[p], x)
        iterate(x, activations[p], betas[p], temperatures, settings, shares, parents)
        read_out(shares, parents, poses[p], active[p], assigned[p])
    return poses, active, assigned


@piece
def read_out(shares, parents, poses, active, assigned):
    """The routing after the last iteration that was kept."""
    k, d = poses.shape
    slot = len(parents.mean) - 1
    for j in range(k):
        logit = parents.logit[slot, j]
        active[j] = math.exp(min(logit, poses.dtype.type(0)) - math.log1p(math.exp(-abs(logit))))
        for h in range(d):
            poses[j, h] = parents.mean[slot, j // GROUP, h // 4, j % GROUP * 4 + h % 4]
    for i in range(len(assigned)):
        for j in range(k):
            assigned[i, j] = shares.assigned[slot, i // 4, j // GROUP, j % GROUP * 4 + i % 4]
