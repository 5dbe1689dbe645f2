"""k-means' assignment and sums in one pass over the rows.

Products decide which centroid is nearest, a multiplication a number; a row whose two nearest centroids lie within the
rounding of these is compared by differences. Sums, inertia and the farthest row are of differences to the centroids.

A row that is nearer to its own centroid than it can be to any other stays there without a search (Hamerly 2010): the
distance to the second nearest in its last search, less the way that centroids have come since, bounds those to all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emroute_backends.kernels.compiling import flat, loops, piece
from emroute_backends.kernels.parts import in_parts

__all__ = ["assign_again", "assign_rows", "label_rows"]

Array = Any

_TILE = 64  # rows side by side: four vectors of float32 at 512 bits
_CACHED = 2**15  # numbers of rows that are still near when their sums are taken
_LONG = 192  # features from where on a tile of rows leaves the cache, and products along the features win
_SLACK = 4  # products err by less than this times the features' number of spacings


def assign_rows(z: Array, centroids: Array, alike: Array, weight: Array) -> tuple[Array, ...]:
    """As `emroute.kmeans.assignment.assign_rows`; whether centroids are alike is found out row by row."""
    if centroids.ndim == 2:
        return _alone(z, centroids, weight)[3:]
    return _statistics(_search(z, centroids, weight), centroids.shape[:-2])


def label_rows(z: Array, centroids: Array) -> tuple[Array, Array]:
    """As `emroute.kmeans.assignment.label_rows`."""
    one = np.ones(z.shape[-2], z.dtype)
    labels, _, squares, *_ = _search(z, centroids, one) if centroids.ndim > 2 else _alone(z, centroids, one)
    shape = (*centroids.shape[:-2], z.shape[-2])
    return labels.reshape(shape), squares.reshape(shape)


def assign_again(
    z: Array, centroids: Array, way: Array, weight: Array, labels: Array, bounds: Array
) -> tuple[Array, ...]:
    """As `emroute.kmeans.assignment.assign_again`."""
    labels[...], bounds[...], _, *statistics = _alone(z, centroids, weight, way, (labels, bounds))
    return tuple(statistics)


def _search(z: Array, centroids: Array, weight: Array) -> tuple[Array, ...]:
    n, unknown = z.shape[-2], np.zeros(z.shape[-2:-1], z.dtype)
    way, labels = np.zeros((), z.dtype), np.zeros(n, np.int64)
    given = (z, 2), (centroids, 2), (weight, 1), (way, 0), (unknown, 1), (labels, 1)
    return assign(*flat(centroids.shape[:-2], *given))


def _alone(
    z: Array, centroids: Array, weight: Array, way: Any = 0, memory: tuple[Array, Array] | None = None
) -> tuple[Array, ...]:
    """Labels, bounds, squared distances and statistics of one problem, its rows shared out among threads."""
    way = np.asarray(way, z.dtype)
    labels, bounds = memory or (np.zeros(len(z), np.int64), np.zeros(len(z), z.dtype))

    def part(rows: Array, weight: Array, labels: Array, bounds: Array) -> tuple[Array, ...]:
        given = (rows, 2), (centroids, 2), (weight, 1), (way, 0), (bounds, 1), (labels, 1)
        new, lower, squares, *rest = assign(*flat((), *given))
        return new[0], lower[0], squares[0], *rest

    *of_rows, counts, sums, inertia, distance, farthest = in_parts(part, [z, weight, labels, bounds], centroids.size)
    far = np.argmax(distance)
    total = (x.sum(axis=0) for x in (counts, sums))
    inertia, most = (np.asarray(x, z.dtype) for x in (inertia.sum(), distance[far]))
    return *of_rows, *total, inertia, farthest[far], most


def _statistics(found: tuple[Array, ...], batch: tuple[int, ...]) -> tuple[Array, ...]:
    _, _, _, counts, sums, inertia, distance, farthest = found
    counts, sums, farthest = (x.reshape(*batch, *x.shape[1:]) for x in (counts, sums, farthest))
    inertia, distance = (x.astype(sums.dtype).reshape(batch) for x in (inertia, distance))
    return counts, sums, inertia, farthest, distance


@loops("f3", "f3", "f2", "f1", "f2", "i2", "i2")
def assign(z, centroids, weight, ways, bounds, labels, places):
    """Labels, bounds and squared distances of rows; counts, sums, inertia, and the farthest row of each problem."""
    problems, (_, n, d), k = len(places), z.shape, centroids.shape[1]
    new, lower = np.empty((problems, n), np.int64), np.empty((problems, n), z.dtype)
    squares, sums = np.empty((problems, n), z.dtype), np.zeros((problems, k, d), z.dtype)
    counts, inertia, distance = np.zeros((problems, k), z.dtype), np.zeros(problems), np.zeros(problems)
    farthest, half = np.zeros((problems, d), z.dtype), np.empty(k, z.dtype)
    step = max(_TILE, _CACHED // d)
    who = np.empty(step, np.int64)
    spacing = _SLACK * np.finfo(z.dtype).eps
    for p in range(problems):
        rows, own, share = z[places[p, 0]], centroids[places[p, 1]], weight[places[p, 2]]
        way, bound, label = ways[places[p, 3]], bounds[places[p, 4]], labels[places[p, 5]]
        far = 0
        for c in range(k):
            half[c] = _length(own[c]) / 2
        for start in range(0, n, step):
            stop, count = min(start + step, n), 0
            for i in range(start, stop):
                new[p, i], lower[p, i] = label[i], bound[i]
                least = bound[i] * (1 - spacing) - way
                if least <= 0 or _square(rows[i], own[label[i]]) * (1 + spacing * d) >= least * least:
                    who[count] = i
                    count += 1
            if d < _LONG:
                _by_lanes(rows, who[:count], own, half, (new[p], lower[p]))
            else:
                _by_features(rows, who[:count], own, half, (new[p], lower[p]))
            for i in who[:count]:
                if lower[p, i] > 0:
                    lower[p, i] += way
            for i in range(start, stop):
                c, w, square = new[p, i], share[i], z.dtype.type(0)
                for f in range(d):
                    gap = rows[i, f] - own[c, f]
                    square += gap * gap
                    sums[p, c, f] += w * gap
                squares[p, i] = square
                counts[p, c] += w
                inertia[p] += w * square
                if w > 0 and square > distance[p]:
                    far, distance[p] = i, square
        for f in range(d):
            farthest[p, f] = rows[far, f]
    return new, lower, squares, counts, sums, inertia, distance, farthest


@piece
def _by_lanes(rows, who, centroids, half, found):
    """Labels and bounds of some rows, side by side in vectors; four centroids and four features at a time."""
    n, (k, d), (labels, lower) = len(who), centroids.shape, found
    slack, longest = _SLACK * (d + 4) * np.finfo(rows.dtype).eps, 2 * _largest(half)
    x, gain, length = np.zeros((d, _TILE), rows.dtype), np.empty((4, _TILE), rows.dtype), np.empty(_TILE, rows.dtype)
    best, second, nearest = np.empty(_TILE, rows.dtype), np.empty(_TILE, rows.dtype), np.empty(_TILE, np.int32)
    for first in range(0, n, _TILE):
        m = min(_TILE, n - first)
        for r in range(m):
            i = who[first + r]
            for f in range(d):
                x[f, r] = rows[i, f]
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
            i, margin = who[first + r], slack * (length[r] + longest)
            labels[i] = nearest[r]
            lower[i] = np.sqrt(max(0, 2 * second[r] + length[r] - margin))
            if second[r] - best[r] <= margin:
                labels[i], lower[i] = _by_differences(rows[i], centroids), 0


@piece
def _by_features(rows, who, centroids, half, found):
    """The same, features side by side in vectors; four rows and four centroids at a time."""
    n, (k, d), (labels, lower) = len(who), centroids.shape, found
    slack, longest = _SLACK * (d + 4) * np.finfo(rows.dtype).eps, 2 * _largest(half)
    gain = np.empty((4, k + 3), rows.dtype)
    for first in range(0, n, 4):
        x0, x1 = rows[who[first]], rows[who[min(first + 1, n - 1)]]
        x2, x3 = rows[who[min(first + 2, n - 1)]], rows[who[min(first + 3, n - 1)]]
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
        for r in range(min(4, n - first)):
            i = who[first + r]
            best = second = rows.dtype.type(np.inf)
            for c in range(k):
                cost = half[c] - gain[r, c]
                if cost < best:
                    best, second, labels[i] = cost, best, c
                elif cost < second:
                    second = cost
            length = _length(rows[i])
            margin = slack * (length + longest)
            lower[i] = np.sqrt(max(0, 2 * second + length - margin))
            if second - best <= margin:
                labels[i], lower[i] = _by_differences(rows[i], centroids), 0


@piece
def _by_differences(row, centroids):
    best, nearest = np.inf, 0
    for c in range(len(centroids)):
        square = _square(row, centroids[c])
        if square < best:
            best, nearest = square, c
    return nearest


@piece
def _largest(numbers):
    most = numbers[0]
    for c in range(len(numbers)):
        most = max(most, numbers[c])
    return most


@piece
def _length(row):
    total = row.dtype.type(0)
    for f in range(len(row)):
        total += row[f] * row[f]
    return total


@piece
def _square(row, centroid):
    total = row.dtype.type(0)
    for f in range(len(row)):
        total += (row[f] - centroid[f]) * (row[f] - centroid[f])
    return total
