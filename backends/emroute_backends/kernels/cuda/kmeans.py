"""k-means' assignment and sums: products label the rows, then the rows of each cluster are summed together.

Labels are sorted, stably, so that a program sums rows of one cluster alone: no atomics, one order, the same sums every
time. Rows are read twice, once as they lie and once by cluster; a row of 64 bytes or more costs the same in either.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl

from emroute.arrays.distances import alike as alike_of
from emroute_backends.kernels.cuda.launching import flat, options, padded, precision

__all__ = ["assign_rows", "label_rows"]

Array = Any

_HELD = 2**14  # bytes of rows in a program of 4 warps: 32 registers a thread for the rows, 32 for their sums
_PIECE = 2**10  # fewest rows a program sums: launching one costs as much as reading some hundred


def assign_rows(z: Array, centroids: Array, alike: Array, weight: Array) -> tuple[Array, ...]:
    """As `emroute.kmeans.assignment.assign_rows`."""
    batch, n = torch.broadcast_shapes(z.shape[:-2], centroids.shape[:-2], weight.shape[:-1]), z.shape[-2]
    rows, means, w, close, *places = flat(batch, (z, 2), (centroids, 2), (weight, 1), (alike, 0))
    labels = _labels((rows, means, close), (places[0], places[1], places[3]))
    counts, sums, inertia, distance, where = _sums((rows, means, w), places, labels)
    most = distance.amax(dim=-1)
    first = torch.where(distance == most[:, None], where, n).amin(dim=-1)
    farthest = rows[places[0], first]
    found = counts, sums, inertia.sum(dim=-1).to(z.dtype), farthest, most
    return tuple(x.reshape((*batch, *x.shape[1:])) for x in found)


def label_rows(z: Array, centroids: Array) -> tuple[Array, Array]:
    """As `emroute.kmeans.assignment.label_rows`."""
    batch = torch.broadcast_shapes(z.shape[:-2], centroids.shape[:-2])
    rows, means, close, *places = flat(batch, (z, 2), (centroids, 2), (alike_of(centroids), 0))
    squares = z.new_empty((math.prod(batch), z.shape[-2]))
    labels = _labels((rows, means, close), places, squares)
    return labels.to(torch.int64).reshape((*batch, -1)), squares.reshape((*batch, -1))


def _labels(arrays: tuple[Array, ...], places: Any, squares: Array | None = None) -> Array:
    """Labels ``(problems, n)`` of as few bits as hold them, for fewer are sorted sooner; also writes the squares."""
    rows, means, close = arrays
    (n, d), k, problems = rows.shape[1:], means.shape[1], len(places[0])
    kind = torch.uint8 if k <= 2**8 else torch.int16 if k <= 2**15 else torch.int32
    labels = torch.empty((problems, n), dtype=kind, device=rows.device)
    half = (means * means).sum(dim=-1) / 2
    wide = rows.dtype == torch.float32
    # on Hopper 174 registers a thread and 64 KiB for three stages of loads; a float takes part in 21 products
    tiles = {"BN": 128 if wide else 64, "BK": min(64, padded(k, 16)), "BD": min(32, padded(d, 16))}
    grid = (triton.cdiv(n, tiles["BN"]) * problems,)
    found = labels if squares is None else squares
    given = rows, means, half, close, *places, labels, found, n, k, d
    label[grid](*given, **tiles, SQUARES=squares is not None, PRECISION=precision(rows), num_warps=8, **options)
    return labels


@triton.jit
def label(
    z, centroids, half, alike, of_z, of_c, of_alike, labels, squares, n, k, d,
    BN: tl.constexpr, BK: tl.constexpr, BD: tl.constexpr, SQUARES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Nearest centroids of a tile of rows: by products, or by differences where those cannot tell two apart."""
    tiles = tl.cdiv(n, BN)
    problem, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    place = tl.load(of_c + problem)
    rows, features, own = tile * BN + tl.arange(0, BN), tl.arange(0, BD), tl.arange(0, BK)
    z += tl.load(of_z + problem) * n * d
    centroids += place * k * d
    x = z + rows.to(tl.int64)[:, None] * d + features[None, :]
    there = rows[:, None] < n
    best = tl.full((BN,), float("inf"), half.dtype.element_ty)
    nearest = tl.zeros((BN,), tl.int32)
    if tl.load(alike + tl.load(of_alike + problem)) > 0:
        for c in range(k):
            square = tl.zeros((BN,), half.dtype.element_ty)
            for f in range(0, d, BD):
                inside = features[None, :] < d - f
                row = tl.load(x + f, there & inside, other=0)
                gap = row - tl.load(centroids + c * d + f + features[None, :], inside, other=0)
                square += tl.sum(gap * gap, axis=1)
            nearest = tl.where(square < best, c, nearest)
            best = tl.minimum(square, best)
    else:
        for c in range(0, k, BK):
            product = tl.zeros((BN, BK), half.dtype.element_ty)
            m = centroids + (c + own)[None, :] * d + features[:, None]
            for f in range(0, d, BD):
                row = tl.load(x + f, there & (features[None, :] < d - f), other=0)
                mean = tl.load(m + f, ((c + own)[None, :] < k) & (features[:, None] < d - f), other=0)
                product = tl.dot(row, mean, product, input_precision=PRECISION, out_dtype=product.dtype)
            length = tl.load(half + place * k + c + own, c + own < k, other=float("inf"))
            least, where = tl.min(length[None, :] - product, axis=1, return_indices=True)
            nearest = tl.where(least < best, c + where, nearest)
            best = tl.minimum(least, best)
    out = problem.to(tl.int64) * n + rows
    tl.store(labels + out, nearest.to(labels.dtype.element_ty), rows < n)
    if SQUARES:
        square = tl.zeros((BN,), half.dtype.element_ty)
        for f in range(0, d, BD):
            inside = there & (features[None, :] < d - f)
            gap = tl.load(x + f, inside, other=0)
            gap -= tl.load(centroids + nearest[:, None] * d + f + features[None, :], inside, other=0)
            square += tl.sum(gap * gap, axis=1)
        tl.store(squares + out, square, rows < n)


def _sums(arrays: tuple[Array, ...], places: Any, labels: Array) -> tuple[Array, ...]:
    """Counts and sums of each cluster, and its inertia, largest squared distance and the first row that has it."""
    rows, means, weight = arrays
    (n, d), k, problems = rows.shape[1:], means.shape[1], len(labels)
    ordered, order = torch.sort(labels, dim=-1, stable=True)
    clusters = torch.arange(k, device=rows.device, dtype=labels.dtype).expand(problems, k).contiguous()
    ends = torch.searchsorted(ordered, clusters, right=True)
    starts = torch.nn.functional.pad(ends[:, :-1], (1, 0))
    wide = padded(d, 16)
    tile = max(1, min(128, _HELD // rows.itemsize // wide))
    length = max(_PIECE, 8 * tile)
    last = ((ends - starts + length - 1) // length).flatten().cumsum(0)  # pieces up to each cluster
    pieces = problems * n // length + problems * k  # no fewer, and known without asking the device
    owner = torch.searchsorted(last, torch.arange(pieces, device=rows.device), right=True)
    parts, single = rows.new_empty((pieces, d)), rows.new_empty((3, pieces))
    rests = torch.empty(pieces, dtype=torch.int64, device=rows.device)
    given = rows, means, weight, *places[:3], order, starts, ends, last, owner
    sum_piece[(pieces,)](
        *given, parts, single, rests, n, k, d, pieces, problems * k, length, BN=tile, BD=wide, num_warps=4, **options
    )
    sums, counts, distance = rows.new_empty((problems, k, d)), *rows.new_empty((2, problems, k))
    inertia, where = torch.empty_like(counts, dtype=torch.float64), torch.empty_like(starts)
    results = sums, counts, inertia, distance, where
    add_pieces[(problems * k,)](
        parts, single, rests, last, *results, n, d, pieces, BP=max(1, min(32, _HELD // 4 // wide)), BD=wide,
        num_warps=4, **options,
    )  # fmt: skip
    return counts, sums, inertia, distance, where


@triton.jit
def sum_piece(
    z, centroids, weight, of_z, of_c, of_weight, order, starts, ends, last, owner, parts, single, rests,
    n, k, d, pieces, clusters, length, BN: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Sums of at most `length` rows of one cluster, which lie next to each other in the order of labels."""
    piece = tl.program_id(0)
    cluster = tl.load(owner + piece)
    if cluster < clusters:
        problem = cluster // k
        before = tl.load(last + cluster - 1, cluster > 0, other=0)
        start = tl.load(starts + cluster) + (piece - before) * length
        stop = tl.minimum(start + length, tl.load(ends + cluster))
        z += tl.load(of_z + problem) * n * d
        weight += tl.load(of_weight + problem) * n
        features = tl.arange(0, BD)
        inside = features < d
        mean = tl.load(centroids + (tl.load(of_c + problem) * k + cluster % k) * d + features, inside, other=0)
        total = tl.zeros((BN, BD), z.dtype.element_ty)
        count = tl.zeros((BN,), z.dtype.element_ty)
        inertia = tl.zeros((BN,), z.dtype.element_ty)
        most = tl.full((BN,), -1, z.dtype.element_ty)
        where = tl.zeros((BN,), tl.int64) + n
        for at in range(start, stop, BN):
            i = at + tl.arange(0, BN)
            there = i < stop
            row = tl.load(order + problem * n + i, there, other=0)
            w = tl.load(weight + row, there, other=0)
            x = tl.load(z + row[:, None] * d + features[None, :], there[:, None] & inside[None, :], other=0)
            gap = tl.where(there[:, None], x - mean[None, :], 0)
            square = tl.sum(gap * gap, axis=1)
            total += w[:, None] * gap
            count += w
            inertia += w * square
            present = tl.where(there, tl.where(w > 0, square, 0), -1)
            where = tl.where(present > most, row, where)  # rows of a lane ascend
            most = tl.maximum(present, most)
        far = tl.max(most, axis=0)
        tl.store(parts + piece * d + features, tl.sum(total, axis=0), inside)
        tl.store(single + piece, tl.sum(count, axis=0))
        tl.store(single + pieces + piece, tl.sum(inertia, axis=0))
        tl.store(single + 2 * pieces + piece, far)
        tl.store(rests + piece, tl.min(tl.where(most == far, where, n), axis=0))


@triton.jit
def add_pieces(
    parts, single, rests, last, sums, counts, inertias, distances, wheres, n, d, pieces,
    BP: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Add up the pieces of a cluster, in float64 and in their order."""
    cluster = tl.program_id(0).to(tl.int64)
    features, own = tl.arange(0, BD), tl.arange(0, BP)
    inside = features < d
    total = tl.zeros((BP, BD), tl.float64)
    count = tl.zeros((BP,), tl.float64)
    inertia = tl.zeros((BP,), tl.float64)
    far = tl.full((BP,), -1, parts.dtype.element_ty)
    where = tl.zeros((BP,), tl.int64) + n
    stop = tl.load(last + cluster)
    for at in range(tl.load(last + cluster - 1, cluster > 0, other=0), stop, BP):
        piece = at + own
        there = piece < stop
        both = there[:, None] & inside[None, :]
        total += tl.load(parts + piece[:, None] * d + features[None, :], both, other=0).to(tl.float64)
        count += tl.load(single + piece, there, other=0).to(tl.float64)
        inertia += tl.load(single + pieces + piece, there, other=0).to(tl.float64)
        most = tl.load(single + 2 * pieces + piece, there, other=-1)
        row = tl.load(rests + piece, there, other=n)
        where = tl.where(most > far, row, tl.where(most == far, tl.minimum(row, where), where))
        far = tl.maximum(most, far)
    most = tl.max(far, axis=0)
    kind = parts.dtype.element_ty
    tl.store(sums + cluster * d + features, tl.sum(total, axis=0).to(kind), inside)
    tl.store(counts + cluster, tl.sum(count, axis=0).to(kind))
    tl.store(inertias + cluster, tl.sum(inertia, axis=0))
    tl.store(distances + cluster, most)
    tl.store(wheres + cluster, tl.min(tl.where(far == most, where, n), axis=0))
