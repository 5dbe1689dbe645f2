"""Squared lengths and moments of Gaussians with variances alone, from differences of rows to means.

Three or four operations a number of a row and a component, and nothing of size k d n in memory. Products of matrices
would take two, but lose the digits of narrow components.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from emroute_backends.kernels.cuda.launching import flat, options, padded

__all__ = ["diagonal_moments", "diagonal_squares"]

Array = Any

_HELD = 2**12  # numbers at once in a program of 4 warps, 32 a thread
_PROGRAMS, _FEWEST = 2**11, 2**9  # programs that keep all multiprocessors busy, and rows that are worth one


def diagonal_squares(z: Array, means: Array, factors: Array) -> tuple[Array]:
    """As `emroute.gmm.differences.diagonal_squares`."""
    batch = torch.broadcast_shapes(z.shape[:-2], means.shape[:-2], factors.shape[:-2])
    columns, centres, scales, *places = flat(batch, (z, 2), (means, 2), (factors, 2))
    (d, n), k, problems = columns.shape[1:], means.shape[-2], len(places[0])
    components = min(padded(k), 32)
    rows = min(_HELD // components, 128)
    squares = z.new_empty((problems, k, n))
    grid = triton.cdiv(n, rows) * problems, triton.cdiv(k, components)
    square[grid](columns, centres, scales, *places, squares, n, k, d, BK=components, BN=rows, **options)
    return (squares.reshape((*batch, k, n)),)


def diagonal_moments(z: Array, means: Array, shares: Array) -> tuple[Array, Array]:
    """As `emroute.gmm.differences.diagonal_moments`."""
    batch = torch.broadcast_shapes(z.shape[:-2], means.shape[:-2], shares.shape[:-2])
    rows, centres, parts, *places = flat(batch, (z.mT, 2), (means, 2), (shares, 2))
    (n, d), k, problems = rows.shape[1:], means.shape[-2], len(places[0])
    wide = min(padded(d), 32)
    tile = {"BK": min(4, padded(k)), "BD": wide, "BN": max(1, _HELD // 4 // wide // z.itemsize * 4)}
    blocks = triton.cdiv(k, tile["BK"]), triton.cdiv(d, wide)
    splits = min(triton.cdiv(_PROGRAMS, problems * blocks[0] * blocks[1]), triton.cdiv(n, _FEWEST))
    found = z.new_empty((2, problems, k, splits, d))
    moment[(problems * splits, *blocks)](
        rows, centres, parts, *places, found[0], found[1], n, k, d, splits, **tile, **options
    )
    first, second = found.sum(dim=3, dtype=torch.float64).to(z.dtype).reshape((2, *batch, k, d))
    return first, second


@triton.jit
def square(
    z, means, factors, of_z, of_means, of_factors, squares, n, k, d, BK: tl.constexpr, BN: tl.constexpr
):  # fmt: skip
    """Squared lengths of a tile of rows, side by side, about some means; one feature after another."""
    tiles = tl.cdiv(n, BN)
    problem = (tl.program_id(0) // tiles).to(tl.int64)
    rows, c = tl.program_id(0) % tiles * BN + tl.arange(0, BN), tl.program_id(1) * BK + tl.arange(0, BK)
    x = z + tl.load(of_z + problem) * d * n + rows
    mean = means + (tl.load(of_means + problem) * k + c) * d
    factor = factors + (tl.load(of_factors + problem) * k + c) * d
    total = tl.zeros((BK, BN), z.dtype.element_ty)
    for f in range(d):
        value = tl.load(x, rows < n, other=0)
        gap = value[None, :] - tl.load(mean + f, c < k, other=0)[:, None]
        white = gap * tl.load(factor + f, c < k, other=0)[:, None]
        total += white * white
        x += n
    at = (problem * k + c)[:, None] * n + rows[None, :]
    tl.store(squares + at, total, (c < k)[:, None] & (rows < n)[None, :])


@triton.jit
def moment(
    z, means, shares, of_z, of_means, of_shares, first, second, n, k, d, splits,
    BK: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Moments of some components and features by one part of the rows, which are added up at the end."""
    problem, split = (tl.program_id(0) // splits).to(tl.int64), tl.program_id(0) % splits
    c, f, i = tl.program_id(1) * BK + tl.arange(0, BK), tl.program_id(2) * BD + tl.arange(0, BD), tl.arange(0, BN)
    inside = (c < k)[:, None] & (f < d)[None, :]
    mean = tl.load(means + (tl.load(of_means + problem) * k + c)[:, None] * d + f[None, :], inside, other=0)
    z += tl.load(of_z + problem) * n * d
    shares += (tl.load(of_shares + problem) * k + c)[:, None, None] * n
    length = tl.cdiv(n, splits)
    stop = tl.minimum((split + 1) * length, n)
    straight, bent = tl.zeros((BK, BN, BD), z.dtype.element_ty), tl.zeros((BK, BN, BD), z.dtype.element_ty)
    for at in range(split * length, stop, BN):
        row = at + i
        x = z + row.to(tl.int64)[None, :, None] * d + f[None, None, :]
        value = tl.load(x, (row < stop)[None, :, None] & (f < d)[None, None, :], other=0)
        own = (c < k)[:, None, None] & (row < stop)[None, :, None]
        gap = value - mean[:, None, :]
        part = tl.load(shares + row[None, :, None], own, other=0) * gap
        straight += part
        bent += part * gap
    at = ((problem * k + c) * splits + split)[:, None] * d + f[None, :]
    tl.store(first + at, tl.sum(straight, axis=1), inside)
    tl.store(second + at, tl.sum(bent, axis=1), inside)
