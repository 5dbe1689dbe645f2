"""Squared Mahalanobis lengths and moments of Gaussians, from differences of rows to means that are never all held.

Lengths have rows side by side in vectors, moments features. A component's moments pass over the rows that count for
nothing in them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emroute_backends.kernels.compiling import flat, loops, piece
from emroute_backends.kernels.parts import in_parts

__all__ = ["diagonal_moments", "diagonal_squares", "full_moments", "full_squares"]

Array = Any

_TILE = 64  # rows side by side: four vectors of float32 at 512 bits
_WIDE = 128  # the same where vectors are added up in the end


def diagonal_squares(z: Array, means: Array, factors: Array) -> tuple[Array]:
    """As `emroute.gmm.differences.diagonal_squares`."""
    return _squares_of(_diagonal_squares, z, means, factors, 2)


def full_squares(z: Array, means: Array, factors: Array) -> tuple[Array]:
    """As `emroute.gmm.differences.full_squares`."""
    return _squares_of(_full_squares, z, means, factors, 3)


def diagonal_moments(z: Array, means: Array, shares: Array) -> tuple[Array, Array]:
    """As `emroute.gmm.differences.diagonal_moments`."""
    return _moments_of(_diagonal_moments, z, means, shares)


def full_moments(z: Array, means: Array, shares: Array) -> tuple[Array, Array]:
    """As `emroute.gmm.differences.full_moments`."""
    return _moments_of(_full_moments, z, means, shares)


def _squares_of(run: Any, z: Array, means: Array, factors: Array, rank: int) -> tuple[Array]:
    batch, rows = np.broadcast_shapes(z.shape[:-2], means.shape[:-2]), z.swapaxes(-1, -2)
    if batch:
        squares = run(*flat(batch, (rows, 2), (means, 2), (factors, rank)))
        return (squares.reshape(*batch, *squares.shape[1:]),)

    def part(rows: Array) -> tuple[Array]:
        return (run(*flat((), (rows, 2), (means, 2), (factors, rank)))[0].T,)

    return (in_parts(part, [rows], means.size * (1 if rank == 2 else means.shape[-1]))[0].T,)


def _moments_of(run: Any, z: Array, means: Array, shares: Array) -> tuple[Array, Array]:
    batch, rows = shares.shape[:-2], z.swapaxes(-1, -2)
    if batch:
        first, second = run(*flat(batch, (rows, 2), (means, 2), (shares, 2)))
        return first.reshape(*batch, *first.shape[1:]), second.reshape(*batch, *second.shape[1:])

    def part(rows: Array, shares: Array) -> tuple[Array, ...]:
        return run(*flat((), (rows, 2), (means, 2), (shares.T, 2)))

    first, second = in_parts(part, [rows, shares.T], means.size)
    return first.sum(axis=0), second.sum(axis=0)


@loops("f3", "f3", "f3", "i2")
def _diagonal_squares(z, means, factors, places):
    (_, n, d), k = z.shape, means.shape[1]
    squares = np.empty((len(places), k, n), z.dtype)
    x, total = np.empty((d, _TILE), z.dtype), np.empty((2, _TILE), z.dtype)
    for p in range(len(places)):
        rows, m, s = z[places[p, 0]], means[places[p, 1]], factors[places[p, 2]]
        for first in range(0, n, _TILE):
            count = min(_TILE, n - first)
            for r in range(count):
                for f in range(d):
                    x[f, r] = rows[first + r, f]
            for c in range(0, k, 2):
                b = min(c + 1, k - 1)
                for r in range(_TILE):
                    total[0, r] = total[1, r] = 0
                for f in range(0, d - 1, 2):
                    m0, m1, q0, q1 = m[c, f], m[c, f + 1], m[b, f], m[b, f + 1]
                    s0, s1, t0, t1 = s[c, f] ** 2, s[c, f + 1] ** 2, s[b, f] ** 2, s[b, f + 1] ** 2
                    for r in range(_TILE):
                        x0, x1 = x[f, r], x[f + 1, r]
                        total[0, r] += (x0 - m0) * (x0 - m0) * s0 + (x1 - m1) * (x1 - m1) * s1
                        total[1, r] += (x0 - q0) * (x0 - q0) * t0 + (x1 - q1) * (x1 - q1) * t1
                for f in range(d - d % 2, d):
                    m0, q0, s0, t0 = m[c, f], m[b, f], s[c, f] ** 2, s[b, f] ** 2
                    for r in range(_TILE):
                        total[0, r] += (x[f, r] - m0) * (x[f, r] - m0) * s0
                        total[1, r] += (x[f, r] - q0) * (x[f, r] - q0) * t0
                for r in range(count):
                    squares[p, c, first + r] = total[0, r]
                    squares[p, b, first + r] = total[b - c, r]
    return squares


@loops("f3", "f3", "f4", "i2")
def _full_squares(z, means, factors, places):
    (_, n, d), k, e = z.shape, means.shape[1], factors.shape[2]
    squares = np.empty((len(places), k, n), z.dtype)
    gaps, total = np.zeros((d, _TILE), z.dtype), np.empty(_TILE, z.dtype)
    x, y = np.zeros((d, _TILE), z.dtype), np.empty((4, _TILE), z.dtype)
    for p in range(len(places)):
        rows, m, s = z[places[p, 0]], means[places[p, 1]], factors[places[p, 2]]
        for first in range(0, n, _TILE):
            count = min(_TILE, n - first)
            for r in range(count):
                for f in range(d):
                    x[f, r] = rows[first + r, f]
            for c in range(k):
                for f in range(d):
                    for r in range(_TILE):
                        gaps[f, r] = x[f, r] - m[c, f]
                for r in range(_TILE):
                    total[r] = 0
                for i in range(0, e, 4):
                    _whiten(s[min(c, len(s) - 1)], i, gaps, y)
                    for q in range(min(4, e - i)):
                        for r in range(_TILE):
                            total[r] += y[q, r] * y[q, r]
                for r in range(count):
                    squares[p, c, first + r] = total[r]
    return squares


@piece
def _whiten(s, i, gaps, y):
    """Four rows of a factor times the differences."""
    e, d = s.shape
    j, k, m = min(i + 1, e - 1), min(i + 2, e - 1), min(i + 3, e - 1)
    for q in range(4):
        for r in range(_TILE):
            y[q, r] = 0
    for f in range(0, d - 3, 4):
        a0, a1, a2, a3 = s[i, f], s[i, f + 1], s[i, f + 2], s[i, f + 3]
        b0, b1, b2, b3 = s[j, f], s[j, f + 1], s[j, f + 2], s[j, f + 3]
        c0, c1, c2, c3 = s[k, f], s[k, f + 1], s[k, f + 2], s[k, f + 3]
        d0, d1, d2, d3 = s[m, f], s[m, f + 1], s[m, f + 2], s[m, f + 3]
        for r in range(_TILE):
            g0, g1, g2, g3 = gaps[f, r], gaps[f + 1, r], gaps[f + 2, r], gaps[f + 3, r]
            y[0, r] += a0 * g0 + a1 * g1 + a2 * g2 + a3 * g3
            y[1, r] += b0 * g0 + b1 * g1 + b2 * g2 + b3 * g3
            y[2, r] += c0 * g0 + c1 * g1 + c2 * g2 + c3 * g3
            y[3, r] += d0 * g0 + d1 * g1 + d2 * g2 + d3 * g3
    for f in range(d - d % 4, d):
        for r in range(_TILE):
            y[0, r] += s[i, f] * gaps[f, r]
            y[1, r] += s[j, f] * gaps[f, r]
            y[2, r] += s[k, f] * gaps[f, r]
            y[3, r] += s[m, f] * gaps[f, r]


@loops("f3", "f3", "f3", "i2")
def _diagonal_moments(z, means, shares, places):
    problems, (_, k, n), d = len(places), shares.shape, z.shape[2]
    first, second = np.empty((problems, k, d), z.dtype), np.empty((problems, k, d), z.dtype)
    own, part = np.zeros(n + 3, np.int64), np.zeros(n + 3, z.dtype)
    sums, squares = np.empty(d, z.dtype), np.empty(d, z.dtype)
    for p in range(problems):
        rows, m, parts = z[places[p, 0]], means[places[p, 1]], shares[places[p, 2]]
        for c in range(k):
            count = _select(parts[c], own, part)
            for f in range(d):
                sums[f] = squares[f] = 0
            for i in range(0, count, 4):
                r0, r1, r2, r3 = own[i], own[i + 1], own[i + 2], own[i + 3]
                w0, w1, w2, w3 = part[i], part[i + 1], part[i + 2], part[i + 3]
                for f in range(d):
                    g0, g1 = rows[r0, f] - m[c, f], rows[r1, f] - m[c, f]
                    g2, g3 = rows[r2, f] - m[c, f], rows[r3, f] - m[c, f]
                    sums[f] += w0 * g0 + w1 * g1 + w2 * g2 + w3 * g3
                    squares[f] += w0 * g0 * g0 + w1 * g1 * g1 + w2 * g2 * g2 + w3 * g3 * g3
            for f in range(d):
                first[p, c, f], second[p, c, f] = sums[f], squares[f]
    return first, second


@piece
def _select(shares, own, part):
    """The rows that count for a component, their shares followed by three of 0, and how many they are.

    What is less than the square of a rounding beside the largest share counts for nothing.
    """
    least = np.finfo(shares.dtype).eps ** 2 * shares.max()
    count = 0
    for i in range(len(shares)):
        if shares[i] > least:
            own[count], part[count] = i, shares[i]
            count += 1
    for i in range(count, count + 3):
        own[i], part[i] = 0, 0
    return count


@loops("f3", "f3", "f3", "i2")
def _full_moments(z, means, shares, places):
    problems, (_, k, n), d = len(places), shares.shape, z.shape[2]
    first, second = np.zeros((problems, k, d), z.dtype), np.zeros((problems, k, d, d), z.dtype)
    own, part = np.zeros(n + 3, np.int64), np.zeros(n + 3, z.dtype)
    for p in range(problems):
        rows, m, parts = z[places[p, 0]], means[places[p, 1]], shares[places[p, 2]]
        for c in range(k):
            count = _select(parts[c], own, part)
            _add_products(rows, m[c], (own[:count], part[:count]), first[p, c], second[p, c])
            for f in range(d):
                for g in range(f):
                    second[p, c, f, g] = second[p, c, g, f]
    return first, second


@piece
def _add_products(rows, mean, chosen, first, second):
    """First moments, and the upper triangle of the second, four features with four at a time."""
    d, (own, part) = len(mean), chosen
    gaps, weighted = np.zeros((d + 3, _WIDE), rows.dtype), np.zeros((d + 3, _WIDE), rows.dtype)
    for start in range(0, len(own), _WIDE):
        count = min(_WIDE, len(own) - start)
        if count < _WIDE:
            gaps[:] = 0
            weighted[:] = 0
        for r in range(count):
            i, w = own[start + r], part[start + r]
            for f in range(d):
                gap = rows[i, f] - mean[f]
                gaps[f, r] = gap
                weighted[f, r] = w * gap
        for f in range(d):
            total = rows.dtype.type(0)
            for r in range(_WIDE):
                total += weighted[f, r]
            first[f] += total
        for f in range(0, d, 4):
            for g in range(f, d, 4):
                a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = rows.dtype.type(0)
                c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = rows.dtype.type(0)
                for r in range(_WIDE):
                    g0, g1, g2, g3 = gaps[g, r], gaps[g + 1, r], gaps[g + 2, r], gaps[g + 3, r]
                    w0, w1, w2, w3 = weighted[f, r], weighted[f + 1, r], weighted[f + 2, r], weighted[f + 3, r]
                    a0, a1, a2, a3 = a0 + w0 * g0, a1 + w0 * g1, a2 + w0 * g2, a3 + w0 * g3
                    b0, b1, b2, b3 = b0 + w1 * g0, b1 + w1 * g1, b2 + w1 * g2, b3 + w1 * g3
                    c0, c1, c2, c3 = c0 + w2 * g0, c1 + w2 * g1, c2 + w2 * g2, c3 + w2 * g3
                    d0, d1, d2, d3 = d0 + w3 * g0, d1 + w3 * g1, d2 + w3 * g2, d3 + w3 * g3
                block = (a0, a1, a2, a3), (b0, b1, b2, b3), (c0, c1, c2, c3), (d0, d1, d2, d3)
                for i in range(min(4, d - f)):
                    for j in range(min(4, d - g)):
                        second[f + i, g + j] += block[i][j]
