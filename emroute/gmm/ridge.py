"""Gaussians as scikit-learn has them, for `emroute.sklearn`: an additive ridge, starts from responsibilities.

    S_k = sum_n r_nk (x_n - m_k)(x_n - m_k)' / N_k + ridge I

is the maximum of no likelihood, so the trace is monotone only without a ridge. There is no floor beside it but the
width that rounding gives to equal rows: where that holds, the mixture has `collapsed`.
"""

from __future__ import annotations

from dataclasses import dataclass

from emroute import backend as backends
from emroute._engine.once import once
from emroute._engine.reduce import e_step_over
from emroute._engine.rows import cut
from emroute.arrays.creation import one_hot, swap
from emroute.arrays.functions import eps
from emroute.backend import Array
from emroute.data import open_source
from emroute.family import Statistics
from emroute.gmm.fitting import prepare
from emroute.gmm.mixture import GaussianMixture
from emroute.gmm.model import GaussianModel
from emroute.gmm.params import Params
from emroute.gmm.spread import Spread
from emroute.gmm.start import unit

__all__ = ["RidgeModel", "collapsed", "one_step", "triangular"]


@dataclass(frozen=True)
class RidgeModel(GaussianModel):
    """A Gaussian model that adds `ridge`, in the square of the data's unit, to every variance."""

    ridge: float = 0.0

    def decompose(self, covariances: Array, params: Params, bound: Array | None = None) -> Spread:
        """Decompose the covariances plus the ridge."""
        identity = unit(self, params.means.shape[-1], like=covariances)
        ridge = self.covariance.scaled(identity, self.ridge**0.5 / params.scale)
        return super().decompose(covariances + ridge, params, bound)

    def resolution(self, like: Array, d: int) -> float:
        """Return what rounding gives to equal rows."""
        return eps(like)


@dataclass(frozen=True)
class _Assigned:
    """Statistics of rows that come with their components; data are ``(x, labels)`` or ``(x, responsibilities)``."""

    model: GaussianModel

    def expect(self, params: Params, data: tuple[Array, Array], sample_weight: Array) -> Statistics:
        x, known = data
        shares = swap(known) if known.ndim == x.ndim else one_hot(known, params.weights.shape[-1], like=x)
        shares = shares * sample_weight[..., None, :]
        return self.model.gather(params, x, shares, 0 * shares[..., 0, 0])

    def bytes_per_row(self, params: Params) -> int:
        return self.model.bytes_per_row(params)


def one_step(
    model: GaussianModel, x: Array, n_components: int, sample_weight: Array | None, known: Array
) -> GaussianMixture:
    """Return the mixture that an M-step makes of rows ``(n, d)`` and labels ``(n,)`` or responsibilities ``(n, k)``."""
    rows, params, _ = prepare(model, x, n_components, sample_weight, 0.0)
    weight = None if rows.weight is None else cut(rows.weight, rows.n, 0)
    source = open_source((x, known), weight, (1, known.ndim - 1)).filled()
    statistics = e_step_over(_Assigned(model), params, source, ())
    maximize = once(backends.get(x), type(model).maximize, model)
    return GaussianMixture.unfitted(model, maximize(statistics, params))


def collapsed(mixture: GaussianMixture) -> Array:
    """Whether some covariance is singular but for rounding, ``(...,)``."""
    floored = mixture.params.spread.floored
    return backends.namespace(floored).any(floored > 0, axis=-1)


def triangular(mixture: GaussianMixture) -> Array:
    """Upper triangular U of the precisions U U', shaped as the covariances; of variances, inverse roots.

    The factors F of the precisions F'F are there already: U' is the triangle of F = Q U', which exists where a
    Cholesky factor of the covariances fails.
    """
    return once(backends.get(mixture.weights), _triangular, mixture.model)(mixture.params)


def _triangular(model: GaussianModel, params: Params) -> Array:
    factors, scale, covariance = params.spread.factors, params.scale, model.covariance
    if not covariance.matrices:
        return covariance.scaled(factors**2, 1 / scale) ** 0.5
    xp = backends.namespace(factors)
    rows = scale if covariance.rank == 2 else scale[..., None, :]
    triangle = xp.linalg.qr(xp.flip(factors / rows[..., None, :], axis=-1))[1]
    triangle = xp.flip(swap(triangle), axis=(-2, -1))
    ones = xp.ones_like(triangle[..., 0])
    return triangle * xp.where(xp.linalg.diagonal(triangle) < 0, -ones, ones)[..., None, :]
