"""Gaussian mixtures: the result, and `fit`. The algorithm is in `emroute.gmm.model`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute._engine.once import once
from emroute._engine.options import Options
from emroute._engine.restarts import climb_restarts
from emroute._engine.starts import draw_starts
from emroute._engine.units import Unit
from emroute.arrays.creation import full
from emroute.arrays.functions import eps
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.data import Rows, Stream
from emroute.em import Fit
from emroute.errors import tell
from emroute.fitting import at_points, finite_moments, open_checked
from emroute.gmm.covariance import COVARIANCES
from emroute.gmm.model import GaussianModel, Params, begin
from emroute.gmm.spare import with_spare, without_spare
from emroute.gmm.spread import Spread
from emroute.gmm.start import from_init, standard
from emroute.gmm.width import widths
from emroute.mixture import Mixture
from emroute.validate import as_parameter, check_choice, check_count, check_floating, check_number

__all__ = ["GaussianMixture", "fit"]


@dataclass(frozen=True, repr=False, eq=False)
class GaussianMixture(Mixture):
    """A Gaussian mixture over ``x (..., n, d)``.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[0.0], [1.0], [10.0], [11.0]])
    >>> mixture = fit(x, 2, rng=0)
    >>> sorted(mixture.means[:, 0].round(3).tolist())
    [0.5, 10.5]
    >>> mixture.score(x).round(3)
    np.float64(-1.419)
    """

    @property
    def covariance_type(self) -> str:
        """One of ``"full"``, ``"tied"``, ``"diag"``, ``"spherical"``."""
        return self.model.covariance_type

    @property
    def means(self) -> Array:
        """The means of the components, ``(..., k, d)``."""
        return once(backends.get(self.weights), GaussianModel.means, self.model)(self.params)

    @property
    def covariances(self) -> Array:
        """Covariances: full ``(..., k, d, d)``, tied ``(..., d, d)``, diag ``(..., k, d)``, spherical ``(..., k)``."""
        return once(backends.get(self.weights), GaussianModel.covariances, self.model)(self.params)

    @property
    def floored(self) -> Array:
        """Which components are on the covariance floor in some direction, as narrow as `fit` allows, ``(..., k)``."""
        xp = backends.namespace(self.weights)
        return xp.broadcast_to(self.params.spread.floored > 0, self.weights.shape)

    remedies = Mixture.remedies | {
        "floored": "came to rest on the covariance floor, so the likelihood reflects the floor and not the data: "
        "leave out constant features, fit fewer components, choose another covariance_type, use more rows, or raise "
        "covariance_floor"
    }

    def marked(self) -> dict[str, Array]:
        """Return what a user should know about single components: by name, whether it holds for each, ``(..., k)``."""
        return {**super().marked(), "floored": self.floored}

    def widened(self) -> GaussianMixture:
        """Return the mixture in which no variance of a floored component is below the width of the features.

        Its likelihood gains nothing from a low floor, so it can be compared with those of other models.
        """
        params = once(backends.get(self.weights), GaussianModel.widen, self.model)(self.params)
        return replace(self, params=params)

    @property
    def n_parameters(self) -> int:
        """The number of free parameters of one problem."""
        k, d = self.params.means.shape[-2:]
        return k - 1 + k * d + self.model.covariance.n_parameters(k, d)

    @classmethod
    @Capabilities(gradients=True, jit=True, batch=True)
    def from_parameters(
        cls, weights: Array, means: Array, covariances: Array, *, covariance_type: str = "full"
    ) -> GaussianMixture:
        """Return the mixture with these parameters, which have the shapes of the properties of the same names.

        >>> import numpy as np
        >>> one = GaussianMixture.from_parameters(np.ones(1), np.zeros((1, 2)), np.ones((1, 2)), covariance_type="diag")
        >>> one.log_prob(np.zeros((1, 2))).round(6).tolist()
        [-1.837877]
        """
        check_choice("covariance_type", covariance_type, tuple(COVARIANCES))
        check_floating("means", means)
        model = GaussianModel(covariance_type)
        k, d = means.shape[-2:] if means.ndim > 1 else (1, 1)
        nothing = full((d,), 0, like=means)
        backend = backends.get(means)
        params = once(backend, begin, model, k)(nothing, nothing + 1, nothing[..., 0], nothing + 1)
        params = from_init(model, params, (weights, means, covariances))
        spread = params.spread
        return cls.unfitted(model, params._replace(spread=spread._replace(floored=0 * spread.floored)))

    @Capabilities(batch=True)
    def sample(self, n: int, *, rng: Any = None) -> tuple[Array, Array]:
        """Draw `n` rows ``(..., n, d)`` and their components ``(..., n)``.

        `rng` is None, a seed or a `numpy.random.Generator`. Random numbers are drawn on the host.
        """
        return self._sample(n, rng)

    def _draw(self, rng: np.random.Generator, params: Any, labels: np.ndarray, *extra: Any) -> np.ndarray:
        backend = backends.get(self.weights)
        means, covariances = (backend.to_numpy(x).astype(np.float64) for x in (self.means, self.covariances))
        k, d = means.shape[-2:]
        drawn = rng.standard_normal((*labels.shape, d))
        if self.covariance_type in ("full", "tied"):
            root = np.linalg.cholesky(self.model.covariance.dense(covariances, k, d))
            for place in np.ndindex(*root.shape[:-2]):  # a component of a problem at a time
                *problem, component = place
                rows = labels[tuple(problem)] == component
                drawn[(*problem, rows)] = drawn[(*problem, rows)] @ root[place].T
        else:
            deviations = np.sqrt(covariances).reshape(*means.shape[:-1], -1)
            drawn *= np.take_along_axis(deviations, labels[..., None], axis=-2)
        drawn += np.take_along_axis(means, labels[..., None], axis=-2)
        return drawn

    @classmethod
    def restored(cls, **description: Any) -> tuple[Any, Callable[..., Any]]:
        """Return the model of a saved description, and what makes its parameters."""

        def make(weights: Array, means: Array, *rest: Array) -> Params:
            return Params(weights, means, Spread(*rest[:7]), *rest[7:])

        return GaussianModel(**description), make


@Capabilities(jit=True, batch=True, streams=True)
def fit(
    x: Array | Any,
    n_components: int,
    *,
    covariance_type: str = "full",
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
        ``"full"``, ``"tied"``, ``"diag"`` or ``"spherical"``.
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
    covariance_floor
        The smallest variance in any direction, as a fraction of the squared widths of the features (spherical: of their
        mean). The width of a feature is the length of the shortest interval that holds a twentieth of the weight and
        two distinct values (of a sample, if there are more than 2,048 rows), and 1 for a constant feature. A component
        with a tenth of the rows is never that narrow by itself, however far away other rows lie. `floored` says which
        components are on the floor. Eigenvalues are also at least ``10 d`` spacings of the dtype times the component's
        own variances, because smaller ones could not be told from rounding.
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
    check_number("covariance_floor", covariance_floor)
    options = Options(
        tol, max_iter, chunk_size, callback, progress, sample_weight=sample_weight, init=init, n_init=n_init, rng=rng
    )
    fitted = fit_model(GaussianModel(covariance_type), x, n_components, covariance_floor, options)
    tell(fitted.remarks(max_iter))
    return fitted


def fit_model(model: GaussianModel, x: Any, n_components: int, floor: float, options: Options) -> GaussianMixture:
    """Do the work of `fit`, for any model with Gaussian parameters."""
    source, params, unit = prepare(model, x, n_components, options.sample_weight, floor)
    if isinstance(options.init, tuple):
        params = from_init(model, params, options.init)
    else:
        points = _points(model, params, source, options)
        source, params = at_points(model, params, source, points, options)
    if not options.watched:
        params = with_spare(model, params, source)
    fit = climb_restarts(model, params, source, options, unit)
    return GaussianMixture(model, *fit._replace(params=without_spare(model, fit.params, n_components)))


def prepare(
    model: GaussianModel, x: Any, n_components: int, sample_weight: Array | None, floor: float
) -> tuple[Rows | Stream, Params, Unit]:
    """Check the data. Return the result of `open_checked`, and equal components in the data's standard coordinates."""
    k = check_count("n_components", n_components)
    source, unit = open_checked(x, sample_weight, k, "n_components")
    moments = finite_moments(source)
    floor = max(floor, (64 * eps(moments.mean)) ** 2)  # keeps numbers finite
    start = once(backends.get(moments.mean), standard, model, k)
    return source, start(moments, *widths(source), floor), unit


def _points(model: GaussianModel, params: Params, source: Rows | Stream, options: Options) -> Array:
    """Return starting points in coordinates of unit variance, either drawn or the means that the user gave."""
    (k, d), centre = params.means.shape[-2:], params.centre
    if options.draws:
        return draw_starts(model, params, source, k, options)
    means = as_parameter("starting means", options.init, centre, (k, d), source.batch)
    return (means - centre[..., None, :]) / params.scale[..., None, :] / params.reach[..., None, :]
