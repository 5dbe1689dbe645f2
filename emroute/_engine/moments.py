"""A first look at the data: their weight, mean and spread, in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from emroute import backend as backends
from emroute._engine.reduce import e_step_over
from emroute.backend import Array
from emroute.data import Rows, Stream

__all__ = ["Extent", "Moments", "extent_of", "moments_of"]


class Moments(NamedTuple):
    """Weight, mean and squared deviations of each feature; two of them merge exactly (Chan, Golub & LeVeque 1979)."""

    weight: Array
    mean: Array
    square: Array
    least: Array
    most: Array

    @property
    def centre(self) -> Array:
        """The mean of each feature from which the differences of all rows are exact (Sterbenz 1974), else 0.

        Rows near 0 have more absolute precision than distant ones, and the difference to a distant mean would round
        them.
        """
        xp = backends.namespace(self.mean)
        near, far = (xp.where(self.mean < 0, -x, y) for x, y in ((self.most, self.least), (self.least, self.most)))
        size = xp.abs(self.mean)
        return xp.where((near >= size / 2) & (far <= 2 * size), self.mean, xp.zeros_like(size))

    @property
    def variance(self) -> Array:
        """Weighted (population) variance of each feature."""
        return self.square / self.weight[..., None]


@dataclass(frozen=True)
class _Moments:
    """First and second moments of ``x (..., n, d)``; the square is about the mean, so an offset costs no digits."""

    def expect(self, params: Array, x: Array, weight: Array) -> Moments:
        xp = backends.namespace(x)
        total = xp.sum(weight, axis=-1)
        share = (weight / xp.where(total > 0, total, xp.ones_like(total))[..., None])[..., None, :]
        rough = xp.matmul(share, x)
        gaps = x - rough
        rest = xp.matmul(share, gaps)[..., 0, :]
        square = xp.matmul(weight[..., None, :], gaps * gaps)[..., 0, :] - total[..., None] * rest * rest
        square = xp.where(square < 0, xp.zeros_like(square), square)
        return Moments(total, rough[..., 0, :] + rest, square, xp.min(x, axis=-2), xp.max(x, axis=-2))

    def merge(self, a: Moments, b: Moments) -> Moments:
        xp = backends.namespace(a.weight)
        total = a.weight + b.weight
        share = b.weight / xp.where(total > 0, total, xp.ones_like(total))
        gap = b.mean - a.mean
        mean = a.mean + share[..., None] * gap
        square = a.square + b.square + (a.weight * share)[..., None] * gap * gap
        return Moments(total, mean, square, xp.minimum(a.least, b.least), xp.maximum(a.most, b.most))

    def bytes_per_row(self, params: Array) -> int:
        return 16 * params.shape[-1]


def moments_of(source: Rows | Stream) -> Moments:
    """Weight, mean, squared deviations and range of the features, per problem, in one pass."""
    return _look(_Moments(), source)


class Extent(NamedTuple):
    """Weight, sum and squared length of the rows, about the origin."""

    weight: Array
    total: Array
    length: Array


@dataclass(frozen=True)
class _Extent:
    """How far rows lie from the origin: two products, nothing held beside the rows."""

    def expect(self, params: Array, x: Array, weight: Array) -> Extent:
        xp = backends.namespace(x)
        length = xp.sum(weight * xp.vecdot(x, x), axis=-1)  # a product would add one row after another
        return Extent(xp.sum(weight, axis=-1), xp.matmul(weight[..., None, :], x)[..., 0, :], length)

    def bytes_per_row(self, params: Array) -> int:
        return params.shape[-1]


def extent_of(source: Rows | Stream) -> Extent:
    """Weight, sum and squared length of the rows, per problem: the cheapest summary."""
    return _look(_Extent(), source)


def _look(model: Any, source: Rows | Stream) -> Any:
    """Statistics of a model that needs no parameters; the first row stands for them, so that a width is known."""
    (first,) = source.first().arrays
    with np.errstate(invalid="ignore", over="ignore"):  # whether they are finite is for the caller to judge
        return e_step_over(model, backends.get(first).detach(first)[..., 0, :], source, source.batch)
