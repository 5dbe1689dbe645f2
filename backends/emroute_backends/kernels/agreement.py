"""EM routing: what `emroute.capsule.gaussians` does, one sample after another, in the layout of `lanes`.

Moments are of differences to the mean just found. Sums that must be equal for parents of equal votes, however they are
rounded, are in parts that round as they are written.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from emroute_backends.kernels.compiling import exact, loops, part, piece
from emroute_backends.kernels.lanes import GROUP, LANES, place, take_pairs
from emroute_backends.kernels.shares import Shares, begin, brighten, choose, of_four, room_for_shares, share_out, spread

__all__ = [
    "FIXED",
    "LEAST_VARIANCE",
    "ROUNDING",
    "TINY",
    "Parents",
    "explain",
    "iterate",
    "room_for_parents",
    "route",
    "settings_of",
]

Array = Any

FIXED = 5  # settings before the temperatures
LEAST_VARIANCE, TINY, ROUNDING = 1e-8, 1e-9, 16  # as the text has them


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
def fit(x: Array, shares: Shares, parents: Parents, slot: int) -> None:
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
def weigh(shares: Shares, parents: Parents, slot: int, betas: Array, temperature: float, settings: Array) -> None:
    """Variances, costs, and how active parents are; betas are ``(2, J)``."""
    epsilon, normalized, entries, entries_a_row = settings[0], settings[1] > 0, int(settings[2]), int(settings[3])
    square, variance, cost, logit = parents.square[slot], parents.variance, parents.cost, parents.logit[slot]
    dtype, size = square.dtype, 0.0
    for j in range(len(cost)):
        g, r = j // GROUP, j % GROUP
        u, total = betas[0, j], shares.total[slot, g, r]
        width = absolute = dtype.type(0)
        for h in range(entries):
            a, s = place(h, entries_a_row)
            q = 4 * r + s
            if normalized:
                variance[g, a, q] = max(square[g, a, q], dtype.type(LEAST_VARIANCE))
                spread_of = math.log(math.sqrt(variance[g, a, q]) + dtype.type(TINY))
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
            parents.offset[g, r] += math.log(math.exp(log_active) + dtype.type(TINY))
        else:
            parents.offset[g, r] += log_active - dtype.type(entries * math.log(2 * math.pi) / 2)


@exact
def standardize(cost: Array, size: float) -> None:
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
    whole = deviation + TINY
    if deviation <= ROUNDING * np.finfo(dtype).eps * size:
        whole = max(size, dtype.type(1))
    for j in range(n):
        cost[j] /= whole


@piece
def explain(x: Array, parents: Parents, slot: int, settings: Array, logits: Array) -> None:
    """Logits ``(tiles, groups, 64)``: log-activations and log-densities of votes."""
    n, groups, rows, _ = x.shape
    quarter, factor = np.empty((4, LANES), x.dtype), np.zeros((rows, LANES), x.dtype)
    mean, n_parents = parents.mean[slot], len(parents.cost)
    for g in range(groups):
        for j in range(min(GROUP, n_parents - g * GROUP)):
            for h in range(int(settings[2])):
                a, s = place(h, int(settings[3]))
                factor[a, 4 * j + s] = -0.5 / parents.variance[g, a, 4 * j + s]
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


@part
def iterate(
    x: Array, activations: Array, betas: Array, first: Array, settings: Array, shares: Shares, parents: Parents
) -> float:
    """Route one sample; return its brightest activation. What has room for one iteration keeps the last."""
    slots, last = len(shares.some), len(settings) - FIXED - 1
    brightest = brighten(activations, shares.active)
    begin(first, shares, len(parents.cost))
    for number in range(last + 1):
        slot = min(number, slots - 1)
        share_out(shares, slot, brightest)
        fit(x, shares, parents, slot)
        weigh(shares, parents, slot, betas, settings[FIXED + number], settings)
        if number < last:
            explain(x, parents, slot, settings, shares.gaps)
            choose(shares, min(number + 1, slots - 1))
    return brightest


def settings_of(options: Any, entries: int, entries_a_row: int, explained: bool, dtype: Any) -> Array:
    """As one array: epsilon, which cost, sizes of poses, whether logits follow the last iteration, temperatures."""
    rule = options.rule
    fixed = rule.epsilon, rule.cost == "normalized", entries, entries_a_row, explained
    return np.asarray([*fixed, *options.schedule], dtype)


@loops("f5", "f2", "f3", "f3", "f1")
def route(x: Array, activations: Array, betas: Array, first: Array, settings: Array) -> tuple[Array, ...]:
    """Route samples.

    Parameters
    ----------
    x
        Votes in lanes.
    activations
        ``(b, I)``.
    betas
        ``(b, 2, J)``.
    first
        Logarithms of assignments ``(b, I, J)`` for the one iteration that is then made; or, of no child, equal ones.
    settings
        As `settings_of` has them.

    Returns
    -------
    tuple of Array
        Poses ``(b, J, H)``, activations ``(b, J)``, and ``(b, I, J)``: assignments, or, where these are wanted, the
        logits that follow; then also their logsumexps ``(b, I)``.
    """
    (b, n), k, d = activations.shape, betas.shape[2], int(settings[2])
    shares, parents = room_for_shares(x[0], 1), room_for_parents(x[0], 1, k)
    poses, active = np.empty((b, k, d), x.dtype), np.empty((b, k), x.dtype)
    assigned, norms = np.empty((b, n, k), x.dtype), np.empty((b, n), x.dtype)
    only = len(parents.mean) - 1
    for p in range(b):
        iterate(x[p], activations[p], betas[p], first[p], settings, shares, parents)
        for j in range(k):
            g, r, logit = j // GROUP, j % GROUP, parents.logit[0, j]
            active[p, j] = math.exp(min(logit, x.dtype.type(0)) - math.log1p(math.exp(-abs(logit))))
            for h in range(d):
                a, s = place(h, int(settings[3]))
                poses[p, j, h] = parents.mean[0, g, a, 4 * r + s]
        if settings[4] > 0:
            explain(x[p], parents, only, settings, shares.gaps)
            take_pairs(shares.gaps, assigned[p])
            choose(shares, only)
            for i in range(n):
                top = assigned[p, i, 0]
                for j in range(1, k):
                    top = max(top, assigned[p, i, j])
                norms[p, i] = top + math.log(shares.norms[i // 4, i % 4])
        else:
            take_pairs(shares.assigned[0], assigned[p])
    return poses, active, assigned, norms
