"""k-means' assignment and sums in one pass over the rows.

Products decide which centroid is nearest, a multiplication a number; a row whose two nearest centroids lie within the
rounding of these is compared by differences. Sums, inertia and the farthest row are of differences to the centroids.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emroute_backends.kernels.compiling import flat, loops, piece

__all__ = ["assign_rows", "label_rows"]

Array = Any

_TILE = 64  # rows side by side: four vectors of float32 at 512 bits
_CACHED = 2**15  # numbers of rows that are still near when their sums are taken
_LONG = 192  # features from where on a tile of rows leaves the cache, and products along the features win
_SLACK = 4  # products err by less than this times the features' number of spacings


def assign_rows(z: Array, centroids: Array, alike: Array, weight: Array) -> tuple[Array, ...]:
    """As `emroute.kmeans.assignment.assign_rows`; whether centroids are alike is found out row by row."""
    batch, (k, d) = centroids.shape[:-2], centroids.shape[-2:]
    rows, *rest = flat(batch, (z, 2), (centroids, 2), (weight, 1))
    _, _, sums, counts, inertia, far, distance = _assign(rows, *rest)
    farthest = rows[rest[-1][:, 0], far]
    return (
        counts.reshape(*batch, k),
        sums.reshape(*batch, k, d),
        inertia.astype(z.dtype).reshape(batch),
        farthest.reshape(*batch, d),
        distance.astype(z.dtype).reshape(batch),
    )


def label_rows(z: Array, centroids: Array) -> tuple[Array, Array]:
    """As `emroute.kmeans.assignment.label_rows`."""
    batch, one = centroids.shape[:-2], np.ones(z.shape[-2], z.dtype)
    labels, squares, *_ = _assign(*flat(batch, (z, 2), (centroids, 2), (one, 1)))
    return labels.reshape(*batch, len(one)), squares.reshape(*batch, len(one))


@loops(3, 3, 2)
def _assign(z, centroids, weight, places):
    """Labels, squared distances, sums, counts, inertia, and the farthest row's index and squared distance."""
    problems, n, (k, d) = len(places), z.shape[1], centroids.shape[1:]
    labels, squares = np.zeros((problems, n), np.int64), np.empty((problems, n), z.dtype)
    sums, counts = np.zeros((problems, k, d), z.dtype), np.zeros((problems, k), z.dtype)
    inertia, far, distance = np.zeros(problems), np.zeros(problems, np.int64), np.zeros(problems)
    half, step = np.empty(k, z.dtype), max(_TILE, _CACHED // d)
    for p in range(problems):
        rows, own, share = z[places[p, 0]], centroids[places[p, 1]], weight[places[p, 2]]
        for c in range(k):
            half[c] = _square(own[c]) / 2
        for start in range(0, n, step):
            stop = min(start + step, n)
            if d < _LONG:
                _by_lanes(rows[start:stop], own, half, labels[p, start:stop])
            else:
                _by_features(rows[start:stop], own, half, labels[p, start:stop])
            for i in range(start, stop):
                label, w, square = labels[p, i], share[i], z.dtype.type(0)
                for f in range(d):
                    gap = rows[i, f] - own[label, f]
                    square += gap * gap
                    sums[p, label, f] += w * gap
                squares[p, i] = square
                counts[p, label] += w
                inertia[p] += w * square
                if w > 0 and square > distance[p]:
                    far[p], distance[p] = i, square
    return labels, squares, sums, counts, inertia, far, distance


@piece
def _by_lanes(rows, centroids, half, labels):
    """Rows side by side in vectors, four centroids and four features at a time."""
    n, (k, d) = len(rows), centroids.shape
    slack, longest = _SLACK * (d + 4) * np.finfo(rows.dtype).eps, 2 * half.max()
    x, gain, length = np.zeros((d, _TILE), rows.dtype), np.empty((4, _TILE), rows.dtype), np.empty(_TILE, rows.dtype)
    best, second, nearest = np.empty(_TILE, rows.dtype), np.empty(_TILE, rows.dtype), np.empty(_TILE, np.int32)
    for first in range(0, n, _TILE):
        m = min(_TILE, n - first)
        for r in range(m):
            for f in range(d):
                x[f, r] = rows[first + r, f]
        for r in range(_TILE):
            best[r] = second[r] = np.inf
            length[r] = nearest[r] = 0
        for f in range(d):
            for r in range(_TILE):
                length[r] += x[f, r] * x[f, r]
        for c in range(0, k, 4):
            c1, c2, c3 = min(c + 1, k - 1), min(c + 2, k - 1), min(c + 3, k - 1)
            for q in range(4):
                for r in range(_TILE):
                    gain[q, r] = 0
            for f in range(0, d - 3, 4):
                a0, a1, a2, a3 = centroids[c, f], centroids[c, f + 1], centroids[c, f + 2], centroids[c, f + 3]
                b0, b1, b2, b3 = centroids[c1, f], centroids[c1, f + 1], centroids[c1, f + 2], centroids[c1, f + 3]
                g0, g1, g2, g3 = centroids[c2, f], centroids[c2, f + 1], centroids[c2, f + 2], centroids[c2, f + 3]
                h0, h1, h2, h3 = centroids[c3, f], centroids[c3, f + 1], centroids[c3, f + 2], centroids[c3, f + 3]
                for r in range(_TILE):
                    x0, x1, x2, x3 = x[f, r], x[f + 1, r], x[f + 2, r], x[f + 3, r]
                    gain[0, r] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                    gain[1, r] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                    gain[2, r] += g0 * x0 + g1 * x1 + g2 * x2 + g3 * x3
                    gain[3, r] += h0 * x0 + h1 * x1 + h2 * x2 + h3 * x3
            for f in range(d - d % 4, d):
                for r in range(_TILE):
                    gain[0, r] += centroids[c, f] * x[f, r]
                    gain[1, r] += centroids[c1, f] * x[f, r]
                    gain[2, r] += centroids[c2, f] * x[f, r]
                    gain[3, r] += centroids[c3, f] * x[f, r]
            for q in range(min(4, k - c)):
                for r in range(_TILE):
                    cost = half[c + q] - gain[q, r]
                    second[r] = min(second[r], max(cost, best[r]))
                    nearest[r] = c + q if cost < best[r] else nearest[r]
                    best[r] = min(cost, best[r])
        for r in range(m):
            labels[first + r] = nearest[r]
            if second[r] - best[r] <= slack * (length[r] + longest):
                labels[first + r] = _by_differences(rows[first + r], centroids)


@piece
def _by_features(rows, centroids, half, labels):
    """Features side by side in vectors, four rows and four centroids at a time."""
    n, (k, d) = len(rows), centroids.shape
    slack, longest = _SLACK * (d + 4) * np.finfo(rows.dtype).eps, 2 * half.max()
    gain = np.empty((4, k + 3), rows.dtype)
    for first in range(0, n, 4):
        x0, x1 = rows[first], rows[min(first + 1, n - 1)]
        x2, x3 = rows[min(first + 2, n - 1)], rows[min(first + 3, n - 1)]
        for c in range(0, k, 4):
            a, b = centroids[c], centroids[min(c + 1, k - 1)]
            g, h = centroids[min(c + 2, k - 1)], centroids[min(c + 3, k - 1)]
            a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = rows.dtype.type(0)
            g0 = g1 = g2 = g3 = h0 = h1 = h2 = h3 = rows.dtype.type(0)
            for f in range(d):
                y0, y1, y2, y3 = x0[f], x1[f], x2[f], x3[f]
                a0, a1, a2, a3 = a0 + a[f] * y0, a1 + a[f] * y1, a2 + a[f] * y2, a3 + a[f] * y3
                b0, b1, b2, b3 = b0 + b[f] * y0, b1 + b[f] * y1, b2 + b[f] * y2, b3 + b[f] * y3
                g0, g1, g2, g3 = g0 + g[f] * y0, g1 + g[f] * y1, g2 + g[f] * y2, g3 + g[f] * y3
                h0, h1, h2, h3 = h0 + h[f] * y0, h1 + h[f] * y1, h2 + h[f] * y2, h3 + h[f] * y3
            gain[0, c], gain[1, c], gain[2, c], gain[3, c] = a0, a1, a2, a3
            gain[0, c + 1], gain[1, c + 1], gain[2, c + 1], gain[3, c + 1] = b0, b1, b2, b3
            gain[0, c + 2], gain[1, c + 2], gain[2, c + 2], gain[3, c + 2] = g0, g1, g2, g3
            gain[0, c + 3], gain[1, c + 3], gain[2, c + 3], gain[3, c + 3] = h0, h1, h2, h3
        for i in range(first, min(first + 4, n)):
            best = second = rows.dtype.type(np.inf)
            for c in range(k):
                cost = half[c] - gain[i - first, c]
                if cost < best:
                    best, second, labels[i] = cost, best, c
                elif cost < second:
                    second = cost
            if second - best <= slack * (_square(rows[i]) + longest):
                labels[i] = _by_differences(rows[i], centroids)


@piece
def _by_differences(row, centroids):
    best, nearest = np.inf, 0
    for c in range(len(centroids)):
        square = row.dtype.type(0)
        for f in range(len(row)):
            gap = row[f] - centroids[c, f]
            square += gap * gap
        if square < best:
            best, nearest = square, c
    return nearest


@piece
def _square(row):
    total = row.dtype.type(0)
    for f in range(len(row)):
        total += row[f] * row[f]
    return total
