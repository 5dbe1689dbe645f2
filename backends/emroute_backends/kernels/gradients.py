"""The way back through EM routing, `agreement`, whose iterations are made again and kept, one sample after another.

Of an iteration with shares ``q = R a / sum(R a)``, mean ``m`` and mean square ``s`` of differences ``d = V - m``,

    V     gets  q (2 s' d + m') - p l' d
    log R gets  q (s' (d² - s) + m' d) + R a n'

where a prime is the gradient of what it follows: ``n`` is the sum of R a, ``l`` the logits, ``p`` one over the
variance. The logits give ``p sum(l' d)`` to the mean and ``p² sum(l' d²) / 2`` to the variance.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from emroute_backends.kernels.agreement import FIXED, Parents, explain, iterate, room_for_parents
from emroute_backends.kernels.compiling import loops, part, piece
from emroute_backends.kernels.lanes import GROUP, LANES, clear, lay_pairs, place, take_pairs
from emroute_backends.kernels.shares import Shares, choose, fold_sum, of_four, room_for_shares, spread
from emroute_backends.kernels.slopes import Slopes, room_for_slopes, weigh_back

__all__ = ["route_back"]

Array = Any


@part
def explain_back(x: Array, mean: Array, slopes: Slopes) -> None:
    """Sums of the gradients of logits, and of their products with differences and squares, in place of gradients."""
    n, groups, rows, _ = x.shape
    wide, one = np.empty((4, LANES), x.dtype), np.ones(LANES, x.dtype)
    sums, squares, weight = np.empty((rows, LANES), x.dtype), np.empty((rows, LANES), x.dtype), np.empty(LANES, x.dtype)
    for g in range(groups):
        for q in range(LANES):
            weight[q] = 0
        for a in range(rows):
            for q in range(LANES):
                sums[a, q] = squares[a, q] = 0
        for t in range(n // 4):
            i = 4 * t
            spread(slopes.logits[t, g], one, wide)
            for q in range(LANES):
                weight[q] += slopes.logits[t, g, q]
            for a in range(rows):
                for q in range(LANES):
                    m = mean[g, a, q]
                    d0, d1 = x[i, g, a, q] - m, x[i + 1, g, a, q] - m
                    d2, d3 = x[i + 2, g, a, q] - m, x[i + 3, g, a, q] - m
                    w0, w1, w2, w3 = wide[0, q] * d0, wide[1, q] * d1, wide[2, q] * d2, wide[3, q] * d3
                    sums[a, q] += (w0 + w1) + (w2 + w3)
                    squares[a, q] += (w0 * d0 + w1 * d1) + (w2 * d2 + w3 * d3)
        for j in range(GROUP):
            slopes.weight[g, j] = of_four(weight[4 * j], weight[4 * j + 1], weight[4 * j + 2], weight[4 * j + 3])
        for a in range(rows):
            for q in range(LANES):
                slopes.mean[g, a, q] = sums[a, q]
                slopes.square[g, a, q] = squares[a, q]


@part
def fit_back(x: Array, shares: Shares, parents: Parents, slot: int, slopes: Slopes, of_x: Array) -> None:
    """Add to the gradients of votes; those of logits give way to sums that lack only the shares."""
    n, groups, rows, _ = x.shape
    pull, push, part = np.empty((4, LANES), x.dtype), np.empty((4, LANES), x.dtype), np.empty((4, LANES), x.dtype)
    inverse, one = np.empty(LANES, x.dtype), np.ones(LANES, x.dtype)
    mean, square = parents.mean[slot], parents.square[slot]
    for g in range(groups):
        for q in range(LANES):
            some = shares.some[slot, g, q // 4]
            inverse[q] = 0 if some == 0 else 1 / some
        for t in range(n // 4):
            i = 4 * t
            spread(shares.relative[slot, t, g], shares.active[t], pull)
            spread(slopes.logits[t, g], one, push)
            for s in range(4):
                for q in range(LANES):
                    pull[s, q] *= inverse[q]
                    part[s, q] = 0
            for a in range(rows):
                for s in range(4):
                    for q in range(LANES):
                        d = x[i + s, g, a, q] - mean[g, a, q]
                        bent, straight = slopes.square[g, a, q] * d, slopes.mean[g, a, q]
                        part[s, q] += d * (bent + straight) - slopes.square[g, a, q] * square[g, a, q]
                        of_x[i + s, g, a, q] += pull[s, q] * (2 * bent + straight) - push[s, q] * (
                            slopes.precision[g, a, q] * d
                        )
            for j in range(GROUP):
                for s in range(4):
                    q = 4 * j
                    total = of_four(part[s, q], part[s, q + 1], part[s, q + 2], part[s, q + 3])
                    slopes.logits[t, g, q + s] = total * inverse[q]


@part
def share_back(shares: Shares, slot: int, brightest: float, slopes: Slopes, outside: Array, of_active: Array) -> None:
    """Put the shares to what `fit_back` has left: gradients of logarithms of assignments, and of activations."""
    tiles, groups, _ = outside.shape
    total = np.empty(LANES, outside.dtype)
    for t in range(tiles):
        for q in range(LANES):
            total[q] = 0
        for g in range(groups):
            for q in range(LANES):
                near = shares.relative[slot, t, g, q] * slopes.logits[t, g, q]
                far = shares.assigned[slot, t, g, q] * slopes.total[g, q // 4]
                total[q] += near / brightest + far
                slopes.logits[t, g, q] = (
                    shares.active[t, q] * (near + brightest * far) + shares.assigned[slot, t, g, q] * outside[t, g, q]
                )
        fold_sum(total)
        for s in range(min(4, len(of_active) - 4 * t)):
            of_active[4 * t + s] = of_active[4 * t + s] + total[s]


@piece
def choose_back(shares: Shares, slot: int, slopes: Slopes) -> None:
    """From gradients of the logarithms of a softmax to those of its logits."""
    tiles, groups, _ = slopes.logits.shape
    total = np.empty(LANES, slopes.logits.dtype)
    for t in range(tiles):
        for q in range(LANES):
            total[q] = 0
        for g in range(groups):
            for q in range(LANES):
                total[q] += slopes.logits[t, g, q]
        fold_sum(total)
        for g in range(groups):
            for q in range(LANES):
                slopes.logits[t, g, q] -= shares.assigned[slot, t, g, q] * total[q]


@loops("f5", "f2", "f3", "f3", "f1", "f3", "f2", "f3", "f2")
def route_back(
    x: Array,
    activations: Array,
    betas: Array,
    first: Array,
    settings: Array,
    of_poses: Array,
    of_active: Array,
    of_assigned: Array,
    of_norms: Array,
) -> tuple[Array, ...]:
    """Gradients of the arguments of `agreement.route`, votes in lanes, from those of its results."""
    (b, n), k, d, last = activations.shape, betas.shape[2], int(settings[2]), len(settings) - FIXED - 1
    shares, parents = room_for_shares(x[0], last + 2), room_for_parents(x[0], last + 1, k)
    slopes, explained = room_for_slopes(x[0], k), settings[4] > 0
    of_x, of_activations = np.zeros(x.shape, x.dtype), np.zeros(activations.shape, x.dtype)
    of_betas, of_first = np.zeros(betas.shape, x.dtype), np.zeros(first.shape, x.dtype)
    outside, of_settings = np.zeros(slopes.logits.shape, x.dtype), np.empty(5, x.dtype)
    for p in range(b):
        brightest = iterate(x[p], activations[p], betas[p], first[p], settings, shares, parents)
        clear(slopes.logits)
        clear(outside)
        if explained:
            explain(x[p], parents, last, settings, shares.gaps)
            choose(shares, last + 1)
            lay_pairs(of_assigned[p], slopes.logits)
            for i in range(n):
                for j in range(k):
                    t, g, q = i // 4, j // GROUP, j % GROUP * 4 + i % 4
                    slopes.logits[t, g, q] += of_norms[p, i] * shares.assigned[last + 1, t, g, q]
        else:
            lay_pairs(of_assigned[p], outside)
        for back in range(last + 1):
            slot = last - back
            if explained or back > 0:
                explain_back(x[p], parents.mean[slot], slopes)
            else:
                clear(slopes.mean)
                clear(slopes.square)
                slopes.weight.fill(0)
            for j in range(k):
                slopes.active[j] = of_active[p, j] if back == 0 else x.dtype.type(0)
            of_settings[0] = settings[FIXED + slot]
            for number in range(4):
                of_settings[number + 1] = settings[number]
            square, total, logit = parents.square[slot], shares.total[slot], parents.logit[slot]
            weigh_back(square, total, logit, betas[p], slopes, of_betas[p], of_settings)
            if back == 0:
                for j in range(k):
                    for h in range(d):
                        a, s = place(h, int(settings[3]))
                        slopes.mean[j // GROUP, a, j % GROUP * 4 + s] += of_poses[p, j, h]
            fit_back(x[p], shares, parents, slot, slopes, of_x[p])
            share_back(shares, slot, brightest, slopes, outside, of_activations[p])
            clear(outside)
            if slot > 0:
                choose_back(shares, slot, slopes)
        if first.shape[1] > 0:
            take_pairs(slopes.logits, of_first[p])
    return of_x, of_activations, of_betas, of_first
