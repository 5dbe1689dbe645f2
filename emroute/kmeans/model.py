"""k-means (Lloyd 1982): the hard-assignment limit of a Gaussian mixture, on the same loop.

    E-step   z_n = argmin_k |x_n - c_k|²
    M-step   c_k = sum_n w_n [z_n = k] x_n / sum_n w_n [z_n = k]

The objective is minus the inertia, sum_n w_n |x_n - c_{z_n}|². A cluster that loses its points moves to the point
farthest from its centroid, which cannot raise the inertia.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from emroute import backend as backends
from emroute._engine.nests import map_blocks, where_leading
from emroute.arrays.creation import broadcast, itemsize
from emroute.arrays.distances import alike, distances, nearest
from emroute.arrays.functions import eps, ratio
from emroute.arrays.tracing import concrete, either
from emroute.backend import Array

__all__ = ["KMeansModel", "Params", "Shared", "Statistics", "loses_digits"]

_TOLERATED = {4: 1e-5, 8: 1e-9}  # relative error of the inertia that products may make


class Shared(NamedTuple):
    """What restarts of one problem share."""

    centre: Array
    scatter: Array
    """``(...,)``: weighted squared distances of all rows to the centre."""
    shift_tol: Array
    """``(...,)``: a step whose squared shifts sum to no more than this is not taken."""
    unit: Array
    """``(...,)``: the length in which all of these are; 1 unless squares of the rows over- or underflow."""


class Params(NamedTuple):
    """Centroids about a centre; the last four are as in `Shared`."""

    centroids: Array
    careful: Array
    """``(...,)``: 1 where the next E-step computes differences row by row, and looks for the farthest row."""
    alike: Array
    """``(...,)``: 1 where products cannot tell some two centroids apart, so that the next labels take differences."""
    centre: Array
    scatter: Array
    shift_tol: Array
    unit: Array


class Statistics(NamedTuple):
    """What an assignment of the rows leaves behind."""

    counts: Array
    sums: Array
    """``(..., k, d)``, about the centroids."""
    inertia: Array
    """Less the scatter, unless the E-step was careful."""
    farthest: Array
    """``(..., d)``: the row of positive weight farthest from its centroid, if the E-step was careful."""
    distance: Array
    """Its squared distance, else 0."""


@dataclass(frozen=True)
class KMeansModel:
    """k-means for `emroute.em.fit`.

    Parameters
    ----------
    centred
        Whether rows are first moved by the centre. They need not be where their mean is closer to 0 than the rows are
        to the mean: that would cost a pass and gain nothing.
    weighted
        Whether any weight is not 1.
    scaled
        Whether rows are first divided by the unit; a fit does that once, before its first step.
    """

    centred: bool = True
    weighted: bool = True
    scaled: bool = False

    ranks = (1,)

    def bytes_per_row(self, params: Params) -> int:
        """Distances to the centroids, and a quarter of the row: products copy a piece of the rows at a time."""
        return itemsize(params.centroids) * (math.prod(params.centroids.shape[:-1]) + params.centroids.shape[-1] // 4)

    def bytes_per_scored_row(self, params: Params) -> int:
        """Distances to the centroids, and the differences to the nearest."""
        return itemsize(params.centroids) * (math.prod(params.centroids.shape[:-1]) + 3 * params.centroids.shape[-1])

    def expect(self, params: Params, x: Array, sample_weight: Array) -> Statistics:
        """Assign rows to their nearest centroids: by products, or by differences where products lose digits."""
        xp, backend, z = backends.namespace(x), backends.get(x), self.points(params, x)
        k, d = params.centroids.shape[-2:]
        labels = nearest(z, params.centroids, xp.any(params.alike > 0))
        share = broadcast(sample_weight, labels.shape)
        counts = backend.segment_sum(share[..., None], labels, k)[..., 0]

        def total(rows: Array) -> Array:
            rows = rows * share[..., None] if self.weighted else rows
            return backend.segment_sum(broadcast(rows, (*labels.shape, d)), labels, k)

        def by_products(z: Array) -> Statistics:
            sums = total(z) - counts[..., None] * params.centroids
            gain = xp.sum(params.centroids * (2 * sums + counts[..., None] * params.centroids), axis=(-2, -1))
            return Statistics(counts, sums, -gain, sums[..., 0, :], 0 * gain)

        def by_differences(z: Array) -> Statistics:
            gaps = self._gaps(params, z, labels)
            square = xp.vecdot(gaps, gaps)
            present = xp.where(share > 0, square, xp.zeros_like(square))
            far = xp.argmax(present, axis=-1, keepdims=True)[..., None]
            rows = broadcast(z, (*labels.shape, d))
            farthest = xp.take_along_axis(rows, broadcast(far, (*far.shape[:-1], d)), axis=-2)[..., 0, :]
            return Statistics(counts, total(gaps), xp.sum(share * square, axis=-1), farthest, xp.max(present, axis=-1))

        def by_both(z: Array) -> Statistics:  # of a batch, only some problems may need care
            return where_leading(params.careful > 0, by_differences(z), by_products(z))

        return either(xp.any(params.careful > 0), by_both if params.careful.ndim else by_differences, by_products, z)

    def _gaps(self, params: Params, z: Array, labels: Array) -> Array:
        """Differences of rows to the centroids they are assigned to, ``(..., n, d)``."""
        xp, d = backends.namespace(z), z.shape[-1]
        if params.centroids.ndim == 2:
            return z - xp.take(params.centroids, labels, axis=0)
        index = broadcast(labels[..., None], (*labels.shape, d))
        return z - xp.take_along_axis(params.centroids, index, axis=-2)

    def merge(self, a: Statistics, b: Statistics) -> Statistics:
        """Sums add; of two farthest rows the farther stays."""
        farther = b.distance > a.distance
        farthest, distance = where_leading(farther, (b.farthest, b.distance), (a.farthest, a.distance))
        return Statistics(a.counts + b.counts, a.sums + b.sums, a.inertia + b.inertia, farthest, distance)

    def maximize(self, statistics: Statistics, params: Params) -> Params:
        """Move centroids to the means of their rows, and the first that has none to the farthest row."""
        (counts, sums, _, farthest, distance), xp = statistics, backends.namespace(statistics.counts)
        shift = ratio(sums, counts[..., None], xp.zeros_like(sums))
        # shifts within the rounding of the rows are ignored, or centroids at rest would never stop
        rounding = 16 * eps(sums) * xp.sqrt(params.scatter / xp.sum(counts, axis=-1))
        shift = xp.where(xp.abs(shift) > rounding[..., None, None], shift, xp.zeros_like(shift))
        empty = xp.astype(counts <= 0, counts.dtype)
        moved = (empty * xp.cumulative_sum(empty, axis=-1) == 1) & (distance > 0)[..., None]
        going = (xp.sum(shift * shift, axis=(-2, -1)) > params.shift_tol) | xp.any(moved, axis=-1)
        shift = xp.where(going[..., None, None], shift, xp.zeros_like(shift))
        centroids = xp.where(moved[..., None], farthest[..., None, :], params.centroids + shift)
        inertia = -self.objective(statistics, params)
        careful = xp.maximum(loses_digits(inertia, params.scatter), xp.max(empty, axis=-1))
        return params._replace(centroids=centroids, careful=careful, alike=alike(centroids))

    def objective(self, statistics: Statistics, params: Params) -> Array:
        """Minus the inertia."""
        return -(statistics.inertia + (1 - params.careful) * params.scatter)

    def points(self, params: Params, x: Array) -> Array:
        """Rows about the centre, in the unit."""
        x = x / params.unit[..., None, None] if self.scaled else x
        return x - params.centre[..., None, :] if self.centred else x

    def assign(self, params: Params, x: Array) -> tuple[Array, Array]:
        """Labels ``(..., n)`` and squared distances ``(..., n)``."""
        z = self.points(params, x)
        labels = nearest(z, params.centroids)
        gaps = self._gaps(params, z, labels)
        square = backends.namespace(z).vecdot(gaps, gaps)
        return labels, square * params.unit[..., None] * params.unit[..., None] if self.scaled else square

    def distances(self, params: Params, x: Array) -> Array:
        """Distances to all centroids, ``(..., n, k)``; exactly 0, with a finite gradient, at a centroid."""
        xp, z = backends.namespace(x), self.points(params, x)
        size = xp.vecdot(z, z)[..., None]
        square = 2 * distances(z, params.centroids) + size
        if concrete(xp.any(square < 2**12 * eps(square) * size)) is not False:  # products may have lost digits

            def by_differences(centroids: Array) -> Array:
                gaps = z - centroids[..., None, :]
                return xp.sum(gaps * gaps, axis=-1)

            square = xp.moveaxis(map_blocks(by_differences, xp.moveaxis(params.centroids, -2, 0), 1), 0, -1)
        positive = square > 0
        root = xp.where(positive, xp.sqrt(xp.where(positive, square, xp.ones_like(square))), xp.zeros_like(square))
        return root * params.unit[..., None, None] if self.scaled else root


def loses_digits(inertia: Array, scatter: Array) -> Array:
    """1 where an inertia by products would have lost digits, else 0."""
    lost = eps(inertia) * scatter > _TOLERATED[itemsize(inertia)] * inertia
    return backends.namespace(inertia).astype(lost, inertia.dtype)
