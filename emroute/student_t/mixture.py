"""Mixtures of Student-t distributions: the fit and its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute._engine.restarts import climb_restarts
from emroute._keywords import knows_others
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.em import Fit
from emroute.errors import InputError, tell
from emroute.fitting import Options
from emroute.gmm import GaussianMixture
from emroute.gmm.covariance import COVARIANCES
from emroute.gmm.fitting import prepare, started
from emroute.mixture import Mixture
from emroute.student_t.model import LEAST, MOST, Params, StudentTModel
from emroute.validate import as_parameter, check_choice, check_number, require

__all__ = ["StudentTMixture", "fit"]

_START = 10.0  # degrees of freedom


@dataclass(frozen=True, repr=False, eq=False)
class StudentTMixture(Mixture):
    """A mixture of Student-t distributions over ``x (..., n, d)``.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[0.0], [1.0], [2.0], [1.0], [50.0]])
    >>> mixture = fit(x, 1, dof=1.0)
    >>> mixture.means.round(1).tolist()
    [[1.0]]
    """

    remedies = GaussianMixture.remedies

    @property
    def gaussians(self) -> GaussianMixture:
        """The Gaussian mixture of these weights, means and scale matrices."""
        history = self.log_likelihood, self.trace, self.n_iter, self.status
        return GaussianMixture(self.model.gaussian, self.params.gaussians, *history)

    @property
    def covariance_type(self) -> str:
        """As it was given to `fit`."""
        return self.model.covariance_type

    @property
    def means(self) -> Array:
        """The centres of the components, which are their means if ``dofs`` is above 1, ``(..., k, d)``."""
        return self.gaussians.means

    @property
    def covariances(self) -> Array:
        """Scale matrices S, shaped as the covariances of Gaussians; a component's covariance is dof / (dof − 2) S."""
        return self.gaussians.covariances

    @property
    def dofs(self) -> Array:
        """Degrees of freedom, ``(..., k)``; fewer mean heavier tails."""
        return self.params.dofs

    @property
    def floored(self) -> Array:
        """Which components are on the covariance floor in some direction, ``(..., k)``."""
        return self.gaussians.floored

    def marked(self) -> dict[str, Array]:
        """Return which components are lost, and which rest on the floor."""
        return self.gaussians.marked()

    def _component_axes(self) -> Any:
        """Return along which axis each array of the parameters has the components, None where they share it."""
        return Params(self.gaussians._component_axes(), -1)

    @property
    def n_parameters(self) -> int:
        """Free parameters of one problem."""
        free = {"own": self.n_components, "common": 1, "fixed": 0}
        return self.gaussians.n_parameters + free[self.model.freedom]

    @classmethod
    @Capabilities(gradients=True, jit=True, batch=True)
    def from_parameters(
        cls, weights: Array, means: Array, covariances: Array, dofs: Array, *, covariance_type: str = "full"
    ) -> StudentTMixture:
        """Return the mixture with these parameters, shaped as the properties of the same names.

        >>> import numpy as np
        >>> cauchy = StudentTMixture.from_parameters(np.ones(1), np.zeros((1, 1)), np.ones((1, 1, 1)), np.ones(1))
        >>> cauchy.log_prob(np.zeros((1, 1))).round(6).tolist()
        [-1.14473]
        """
        gaussians = GaussianMixture.from_parameters(weights, means, covariances, covariance_type=covariance_type)
        model = StudentTModel(covariance_type)
        params = model.gaussian.complete(gaussians.params)
        dofs = _degrees(dofs, params.weights)
        return cls.unfitted(model, Params(params, 0 * params.weights + dofs))

    @Capabilities(batch=True)
    def sample(self, n: int, *, rng: Any = None) -> tuple[Array, Array]:
        """Draw `n` rows ``(..., n, d)`` and their component labels ``(..., n)``."""
        return self._sample(n, rng)

    def _draw(self, rng: np.random.Generator, params: Any, labels: np.ndarray, *extra: Any) -> np.ndarray:
        gaussians = self.gaussians
        means = backends.get(self.weights).to_numpy(gaussians.means).astype(np.float64)
        means = np.take_along_axis(means, labels[..., None], axis=-2)
        dofs = np.take_along_axis(params.dofs.astype(np.float64), labels, axis=-1)
        u = np.maximum(rng.chisquare(dofs) / dofs, np.finfo(float).tiny)
        return means + (gaussians._draw(rng, params, labels) - means) / np.sqrt(u)[..., None]

    @classmethod
    def restored(cls, **description: Any) -> tuple[Any, Callable[..., Any]]:
        """Return the model of a saved description, and what makes its parameters."""
        model = StudentTModel(**description)
        _, make = GaussianMixture.restored(covariance_type=model.covariance_type)
        return model, lambda *arrays: Params(make(*arrays[:-1]), arrays[-1])


@Capabilities(jit=True, batch=True, streams=True)
@knows_others
def fit(
    x: Array | Any,
    n_components: int,
    *,
    covariance_type: str = "full",
    dof: Any = None,
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
) -> StudentTMixture:
    """Fit a mixture of Student-t distributions by EM.

    Parameters
    ----------
    x
        ``(..., n, d)`` in float32 or float64, or a source of chunks ``(rows, d)``.
    n_components
        The number of components, k.
    covariance_type
        Of the scale matrices, as in `emroute.gmm.fit`.
    dof
        The degrees of freedom. With None, those of each component are fitted; with ``"common"``, one number for all. A
        number, or one for each component, is kept. Fitted ones lie between 0.001 and 200; above that, a component is
        nearly Gaussian. The likelihood hardly depends on large ones, so they converge last. If they matter, lower
        `tol`, and use ``accelerate="squarem"``, which saves most of the iterations.
    sample_weight
        The weight of each row, ``(n,)`` or ``(..., n)``.
    init
        As in `emroute.gmm.fit`. A tuple may have the degrees of freedom ``(..., k)`` as a fourth part; by default they
        start at 10.
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
        As in `emroute.gmm.fit`.
    rng
        None, a seed or a `numpy.random.Generator`.

    Returns
    -------
    StudentTMixture
        With arrays of the data's library, dtype and device.

    Raises
    ------
    InputError
        If the data hold NaN or infinity, naming the first such row; if shapes or options cannot be used.
    InputTypeError
        If the dtype is not float32 or float64, or arrays differ in library, device or dtype.

    References
    ----------
    Peel, D. and McLachlan, G. J. (2000). Robust mixture modelling using the t distribution. Statistics and
    Computing 10.

    Examples
    --------
    >>> from emroute.datasets import faithful
    >>> x = faithful().x.copy()
    >>> x[::20, 1] += 60  # outliers
    >>> mixture = fit(x, 2, rng=0, dof="common")
    >>> sorted(mixture.means[:, 1].round().tolist())
    [54.0, 80.0]
    """
    check_choice("covariance_type", covariance_type, tuple(COVARIANCES))
    check_number("covariance_floor", covariance_floor)
    given, init = (init[3], init[:3]) if isinstance(init, tuple) and len(init) == 4 else (None, init)
    if dof is None:
        freedom = "own"
    elif isinstance(dof, str):
        check_choice("dof", dof, ("common",))
        freedom = "common"
    elif given is not None:
        raise InputError("got degrees of freedom twice, as dof and in init; leave one out")
    else:
        freedom, given = "fixed", dof
    loop = tol, max_iter, chunk_size, callback, progress, accelerate
    options = Options(*loop, sample_weight=sample_weight, init=init, n_init=n_init, rng=rng)
    model = StudentTModel(covariance_type, freedom)
    source, gaussians, unit = prepare(model.gaussian, x, n_components, sample_weight, covariance_floor)
    source, gaussians = started(model.gaussian, gaussians, source, options)
    dofs = _degrees(_START if given is None else given, gaussians.weights)
    if freedom != "fixed":
        dofs = backends.namespace(dofs).clip(dofs, LEAST, MOST)
    params = Params(gaussians, 0 * gaussians.weights + dofs)  # in all their batch dimensions
    fitted = StudentTMixture(model, *climb_restarts(model, params, source, options, unit))
    tell(fitted.remarks(max_iter))
    return fitted


def _degrees(value: Any, like: Array) -> Array:
    """Return degrees of freedom ``(..., k)`` from a number or one for each component, or raise `InputError`."""
    if isinstance(value, bool):
        raise InputError(f"got dof={value}, expected a number")
    if isinstance(value, int | float | np.number):
        value = [float(value)] * like.shape[-1]
    dofs = as_parameter("degrees of freedom", value, like, (like.shape[-1],))
    require(backends.namespace(dofs).all(dofs > 0), lambda: "degrees of freedom must be positive")
    return dofs
