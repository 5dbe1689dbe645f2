"""Responsibilities from joint log-densities: read once or twice, written once, where the text makes ten passes."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from emroute_backends.kernels.cuda.launching import flat, options, padded

__all__ = ["share_rows"]

Array = Any

_HELD = 2**12  # numbers at once in a program of 4 warps, 32 a thread


def share_rows(log_joint: Array, weight: Array) -> tuple[Array, Array]:
    """As `emroute.mixtures.posterior.share_rows`."""
    batch = torch.broadcast_shapes(log_joint.shape[:-2], weight.shape[:-1])
    joint, weights, *places = flat(batch, (log_joint, 2), (weight, 1))
    (k, n), problems = joint.shape[1:], len(places[0])
    shares, log_norm = joint.new_empty((problems, k, n)), joint.new_empty((problems, n))
    components = min(padded(k), 64)
    rows = min(_HELD // components, 256)
    least = torch.finfo(joint.dtype).tiny
    share[(triton.cdiv(n, rows) * problems,)](
        joint, weights, *places, shares, log_norm, n, k, BK=components, BN=rows, LEAST=least,
        FAINT=least / torch.finfo(joint.dtype).eps, **options,
    )  # fmt: skip
    return shares.reshape((*batch, k, n)), log_norm.reshape((*batch, n))


@triton.jit
def share(
    joint, weights, of_joint, of_weight, shares, log_norm, n, k,
    BK: tl.constexpr, BN: tl.constexpr, LEAST: tl.constexpr, FAINT: tl.constexpr,
):  # fmt: skip
    """Softmax over components of a tile of rows, times their weights; rows lie side by side."""
    tiles = tl.cdiv(n, BN)
    problem = (tl.program_id(0) // tiles).to(tl.int64)
    rows, own = tl.program_id(0) % tiles * BN + tl.arange(0, BN), tl.arange(0, BK)
    x = joint + tl.load(of_joint + problem) * k * n + rows[None, :]
    out = shares + problem * k * n + rows[None, :]
    dtype: tl.constexpr = joint.dtype.element_ty
    top = tl.full((BN,), float("-inf"), dtype)
    for c in range(0, k, BK):
        at = (c + own).to(tl.int64)[:, None] * n
        found = tl.load(x + at, ((c + own) < k)[:, None] & (rows < n)[None, :], other=float("-inf"))
        top = tl.maximum(top, tl.max(found, axis=0))
    top = tl.where(tl.abs(top) < float("inf"), top, 0)
    total = tl.zeros((BN,), dtype)
    for c in range(0, k, BK):
        at = (c + own).to(tl.int64)[:, None] * n
        found = tl.load(x + at, ((c + own) < k)[:, None] & (rows < n)[None, :], other=float("-inf"))
        part = tl.exp(found - top[None, :])
        total += tl.sum(tl.where(part > FAINT, part, 0), axis=0)
    whole = tl.load(weights + tl.load(of_weight + problem) * n + rows, rows < n, other=0)
    whole = whole / tl.where(total == 0, 1, total)
    for c in range(0, k, BK):
        at = (c + own).to(tl.int64)[:, None] * n
        inside = ((c + own) < k)[:, None] & (rows < n)[None, :]
        part = tl.exp(tl.load(x + at, inside, other=float("-inf")) - top[None, :])
        tl.store(out + at, tl.where(part > FAINT, part, 0) * whole[None, :], inside)
    none = total < LEAST
    log_total = tl.where(none, float("-inf"), tl.log(tl.where(none, 1, total)))
    tl.store(log_norm + problem * n + rows, log_total + top, rows < n)
