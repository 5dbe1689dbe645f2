"""EM for mixtures of Gaussians (Dempster, Laird & Rubin 1977; Bishop 2006, section 9.2).

    E-step   r_nk = w_k N(x_n | m_k, S_k) / sum_j w_j N(x_n | m_j, S_j)
    M-step   w_k = N_k / N,   m_k = sum_n r_nk x_n / N_k,   S_k = sum_n r_nk (x_n - m_k)(x_n - m_k)' / N_k

in standard coordinates, S_k kept above a floor by truncating its eigenvalues: the likelihood's maximum under that
constraint, so the trace stays monotone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from emroute import backend as backends
from emroute.array import either, eps, full, itemsize, normalize, safe_log, swap, tiny
from emroute.backend import Array, compiled
from emroute.data import Rows
from emroute.em import Fit
from emroute.errors import InputError
from emroute.family import Statistics, share
from emroute.fitting import Settings, align, iterate, mixing_weights, prepare
from emroute.gmm.covariance import COVARIANCES, Covariance, Spread
from emroute.init import seeds
from emroute.mixture import Mixture
from emroute.validate import (
    as_generator,
    as_parameter,
    check_choice,
    check_count,
    check_floating,
    check_number,
    check_width,
    require,
)

__all__ = ["GaussianMixture", "GaussianModel", "Params", "fit"]

_TOLERATED = {4: 1e-3, 8: 1e-8}  # of float32 and float64: log-densities err by about 3 % of this


class Params(NamedTuple):
    """Parameters in standard coordinates, ``x = centre + scale * z``."""

    weights: Array
    means: Array
    spread: Spread
    natural: Array
    """Coefficients of the monomials in log w_k N(x | k), ``(..., k, f)``."""
    narrow: Array
    """``(...,)``: 1 where some component is so narrow that moments are taken about the means, 0 about the centre."""
    centre: Array
    scale: Array
    floor: Array


@dataclass(frozen=True)
class GaussianModel:
    """EM of a Gaussian mixture of one covariance type, for `emroute.em.fit`."""

    covariance_type: str = "full"

    ranks = (1,)
    fixed_weights = False

    @property
    def covariance(self) -> Covariance:
        """What the covariance type makes of moments."""
        return COVARIANCES[self.covariance_type]

    def bytes_per_row(self, params: Params) -> int:
        """Monomials and responsibilities."""
        k, d = params.means.shape[-2:]
        monomials = (d + 1) * (d + 2) // 2 if self.covariance_type == "full" else 2 * d + 1
        restarts = int(np.prod(params.weights.shape[:-1], dtype=int))
        return itemsize(params.means) * (monomials + 3 * k * restarts)

    def expect(self, params: Params, x: Array, sample_weight: Array) -> Statistics:
        """E-step: about the common centre where that loses no digits, else about each component's mean."""
        xp, z = backends.namespace(x), standardize(params, x)
        sums = self.covariance.empty(params.natural)
        return either(
            xp.any(params.narrow > 0),
            lambda: self._about_means(params, z, sample_weight),
            lambda: self._about_centre(params, z, sample_weight),
            Statistics(sums, xp.zeros_like(params.weights[..., 0])),
        )

    def _about_centre(self, params: Params, z: Array, sample_weight: Array) -> Statistics:
        xp, covariance = backends.namespace(z), self.covariance
        monomials = covariance.monomials(z)
        shares, log_norm = normalize(xp.matmul(params.natural, monomials), axis=-2)
        log_prob = log_norm[..., 0, :] + covariance.common(params.spread, z)
        sums = covariance.sums(monomials, shares * sample_weight[..., None, :], z, sample_weight)
        return Statistics(sums, xp.sum(sample_weight * log_prob, axis=-1))

    def _about_means(self, params: Params, z: Array, sample_weight: Array) -> Statistics:
        xp, gaps = backends.namespace(z), z[..., None, :, :] - params.means[..., None]
        shares, log_norm = normalize(self._joint(params, gaps), axis=-2)
        log_likelihood = xp.sum(sample_weight * log_norm[..., 0, :], axis=-1)
        return self._gather(params, gaps, shares * sample_weight[..., None, :], log_likelihood)

    def _gather(self, params: Params, gaps: Array, shares: Array, log_likelihood: Array) -> Statistics:
        back = params.means - reference(params)  # in a batch, other problems may be the narrow ones
        return Statistics(self.covariance.sums_of(gaps + back[..., None], shares), log_likelihood)

    def _joint(self, params: Params, gaps: Array) -> Array:
        """log w_k N(x | k) from differences of z to the means, ``(..., k, n)``."""
        squares = self.covariance.squares(params.spread, gaps)
        return offset(params)[..., None] - squares / 2

    def maximize(self, statistics: Statistics, params: Params) -> Params:
        """M-step; a component without weight keeps its mean and covariance."""
        counts, first, second = self.covariance.moments(statistics.sums, params.means.shape[-1])
        xp, d = backends.namespace(counts), params.means.shape[-1]
        held = counts > tiny(counts) / eps(counts)
        safe = xp.where(held, counts, xp.ones_like(counts))
        old = reference(params)
        means = xp.where(held[..., None], old + first / safe[..., None], params.means)
        shift = xp.where(held[..., None], first / safe[..., None], xp.zeros_like(first))
        spread = self.covariance.spread(self.covariance.moment(safe, shift, second), params.floor, d)
        if self.covariance_type != "tied":
            spread = _keep(held, spread, params.spread)
        return self.complete(params._replace(weights=share(counts), means=means, spread=spread))

    def complete(self, params: Params) -> Params:
        """Derive from weights, means and covariances what the E-step needs."""
        xp = backends.namespace(params.means)
        natural = self.covariance.natural(params.means, params.spread, offset(params))
        far = xp.sum(params.means**2, axis=-1) + params.spread.trace
        error = eps(far) * xp.max(far / params.spread.narrowest, axis=-1)
        narrow = xp.astype(error > _TOLERATED[itemsize(far)], far.dtype)
        return params._replace(natural=natural, narrow=narrow)

    def objective(self, statistics: Statistics, params: Params) -> Array:
        """Return the total log-likelihood."""
        return statistics.log_likelihood

    def gather(self, params: Params, x: Array, shares: Array, log_likelihood: Array) -> Statistics:
        """Moments under given responsibilities ``(..., k, n)``."""
        gaps = standardize(params, x)[..., None, :, :] - params.means[..., None]
        return self._gather(params, gaps, shares, log_likelihood)

    def points(self, params: Params, x: Array) -> Array:
        """Standard coordinates ``(..., n, d)``, in which starts are drawn."""
        return swap(standardize(params, x))

    def log_prob(self, params: Params, x: Array) -> Array:
        """log p(x), ``(..., n)``."""
        return normalize(self._joint_of(params, x), axis=-2)[1][..., 0, :]

    def responsibilities(self, params: Params, x: Array) -> Array:
        """p(k | x), ``(..., n, k)``."""
        return swap(normalize(self._joint_of(params, x), axis=-2)[0])

    def predict(self, params: Params, x: Array) -> Array:
        """Return the likeliest component, ``(..., n)``."""
        return backends.namespace(x).argmax(self._joint_of(params, x), axis=-2)

    def _joint_of(self, params: Params, x: Array) -> Array:
        return self._joint(params, standardize(params, x)[..., None, :, :] - params.means[..., None])

    def check(self, params: Params, rows: Rows) -> None:
        """Raise an error for data that cannot be scored."""
        (x,) = rows.arrays
        check_floating("x", params.means, x)
        check_width(x, params.means.shape[-1])

    def describe(self) -> dict[str, Any]:
        """Return what a saved mixture must know beside its arrays."""
        return {"covariance_type": self.covariance_type}


def _keep(held: Array, new: Spread, old: Spread) -> Spread:
    xp = backends.namespace(held)

    def choose(a: Array, b: Array) -> Array:
        return xp.where(xp.reshape(held, (*held.shape, *(1,) * (a.ndim - held.ndim))), a, b)

    return Spread(*map(choose, new, old))


def standardize(params: Params, x: Array) -> Array:
    """z, features first: ``(..., d, n)``."""
    return swap((x - params.centre[..., None, :]) / params.scale[..., None, :])


def offset(params: Params) -> Array:
    """log w_k plus the logarithm of the density of x at the mean, ``(..., k)``."""
    xp, d = backends.namespace(params.means), params.means.shape[-1]
    jacobian = xp.sum(xp.log(params.scale), axis=-1)[..., None]
    return safe_log(params.weights) + params.spread.log_det / 2 - jacobian - d * np.log(2 * np.pi).item() / 2


def reference(params: Params) -> Array:
    """The point about which each component's moments are taken, ``(..., k, d)``."""
    return params.narrow[..., None, None] * params.means


@dataclass(frozen=True, repr=False)
class GaussianMixture(Mixture):
    """A mixture of Gaussians over ``x (..., n, d)``.

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
        """``(..., k, d)``: the components' means."""
        return self.params.means * self.params.scale[..., None, :] + self.params.centre[..., None, :]

    @property
    def covariances(self) -> Array:
        """Full ``(..., k, d, d)``, tied ``(..., d, d)``, diag ``(..., k, d)``, spherical ``(..., k)``."""
        return self.model.covariance.scaled(self.params.spread.covariances, self.params.scale)

    @property
    def n_parameters(self) -> int:
        """Free parameters of one problem."""
        k, d = self.params.means.shape[-2:]
        return k - 1 + k * d + self.model.covariance.n_parameters(k, d)

    @classmethod
    def from_parameters(
        cls, weights: Array, means: Array, covariances: Array, *, covariance_type: str = "full"
    ) -> GaussianMixture:
        """Return the mixture with these parameters, shaped as the properties of the same names.

        >>> import numpy as np
        >>> one = GaussianMixture.from_parameters(np.ones(1), np.zeros((1, 2)), np.ones((1, 2)), covariance_type="diag")
        >>> one.log_prob(np.zeros((1, 2))).round(6).tolist()
        [-1.837877]
        """
        check_choice("covariance_type", covariance_type, tuple(COVARIANCES))
        model = GaussianModel(covariance_type)
        k, d = means.shape[-2:] if means.ndim > 1 else (1, 1)
        nothing = full((*weights.shape[:-1], d), 0, like=means)
        params = _begin(model, nothing, nothing + 1, full((), 0, like=means), k)
        return cls.unfitted(model, model.complete(_given(model, params, (weights, means, covariances))))

    def sample(self, n: int, *, rng: Any = None) -> tuple[Array, Array]:
        """Draw `n` rows ``(..., n, d)`` and their component labels ``(..., n)``.

        `rng` is None, a seed or a `numpy.random.Generator`; draws are made on the host.
        """
        return self._sample(n, rng)

    def _draw(self, rng: np.random.Generator, params: Any, labels: np.ndarray, *extra: Any) -> np.ndarray:
        backend = backends.get(self.weights)
        means, covariances = (backend.to_numpy(x).astype(np.float64) for x in (self.means, self.covariances))
        k, d = means.shape[-2:]
        root = np.linalg.cholesky(self.model.covariance.dense(covariances, k, d))
        noise = rng.standard_normal((*labels.shape, d, 1))
        chosen = np.take_along_axis(root, labels[..., None, None], axis=-3)
        return np.take_along_axis(means, labels[..., None], axis=-2) + (chosen @ noise)[..., 0]

    @classmethod
    def restored(cls, **description: Any) -> tuple[Any, Callable[..., Any]]:
        """Return the model of a saved description, and what makes its parameters."""

        def make(weights: Array, means: Array, *rest: Array) -> Params:
            return Params(weights, means, Spread(*rest[:5]), *rest[5:])

        return GaussianModel(**description), make


def _standard(model: GaussianModel, k: int, floor: float, centre: Array, variance: Array) -> Params:
    """Coordinates in which features have variance 1 (spherical: on average), 0 counting as 1."""
    xp = backends.namespace(centre)
    if model.covariance_type == "spherical":
        variance = xp.zeros_like(variance) + xp.mean(variance, axis=-1, keepdims=True)
    scale = xp.sqrt(xp.where(variance > 0, variance, xp.ones_like(variance)))
    return _begin(model, centre, scale, xp.zeros_like(centre[..., 0]) + floor, k)


def _begin(model: GaussianModel, centre: Array, scale: Array, floor: Array, k: int) -> Params:
    """Equal weights, means at the centre, unit covariances: what a component without data keeps."""
    batch, d = tuple(centre.shape[:-1]), centre.shape[-1]
    identity = np.eye(d) if model.covariance_type in ("full", "tied") else np.ones(1)
    shape = (*batch, *model.covariance.shape(k, d))
    covariances = full(shape, 0, like=centre) + backends.get(centre).from_numpy(
        identity if shape else identity[0], centre
    )
    spread = model.covariance.spread(covariances, floor, d)
    weights, means = full((*batch, k), 1 / k, like=centre), full((*batch, k, d), 0, like=centre)
    return model.complete(Params(weights, means, spread, weights, floor, centre, scale, floor))


def _given(model: GaussianModel, params: Params, init: tuple[Any, ...]) -> Params:
    """A start of weights, means and covariances, as users see them."""
    if len(init) != 3:
        raise InputError(f"got a start of {len(init)} parts, expected (weights, means, covariances)")
    like, (k, d), covariance = params.means, params.means.shape[-2:], model.covariance
    weights = mixing_weights(init[0], like, k)
    means = as_parameter("means", init[1], like, (k, d))
    covariances = as_parameter("covariances", init[2], like, covariance.shape(k, d))
    xp = backends.namespace(like)
    if covariance.rank > 1 and covariances.shape[-1] == covariances.shape[-2] and model.covariance_type != "diag":
        uneven = xp.max(xp.abs(covariances - swap(covariances)))
        even = uneven <= eps(like) ** 0.5 * xp.max(xp.abs(covariances))
        require(even, lambda: "covariances must be symmetric")
    covariances = covariance.scaled(covariances, 1 / params.scale)
    require(
        xp.all(covariance.least(covariances) > 0),
        lambda: "covariances must be positive definite; add a small multiple of the identity",
    )
    means = (means - params.centre[..., None, :]) / params.scale[..., None, :]
    spread = covariance.spread(covariances, params.floor, d)
    return params._replace(weights=weights, means=means, spread=spread)


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
    """Fit a mixture of Gaussians by EM.

    Parameters
    ----------
    x
        ``(..., n, d)`` in float32 or float64; leading dimensions are separate problems. Or a source of chunks
        ``(rows, d)`` that can be read again and again. Memory maps are read in chunks.
    n_components
        How many components, k.
    covariance_type
        ``"full"``, ``"tied"``, ``"diag"`` or ``"spherical"``.
    sample_weight
        ``(n,)`` or ``(..., n)``; an integer weight equals repeating the row.
    init
        ``"k-means++"`` or ``"random"`` (rows of the data), or means ``(..., k, d)``: nearest-mean assignment in
        coordinates scaled to unit variance, then one M-step, gives weights and covariances. Or a tuple
        ``(weights, means, covariances)``.
    n_init
        Restarts, run in one batch; the best is returned. Not with a given start.
    tol, max_iter, chunk_size, callback, progress
        As in `emroute.em.fit`.
    covariance_floor
        Least variance in any direction, as a share of the features' variances (spherical: of their mean; a
        constant feature counts as variance 1). Never below ``10 d`` spacings of the dtype.
    rng
        None, a seed or a `numpy.random.Generator`.

    Returns
    -------
    GaussianMixture
        With arrays of the data's library, dtype and device.

    Raises
    ------
    InputError
        If the data hold NaN or infinity, naming the first such row; if there are fewer rows than components; if
        shapes, weights, starting values or options cannot be used.
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
    k = check_count("n_components", n_components)
    check_choice("covariance_type", covariance_type, tuple(COVARIANCES))
    check_number("covariance_floor", covariance_floor)
    settings = Settings(init, n_init, tol, max_iter, rng, chunk_size, callback, progress)
    source, n, moments = prepare(x, sample_weight, k, "n_components")
    centre, d = moments.mean, moments.mean.shape[-1]
    model = GaussianModel(covariance_type)
    floor = max(covariance_floor, 10 * d * eps(centre))
    params = compiled(backends.get(centre), _standard, model, k, floor)(centre, moments.variance)
    drawn = None
    if settings.named:
        drawn = seeds(model.points, params, source, n, settings.init, k, n_init, as_generator(rng))
    elif isinstance(init, tuple):
        params = _given(model, params, init)
    else:
        drawn = as_parameter("starting means", init, centre, (k, d))
        drawn = (drawn - centre[..., None, :]) / params.scale[..., None, :]
    rank = model.covariance.rank
    params = align(params, (1, 2, rank, rank, 1, 1, 1, 2, 0, 1, 1, 0), source.batch, 9)
    params = compiled(backends.get(centre), model.complete)(params)
    return iterate(GaussianMixture, model, params, source, drawn, settings)
