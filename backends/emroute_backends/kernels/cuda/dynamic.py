"""Dynamic routing: what `emroute.capsule.dynamic` does, a sample a program, with one pass over the votes an iteration.

Logits are sums of scalar products of a vote with the poses so far, so they are its product with the sum of these poses:
nothing of the size of the logits is kept from one iteration to the next.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from emroute_backends.kernels.cuda.agreement import votes_of
from emroute_backends.kernels.cuda.launching import options as launch
from emroute_backends.kernels.cuda.launching import padded

__all__ = ["route_products"]

Array = Any

_HELD = 2**14  # bytes of votes at once in a program of 4 warps: 32 registers a thread


def route_products(votes: Array, bias: Array, options: Any) -> tuple[Array, ...]:
    """As `emroute.capsule.dynamic.route_products`."""
    (b, n, j, h), rule = votes.shape, options.rule
    poses, active, assigned = votes.new_empty((b, j, h)), votes.new_empty((b, j)), votes.new_empty((b, n, j))
    tiles = {"BJ": padded(j), "BH": padded(h)}
    tiles["BI"] = max(1, min(_HELD // votes.itemsize // tiles["BJ"] // tiles["BH"], padded(n)))
    numbers, x = torch.finfo(votes.dtype), votes.contiguous()
    agree[(b,)](
        x, bias.contiguous(), poses, active, assigned, n, j, h, len(options.schedule), **tiles, LEAKY=rule.n_more > 0,
        CONSTANT=rule.constant, LEAST=numbers.tiny, MOST=1 - 4 * numbers.eps, num_warps=4, **launch,
    )  # fmt: skip
    return poses, active, assigned.mT


@triton.jit
def lengths_of(s, LEAST: tl.constexpr):
    """Lengths of vectors, without overflow."""
    top = tl.max(tl.abs(s), axis=1)
    top = tl.where((top > LEAST) & (top < float("inf")), top, 1)
    part = s / top[:, None]
    return top * tl.sqrt(tl.sum(part * part, axis=1))


@triton.jit
def agree(
    x, bias, poses, active, assigned, n, n_parents, entries, n_iter,
    BI: tl.constexpr, BJ: tl.constexpr, BH: tl.constexpr, LEAKY: tl.constexpr,
    CONSTANT: tl.constexpr, LEAST: tl.constexpr, MOST: tl.constexpr,
):  # fmt: skip
    """Route the children of a sample to their parents."""
    b = tl.program_id(0).to(tl.int64)
    i, j, h = tl.arange(0, BI), tl.arange(0, BJ), tl.arange(0, BH)
    dtype: tl.constexpr = x.dtype.element_ty
    inside = (j < n_parents)[:, None] & (h < entries)[None, :]
    of_parents = (b * n_parents + j)[:, None] * entries + h[None, :]
    start = tl.load(bias + of_parents, inside, other=0)
    pose, so_far = tl.zeros((BJ, BH), dtype), tl.zeros((BJ, BH), dtype)
    for t in range(n_iter):
        so_far += pose
        s = start
        for at in range(0, n, BI):
            child = at + i
            there, base = child < n, b * n + child
            votes = votes_of(x, x, x, base, child, there, j, h, n, n_parents, entries, 0, False)
            logits = tl.sum(votes * so_far[None], axis=2)
            logits = tl.where((j < n_parents)[None, :], logits, float("-inf"))
            top = tl.max(logits, axis=1)
            if LEAKY:
                top = tl.maximum(top, 0)
            share = tl.exp(logits - top[:, None])
            total = tl.sum(share, axis=1)
            if LEAKY:
                total += tl.exp(-top)
            share /= total[:, None]
            s += tl.sum(share[:, :, None] * votes, axis=0)
            if t == n_iter - 1:
                pair = there[:, None] & (j < n_parents)[None, :]
                tl.store(assigned + base[:, None] * n_parents + j[None, :], share, pair)
        length = lengths_of(s, LEAST)
        long = length > 1
        many, few = tl.where(long, length, 1), tl.where(long, 1, length)
        gain = tl.where(long, 1 / (CONSTANT / many + many), few / (CONSTANT + few * few))
        pose = s * (gain / tl.maximum(gain * length / MOST, 1))[:, None]
    tl.store(poses + of_parents, pose, inside)
    tl.store(active + b * n_parents + j, tl.minimum(lengths_of(pose, LEAST), 1), j < n_parents)
