"""Spare components, where a library compiles a program for each number of components: eight numbers share one.

A component of weight 0 answers for no row and keeps its parameters, so it changes no result. But it takes time in every
step, so only short steps get any.
"""

from __future__ import annotations

import math

import numpy as np

from emroute import backend as backends
from emroute._engine.once import once
from emroute.arrays.creation import constant
from emroute.arrays.tracing import on_host
from emroute.arrays.trees import leaves, map_leaves
from emroute.backend import Array
from emroute.data import Rows, Stream
from emroute.gmm.model import GaussianModel
from emroute.gmm.params import Params
from emroute.gmm.spread import Spread

__all__ = ["component_axes", "with_spare", "without_spare"]

_SHARING = 8
_MOST = 2**22  # multiplications of a step: it takes less than a millisecond


def with_spare(model: GaussianModel, params: Params, source: Rows | Stream) -> Params:
    """Return parameters with spare components, where programs for rows like these are compiled and take short steps."""
    (k, d), problems = params.means.shape[-2:], math.prod(params.weights.shape[:-1])
    wide = -(-k // _SHARING) * _SHARING
    if isinstance(source, Stream) or source.surplus is None or any(on_host(x) is None for x in leaves(params)):
        return params
    if k == wide or problems * (source.n + source.surplus) * wide * d * d > _MOST:
        return params
    return once(backends.get(params.weights), _with_spare, model, wide)(params)


def _with_spare(model: GaussianModel, wide: int, params: Params) -> Params:
    """Repeat the last component, with the weight 0."""
    k = params.weights.shape[-1]
    params = _taken(model, params, np.minimum(np.arange(wide), k - 1))
    return model.complete(params._replace(weights=params.weights * constant(np.arange(wide) < k, like=params.weights)))


def without_spare(model: GaussianModel, params: Params, k: int) -> Params:
    """Return the parameters of the first `k` components."""
    if params.weights.shape[-1] == k:
        return params
    return once(backends.get(params.weights), _without_spare, model, k)(params)


def _without_spare(model: GaussianModel, k: int, params: Params) -> Params:
    return _taken(model, params, np.arange(k))


def _taken(model: GaussianModel, params: Params, index: np.ndarray) -> Params:
    """Return the parameters of some components."""

    def take(x: Array, axis: int | None) -> Array:
        here = backends.get(x)
        return x if axis is None else here.namespace(x).take(x, here.from_numpy(index, x), axis=axis)

    return map_leaves(take, params, component_axes(model))


def component_axes(model: GaussianModel) -> Params:
    """Return along which axis each array of the parameters has the components; None where they share it."""
    rank, shared = model.covariance.rank, model.covariance.shared
    spread = Spread(*(None if shared else axis for axis in (-rank, -rank, -1, -2, -1, -1, -1)))  # type: ignore[arg-type]
    return Params(-1, -2, spread, -2, *(None,) * 6)  # type: ignore[arg-type]
