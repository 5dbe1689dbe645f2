"""Routing by scalar products, as `emroute.capsule.dynamic` does, one sample after another, in the layout of `lanes`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from emroute_backends.kernels.compiling import exact, loops, piece
from emroute_backends.kernels.lanes import GROUP, LANES, clear, from_votes, place, take_pairs
from emroute_backends.kernels.routing import share_out_samples
from emroute_backends.kernels.shares import Shares, begin, brighten, choose, of_four, room_for_shares, share_out, spread

__all__ = ["route_products"]

Array = Any


def route_products(votes: Array, bias: Array, options: Any) -> tuple[Array, ...]:
    """As `emroute.capsule.dynamic.route_products`; samples are shared out among threads."""
    (_, n, j, d), rule = votes.shape, options.rule
    settings = np.asarray([n, len(options.schedule), rule.replaces, rule.constant], votes.dtype)

    def block(votes: Array, bias: Array) -> tuple[Array, ...]:
        return by_products(from_votes(votes), bias, settings)

    poses, lengths, assigned = share_out_samples(block, [votes, bias], n * j * d)
    return poses, lengths, np.swapaxes(assigned, -1, -2)


@loops("f5", "f3", "f1")
def by_products(x: Array, bias: Array, settings: Array) -> tuple[Array, ...]:
    """Poses ``(b, J, H)``, their lengths ``(b, J)`` and assignments ``(b, I, J)`` of samples with votes in lanes.

    Settings are how many children there are, how many iterations, whether logits are replaced, and the constant of the
    squash.
    """
    (b, k, _), n, last = bias.shape, int(settings[0]), int(settings[1]) - 1
    poses, lengths, assigned = np.empty(bias.shape, x.dtype), np.empty((b, k), x.dtype), np.empty((b, n, k), x.dtype)
    shares, toward = room_for_shares(x[0], 1), np.zeros(x.shape[2:], x.dtype)
    brighten(np.ones(n, x.dtype), shares.active)
    for p in range(b):
        clear(shares.gaps)
        begin(bias[:0, 0], shares, k)
        for number in range(last + 1):
            share_out(shares, 0, x.dtype.type(1))
            add_up(x[p], shares, toward)
            point(toward, shares, bias[p], settings, poses[p], lengths[p])
            if number < last:
                agree(x[p], toward, settings[2] > 0, shares.gaps, k)
                choose(shares, 0)
        take_pairs(shares.assigned[0], assigned[p])
    return poses, lengths, assigned


@piece
def add_up(x: Array, shares: Shares, sums: Array) -> None:
    """Sums of votes by the shares of their children, ``(groups, rows, 64)``."""
    n, groups, rows, _ = x.shape
    wide = np.empty((4, LANES), x.dtype)
    for g in range(groups):
        for a in range(rows):
            for q in range(LANES):
                sums[g, a, q] = 0
        for t in range(n // 4):
            i = 4 * t
            spread(shares.relative[0, t, g], shares.active[t], wide)
            for a in range(rows):
                for q in range(LANES):
                    near = wide[0, q] * x[i, g, a, q] + wide[1, q] * x[i + 1, g, a, q]
                    sums[g, a, q] += near + wide[2, q] * x[i + 2, g, a, q] + wide[3, q] * x[i + 3, g, a, q]


@exact
def point(sums: Array, shares: Shares, bias: Array, settings: Array, poses: Array, lengths: Array) -> None:
    """Squash sums to poses; what votes are compared with, poses or directions of the sums, takes the sums' place."""
    (k, d), dtype = poses.shape, poses.dtype
    constant, most, total = settings[3], dtype.type(1 - 4 * np.finfo(dtype).eps), np.empty(d, dtype)
    for j in range(k):
        g, r = j // GROUP, j % GROUP
        some = shares.some[0, g, r]
        scale = shares.total[0, g, r] / some if some > 0 else dtype.type(0)
        for h in range(d):
            a, s = place(h, d)
            total[h] = sums[g, a, 4 * r + s]
            poses[j, h] = scale * total[h] + bias[j, h]
        size = length(poses[j])
        gain = 1 / (constant / size + size) if size > 1 else size / (constant + size * size)
        gain /= max(gain * size / most, dtype.type(1))
        whole = length(total)
        for h in range(d):
            poses[j, h] *= gain
            a, s = place(h, d)
            sums[g, a, 4 * r + s] = poses[j, h]
            if settings[2] > 0:
                sums[g, a, 4 * r + s] = total[h] / whole if whole > 0 else total[h]
        lengths[j] = min(length(poses[j]), dtype.type(1))


@exact
def length(vector: Array) -> float:
    """Of a vector of any size, whose squares may be out of range."""
    top, square = vector.dtype.type(0), vector.dtype.type(0)
    for value in vector:
        top = max(top, abs(value))
    if not np.finfo(vector.dtype).tiny < top < np.inf:
        top = vector.dtype.type(1)
    for value in vector:
        square += (value / top) * (value / top)
    return top * math.sqrt(square)


@piece
def agree(x: Array, toward: Array, replaces: bool, logits: Array, n_parents: int) -> None:
    """Add scalar products of votes to logits ``(tiles, groups, 64)``, or replace these."""
    n, groups, rows, _ = x.shape
    quarter = np.empty((4, LANES), x.dtype)
    for g in range(groups):
        for t in range(n // 4):
            i = 4 * t
            for s in range(4):
                for q in range(LANES):
                    quarter[s, q] = 0
            for a in range(rows):
                for q in range(LANES):
                    v = toward[g, a, q]
                    quarter[0, q] += v * x[i, g, a, q]
                    quarter[1, q] += v * x[i + 1, g, a, q]
                    quarter[2, q] += v * x[i + 2, g, a, q]
                    quarter[3, q] += v * x[i + 3, g, a, q]
            for j in range(GROUP):
                for s in range(4):
                    q = 4 * j
                    product = of_four(quarter[s, q], quarter[s, q + 1], quarter[s, q + 2], quarter[s, q + 3])
                    before = x.dtype.type(0) if replaces else logits[t, g, q + s]
                    logits[t, g, q + s] = before + product if g * GROUP + j < n_parents else -np.inf
