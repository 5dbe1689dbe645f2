"""EM of Gaussian mixtures on rows with gaps, missing at random (Ghahramani & Jordan 1994).

Of a row, the features o are seen and the features m are lacking. Its density is that of what is seen, and given that
it comes from component k, what is lacking is normal:

    E-step   r_nk ~ w_k N(x_o | m_o, S_oo),
             A = S_mo S_oo^-1,   x_m = m_m + A (x_o - m_o),   C = S_mm - A S_om
    M-step   of the rows so filled; the scatter of component k gains sum_n r_nk C

A and C depend on the component and on which features are lacking, so rows come in `Tiles`, which lack the same. In a
tile the filled rows are linear in what is seen. So their moments are made of the tile's moments, and the statistics
are those of rows without gaps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import constant, itemsize, swap
from emroute.arrays.functions import eps, normalize
from emroute.arrays.tracing import either
from emroute.backend import Array
from emroute.data import Rows
from emroute.family import Statistics, posterior
from emroute.gmm.matrices import Full
from emroute.gmm.model import GaussianModel, log_known
from emroute.gmm.params import Params, offset
from emroute.gmm.spread import Spread
from emroute.gmm.tiles import Tiles

__all__ = ["GappyModel", "conditional", "gappy"]

_FULL = Full()


class _View(NamedTuple):
    """What components are to tiles, ``(..., t, k, ...)``."""

    means: Array
    spread: Spread
    """Factors of the precisions of the features that are seen; rows and columns of the others are 0."""
    peaks: Array
    """log w_k plus the logarithm of the density at the mean."""
    slopes: Array
    """A, with the identity for features that are seen: a row so filled is m + A (x - m)."""
    rest: Array
    """C, 0 for features that are seen."""


@dataclass(frozen=True)
class GappyModel(GaussianModel):
    """A Gaussian model of rows that come in `Tiles`."""

    size: int = 1
    """Rows of a tile."""

    ranks = (2, 1, 1)

    def bytes_per_row(self, params: Params) -> int:
        """Of a tile: matrices of all components, monomials or differences, and responsibilities."""
        k, d = params.means.shape[-2:]
        restarts = math.prod(params.weights.shape[:-1])
        return itemsize(params.means) * (self.size * (d * d + 3 * k * restarts) + 8 * k * d * d * restarts)

    def bytes_per_scored_row(self, params: Params) -> int:
        """Of a tile: matrices of all components, and differences to all means."""
        return itemsize(params.means) * math.prod(params.means.shape) * (3 * self.size + 8 * params.means.shape[-1])

    def expect(self, params: Params, x: Tiles, sample_weight: Array) -> Statistics:
        """E-step, in the two forms of `GaussianModel`."""
        z, view = _standardized(params, x), _view(self, params, x.seen)
        hint = 0.0 if x.known is None else log_known(x.known, view.peaks)
        xp, weight = backends.namespace(z), (sample_weight[..., None] * x.share)[..., None, :]
        reference = xp.broadcast_to(self.reference(params)[..., None, :, :], view.means.shape)

        def about_means(z: Array) -> tuple[Array, Array]:
            shares, log_norm = normalize(_joint(view, z) + hint, axis=-2, weight=weight)
            return _FULL.sums_about_means(z, reference, shares)[0], log_norm

        def about_centre(z: Array) -> tuple[Array, Array]:
            monomials = _FULL.monomials(z)
            natural = _FULL.natural_parameters(view.means, view.spread, view.peaks)
            shares, log_norm = normalize(xp.matmul(natural, monomials) + hint, axis=-2, weight=weight)
            return xp.matmul(shares, swap(monomials)), log_norm

        by_means = self.plain(params) or xp.any(params.narrow > 0)
        sums, log_norm = either(xp.asarray(by_means), about_means, about_centre, z)
        log_likelihood = xp.sum(weight * log_norm, axis=(-3, -2, -1))
        return Statistics(self.covariance.pack(*_filled(view, sums, reference)), log_likelihood)

    def log_prob(self, params: Params, data: Tiles) -> Array:
        """log p(x), ``(..., t, m)``."""
        return posterior(self.log_prob_of(params, data), params.weights[..., None, :])[1]

    def responsibilities(self, params: Params, data: Tiles) -> Array:
        """p(k | x), ``(..., t, m, k)``."""
        return swap(posterior(self.log_prob_of(params, data), params.weights[..., None, :])[0])

    def impute(self, params: Params, x: Tiles) -> Array:
        """Return rows whose gaps have the values expected of them, ``(..., t, m, d)``."""
        view, z, xp = _view(self, params, x.seen), _standardized(params, x), backends.namespace(x.x)
        shares = swap(self.responsibilities(params, x))
        filled = swap(xp.sum(shares[..., None, :] * _expected(view, z), axis=-3))
        filled = filled * params.scale[..., None, None, :] + params.centre[..., None, None, :]
        return xp.where(x.seen[..., None, :] > 0, x.x, filled)

    def log_joint(self, params: Params, data: Tiles) -> Array:
        """log w_k p(x | k) of the entries that are seen, ``(..., t, k, m)``."""
        return _joint(_view(self, params, data.seen), _standardized(params, data))


def gappy(model: GaussianModel, tiles: Rows) -> GappyModel:
    """Return the model of rows with gaps, for these tiles."""
    return GappyModel(model.covariance_type, model.missing, model.fixed, size=tiles.arrays[0].shape[-2])


def conditional(
    model: GaussianModel, seen: tuple[int, ...], others: tuple[int, ...], params: Params, values: Array
) -> tuple[Array, Array, Array]:
    """Weights, means and covariances of the features `others`, given values ``(..., f)`` of the features seen."""
    xp, d = backends.namespace(values), params.means.shape[-1]
    columns = constant(np.eye(d)[list(seen)], like=values)
    x = xp.matmul(values[..., None, None, :], columns)  # a tile of one row for each mixture
    has = xp.sum(columns, axis=0) + 0 * x[..., 0, :]
    one = GappyModel(model.covariance_type)
    tile = Tiles(x, x[..., 0], has)
    view, z = _view(one, params, has), _standardized(params, tile)
    weights = one.responsibilities(params, tile)[..., 0, 0, :]
    left = constant(np.asarray(others), like=xp.argmax(weights))
    scale, centre = (xp.take(part, left, axis=-1)[..., None, :] for part in (params.scale, params.centre))
    means = xp.take(_expected(view, z)[..., 0, :, :, 0], left, axis=-1) * scale + centre
    rest = xp.take(xp.take(view.rest[..., 0, :, :, :], left, axis=-1), left, axis=-2)
    ones, _, second = model.covariance.unpack(model.covariance.pack(xp.ones_like(weights), means, rest), len(others))
    covariances = model.covariance.covariances_from(ones, 0 * means, second)
    return weights, means, model.covariance.scaled(covariances, scale[..., 0, :])


def _expected(view: _View, z: Array) -> Array:
    """What rows are expected to be, by component, ``(..., t, k, d, m)``."""
    gaps = z[..., None, :, :] - view.means[..., None]
    return view.means[..., None] + backends.namespace(z).matmul(view.slopes, gaps)


def _standardized(params: Params, data: Tiles) -> Array:
    """z, features first, gaps 0: ``(..., t, d, m)``."""
    z = (data.x - params.centre[..., None, None, :]) / params.scale[..., None, None, :]
    return swap(z * data.seen[..., None, :])


def _joint(view: _View, z: Array) -> Array:
    """log w_k N(x | k), ``(..., t, k, m)``."""
    return view.peaks[..., None] - _FULL.squares(view.spread, z, view.means) / 2


def _view(model: GaussianModel, params: Params, seen: Array) -> _View:
    xp, (k, d) = backends.namespace(seen), params.means.shape[-2:]
    whole = model.covariance.dense(params.spread.covariances, k, d)[..., None, :, :, :]
    has = seen[..., None, :, None] > 0  # rows of matrices (..., t, 1, d, d)
    both, identity = has & swap(has), constant(np.eye(d), like=seen)
    lower, root = _cholesky(xp.where(both, whole, identity))
    factors = xp.where(both, xp.linalg.inv(lower) / root[..., None, :], 0.0)
    slopes = xp.where(has, identity, xp.matmul(whole, xp.matmul(swap(factors), factors)))
    rest = xp.where(~has & ~swap(has), whole - xp.matmul(slopes, whole), 0.0)
    log_det = -2 * xp.sum(xp.log(xp.linalg.diagonal(lower) * root), axis=-1)
    lacking = xp.sum((1 - seen) * (xp.log(params.scale[..., None, :]) + math.log(2 * math.pi) / 2), axis=-1)
    peaks = (offset(params) - params.spread.log_det / 2)[..., None, :] + log_det / 2 + lacking[..., None]
    means = xp.broadcast_to(params.means[..., None, :, :], factors.shape[:-1])
    return _View(means, params.spread._replace(factors=factors), peaks, slopes, rest)


def _cholesky(matrices: Array) -> tuple[Array, Array]:
    """Cholesky factors of matrices brought to a diagonal of ones, and the roots of their diagonals."""
    xp, d = backends.namespace(matrices), matrices.shape[-1]
    identity = constant(np.eye(d), like=matrices)
    # some libraries raise an error for a batch in which one matrix is no number
    finite = xp.all(xp.isfinite(matrices), axis=(-2, -1), keepdims=True)
    matrices = xp.where(finite, matrices, identity)
    root = xp.sqrt(xp.linalg.diagonal(matrices))
    even = matrices / root[..., :, None] / root[..., None, :]
    # as much as rounding takes from the least eigenvalue, so that none is negative
    return xp.linalg.cholesky(even + 4 * d * eps(matrices) * identity), root


def _filled(view: _View, sums: Array, reference: Array) -> tuple[Array, Array, Array]:
    """Weight, first and second moments of filled rows, of all tiles: those about the reference.

    A filled row is A (x - c) + e from its reference c, with e = (1 - A) (m - c).
    """
    xp = backends.namespace(sums)
    counts, first, second = _FULL.unpack((sums,), view.means.shape[-1])
    away = view.means - reference
    shift = away - xp.matmul(view.slopes, away[..., None])[..., 0]
    first = xp.matmul(view.slopes, first[..., None])[..., 0]
    cross = first[..., :, None] * shift[..., None, :]
    second = xp.matmul(xp.matmul(view.slopes, second), swap(view.slopes)) + cross + swap(cross)
    second = second + counts[..., None, None] * (shift[..., :, None] * shift[..., None, :] + view.rest)
    first = first + counts[..., None] * shift
    return xp.sum(counts, axis=-2), xp.sum(first, axis=-3), xp.sum(second, axis=-4)
