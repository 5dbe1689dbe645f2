"""From data to a fitted mixture: check, start, iterate, keep the best restart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from emroute import backend as backends
from emroute._engine.moments import Moments, moments_of
from emroute._engine.once import once
from emroute._engine.options import Options
from emroute._engine.problems import lead_ones
from emroute._engine.reduce import e_step_over
from emroute._engine.restarts import climb_restarts, with_restart_axis
from emroute._engine.starts import draw_starts
from emroute._engine.units import Unit, in_unit_of_weight
from emroute.arrays.creation import as_real
from emroute.arrays.tracing import concrete
from emroute.arrays.trees import map_leaves
from emroute.backend import Array
from emroute.data import Rows, Stream, open_source
from emroute.errors import InputError, tell
from emroute.family import FamilyModel, Nearest
from emroute.validate import (
    as_parameter,
    check_count,
    check_floating,
    check_real,
    check_rows,
    check_total,
    check_weights,
    require,
)

__all__ = ["Options", "at_points", "finite_moments", "fit_counts", "open_checked", "unpack_init"]


def open_checked(x: Any, sample_weight: Any, k: int, name: str) -> tuple[Rows | Stream, Unit]:
    """Open and check floating data, whose finiteness is checked later.

    Return the data with weights of ordinary size, and the unit of weight.
    """
    source = open_source(x, sample_weight, (1,)).detached()
    check_floating("x", *source.arrays)
    source = source.filled()
    (first,) = source.arrays
    check_weights("sample_weight", source.weight, first)
    if not first.shape[-1]:
        raise InputError(f"x has shape {tuple(first.shape)}; expected at least one feature")
    check_total(source.n, k, name, math.prod(source.batch))
    return in_unit_of_weight(source)


def finite_moments(source: Rows | Stream) -> Moments:
    """Return the moments of the features, or raise `InputError` if the data are not finite."""
    moments = moments_of(source)
    xp = backends.namespace(moments.mean)
    if concrete(xp.all(xp.isfinite(moments.mean) & xp.isfinite(moments.square))) is False:
        check_rows(source, lambda x: xp.all(xp.isfinite(x), axis=-1), "x holds NaN or infinity")
        raise InputError(f"the variance of x overflows {moments.mean.dtype}; scale the data down")
    return moments


def unpack_init(init: Any, names: str) -> tuple[Any, Any]:
    """Return a start's ``(weights or None, parameters)``."""
    if init is None:
        raise InputError(f"got init=None, expected 'k-means++', 'random', {names} or (weights, {names})")
    given = init if isinstance(init, tuple) else (None, init)
    if len(given) != 2:
        raise InputError(f"got a start with {len(given)} parts, expected {names} or (weights, {names})")
    return given


def at_points(
    model: Any,
    params: Any,
    source: Rows | Stream,
    points: Array,
    options: Options,
    kind: type[Nearest] = Nearest,
) -> tuple[Rows | Stream, Any]:
    """Start from points: assign each row to the nearest, then make one M-step.

    Parameters
    ----------
    model
        The model of a mixture. If it has ``around(params, points)``, that moves the parameters to where the rows
        nearest to the points lose no digits.
    params
        The parameters that a component without rows keeps.
    source
        The data.
    points
        Starting points ``(..., k, p)``, or with restarts ``(..., R, k, p)``.
    options
        The options of the fit.

    Returns
    -------
    Rows or Stream
        The data, with a batch dimension for restarts.
    Params
        The start.
    """
    n_batch = params.weights.ndim - 1
    if options.n_init > 1:
        source, params = with_restart_axis(source, params, n_batch)
        n_batch += 1
    batch = np.broadcast_shapes(source.batch, tuple(points.shape[:-2]))
    backend = backends.get(points)
    params = lead_ones(params, len(batch) - n_batch)
    points = backend.namespace(points).broadcast_to(points, (*batch, *points.shape[-2:]))
    if hasattr(model, "around"):
        params = once(backend, type(model).around, model)(params, points)
    nearest = kind(model)
    statistics = e_step_over(nearest, (params, points), source, batch, options.chunk_size)
    return source, once(backend, Nearest.maximize, nearest)(statistics, params)


class _Tally(NamedTuple):
    constant: Array
    size: Array
    bad: Array


@dataclass(frozen=True)
class _Census:
    """Read count data once: the constant of their log-likelihood, the largest count, and how many are invalid.

    The constant is that of the form for small counts, or for large ones if `large`.
    """

    family: Any
    large: bool = False

    def expect(self, params: Any, data: Any, sample_weight: Array) -> _Tally:
        xp = backends.namespace(sample_weight)
        arrays = data if isinstance(data, tuple) else (data,)
        good = self.family.is_valid(*arrays)
        kept = []
        for x in arrays:
            here = xp.reshape(good, (*good.shape, *(1,) * (x.ndim - good.ndim)))
            kept.append(xp.where(here, as_real(x, params.weights), 0.0))
        data = tuple(kept) if isinstance(data, tuple) else kept[0]
        bad = xp.astype(~good, sample_weight.dtype)
        constant = (self.family.peak if self.large else self.family.log_base_measure)(params, data)
        return _Tally(
            xp.sum(sample_weight * constant, axis=-1),
            xp.max(self.family.size(params, data), axis=-1),
            xp.sum(bad, axis=-1),
        )

    def merge(self, a: _Tally, b: _Tally) -> _Tally:
        total = map_leaves(lambda x, y: x + y, a, b)
        return total._replace(size=backends.namespace(a.size).maximum(a.size, b.size))


def fit_counts(mixture: type[Any], family: Any, data: Any, n_components: int, options: Options) -> Any:
    """Fit a mixture of a count family; see the `fit` of each family."""
    k = check_count("n_components", n_components)
    source = open_source(data, options.sample_weight, family.ranks).detached()
    check_real("the data", *source.arrays)
    like = backends.get(*source.arrays).from_numpy(np.zeros(()), source.arrays[0])
    check_floating("the data", like)
    source = source.filled()
    check_weights("sample_weight", source.weight, like)
    source, unit = (source, Unit()) if family.has_prior else in_unit_of_weight(source)
    params = family.from_neutral(like, source.batch, k, *source.arrays)
    model, params = _counted(family, params, source, fixed_weights=options.weights is not None)
    check_total(source.n, k, "n_components", math.prod(source.batch))
    if options.draws or (family.starts_at_points and not isinstance(options.init, tuple)):
        points = _starting_points(model, params, source, options)
        params = family.from_init((options.weights, None), params)
        source, params = at_points(model, params, source, points, options)
    else:
        given, values = unpack_init(options.init, family.parameter)
        params = family.from_init((given if options.weights is None else options.weights, values), params)
    params, objective, *history = climb_restarts(model, params, source, options, unit)
    fitted = mixture(model, params, objective - family.log_prior(params), *history)
    tell(fitted.remarks(options.max_iter))
    return fitted


def _starting_points(model: FamilyModel, params: Any, source: Rows | Stream, options: Options) -> Array:
    """Return points ``(..., k, p)``, drawn or given."""
    k = params.weights.shape[-1]
    if options.draws:
        return draw_starts(model, params, source, k, options)
    points = as_parameter("init", options.init, params[1], tuple(params[1].shape[-2:]), source.batch)
    require(backends.namespace(points).all(model.family.is_valid(points)), lambda: f"init: {model.family.complaint}")
    return points


def _counted(family: Any, params: Any, source: Rows | Stream, fixed_weights: bool) -> tuple[FamilyModel, Any]:
    """Return the model in the form that the rows need, and the parameters with the constant of the log-likelihood."""
    census = e_step_over(_Census(family), params, source, source.batch)
    if concrete(backends.namespace(census.bad).any(census.bad > 0)):
        check_rows(source, family.is_valid, family.complaint)
    model = FamilyModel(family, fixed_weights).sized(census.size)
    if model.large:
        census = e_step_over(_Census(family, large=True), params, source, source.batch)
    return model, params._replace(constant=census.constant)
