"""Starts of Gaussian mixtures: standard coordinates from the data, and parameters as a user gives them."""

from __future__ import annotations

from typing import Any

import numpy as np

from emroute import backend as backends
from emroute._engine.moments import Moments
from emroute._engine.once import once
from emroute._engine.problems import align
from emroute.arrays.creation import constant, full, swap
from emroute.arrays.functions import eps, tiny
from emroute.backend import Array
from emroute.errors import InputError
from emroute.gmm.model import GaussianModel
from emroute.gmm.params import Params
from emroute.gmm.width import root_mean_square
from emroute.validate import as_parameter, mixing_weights, require

__all__ = ["begin", "from_init", "standard", "symmetric", "unit"]


def standard(
    model: GaussianModel, k: int, moments: Moments, width: Array, sample: Array, floor: Array | float
) -> Params:
    """Coordinates in which the features' widths are 1 (spherical: on average), 0 counting as 1.

    Parameters
    ----------
    model, k
        The model and its number of components.
    moments
        Of all rows.
    width, sample
        Widths and standard deviations of a sample of the rows, from `widths`.
    floor
        The least variance in these coordinates.
    """
    xp, centre = backends.namespace(width), moments.centre
    # squares of tiny numbers underflow; where they do, a sample's deviations, taken in units of its widths, do not
    resolved = moments.variance > tiny(centre) / eps(centre) ** 2
    deviation = xp.where(resolved, xp.sqrt(moments.variance), sample)
    # a constant feature's deviation is 0 only but for rounding, which differs between libraries
    rounding = 4 * eps(centre) * xp.abs(moments.mean)
    deviation = xp.where(deviation > rounding, deviation, xp.zeros_like(deviation))
    width = xp.where((width > 0) & (deviation > 0), width, deviation)
    if model.covariance.isotropic:
        width, deviation = (xp.zeros_like(y) + root_mean_square(y, -1) for y in (width, deviation))
    width, deviation = (xp.where(y > 0, y, xp.ones_like(y)) for y in (width, deviation))
    return begin(model, k, centre, width, xp.zeros_like(centre[..., 0]) + floor, deviation / width)


def from_init(model: GaussianModel, params: Params, init: tuple[Any, ...]) -> Params:
    """A start of weights, means and covariances, as users see them."""
    if len(init) != 3:
        raise InputError(f"got a start of {len(init)} parts, expected (weights, means, covariances)")
    like, (k, d), covariance = params.means, params.means.shape[-2:], model.covariance
    weights = mixing_weights(init[0], like, k)
    batch = tuple(params.centre.shape[:-1])
    means = as_parameter("means", init[1], like, (k, d), batch)
    covariances = as_parameter("covariances", init[2], like, covariance.shape(k, d), batch)
    if covariance.matrices:
        require(once(backends.get(covariances), symmetric)(covariances), lambda: "covariances must be symmetric")
    own = (weights, 1), (means, 2), (covariances, covariance.rank)
    own, shared = align(batch, own, (params.centre, params.scale, params.floor, params.reach, params.axes))
    params, positive = once(backends.get(like), _start, model)(params, tuple(own), shared)
    require(positive, lambda: "covariances must be positive definite; add a small multiple of the identity")
    return params


def symmetric(matrices: Array) -> Array:
    """Whether matrices are symmetric but for rounding, whatever the units of their rows."""
    xp = backends.namespace(matrices)
    root = xp.sqrt(xp.abs(xp.linalg.diagonal(matrices)))
    uneven = xp.abs(matrices - swap(matrices)) <= eps(matrices) ** 0.5 * root[..., :, None] * root[..., None, :]
    return xp.all(uneven)


def _start(
    model: GaussianModel, params: Params, own: tuple[Array, ...], shared: tuple[Array, ...]
) -> tuple[Params, Array]:
    """Bring a start into standard coordinates; and whether its covariances are positive definite."""
    weights, means, covariances = own
    centre, scale, floor, reach, axes = shared
    params = params._replace(centre=centre, scale=scale, floor=floor, reach=reach, axes=axes)
    covariances = model.covariance.scaled(covariances, 1 / params.scale)
    means = (means - params.centre[..., None, :]) / params.scale[..., None, :]
    d = means.shape[-1]
    spread = model.covariance.decompose(covariances, params.floor, d, model.resolution(means, d))
    params = model.complete(params._replace(weights=weights, means=means, spread=spread))
    return params, backends.namespace(means).all(model.covariance.least(covariances) > 0)


def begin(model: GaussianModel, k: int, centre: Array, scale: Array, floor: Array, reach: Array) -> Params:
    """Equal weights, means at the centre, covariances of the data's extent: what a component without data keeps.

    What `GaussianModel.complete` derives is missing; it is added with the means of the start.
    """
    batch, d = tuple(centre.shape[:-1]), centre.shape[-1]
    variances = full((*batch, k, d), 1, like=centre) * reach[..., None, :] ** 2
    spread = model.covariance.uncorrelated(variances, floor, model.resolution(centre, d))
    spread = spread._replace(floored=0 * spread.floored)
    weights, means = full((*batch, k), 1 / k, like=centre), full((*batch, k, d), 0, like=centre)
    axes = full((*batch, d, d), 0, like=centre) if model.covariance.code in ("EVE", "VVE") else None
    return Params(weights, means, spread, weights[..., None], floor, centre, scale, floor, reach, axes)


def unit(model: GaussianModel, d: int, *, like: Array) -> Array:
    """Unit covariances, which broadcast to the shape of the covariance type."""
    return constant(np.eye(d) if model.covariance.matrices else np.ones(1), like=like)
