"""k-means: the result, and `fit`. The algorithm is in `emroute.kmeans.model`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute._engine.moments import Extent, extent_of
from emroute._engine.once import once
from emroute._engine.options import Options
from emroute._engine.problems import align
from emroute._engine.restarts import climb_restarts, with_restart_axis
from emroute._engine.rows import Block, cut, joined
from emroute._engine.rowwise import each_row_once
from emroute._engine.starts import draw_starts
from emroute._engine.units import in_unit_of_length, out_of_range
from emroute._keywords import knows_others
from emroute.arrays.distances import alike
from emroute.arrays.tracing import concrete
from emroute.backend import Array, compiles
from emroute.capability import Capabilities
from emroute.data import Rows, Stream
from emroute.em import Fit
from emroute.errors import tell
from emroute.fitting import finite_moments, open_checked
from emroute.kmeans.assignment import assign_again
from emroute.kmeans.clusters import KMeans
from emroute.kmeans.model import KMeansModel, Params, RememberingModel, Shared
from emroute.remarks import remarks
from emroute.validate import as_parameter, check_count

__all__ = ["cluster", "fit"]


@Capabilities(jit=True, batch=True, streams=True)
@knows_others
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
        Rows ``(..., n, d)`` in float32 or float64; leading dimensions are separate problems. Or a source of chunks
        ``(rows, d)`` that can be read repeatedly. Memory maps are read in chunks.
    n_clusters
        The number of clusters, k.
    sample_weight
        The weight of each row, ``(n,)`` or ``(..., n)``. An integer weight is the same as repeating the row.
    init
        How to start: ``"k-means++"`` (greedy) or ``"random"`` (rows of the data), or centroids ``(..., k, d)``.
    n_init
        The number of starts. They run in one batch, and the best fit is returned. Must be 1 if centroids are given.
    tol
        Stop when the mean squared distance per row changes by no more than this. 0 goes on until nothing changes.
    max_iter
        The largest number of iterations.
    chunk_size
        Rows per block of the assignment. By default a block fits the cache, or a fair part of the device's memory.
    callback
        Called as ``callback(iteration, fit)`` after every iteration, with the `emroute.em.Fit` so far.
    progress
        Show a progress bar (needs tqdm).
    rng
        None, a seed or a `numpy.random.Generator`.

    Returns
    -------
    KMeans
        Its arrays have the library, dtype and device of the data.

    Warns
    -----
    FitWarning
        If the fit did not converge, or if the inertia is outside the range of the dtype and becomes 0 or infinite, as
        for float32 rows near 1e-25. Labels and centroids are right even then.

    Raises
    ------
    InputError
        If the data hold NaN or infinity (the message names the first such row), if there are fewer rows than clusters,
        or if shapes, weights, centroids or options are invalid.
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
    options = Options(
        tol, max_iter, chunk_size, callback, progress, sample_weight=sample_weight, init=init, n_init=n_init, rng=rng
    )
    clusters = cluster(x, n_clusters, options)
    tell(remarks(clusters, max_iter))
    return clusters


def cluster(x: Any, n_clusters: int, options: Options, shift_tol: float = 0.0) -> KMeans:
    """Do the work of `fit`. A step whose squared shifts sum to at most `shift_tol` is not taken."""
    k = check_count("n_clusters", n_clusters)
    rows, weight_unit = open_checked(x, options.sample_weight, k, "n_clusters")
    extent = extent_of(rows)
    rows, length, factor = in_unit_of_length(rows, extent.length / extent.weight, joint=options.tol > 0)
    if factor is not None:
        extent, options = extent_of(rows), replace(options, tol=length.square_in(options.tol))
    centred, centre, scatter = _about_centre(rows, extent)
    model = KMeansModel(centred)
    unit = backends.namespace(scatter).ones_like(scatter) if factor is None else factor
    shared = Shared(centre, scatter, shift_tol / unit / unit, unit)
    if options.draws:
        centroids = draw_starts(model, shared, rows, k, options)
    else:
        centroids = as_parameter("starting centroids", options.init, centre, (k, centre.shape[-1]), rows.batch)
        centroids = centroids / unit[..., None, None] - centre[..., None, :]
    source = rows
    if options.n_init > 1:
        source, shared = with_restart_axis(rows, shared, len(rows.batch))
    (centroids,), shared = align(tuple(shared.unit.shape), [(centroids, 2)], shared)
    start = once(backends.get(centre), _start)(centroids, shared)
    unit_of_inertia = weight_unit * length * length
    if unit_of_inertia.exponent is None and (memory := _memory(start, source)):
        source = replace(rows, block=Block((*rows.arrays, *memory), rows.weight))
        found = climb_restarts(RememberingModel(centred), start, source, options, unit_of_inertia)
        return KMeans(model, found.params, memory[0], -found.objective, found.trace, found.n_iter, found.status)
    found = climb_restarts(model, start, source, options, unit_of_inertia)
    labels, inertia = _assigned(model, found, rows)
    told = unit_of_inertia.restore(inertia)
    tell(out_of_range(told, inertia))
    model = replace(model, scaled=factor is not None)
    return KMeans(model, found.params, labels, told, found.trace, found.n_iter, found.status)


def _memory(start: Params, source: Rows | Stream) -> tuple[Array, Array] | None:
    """Return labels and bounds for repeated assignments, or None if no fused form uses them."""
    if isinstance(source, Stream) or start.way.ndim or compiles(backends.get(start.way)):
        return None
    (x,), xp = source.arrays, backends.namespace(start.way)
    bounds = xp.zeros_like(x[:, 0])
    memory = xp.astype(bounds, xp.int64), bounds
    form = assign_again.form(x, start.centroids, start.way, bounds, *memory)
    return None if form is None else memory


def _about_centre(rows: Rows | Stream, extent: Extent) -> tuple[bool, Array, Array]:
    """Return whether to move the rows, the point that becomes 0, and the weighted squared distances to it.

    Rows whose mean is closer to the origin than they are to the mean stay in place: moving them would cost a pass for
    nothing.
    """
    xp = backends.namespace(extent.total)
    with np.errstate(over="ignore", invalid="ignore"):
        offset = xp.sum(extent.total**2, axis=-1) / extent.weight
    if concrete(xp.all(2 * offset < extent.length)):  # False if something is not finite
        return False, xp.zeros_like(extent.total), extent.length
    moments = finite_moments(rows)
    centre = moments.centre
    square = moments.square + moments.weight[..., None] * (moments.mean - centre) ** 2
    return True, centre, xp.sum(square, axis=-1)


def _start(centroids: Array, shared: Shared) -> Params:
    return Params(centroids, 0 * centroids[..., 0, 0], alike(centroids), *shared)


def _assigned(model: KMeansModel, fit: Fit, source: Rows | Stream) -> tuple[Array, Array]:
    """Return the labels of all rows, and the inertia."""
    batch, xp = tuple(fit.objective.shape), backends.namespace(fit.objective)
    labels, inertias = [], []
    for rows in [source] if isinstance(source, Rows) else source:
        found, square = each_row_once(KMeansModel.assign, model, fit.params, rows, batch)
        labels.append(cut(found, rows.n, len(batch)))
        inertias.append(once(backends.get(square), _sum)(square, rows.counted.weight))
    inertia = inertias[0] if len(inertias) == 1 else xp.sum(xp.stack(inertias), axis=0)
    return joined(labels, -1), inertia


def _sum(square: Array, weight: Array | None) -> Array:
    return backends.namespace(square).sum(square if weight is None else square * weight, axis=-1)
