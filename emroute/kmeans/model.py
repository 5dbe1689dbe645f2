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
from emroute.arrays.creation import itemsize
from emroute.arrays.distances import alike, distances
from emroute.arrays.functions import eps
from emroute.arrays.tracing import concrete
from emroute.backend import Array
from emroute.kmeans.assignment import Statistics, assign_again, assign_rows, label_rows

__all__ = ["KMeansModel", "Params", "RememberingModel", "Shared", "Statistics"]


class Shared(NamedTuple):
    """The parameters that restarts of one problem share."""

    centre: Array
    scatter: Array
    """Weighted squared distances of all rows to the centre, ``(...,)``."""
    shift_tol: Array
    """A step whose squared shifts sum to no more than this is not taken, ``(...,)``."""
    unit: Array
    """The unit of length of all of these, ``(...,)``; 1 unless squares of the rows over- or underflow."""


class Params(NamedTuple):
    """Centroids relative to a centre. The last four fields are those of `Shared`."""

    centroids: Array
    way: Array
    """How far a centroid may have moved, the sum of the largest shifts of all steps, ``(...,)``."""
    alike: Array
    """1 if products cannot tell some two centroids apart, so that the next labels need differences, ``(...,)``."""
    centre: Array
    scatter: Array
    shift_tol: Array
    unit: Array


@dataclass(frozen=True)
class KMeansModel:
    """k-means for `emroute.em.fit`.

    Parameters
    ----------
    centred
        Whether rows are first moved by the centre. This is not needed if their mean is closer to 0 than the rows are to
        the mean, and would cost a pass.
    scaled
        Whether rows are first divided by the unit. A fit does that once, before its first step.
    """

    centred: bool = True
    scaled: bool = False

    ranks = (1,)

    def bytes_per_row(self, params: Params) -> int:
        """Room for the distances to the centroids, and the row."""
        return itemsize(params.centroids) * (math.prod(params.centroids.shape[:-1]) + params.centroids.shape[-1])

    bytes_per_scored_row = bytes_per_row

    def expect(self, params: Params, x: Array, sample_weight: Array) -> Statistics:
        """Assign rows to their nearest centroids."""
        return Statistics(*assign_rows(self.points(params, x), params.centroids, params.alike, sample_weight))

    def merge(self, a: Statistics, b: Statistics) -> Statistics:
        """Add the sums; keep the farther of the two farthest rows."""
        farther = b.distance > a.distance
        farthest, distance = where_leading(farther, (b.farthest, b.distance), (a.farthest, a.distance))
        return Statistics(a.counts + b.counts, a.sums + b.sums, a.inertia + b.inertia, farthest, distance)

    def maximize(self, statistics: Statistics, params: Params) -> Params:
        """Move centroids to the means of their rows, and the first one without rows to the farthest row."""
        (counts, sums, _, farthest, distance), xp = statistics, backends.namespace(statistics.counts)
        shift = sums / xp.where(counts > 0, counts, 1.0)[..., None]
        # shifts within the rounding of the rows are ignored, or the fit might never stop
        rounding = 16 * eps(sums) * xp.sqrt(params.scatter / xp.sum(counts, axis=-1))
        shift = xp.where(xp.abs(shift) > rounding[..., None, None], shift, 0.0)
        empty = xp.astype(counts <= 0, counts.dtype)
        moved = (empty * xp.cumulative_sum(empty, axis=-1) == 1) & (distance > 0)[..., None]
        going = (xp.sum(shift * shift, axis=(-2, -1)) > params.shift_tol) | xp.any(moved, axis=-1)
        shift = xp.where(going[..., None, None], shift, 0.0)
        centroids = xp.where(moved[..., None], farthest[..., None, :], params.centroids + shift)
        shift = centroids - params.centroids
        way = params.way + xp.sqrt(xp.max(xp.sum(shift * shift, axis=-1), axis=-1))
        return params._replace(centroids=centroids, way=way, alike=alike(centroids))

    def objective(self, statistics: Statistics, params: Params) -> Array:
        """Minus the inertia."""
        return -statistics.inertia

    def points(self, params: Params | Shared, x: Array) -> Array:
        """Return rows relative to the centre, in the unit."""
        x = x / params.unit[..., None, None] if self.scaled else x
        return x - params.centre[..., None, :] if self.centred else x

    def assign(self, params: Params, x: Array) -> tuple[Array, Array]:
        """Labels ``(..., n)`` and squared distances ``(..., n)``."""
        labels, square = label_rows(self.points(params, x), params.centroids)
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


@dataclass(frozen=True)
class RememberingModel(KMeansModel):
    """The same for rows with the labels and bounds of the last E-step, which are updated: ``(x, labels, bounds)``.

    Nothing is remembered in batches, or if the library compiles.
    """

    ranks = (1, 0, 0)

    def bytes_per_row(self, params: Params) -> int:
        """Room for the row, if it is moved, and what is remembered of it; a fused form holds no more."""
        return itemsize(params.centroids) * (4 + self.centred * params.centroids.shape[-1])

    def expect(self, params: Params, x: tuple[Array, Array, Array], sample_weight: Array) -> Statistics:
        """Assign rows to their nearest centroids, comparing only rows whose centroid may have changed."""
        rows, *memory = x
        return Statistics(
            *assign_again(self.points(params, rows), params.centroids, params.way, sample_weight, *memory)
        )
