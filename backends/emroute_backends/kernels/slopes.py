"""Gradients of the parents of an iteration: the way back through `weigh` of `agreement`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from emroute_backends.kernels.agreement import LEAST_VARIANCE, ROUNDING, TINY
from emroute_backends.kernels.compiling import exact, piece
from emroute_backends.kernels.lanes import GROUP, LANES, place

__all__ = ["Slopes", "room_for_slopes", "weigh_back"]

Array = Any


class Slopes(NamedTuple):
    """Gradients of the parents of one iteration, and of the logits and assignments behind and before it."""

    mean: Array
    """``(groups, rows, 64)``."""
    square: Array
    precision: Array
    total: Array
    """``(groups, 16)``: of the sum of R a."""
    weight: Array
    """``(groups, 16)``: the sum of the gradients of the logits."""
    active: Array
    """``(J,)``: of activations, from outside."""
    cost: Array
    logits: Array
    """``(tiles, groups, 64)``; then of the logarithms of assignments."""


@piece
def room_for_slopes(x: Array, n_parents: int) -> Slopes:
    """For votes in lanes."""
    n, groups, rows, _ = x.shape
    return Slopes(
        np.zeros((groups, rows, LANES), x.dtype),
        np.zeros((groups, rows, LANES), x.dtype),
        np.zeros((groups, rows, LANES), x.dtype),
        np.zeros((groups, GROUP), x.dtype),
        np.zeros((groups, GROUP), x.dtype),
        np.zeros(n_parents, x.dtype),
        np.zeros(n_parents, x.dtype),
        np.zeros((n // 4, groups, LANES), x.dtype),
    )


@exact
def weigh_back(
    square: Array, total: Array, logit: Array, betas: Array, slopes: Slopes, of_betas: Array, of_settings: Array
) -> None:
    """From the gradients of activations and logits to those of moments and costs; a temperature leads the settings."""
    temperature, epsilon, normalized = of_settings[0], of_settings[1], of_settings[2] > 0
    entries, entries_a_row = int(of_settings[3]), int(of_settings[4])
    dtype, n = square.dtype, len(logit)
    costs, widths, size = np.empty(n, dtype), np.empty(n, dtype), 0.0
    for j in range(n):
        g, r = j // GROUP, j % GROUP
        widths[j] = absolute = dtype.type(0)
        for h in range(entries):
            a, s = place(h, entries_a_row)
            if normalized:
                deviation = math.sqrt(max(square[g, a, 4 * r + s], dtype.type(LEAST_VARIANCE)))
                width = math.log(deviation + dtype.type(TINY))
            else:
                width = math.log(square[g, a, 4 * r + s] + epsilon) / 2
            widths[j] += width
            absolute += abs((betas[0, j] + width) * total[g, r])
        costs[j] = (betas[0, j] * entries + widths[j]) * total[g, r]
        size = max(size, absolute)
        rest = math.exp(-abs(logit[j]))
        active = (1 if logit[j] > 0 else rest) / (1 + rest)
        inactive = (rest if logit[j] > 0 else 1) / (1 + rest)
        if normalized:
            slope = (slopes.active[j] + slopes.weight[g, r] / (active + TINY)) * active * inactive
        else:
            slope = (slopes.active[j] * active + slopes.weight[g, r]) * inactive
        of_betas[1, j] += temperature * slope
        slopes.cost[j] = -temperature * slope
    if normalized:
        standardize_back(costs, size, slopes.cost)
    for j in range(n):
        g, r = j // GROUP, j % GROUP
        of_betas[0, j] += slopes.cost[j] * entries * total[g, r]
        slopes.total[g, r] = slopes.cost[j] * (betas[0, j] * entries + widths[j])
        of_width = slopes.cost[j] * total[g, r] - slopes.weight[g, r]
        for h in range(entries):
            a, s = place(h, entries_a_row)
            q = 4 * r + s
            moves = not normalized or square[g, a, q] > LEAST_VARIANCE
            variance = max(square[g, a, q], dtype.type(LEAST_VARIANCE)) if normalized else square[g, a, q] + epsilon
            deviation = math.sqrt(variance)
            precision = 1 / deviation * (1 / deviation)
            width = 0.5 / (deviation * (deviation + TINY)) if normalized else 0.5 * precision
            slope = of_width * width + precision * (precision * slopes.square[g, a, q]) / 2
            slopes.square[g, a, q] = slope if moves else 0
            slopes.mean[g, a, q] *= precision
            slopes.precision[g, a, q] = precision


@exact
def standardize_back(costs: Array, size: float, slopes: Array) -> None:
    """From the gradients of standardized costs to those of the costs."""
    n, dtype = len(costs), costs.dtype
    first, mean, square = costs[0], dtype.type(0), dtype.type(0)
    for j in range(n):
        costs[j] -= first
        mean += costs[j] / n
    for j in range(n):
        costs[j] -= mean
        square += costs[j] * costs[j]
    deviation = math.sqrt(square / n)
    if deviation <= ROUNDING * np.finfo(dtype).eps * size:
        whole, along = dtype.type(max(size, dtype.type(1))), dtype.type(0)
    else:
        whole, along = dtype.type(deviation + TINY), dtype.type(0)
        for j in range(n):
            along += slopes[j] * costs[j] / (whole * whole)
        along /= n * deviation
    mean = dtype.type(0)
    for j in range(n):
        slopes[j] = slopes[j] / whole - along * costs[j]
        mean += slopes[j] / n
    for j in range(n):
        slopes[j] -= mean
