"""k-means (Lloyd 1982): the hard-assignment limit of a Gaussian mixture, on the same loop.

    E-step   z_n = argmin_k |x_n - c_k|²
    M-step   c_k = sum_n w_n [z_n = k] x_n / sum_n w_n [z_n = k]

The objective is minus the inertia, sum_n w_n |x_n - c_{z_n}|². A cluster that loses its points moves to the point
farthest from its centroid, which cannot raise the inertia.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from emroute import backend as backends
from emroute.array import broadcast, concrete, either, eps, itemsize
from emroute.backend import Array, compiled
from emroute.batch import select
from emroute.capability import Capabilities
from emroute.data import Rows, Stream, open_source
from emroute.distance import alike, distances, nearest
from emroute.em import Fit, Status
from emroute.errors import InputTypeError, tell
from emroute.family import ratio
from emroute.fitting import Settings, admit, align, measure, restart, run
from emroute.init import seeds
from emroute.remarks import remarks
from emroute.sweep import each_row, gauge, sweep
from emroute.units import in_unit_of_length, out_of_range
from emroute.validate import as_generator, as_parameter, check_count, check_floating, check_scored, check_width

__all__ = ["KMeans", "KMeansModel", "Params", "Statistics", "fit"]

_MANY = 2**14  # rows for which it pays to ask whether the first E-step needs care
_TOLERATED = {4: 1e-5, 8: 1e-9}  # relative error of the inertia that products may make


class Params(NamedTuple):
    """Centroids about a centre."""

    centroids: Array
    careful: Array
    """``(...,)``: 1 where the next E-step computes differences row by row, and looks for the farthest row."""
    alike: Array
    """``(...,)``: 1 where products cannot tell some two centroids apart, so that the next labels take differences."""
    centre: Array
    scatter: Array
    """``(...,)``: weighted squared distances of all rows to the centre."""
    rest: Array
    """``(...,)``: centroids whose shifts have squares that sum to no more than this stay where they are."""
    unit: Array
    """``(...,)``: the length in which all of these are; 1 unless squares of the rows over- or underflow."""


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
        Whether rows are first moved by the centre; needless, and a pass over the data, where that is no farther
        from 0 than the rows are from it.
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
        """Distances to the centroids; of the rows, which products take in pieces of their own, a quarter."""
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
            return select(params.careful > 0, by_differences(z), by_products(z))

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
        far = select(farther, b[3:], a[3:])
        return Statistics(*(x + y for x, y in zip(a[:3], b[:3], strict=True)), *far)

    def maximize(self, statistics: Statistics, params: Params) -> Params:
        """Move centroids to the means of their rows, and the first that has none to the farthest row."""
        (counts, sums, _, farthest, distance), xp = statistics, backends.namespace(statistics.counts)
        shift = ratio(sums, counts[..., None], xp.zeros_like(sums))
        # a shift within the rounding of the rows is none; else centroids at rest would tremble for ever
        rounding = 16 * eps(sums) * xp.sqrt(params.scatter / xp.sum(counts, axis=-1))
        shift = xp.where(xp.abs(shift) > rounding[..., None, None], shift, xp.zeros_like(shift))
        empty = xp.astype(counts <= 0, counts.dtype)
        moved = (empty * xp.cumulative_sum(empty, axis=-1) == 1) & (distance > 0)[..., None]
        going = (xp.sum(shift * shift, axis=(-2, -1)) > params.rest) | xp.any(moved, axis=-1)
        shift = xp.where(going[..., None, None], shift, xp.zeros_like(shift))
        centroids = xp.where(moved[..., None], farthest[..., None, :], params.centroids + shift)
        inertia = -self.objective(statistics, params)
        narrow = eps(counts) * params.scatter > _TOLERATED[itemsize(counts)] * inertia
        careful = xp.astype(narrow | (xp.max(empty, axis=-1) > 0), counts.dtype)
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
        xp, backend, z = backends.namespace(x), backends.get(x), self.points(params, x)
        size = xp.vecdot(z, z)[..., None]
        square = 2 * distances(z, params.centroids) + size
        if concrete(xp.any(square < 2**12 * eps(square) * size)) is not False:  # products may have lost digits

            def by_differences(centroids: Array) -> tuple[Array]:
                gaps = z - centroids[..., None, :]
                return (xp.sum(gaps * gaps, axis=-1),)

            each = xp.moveaxis(params.centroids, -2, 0)
            (square,) = backend.map_blocks(by_differences, [each], 1)
            square = xp.moveaxis(square, 0, -1)
        positive = square > 0
        root = xp.where(positive, xp.sqrt(xp.where(positive, square, xp.ones_like(square))), xp.zeros_like(square))
        return root * params.unit[..., None, None] if self.scaled else root


@dataclass(frozen=True, repr=False, eq=False)
class KMeans:
    """A clustering by k-means; made by `fit`.

    Examples
    --------
    >>> import numpy as np
    >>> clusters = fit(np.asarray([[0.0], [1.0], [10.0], [11.0]]), 2, rng=0)
    >>> sorted(clusters.centroids[:, 0].tolist()), float(clusters.inertia)
    ([0.5, 10.5], 1.0)
    """

    model: KMeansModel
    params: Params
    labels: Array
    """``(..., n)``: the nearest centroid of each row that was fitted."""
    inertia: Array
    """``(...,)``: weighted squared distances to the nearest centroids, from differences, not products."""
    trace: Array
    """``(..., t)``: minus the inertia, at the start and after each iteration."""
    n_iter: Array
    """``(...,)``: iterations made."""
    status: Array
    """``(...,)``: an `emroute.em.Status` each."""

    @property
    def centroids(self) -> Array:
        """``(..., k, d)``."""
        return (self.params.centroids + self.params.centre[..., None, :]) * self.params.unit[..., None, None]

    @property
    def converged(self) -> Array:
        """``(...,)``: whether the inertia came to rest."""
        return self.status == int(Status.CONVERGED)

    @property
    def n_clusters(self) -> int:
        """How many clusters, k."""
        return self.params.centroids.shape[-2]

    def __repr__(self) -> str:
        batch = tuple(self.params.centroids.shape[:-2])
        if batch or concrete(self.inertia) is None:
            return f"KMeans(n_clusters={self.n_clusters}, batch={batch})"
        status = Status(int(self.status)).name.lower()
        found = f"inertia={float(self.inertia):.6f}, n_iter={int(self.n_iter)}, {status}"
        return f"KMeans(n_clusters={self.n_clusters}, {found})"

    @Capabilities(jit=True, batch=True)
    def predict(self, x: Array) -> Array:
        """Return the nearest centroid of each row, ``(..., n)`` integers."""
        return self.assign(x)[0]

    @Capabilities(gradients=True, jit=True, batch=True)
    def assign(self, x: Array) -> tuple[Array, Array]:
        """Return the nearest centroid of each row, and the squared distance to it, both ``(..., n)``."""
        return self._each("assign", x)

    @Capabilities(gradients=True, jit=True, batch=True)
    def transform(self, x: Array) -> Array:
        """Distances to all centroids, ``(..., n, k)``."""
        return self._each("distances", x)

    def _each(self, name: str, x: Array) -> Any:
        rows = open_source(x, None, (1,))
        if isinstance(rows, Stream):
            raise InputTypeError("got a source of chunks, expected an array; call this for each chunk")
        check_floating("x", self.params.centroids, *rows.arrays)
        check_width(rows.arrays[0], self.params.centroids.shape[-1])
        check_scored(rows)
        with np.errstate(over="ignore"):  # labels are right where squared distances are beyond the dtype
            return each_row(self.model, name, self.params, rows, tuple(self.params.centroids.shape[:-2]))


@Capabilities(jit=True, batch=True, streams=True)
def fit(
    x: Array | Any,
    n_clusters: int,
    *,
    sample_weight: Array | None = None,
    init: Any = "k-means++",
    n_init: int = 1,
    tol: float = 0.0,
    max_iter: int = 300,
    rng: Any = None,
    chunk_size: int | None = None,
    callback: Callable[[int, Fit], object] | None = None,
    progress: bool = False,
) -> KMeans:
    """Cluster rows by k-means.

    Parameters
    ----------
    x
        ``(..., n, d)`` in float32 or float64; leading dimensions are separate problems. Or a source of chunks
        ``(rows, d)`` that can be read again and again. Memory maps are read in chunks.
    n_clusters
        How many clusters, k.
    sample_weight
        ``(n,)`` or ``(..., n)``.
    init
        ``"k-means++"`` (greedy) or ``"random"`` rows, or centroids ``(..., k, d)``.
    n_init
        Restarts, run in one batch; the best is returned. Not with given centroids.
    tol
        Largest change of the inertia per unit of weight that counts as rest; 0 goes on until nothing changes.
    max_iter, chunk_size, callback, progress
        As in `emroute.em.fit`.
    rng
        None, a seed or a `numpy.random.Generator`.

    Returns
    -------
    KMeans
        With arrays of the data's library, dtype and device.

    Warns
    -----
    FitWarning
        If the fit has not converged; or if the inertia leaves the dtype's range and is 0 or infinite, as for float32
        rows near 1e-25; labels and centroids are right.

    Raises
    ------
    InputError
        If the data hold NaN or infinity, naming the first such row; if there are fewer rows than clusters; if
        shapes, weights, centroids or options cannot be used.
    InputTypeError
        If the dtype is not float32 or float64, or arrays differ in library, device or dtype.

    References
    ----------
    Lloyd, S. P. (1982). Least squares quantization in PCM. IEEE Transactions on Information Theory 28. Arthur, D.
    and Vassilvitskii, S. (2007). k-means++: the advantages of careful seeding. SODA.

    Examples
    --------
    >>> import numpy as np
    >>> clusters = fit(np.asarray([[0.0], [1.0], [10.0], [11.0]]), 2, init=np.asarray([[0.0], [1.0]]))
    >>> clusters.labels.tolist(), clusters.trace.round(3).tolist()
    ([0, 0, 1, 1], [-181.0, -21.556, -1.0, -1.0])
    """
    settings = Settings(init, n_init, tol, max_iter, rng, chunk_size, callback, progress)
    clusters = cluster(x, n_clusters, sample_weight, settings)
    tell(remarks(clusters, max_iter))
    return clusters


def cluster(x: Any, n_clusters: int, sample_weight: Array | None, settings: Settings, rest: float = 0.0) -> KMeans:
    """Return what `fit` does; centroids whose shifts have squares that sum to no more than `rest` are at rest."""
    k = check_count("n_clusters", n_clusters)
    source, n, weight_unit = admit(x, sample_weight, k, "n_clusters")
    extent = gauge(source)
    source, length, factor = in_unit_of_length(source, extent.length / extent.weight, joint=settings.tol > 0)
    if factor is not None:
        extent, settings = gauge(source), replace(settings, tol=length.square_in(settings.tol))
    xp, d = backends.namespace(extent.total), extent.total.shape[-1]
    with np.errstate(over="ignore", invalid="ignore"):
        offset = xp.sum(extent.total**2, axis=-1) / extent.weight
    near = concrete(xp.all(2 * offset < extent.length)) is True  # never so where something is not finite
    if near:
        centre, scatter = xp.zeros_like(extent.total), extent.length
    else:
        moments = measure(source)
        centre = moments.centre
        scatter = xp.sum(moments.square + moments.weight[..., None] * (moments.mean - centre) ** 2, axis=-1)
    model = KMeansModel(centred=not near, weighted=sample_weight is not None)
    zero = xp.zeros_like(scatter)
    unit = zero + 1 if factor is None else zero + factor
    params = Params(zero[..., None, None], zero + 1, zero, centre, scatter, zero + rest / unit / unit, unit)
    if settings.named:
        centroids = seeds(model, params, source, n, settings.init, k, settings.n_init, as_generator(settings.rng))
    else:
        centroids = as_parameter("starting centroids", settings.init, centre, (k, d), source.batch)
        centroids = centroids / unit[..., None, None] - centre[..., None, :]
    if settings.n_init > 1:
        source, params = restart(source, params, len(source.batch))
    start = align(params._replace(centroids=centroids), (2, 0, 0, 1, 0, 0, 0), source.batch, 3)
    start = start._replace(alike=compiled(backends.get(centre), alike)(start.centroids))
    if n > _MANY:
        start = start._replace(careful=_narrow(model, start, source.first(n // 16)))
    result = run(model, start, source, settings, weight_unit * length * length)
    if isinstance(source, Stream):
        parts = [each_row(model, "assign", result.params, rows, ()) for rows in source]
        labels, square = (xp.concat(list(pieces), axis=-1) for pieces in zip(*parts, strict=True))
    else:
        if settings.n_init > 1 and len(source.batch):
            source = source.like([xp.squeeze(x, axis=len(source.batch) - 1) for x in source.held])
        labels, square = each_row(model, "assign", result.params, source, tuple(result.objective.shape))
    inertia = xp.sum(square if source.weight is None else square * source.weight, axis=-1)
    found = (weight_unit * length * length).restore(inertia)
    tell(out_of_range(found, inertia))
    return KMeans(replace(model, scaled=factor is not None), result.params, labels, found, *result[2:])


def _narrow(model: KMeansModel, params: Params, rows: Rows) -> Array:
    """Whether products could lose digits: the inertia of all rows is no less than that of some."""
    batch = np.broadcast_shapes(rows.batch, tuple(params.centroids.shape[:-2]))
    inertia = sweep(model, params, rows, batch).inertia  # restarts share the rows, and the start is careful
    narrow = eps(inertia) * params.scatter > _TOLERATED[itemsize(inertia)] * inertia
    return backends.namespace(inertia).astype(narrow, inertia.dtype)
