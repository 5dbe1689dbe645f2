"""Dynamic and k-means routing: what `emroute.capsule.dynamic` does, a sample a program, a pass an iteration.

Logits are sums of scalar products of a vote with the poses so far, so they are its product with the sum of these poses:
nothing of the size of the logits is kept from one iteration to the next. A parent's sum of votes is held relative to
its largest share, so that it has a direction however little it gets.
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
        x, bias.contiguous(), poses, active, assigned, n, j, h, len(options.schedule), **tiles, REPLACES=rule.replaces,
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
    BI: tl.constexpr, BJ: tl.constexpr, BH: tl.constexpr, REPLACES: tl.constexpr,
    CONSTANT: tl.constexpr, LEAST: tl.constexpr, MOST: tl.constexpr,
):  # fmt: skip
    """Route the children of a sample to their parents."""
    b = tl.program_id(0).to(tl.int64)
    i, j, h = tl.arange(0, BI), tl.arange(0, BJ), tl.arange(0, BH)
    dtype: tl.constexpr = x.dtype.element_ty
    inside = (j < n_parents)[:, None] & (h < entries)[None, :]
    of_parents = (b * n_parents + j)[:, None] * entries + h[None, :]
    start = tl.load(bias + of_parents, inside, other=0)
    pose, guide = tl.zeros((BJ, BH), dtype), tl.zeros((BJ, BH), dtype)
    for t in range(n_iter):
        highest, sums = tl.full((BJ,), float("-inf"), dtype), tl.zeros((BJ, BH), dtype)
        for at in range(0, n, BI):
            child = at + i
            there, base = child < n, b * n + child
            votes = votes_of(x, x, x, base, child, there, j, h, n, n_parents, entries, 0, False)
            logits = tl.sum(votes * guide[None], axis=2)
            logits = tl.where((j < n_parents)[None, :], logits, float("-inf"))
            top = tl.max(logits, axis=1)
            gap = logits - top[:, None]
            share = gap - tl.log(tl.sum(tl.exp(gap), axis=1))[:, None]
            pair = there[:, None] & (j < n_parents)[None, :]
            if t == n_iter - 1:
                tl.store(assigned + base[:, None] * n_parents + j[None, :], tl.exp(share), pair)
            share = tl.where(pair, share, float("-inf"))
            higher = tl.maximum(highest, tl.max(share, axis=0))
            finite = tl.where(higher > float("-inf"), higher, 0)
            sums *= tl.exp(highest - finite)[:, None]
            sums += tl.sum(tl.exp(share - finite[None, :])[:, :, None] * votes, axis=0)
            highest = higher
        s = start + tl.exp(highest)[:, None] * sums
        length = lengths_of(s, LEAST)
        long = length > 1
        many, few = tl.where(long, length, 1), tl.where(long, 1, length)
        gain = tl.where(long, 1 / (CONSTANT / many + many), few / (CONSTANT + few * few))
        pose = s * (gain / tl.maximum(gain * length / MOST, 1))[:, None]
        if REPLACES:
            along = lengths_of(sums, LEAST)
            guide = sums / tl.where(along > 0, along, 1)[:, None]
        else:
            guide += pose
    tl.store(poses + of_parents, pose, inside)
    tl.store(active + b * n_parents + j, tl.minimum(lengths_of(pose, LEAST), 1), j < n_parents)
