"""The fit of Gaussian mixtures: standard coordinates, a start, and EM; the algorithm is in `emroute.gmm.model`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute._engine.once import once
from emroute._engine.options import Options
from emroute._engine.restarts import climb_restarts
from emroute._engine.starts import draw_starts
from emroute._engine.units import Unit
from emroute._foreign import obstacle
from emroute._keywords import knows_others
from emroute.arrays.functions import eps
from emroute.backend import Array, is_array
from emroute.capability import Capabilities
from emroute.data import Rows, Stream
from emroute.em import Fit
from emroute.errors import InputError, InputTypeError, tell
from emroute.fitting import at_points, finite_moments, open_checked
from emroute.gmm.covariance import COVARIANCES
from emroute.gmm.gaps import gappy
from emroute.gmm.labels import Informed, labelled, labelled_means, read_labels
from emroute.gmm.mixture import GaussianMixture
from emroute.gmm.model import FIXED, MISSING, GaussianModel
from emroute.gmm.params import Params
from emroute.gmm.spare import with_spare, without_spare
from emroute.gmm.start import from_init, standard
from emroute.gmm.tiles import Tiles, check_seen, gaps_in, tiled, without_gaps
from emroute.gmm.width import widths
from emroute.validate import as_parameter, check_choice, check_count, check_number

__all__ = ["fit"]


@Capabilities(jit=True, batch=True, streams=True)
@knows_others
def fit(
    x: Array | Any,
    n_components: int,
    *,
    covariance_type: str = "full",
    missing: str = "refuse",
    labels: Any = None,
    fixed: Sequence[str] = (),
    sample_weight: Array | None = None,
    init: Any = "k-means++",
    n_init: int = 1,
    tol: float = 1e-6,
    max_iter: int = 1000,
    covariance_floor: float = 1e-6,
    rng: Any = None,
    chunk_size: int | None = None,
    callback: Callable[[int, Fit], object] | None = None,
    progress: bool = False,
    accelerate: str | None = None,
) -> GaussianMixture:
    """Fit a Gaussian mixture by expectation-maximization (EM).

    Parameters
    ----------
    x
        Rows ``(..., n, d)`` in float32 or float64; leading dimensions are separate problems. Or a source of chunks
        ``(rows, d)`` that can be read repeatedly. Memory maps are read in chunks.
    n_components
        The number of components, k.
    covariance_type
        ``"full"``, ``"tied"``, ``"diag"`` or ``"spherical"``; or one of the fourteen codes of mclust, of three letters:
        whether the volumes, shapes and orientations of the components are equal (E), vary (V), or are those of a sphere
        or of the axes (I). VVV is full, EEE tied, VVI diag and VII spherical. The arrays of VEE, EVE, VVE, EEV, VEV and
        EVV have the shape of full ones, those of EEI, VEI and EVI that of diag ones, and those of EII that of spherical
        ones.
    missing
        How to treat NaN: ``"refuse"`` raises an error; ``"marginalize"`` treats NaN as values missing at random, and
        maximizes the likelihood of the observed values. Rows are grouped by their gaps on the host. Not for a source of
        chunks.
    labels
        What is known about the components of the rows: integers ``(..., n)``, with −1 for unknown, or probabilities
        ``(..., n, k)``, equal for unknown. The log-likelihood is then that of the rows and their labels, and the start
        has the means of the labelled rows. Not for a source of chunks.
    fixed
        Which of ``"weights"``, ``"means"`` and ``"covariances"`` keep their starting values. Means and covariances must
        be given by `init`; weights that are not given are equal.
    sample_weight
        The weight of each row, ``(n,)`` or ``(..., n)``. An integer weight is the same as repeating the row.
    init
        How to start: ``"k-means++"`` or ``"random"`` (rows of the data), starting means ``(..., k, d)``, or a tuple
        ``(weights, means, covariances)``. From means, each row goes to the nearest one in coordinates scaled to unit
        variance, and one M-step gives the weights and covariances.
    n_init
        The number of starts. They run in one batch, and the best fit is returned. Must be 1 if a start is given.
    tol
        Stop when the mean log-likelihood per row changes by no more than this. 0 goes on until nothing changes.
    max_iter
        The largest number of iterations.
    chunk_size
        Rows per block of the E-step. By default a block fits the cache, or a fair part of the device's memory.
    callback
        Called as ``callback(iteration, fit)`` after every iteration, with the `emroute.em.Fit` so far.
    progress
        Show a progress bar (needs tqdm).
    accelerate
        Whether to speed up EM: None, or ``"squarem"``; see `emroute.em.fit`.
    covariance_floor
        The smallest variance in any direction, as a fraction of the squared widths of the features (spherical: of their
        mean). The width of a feature is the length of the shortest interval that holds a twentieth of the weight and
        two distinct values (of a sample, if there are more than 2,048 rows), and 1 for a constant feature. A component
        with a tenth of the rows is never that narrow by itself, however far away other rows lie. `floored` says which
        components are on the floor. For VEI, EVI, VEE, EVE, VVE, EEV, VEV and EVV, each component is raised to the
        floor separately, after the M-step, so the likelihood may fall a little if one is on it. Eigenvalues are also at
        least ``10 d`` spacings of the dtype times the component's own variances, because smaller ones could not be told
        from rounding.
    rng
        None, a seed or a `numpy.random.Generator`.

    Returns
    -------
    GaussianMixture
        Its arrays have the library, dtype and device of the data.

    Warns
    -----
    FitWarning
        If the fit did not converge, or components lost all weight or are on the floor.

    Raises
    ------
    InputError
        If the data hold NaN or infinity (the message names the first such row), if there are fewer rows than
        components, or if shapes, weights, starting values or options are invalid.
    InputTypeError
        If the dtype is not float32 or float64, or arrays differ in library, device or dtype.

    References
    ----------
    Dempster, A. P., Laird, N. M. and Rubin, D. B. (1977). Maximum likelihood from incomplete data via the EM
    algorithm. JRSS B 39. Bishop, C. M. (2006). Pattern Recognition and Machine Learning, equations 9.23-9.27.
    Celeux, G. and Govaert, G. (1995). Gaussian parsimonious clustering models. Pattern Recognition 28. Browne, R. P.
    and McNicholas, P. D. (2014). Estimating common principal components in high dimensions. ADAC 8.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.concatenate([np.random.default_rng(0).normal(m, 1, (100, 2)) for m in (0, 8)])
    >>> mixture = fit(x, 2, rng=0)
    >>> sorted(mixture.means[:, 0].round(1).tolist())
    [-0.1, 7.9]
    >>> mixture.predict(x).shape, mixture.responsibilities(x).shape
    ((200,), (200, 2))
    """
    check_choice("covariance_type", covariance_type, tuple(COVARIANCES))
    check_choice("missing", missing, MISSING)
    check_number("covariance_floor", covariance_floor)
    fixed = _check_fixed(fixed, init)
    loop = {"tol": tol, "max_iter": max_iter, "chunk_size": chunk_size, "callback": callback, "progress": progress}
    loop |= {"accelerate": accelerate, "sample_weight": sample_weight, "labels": labels}
    options = Options(**loop, init=init, n_init=n_init, rng=rng)
    fitted = fit_model(GaussianModel(covariance_type, missing, fixed), x, n_components, covariance_floor, options)
    tell(fitted.remarks(max_iter))
    return fitted


def fit_model(model: GaussianModel, x: Any, n_components: int, floor: float, options: Options) -> GaussianMixture:
    """Return what `fit` does, for any model whose parameters are Gaussian."""
    gaps = _gaps(x) if model.missing == "marginalize" else None
    x = x if gaps is None else without_gaps(x, gaps, options.sample_weight)
    whole, params, unit = prepare(model, x, n_components, options.sample_weight, floor)
    known = read_labels(options.labels, whole, n_components)
    source, params = started(model, params, whole, options, known)
    if isinstance(whole, Rows) and (gaps is not None or known is not None):
        rows = labelled(whole, known) if gaps is None else tiled(whole, gaps, known)[0]
        return _fit_others(model, params, rows, options, unit)
    if not options.watched:
        params = with_spare(model, params, source)
    fit = climb_restarts(model, params, source, options, unit)
    return GaussianMixture(model, *fit._replace(params=without_spare(model, fit.params, n_components)))


def _fit_others(model: GaussianModel, params: Params, rows: Rows, options: Options, unit: Unit) -> GaussianMixture:
    """Return the fit to rows that are more than numbers: labelled, or in tiles."""
    rows = rows.with_restarts() if options.n_init > 1 else rows
    climber = model
    if isinstance(rows.block.data, Tiles):
        climber = gappy(model, rows)
        if options.chunk_size is not None:
            options = replace(options, chunk_size=max(1, options.chunk_size // climber.size))
    return GaussianMixture(model, *climb_restarts(climber, params, rows, options, unit))


def _check_fixed(fixed: Sequence[str], init: Any) -> tuple[str, ...]:
    given = () if isinstance(init, str) else FIXED if isinstance(init, tuple) else ("means",)
    if not isinstance(fixed, Iterable):
        raise InputError(f"got fixed={fixed!r}, expected some of {', '.join(map(repr, FIXED))}")
    fixed = (fixed,) if isinstance(fixed, str) else tuple(fixed)
    for name in fixed:
        check_choice("fixed", name, FIXED)
        if name not in (*given, "weights"):
            raise InputError(f"fixed={name!r} needs values to hold; pass init=(weights, means, covariances)")
    return tuple(sorted(set(fixed)))


def _gaps(x: Any) -> np.ndarray | None:
    if reason := obstacle(x):
        raise InputTypeError(reason)
    if not is_array(x) or x.ndim < 2:
        raise InputTypeError(
            'missing="marginalize" takes an array (..., n, d), not a source; pass np.concatenate(list(source))'
        )
    check_seen(x)
    return gaps_in(x)


def started(
    model: GaussianModel, params: Params, source: Rows | Stream, options: Options, known: Array | None = None
) -> tuple[Rows | Stream, Params]:
    """Return the data, with a batch dimension for restarts, and the start of a fit, given or at points.

    Components of which rows are known start at the means of these, unless means are given.
    """
    if isinstance(options.init, tuple):
        return source, from_init(model, params, options.init)
    points = _points(model, params, source, options)
    if known is None or not isinstance(source, Rows):
        return at_points(model, params, source, points, options)
    if options.draws:
        points = labelled_means(model, params, source, known, points)
    return at_points(model, params, labelled(source, known), points, options, Informed)


def prepare(
    model: GaussianModel, x: Any, n_components: int, sample_weight: Array | None, floor: float
) -> tuple[Rows | Stream, Params, Unit]:
    """Check the data; return what `open_checked` does, and equal components in the data's standard coordinates."""
    k = check_count("n_components", n_components)
    source, unit = open_checked(x, sample_weight, k, "n_components")
    moments = finite_moments(source)
    floor = max(floor, (64 * eps(moments.mean)) ** 2)  # what keeps numbers finite
    start = once(backends.get(moments.mean), standard, model, k)
    return source, start(moments, *widths(source), floor), unit


def _points(model: GaussianModel, params: Params, source: Rows | Stream, options: Options) -> Array:
    """Starting points in coordinates of unit variance: drawn, or the means that a user gives."""
    (k, d), centre = params.means.shape[-2:], params.centre
    if options.draws:
        return draw_starts(model, params, source, k, options)
    means = as_parameter("starting means", options.init, centre, (k, d), source.batch)
    return (means - centre[..., None, :]) / params.scale[..., None, :] / params.reach[..., None, :]
