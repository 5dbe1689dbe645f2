"""EM routing of one sample: what `emroute.capsule.gaussians` does, in the layout of `lanes`.

Moments are of differences to the mean just found. Sums that must be equal for parents of equal votes, however they are
rounded, are in parts that round as they are written.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from emroute_backends.kernels.compiling import exact, piece
from emroute_backends.kernels.lanes import GROUP, LANES
from emroute_backends.kernels.shares import Shares, brighten, choose, of_four, share_out, spread

__all__ = ["Parents", "iterate", "room_for_parents"]

Array = Any

_LEAST_VARIANCE, _TINY, _ROUNDING = 1e-8, 1e-9, 16  # as the text has them


class Parents(NamedTuple):
    """Gaussians and what they are worth; for some iterations but for the last three."""

    mean: Array
    """``(t, groups, rows, 64)``."""
    square: Array
    """Mean squared differences to them."""
    logit: Array
    """``(t, J)``: of how active they are."""
    variance: Array
    """``(groups, rows, 64)``: with what keeps it from 0."""
    offset: Array
    """``(groups, 16)``: log-densities at the means, and log-activations."""
    cost: Array
    """``(J,)``."""


@piece
def room_for_parents(votes: Array, slots: int, n_parents: int) -> Parents:
    """For votes in lanes, and as many iterations as are kept."""
    groups, rows, x = votes.shape[1], votes.shape[2], votes
    return Parents(
        np.zeros((slots, groups, rows, LANES), x.dtype),
        np.zeros((slots, groups, rows, LANES), x.dtype),
        np.zeros((slots, n_parents), x.dtype),
        np.zeros((groups, rows, LANES), x.dtype),
        np.full((groups, GROUP), -np.inf, x.dtype),
        np.zeros(n_parents, x.dtype),
    )


@piece
def fit(x, shares, parents, slot):
    """Means, and mean squared differences to them; what rounding leaves of the mean difference corrects both."""
    n, groups, rows, _ = x.shape
    wide, inverse = np.empty((4, LANES), x.dtype), np.empty(LANES, x.dtype)
    sums, squares = np.empty((rows, LANES), x.dtype), np.empty((rows, LANES), x.dtype)
    mean, square = parents.mean[slot], parents.square[slot]
    for g in range(groups):
        for q in range(LANES):
            some = shares.some[slot, g, q // 4]
            inverse[q] = 0 if some == 0 else 1 / some
        for a in range(rows):
            for q in range(LANES):
                sums[a, q] = 0
        for t in range(n // 4):
            i = 4 * t
            spread(shares.relative[slot, t, g], shares.active[t], wide)
            for a in range(rows):
                for q in range(LANES):
                    near = wide[0, q] * x[i, g, a, q] + wide[1, q] * x[i + 1, g, a, q]
                    sums[a, q] += near + wide[2, q] * x[i + 2, g, a, q] + wide[3, q] * x[i + 3, g, a, q]
        for a in range(rows):
            for q in range(LANES):
                mean[g, a, q] = sums[a, q] * inverse[q]
                sums[a, q] = squares[a, q] = 0
        for t in range(n // 4):
            i = 4 * t
            spread(shares.relative[slot, t, g], shares.active[t], wide)
            for a in range(rows):
                for q in range(LANES):
                    m = mean[g, a, q]
                    d0, d1 = x[i, g, a, q] - m, x[i + 1, g, a, q] - m
                    d2, d3 = x[i + 2, g, a, q] - m, x[i + 3, g, a, q] - m
                    w0, w1, w2, w3 = wide[0, q] * d0, wide[1, q] * d1, wide[2, q] * d2, wide[3, q] * d3
                    sums[a, q] += (w0 + w1) + (w2 + w3)
                    squares[a, q] += (w0 * d0 + w1 * d1) + (w2 * d2 + w3 * d3)
        for a in range(rows):
            for q in range(LANES):
                gap = sums[a, q] * inverse[q]
                mean[g, a, q] += gap
                square[g, a, q] = max(squares[a, q] * inverse[q] - gap * gap, 0)


@exact
def weigh(shares, parents, slot, betas, temperature, settings):
    """Variances, costs, and how active parents are; betas are ``(2, J)``, settings `epsilon` and which cost."""
    epsilon, normalized, entries = settings[0], settings[1] > 0, int(settings[2])
    square, variance, cost, logit = parents.square[slot], parents.variance, parents.cost, parents.logit[slot]
    dtype, size = square.dtype, square.dtype.type(0)
    for j in range(len(cost)):
        g, r = j // GROUP, j % GROUP
        u, total = betas[0, j], shares.total[slot, g, r]
        width = absolute = dtype.type(0)
        for h in range(entries):
            a, q = h // 4, 4 * r + h % 4
            if normalized:
                variance[g, a, q] = max(square[g, a, q], dtype.type(_LEAST_VARIANCE))
                spread_of = math.log(math.sqrt(variance[g, a, q]) + dtype.type(_TINY))
            else:
                variance[g, a, q] = square[g, a, q] + epsilon
                spread_of = math.log(variance[g, a, q]) / 2
            width += spread_of
            absolute += abs((u + spread_of) * total)
        cost[j] = (u * entries + width) * total
        parents.offset[g, r] = -width
        size = max(size, absolute)
    if normalized:
        standardize(cost, size)
    for j in range(len(cost)):
        g, r = j // GROUP, j % GROUP
        logit[j] = temperature * (betas[1, j] - cost[j])
        log_active = min(logit[j], dtype.type(0)) - math.log1p(math.exp(-abs(logit[j])))
        if normalized:
            parents.offset[g, r] += math.log(math.exp(log_active) + dtype.type(_TINY))
        else:
            parents.offset[g, r] += log_active - dtype.type(entries * math.log(2 * math.pi) / 2)


@exact
def standardize(cost, size):
    """How many deviations each costs more than the mean; where costs tie, how much of their size."""
    n, dtype = len(cost), cost.dtype
    first, mean, square = cost[0], dtype.type(0), dtype.type(0)
    for j in range(n):
        cost[j] -= first
        mean += cost[j] / n
    for j in range(n):
        cost[j] -= mean
        square += cost[j] * cost[j]
    deviation = math.sqrt(square / n)
    whole = deviation + _TINY
    if deviation <= _ROUNDING * np.finfo(dtype).eps * size:
        whole = max(size, dtype.type(1))
    for j in range(n):
        cost[j] /= whole


@piece
def explain(x, parents, slot, entries, logits):
    """Logits ``(tiles, groups, 64)``: log-activations and log-densities of votes."""
    n, groups, rows, _ = x.shape
    quarter, factor = np.empty((4, LANES), x.dtype), np.zeros((rows, LANES), x.dtype)
    mean, n_parents = parents.mean[slot], len(parents.cost)
    for g in range(groups):
        for j in range(min(GROUP, n_parents - g * GROUP)):
            for h in range(entries):
                factor[h // 4, 4 * j + h % 4] = -0.5 / parents.variance[g, h // 4, 4 * j + h % 4]
        for t in range(n // 4):
            i = 4 * t
            for s in range(4):
                for q in range(LANES):
                    quarter[s, q] = 0
            for a in range(rows):
                for q in range(LANES):
                    m, f = mean[g, a, q], factor[a, q]
                    d0, d1 = x[i, g, a, q] - m, x[i + 1, g, a, q] - m
                    d2, d3 = x[i + 2, g, a, q] - m, x[i + 3, g, a, q] - m
                    quarter[0, q] += f * (d0 * d0)
                    quarter[1, q] += f * (d1 * d1)
                    quarter[2, q] += f * (d2 * d2)
                    quarter[3, q] += f * (d3 * d3)
            for j in range(GROUP):
                for s in range(4):
                    q = 4 * j
                    length = of_four(quarter[s, q], quarter[s, q + 1], quarter[s, q + 2], quarter[s, q + 3])
                    logits[t, g, q + s] = parents.offset[g, j] + length


@piece
def iterate(
    x: Array, activations: Array, betas: Array, temperatures: Array, settings: Array, shares: Shares, parents: Parents
) -> float:
    """Route one sample; return its brightest activation. What has room for one iteration keeps the last."""
    tiles, groups, _ = shares.gaps.shape
    slots, n_parents, last = len(shares.some), len(parents.cost), len(temperatures) - 1
    brightest = brighten(activations, shares.active)
    for g in range(groups):
        for q in range(LANES):
            share = 1 / n_parents if g * GROUP + q // 4 < n_parents else 0
            for t in range(tiles):
                shares.assigned[0, t, g, q] = share
    for number in range(last + 1):
        slot = min(number, slots - 1)
        share_out(shares, slot, brightest)
        fit(x, shares, parents, slot)
        weigh(shares, parents, slot, betas, temperatures[number], settings)
        if number < last:
            explain(x, parents, slot, int(settings[2]), shares.gaps)
            choose(shares, min(number + 1, slots - 1))
    return brightest
