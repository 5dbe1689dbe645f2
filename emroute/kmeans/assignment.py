"""Rows and their nearest centroids: the sums of the E-step of k-means, and the labels."""

from __future__ import annotations

from typing import NamedTuple

from emroute import backend as backends
from emroute.arrays.creation import broadcast
from emroute.arrays.distances import alike, nearest
from emroute.arrays.kernels import kernel
from emroute.backend import Array

__all__ = ["Statistics", "assign_again", "assign_rows", "label_rows"]


class Statistics(NamedTuple):
    """The statistics of an assignment of rows, from differences to the centroids, so that no digits are lost."""

    counts: Array
    """The weight of each cluster's rows, ``(..., k)``."""
    sums: Array
    """The sum of the differences to each centroid, ``(..., k, d)``."""
    inertia: Array
    farthest: Array
    """The row of positive weight farthest from its centroid, ``(..., d)``."""
    distance: Array
    """Its squared distance."""


@kernel
def assign_rows(z: Array, centroids: Array, alike: Array, weight: Array) -> tuple[Array, ...]:
    """Return the `Statistics` of rows ``(..., n, d)``; `alike` is 1 if products cannot tell two centroids apart."""
    xp, backend, k = backends.namespace(z), backends.get(z), centroids.shape[-2]
    labels, gaps = _differences(z, centroids, xp.any(alike > 0))
    square = xp.vecdot(gaps, gaps)
    share = broadcast(weight, square.shape)
    present = xp.where(share > 0, square, 0.0)
    far = xp.argmax(present, axis=-1, keepdims=True)[..., None]
    rows = broadcast(z, gaps.shape)
    farthest = xp.take_along_axis(rows, broadcast(far, (*far.shape[:-1], z.shape[-1])), axis=-2)[..., 0, :]
    counts, sums = (backend.segment_sum(y, labels, k) for y in (share[..., None], share[..., None] * gaps))
    return counts[..., 0], sums, xp.sum(share * square, axis=-1), farthest, xp.max(present, axis=-1)


@kernel
def assign_again(
    z: Array, centroids: Array, way: Array, weight: Array, labels: Array, bounds: Array
) -> tuple[Array, ...]:
    """Return the `Statistics` of rows that were assigned before, and update their labels and bounds.

    Parameters
    ----------
    z, centroids, weight
        The arguments of `assign_rows`, for one problem.
    way
        How far a centroid may have moved since the first step.
    labels, bounds
        Arrays ``(n,)`` that are updated: the nearest centroid of each row, and the least distance to any other when it
        was last computed plus `way` at that time, or 0 if it is not known. A fused form compares a row with all
        centroids only if its own is not nearer than this bound less `way` now (Hamerly 2010).
    """
    labels[...], bounds[...] = nearest(z, centroids), 0.0
    return assign_rows.text(z, centroids, alike(centroids), weight)


@kernel
def label_rows(z: Array, centroids: Array) -> tuple[Array, Array]:
    """Return labels ``(..., n)`` of rows ``(..., n, d)``, and squared distances."""
    labels, gaps = _differences(z, centroids)
    return labels, backends.namespace(z).vecdot(gaps, gaps)


def _differences(z: Array, centroids: Array, close: Array | None = None) -> tuple[Array, Array]:
    """Return labels, and the differences of rows to their centroids, ``(..., n, d)``."""
    xp, labels = backends.namespace(z), nearest(z, centroids, close)
    if centroids.ndim == 2:
        return labels, z - xp.take(centroids, labels, axis=0)
    index = broadcast(labels[..., None], (*labels.shape, z.shape[-1]))
    return labels, z - xp.take_along_axis(centroids, index, axis=-2)
