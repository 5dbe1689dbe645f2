"""Rows and the centroids nearest to them: what an E-step of k-means sums, and the labels."""

from __future__ import annotations

from typing import NamedTuple

from emroute import backend as backends
from emroute.arrays.creation import broadcast
from emroute.arrays.distances import alike, nearest
from emroute.arrays.kernels import kernel
from emroute.backend import Array

__all__ = ["Statistics", "assign_again", "assign_rows", "label_rows"]


class Statistics(NamedTuple):
    """What an assignment of the rows leaves behind: of differences to the centroids, so that no digit is lost."""

    counts: Array
    """``(..., k)``: the weight of each cluster's rows."""
    sums: Array
    """``(..., k, d)``, about the centroids."""
    inertia: Array
    farthest: Array
    """``(..., d)``: the row of positive weight farthest from its centroid."""
    distance: Array
    """Its squared distance."""


@kernel
def assign_rows(z: Array, centroids: Array, alike: Array, weight: Array) -> tuple[Array, ...]:
    """Return the `Statistics` of rows ``(..., n, d)``; `alike` is 1 where products cannot tell two centroids apart."""
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
    """Return the `Statistics` of rows that were assigned before, and write their new labels and bounds.

    Parameters
    ----------
    z, centroids, weight
        As in `assign_rows`, of one problem.
    way
        How far a centroid may have come, from the first step on.
    labels, bounds
        ``(n,)``, written to: the nearest centroid of each row, and the least distance to any other when that was last
        found out, plus the way then; 0 where it is not known. A fused form compares a row with all centroids only if
        its own is not nearer than that less the way now (Hamerly 2010).
    """
    labels[...], bounds[...] = nearest(z, centroids), 0.0
    return assign_rows.text(z, centroids, alike(centroids), weight)


@kernel
def label_rows(z: Array, centroids: Array) -> tuple[Array, Array]:
    """Return labels ``(..., n)`` of rows ``(..., n, d)``, and squared distances."""
    labels, gaps = _differences(z, centroids)
    return labels, backends.namespace(z).vecdot(gaps, gaps)


def _differences(z: Array, centroids: Array, close: Array | None = None) -> tuple[Array, Array]:
    """Labels, and differences of rows to the centroids they are assigned to, ``(..., n, d)``."""
    xp, labels = backends.namespace(z), nearest(z, centroids, close)
    if centroids.ndim == 2:
        return labels, z - xp.take(centroids, labels, axis=0)
    index = broadcast(labels[..., None], (*labels.shape, z.shape[-1]))
    return labels, z - xp.take_along_axis(centroids, index, axis=-2)
