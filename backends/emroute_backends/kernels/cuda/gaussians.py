"""Squared Mahalanobis lengths and moments of Gaussians with full covariances, from differences of rows to means.

Differences come first and are then multiplied by tensor cores, so that no digit is lost and nothing of size k d n is in
memory. Rows are read once for each component, by all programs at about the same time: from the device's cache.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from emroute_backends.kernels.cuda.launching import flat, options, padded, precision

__all__ = ["full_moments", "full_squares"]

Array = Any

_PROGRAMS = 2**10  # some for every multiprocessor, so that the last ones do not keep the others waiting
_FEWEST = 2**10  # rows that a program of moments adds up


def full_squares(z: Array, means: Array, factors: Array) -> tuple[Array]:
    """As `emroute.gmm.differences.full_squares`."""
    batch = torch.broadcast_shapes(z.shape[:-2], means.shape[:-2], factors.shape[:-3])
    rows, centres, scales, *places = flat(batch, (z.mT, 2), (means, 2), (factors, 3))
    (n, d), k, problems, tile = rows.shape[1:], means.shape[-2], len(places[0]), _tile(z)
    squares = z.new_empty((problems, k, n))
    square[(triton.cdiv(n, tile["BN"]) * problems,)](
        rows, centres, scales, *places, squares, n, k, d, scales.shape[1], **tile, PRECISION=precision(z), **options
    )
    return (squares.reshape((*batch, k, n)),)


def full_moments(z: Array, means: Array, shares: Array) -> tuple[Array, Array]:
    """As `emroute.gmm.differences.full_moments`."""
    batch = torch.broadcast_shapes(z.shape[:-2], means.shape[:-2], shares.shape[:-2])
    rows, centres, parts, *places = flat(batch, (z.mT, 2), (means, 2), (shares, 2))
    (n, d), k, problems, tile = rows.shape[1:], means.shape[-2], len(places[0]), _tile(z)
    blocks = triton.cdiv(d, tile["BD"])
    splits = min(triton.cdiv(_PROGRAMS, problems * k * blocks**2), triton.cdiv(n, _FEWEST))
    first, second = z.new_empty((problems, k, splits, d)), z.new_empty((problems, k, splits, d, d))
    moment[(problems * k * splits, blocks, blocks)](
        rows, centres, parts, *places, first, second, n, k, d, splits, **tile, PRECISION=precision(z), **options
    )
    found = (x.sum(dim=2, dtype=torch.float64).to(z.dtype) for x in (first, second))
    return tuple(x.reshape((*batch, *x.shape[1:])) for x in found)


def _tile(z: Array) -> dict[str, int]:
    """Sizes: rows and sums take 32 registers a thread each, where they are wide."""
    single = z.dtype == torch.float32
    return {"BN": 64 if single else 32, "BD": min(64 if single else 32, padded(z.shape[-2], 16)), "num_warps": 4}


@triton.jit
def square(
    z, means, factors, of_z, of_means, of_factors, squares, n, k, d, n_factors,
    BN: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Squared lengths of a tile of rows about all means."""
    tiles = tl.cdiv(n, BN)
    problem = (tl.program_id(0) // tiles).to(tl.int64)
    rows, own = tl.program_id(0) % tiles * BN + tl.arange(0, BN), tl.arange(0, BD)
    x = z + tl.load(of_z + problem) * n * d + rows.to(tl.int64)[:, None] * d + own[None, :]
    means += tl.load(of_means + problem) * k * d
    factors += tl.load(of_factors + problem) * n_factors * d * d
    for c in range(k):
        total = tl.zeros((BN,), z.dtype.element_ty)
        factor = factors + tl.minimum(c, n_factors - 1) * d * d
        for g in range(0, d, BD):
            white = tl.zeros((BN, BD), z.dtype.element_ty)
            for f in range(0, d, BD):
                inside = own < d - f
                gap = tl.load(x + f, (rows < n)[:, None] & inside[None, :], other=0)
                gap -= tl.load(means + c * d + f + own, inside, other=0)[None, :]
                at = (g + own)[None, :] * d + (f + own)[:, None]
                scale = tl.load(factor + at, inside[:, None] & (own < d - g)[None, :], other=0)
                white = tl.dot(gap, scale, white, input_precision=PRECISION, out_dtype=white.dtype)
            total += tl.sum(white * white, axis=1)
        tl.store(squares + (problem * k + c) * n + rows, total, rows < n)


@triton.jit
def moment(
    z, means, shares, of_z, of_means, of_shares, first, second, n, k, d, splits,
    BN: tl.constexpr, BD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Moments of one component by one part of the rows; a block of features by a block of them."""
    program = tl.program_id(0).to(tl.int64)
    problem, c, split = program // splits // k, program // splits % k, program % splits
    own, i = tl.arange(0, BD), tl.arange(0, BN)
    f, g = tl.program_id(1) * BD + own, tl.program_id(2) * BD + own
    means += (tl.load(of_means + problem) * k + c) * d
    mean_f, mean_g = tl.load(means + f, f < d, other=0), tl.load(means + g, g < d, other=0)
    z += tl.load(of_z + problem) * n * d
    shares += (tl.load(of_shares + problem) * k + c) * n
    length = tl.cdiv(n, splits)
    start = split * length
    stop = tl.minimum(start + length, n)
    straight, bent = tl.zeros((BD,), z.dtype.element_ty), tl.zeros((BD, BD), z.dtype.element_ty)
    for at in range(start, stop, 8 * BN):
        part = tl.zeros((BD, BD), z.dtype.element_ty)  # tensor cores cut sums off: long ones would come out short
        for more in range(0, 8 * BN, BN):
            row = at + more + i
            there = row < stop
            share = tl.load(shares + row, there, other=0)
            x = z + row[:, None] * d
            left = tl.load(x + f[None, :], there[:, None] & (f < d)[None, :], other=0) - mean_f[None, :]
            right = tl.load(x + g[None, :], there[:, None] & (g < d)[None, :], other=0) - mean_g[None, :]
            left *= share[:, None]
            straight += tl.sum(left, axis=0)
            part = tl.dot(tl.trans(left), right, part, input_precision=PRECISION, out_dtype=part.dtype)
        bent += part
    if tl.program_id(2) == 0:
        tl.store(first + program * d + f, straight, f < d)
    tl.store(second + (program * d + f)[:, None] * d + g[None, :], bent, (f < d)[:, None] & (g < d)[None, :])
