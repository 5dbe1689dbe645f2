"""Parameters of Gaussian mixtures, in standard coordinates."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import swap
from emroute.arrays.functions import safe_log
from emroute.backend import Array
from emroute.gmm.spread import Spread

__all__ = ["Params", "offset", "standardize"]


class Params(NamedTuple):
    """Parameters in standard coordinates, ``x = centre + scale * z``."""

    weights: Array
    means: Array
    spread: Spread
    natural: Array
    """Coefficients of the monomials in log w_k N(x | k), ``(..., k, f)``; of `plain` models that at the means alone."""
    narrow: Array
    """``(...,)``: 1 where some component is so narrow that the E-step must use differences to the means, else 0.
    `plain` models always use them."""
    centre: Array
    scale: Array
    floor: Array
    reach: Array
    """Standard deviations of the features in units of `scale`, ``(..., d)``: starts are drawn in units of them."""
    axes: Array | None = None
    """``(..., d, d)``: the axes that all components share, a row each; 0 before they are known, None where none are."""


def standardize(params: Params, x: Array) -> Array:
    """z, features first: ``(..., d, n)``."""
    return swap((x - params.centre[..., None, :]) / params.scale[..., None, :])


def offset(params: Params) -> Array:
    """log w_k plus the logarithm of the density of x at the mean, ``(..., k)``."""
    xp, d = backends.namespace(params.means), params.means.shape[-1]
    jacobian = xp.sum(xp.log(params.scale), axis=-1)[..., None]
    # the log of 0 is below every density, yet finite: coefficients are multiplied and compared
    log_weights = xp.clip(safe_log(params.weights), -xp.finfo(params.weights.dtype).max / 8, None)
    return log_weights + params.spread.log_det / 2 - jacobian - d * np.log(2 * np.pi).item() / 2
