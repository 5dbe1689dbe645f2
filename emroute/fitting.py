"""The way from data to a fitted mixture: check, start, iterate, keep the best restart."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from emroute import backend as backends
from emroute import em
from emroute.array import concrete, eps, leaves, map_leaves, rebuild
from emroute.backend import Array, compiled
from emroute.data import Rows, Stream, open_source
from emroute.errors import InputError, tell
from emroute.family import FamilyModel, Nearest, as_real
from emroute.init import STARTS, seeds
from emroute.sweep import Moments, summarize, sweep
from emroute.units import Unit, in_unit_of_weight
from emroute.validate import (
    as_generator,
    as_parameter,
    check_choice,
    check_count,
    check_floating,
    check_loop,
    check_real,
    check_rows,
    check_total,
    check_weights,
    require,
)

__all__ = [
    "Settings",
    "admit",
    "align",
    "best",
    "fit_counts",
    "iterate",
    "measure",
    "mixing_weights",
    "restart",
    "run",
    "split_start",
]

_ONE = Unit()


@dataclass(frozen=True)
class Settings:
    """The options that all fits share."""

    init: Any = "k-means++"
    n_init: int = 1
    tol: float = 1e-6
    max_iter: int = 1000
    rng: Any = None
    chunk_size: int | None = None
    callback: Callable[[int, em.Fit], object] | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        check_loop(self.tol, self.max_iter, self.chunk_size)
        object.__setattr__(self, "n_init", check_count("n_init", self.n_init))
        if self.chunk_size is not None:
            object.__setattr__(self, "chunk_size", int(self.chunk_size))
        if isinstance(self.init, str):
            check_choice("init", self.init, STARTS)
        elif self.n_init > 1:
            raise InputError(f"got n_init={self.n_init} with a given start: every restart would be the same")

    @property
    def named(self) -> bool:
        """Whether the start is drawn from the data."""
        return isinstance(self.init, str)


def mixing_weights(value: Any, like: Array, n_components: int) -> Array:
    """Return mixing weights ``(..., k)`` that are not negative and sum to one, or raise `InputError`."""
    weights = as_parameter("weights", value, like, (n_components,))
    xp = backends.namespace(weights)
    total = xp.sum(weights, axis=-1)
    require(xp.all(weights >= 0), lambda: "mixing weights must not be negative")
    require(xp.all(xp.abs(total - 1) < 1e-4), lambda: "mixing weights must sum to 1")
    return weights / total[..., None]


def restart(source: Rows | Stream, params: Any, n_batch: int) -> tuple[Rows | Stream, Any]:
    """Make room behind the batch dimensions for restarts, which share rows."""
    return source.with_restarts(), map_leaves(lambda x: backends.namespace(x).expand_dims(x, axis=n_batch), params)


def iterate(
    kind: Callable[..., Any],
    model: Any,
    params: Any,
    source: Rows | Stream,
    drawn: Array | None,
    settings: Settings,
    unit: Unit = _ONE,
) -> Any:
    """Fit a mixture from parameters, or from starting points: nearest-point assignment, then one M-step.

    Parameters
    ----------
    kind
        What to return, made of model, parameters and history.
    model
        A mixture's model. ``around(params, drawn)``, if it has that, moves parameters to where the rows nearest to
        the starting points lose no digits.
    params
        The start; under starting points, what a component that gets none of the data shall keep.
    source
        The data.
    drawn
        Starting points ``(..., k, p)``, with restarts ``(..., R, k, p)``; None where `params` are the start.
    settings
        The fit's options.
    unit
        What the objective is in the user's units.
    """
    if settings.n_init > 1:
        source, params = restart(source, params, params.weights.ndim - 1)
    if drawn is not None:
        batch = np.broadcast_shapes(source.batch, tuple(drawn.shape[:-2]))
        backend = backends.get(drawn)
        lead = compiled(backend, _lead, batch, params.weights.ndim - 1)
        params, drawn = lead(params, drawn)
        nearest = Nearest(model)
        if hasattr(model, "around"):
            params = compiled(backend, type(model).around, model)(params, drawn)
        statistics = sweep(nearest, (params, drawn), source, batch, settings.chunk_size)
        params = compiled(backend, Nearest.maximize, nearest)(statistics, params)
    return kind(model, *run(model, params, source, settings, unit))


def _lead(batch: tuple[int, ...], n_own: int, params: Any, drawn: Array) -> tuple[Any, Array]:
    """Give parameters that have `n_own` batch dimensions, and starting points, those of `batch`."""
    xp, ones = backends.namespace(drawn), (1,) * (len(batch) - n_own)
    params = map_leaves(lambda x: xp.reshape(x, ones + tuple(x.shape)), params)
    return params, xp.broadcast_to(drawn, (*batch, *drawn.shape[-2:]))


def run(model: Any, params: Any, source: Rows | Stream, settings: Settings, unit: Unit = _ONE) -> em.Fit:
    """Run the loop; of restarts, which are the last batch dimension, keep the best. The objective is in the unit."""
    restarts, callback = int(settings.n_init > 1), settings.callback

    def restored(fit: em.Fit, tail: int) -> em.Fit:
        return fit._replace(objective=unit.restore(fit.objective, tail), trace=unit.restore(fit.trace, tail + 1))

    fit = em.climb(
        model,
        source,
        params,
        settings.tol,
        settings.max_iter,
        settings.chunk_size,
        callback and (lambda iteration, fit: callback(iteration, restored(fit, restarts))),
        settings.progress,
    )
    if settings.n_init > 1:
        fit = compiled(backends.get(fit.objective), best, fit.objective.ndim - 1)(fit)
    return restored(em.trim(fit, settings.max_iter), 0)


def best(axis: int, fit: em.Fit) -> em.Fit:
    """Keep the restart of the highest objective along a batch axis."""
    xp = backends.namespace(fit.objective)
    finite = xp.isfinite(fit.objective)
    objective = xp.where(finite, fit.objective, xp.full_like(fit.objective, -xp.inf))
    top = xp.max(objective, axis=axis, keepdims=True)
    # equal but for rounding is equal: the first such restart wins on every library
    near = objective >= top - 128 * eps(top) * xp.abs(xp.where(xp.isfinite(top), top, xp.zeros_like(top)))
    first = xp.argmax(xp.astype(near, objective.dtype), axis=axis)

    def choose(x: Array) -> Array:
        if x.shape[axis] == 1:
            return xp.squeeze(x, axis=axis)
        wide = xp.reshape(first, (*first.shape, *(1,) * (x.ndim - first.ndim)))
        wide = xp.broadcast_to(wide, (*first.shape, 1, *x.shape[axis + 1 :]))
        return xp.squeeze(xp.take_along_axis(x, wide, axis=axis), axis=axis)

    return em.Fit(*map_leaves(choose, tuple(fit)))


def align(params: Any, ranks: tuple[int, ...], batch: tuple[int, ...], n_own: int) -> Any:
    """Give all arrays of the parameters the same batch dimensions.

    Parameters
    ----------
    params
        A nest of NamedTuples of arrays.
    ranks
        The arrays' ranks without batch, in order.
    batch
        Batch dimensions of the data; a start may add more in front.
    n_own
        How many arrays, from the first, each problem has for itself; the others have 1 where all share them.
    """
    arrays = leaves(params)
    own = [tuple(x.shape[: x.ndim - rank]) for x, rank in zip(arrays, ranks, strict=True)]
    try:
        joint = np.broadcast_shapes(batch, *own)
    except ValueError:
        raise InputError(f"batch dimensions of the start and the data do not broadcast: {own} and {batch}") from None
    return compiled(backends.get(*arrays), _align, ranks, joint, n_own)(params)


def _align(ranks: tuple[int, ...], joint: tuple[int, ...], n_own: int, params: Any) -> Any:
    def widen(place: int, x: Array) -> Array:
        xp, event = backends.namespace(x), tuple(x.shape[x.ndim - ranks[place] :])
        if place < n_own:
            return xp.broadcast_to(x, joint + event)
        return xp.reshape(x, (1,) * (len(joint) - x.ndim + ranks[place]) + tuple(x.shape))

    return rebuild(params, [widen(place, x) for place, x in enumerate(leaves(params))])


class _Tally(NamedTuple):
    constant: Array
    size: Array
    bad: Array


@dataclass(frozen=True)
class _Census:
    """One pass over count data: the constant of their log-likelihood, the largest, and how many are impossible.

    The constant is that of rows that count little, or much if `large`.
    """

    family: Any
    large: bool = False

    def expect(self, params: Any, data: Any, sample_weight: Array) -> _Tally:
        xp = backends.namespace(sample_weight)
        arrays = data if isinstance(data, tuple) else (data,)
        good = self.family.good(*arrays)
        kept = []
        for x in arrays:
            here = xp.reshape(good, (*good.shape, *(1,) * (x.ndim - good.ndim)))
            kept.append(xp.where(here, as_real(x, params.weights), 0.0))
        data = tuple(kept) if isinstance(data, tuple) else kept[0]
        bad = xp.astype(~good, sample_weight.dtype)
        constant = (self.family.peak if self.large else self.family.base)(params, data)
        return _Tally(
            xp.sum(sample_weight * constant, axis=-1),
            xp.max(self.family.size(params, data), axis=-1),
            xp.sum(bad, axis=-1),
        )

    def merge(self, a: _Tally, b: _Tally) -> _Tally:
        total = map_leaves(lambda x, y: x + y, a, b)
        return total._replace(size=backends.namespace(a.size).maximum(a.size, b.size))


def fit_counts(
    kind: type[Any], family: Any, data: Any, n_components: int, weights: Any, sample_weight: Any, settings: Settings
) -> Any:
    """Fit a mixture of a family on counts; see the families' own `fit`."""
    k = check_count("n_components", n_components)
    source = open_source(data, sample_weight, family.ranks).detached()
    check_real("the data", *source.arrays)
    like = backends.get(*source.arrays).from_numpy(np.zeros(()), source.arrays[0])
    check_floating("the data", like)
    check_weights("sample_weight", sample_weight, like)
    source, unit = in_unit_of_weight(source)
    params = family.template(like, source.batch, k, *source.arrays)
    census = sweep(_Census(family), params, source, source.batch)
    xp = backends.namespace(like)
    if concrete(xp.any(census.bad > 0)):
        check_rows(source, family.good, family.complaint)
    n = source.n if isinstance(source, Rows) else sum(rows.n for rows in source)
    check_total(n, k, "n_components", math.prod(source.batch))
    model = FamilyModel(family, fixed_weights=weights is not None).sized(census.size)
    if model.large:
        census = sweep(_Census(family, large=True), params, source, source.batch)
    params = params._replace(constant=census.constant)
    drawn = None
    if settings.named:
        drawn = seeds(model, params, source, n, settings.init, k, settings.n_init, as_generator(settings.rng))
    else:
        params = family.start(settings.init, params)
    if weights is not None:
        params = params._replace(weights=mixing_weights(weights, like, k))
    params = align(params, family.param_ranks, source.batch, 2)
    fitted = iterate(kind, model, params, source, drawn, settings, unit)
    tell(fitted.remarks(settings.max_iter))
    return fitted


def split_start(init: Any, names: str) -> tuple[Any, Any]:
    """Return a start's ``(weights or None, parameters)``."""
    given = init if isinstance(init, tuple) else (None, init)
    if len(given) != 2:
        raise InputError(f"got a start of {len(given)} parts, expected {names} or (weights, {names})")
    return given


def admit(x: Any, sample_weight: Any, k: int, name: str) -> tuple[Rows | Stream, int, Unit]:
    """Check floating data, but for NaN and infinity.

    Return them with weights of ordinary size, their number of rows, and the unit of weight.
    """
    source = open_source(x, sample_weight, (1,)).detached()
    (first,) = source.arrays
    check_floating("x", first)
    check_weights("sample_weight", sample_weight, first)
    if not first.shape[-1]:
        raise InputError(f"x has shape {tuple(first.shape)}; expected at least one feature")
    n = source.n if isinstance(source, Rows) else sum(rows.n for rows in source)
    check_total(n, k, name, math.prod(source.batch))
    source, unit = in_unit_of_weight(source)
    return source, n, unit


def measure(source: Rows | Stream) -> Moments:
    """Return the moments of the features, or raise `InputError` where data are not finite."""
    moments = summarize(source)
    xp = backends.namespace(moments.mean)
    if concrete(xp.all(xp.isfinite(moments.mean) & xp.isfinite(moments.square))) is False:
        check_rows(source, lambda x: xp.all(xp.isfinite(x), axis=-1), "x holds NaN or infinity")
        raise InputError(f"the variance of x overflows {moments.mean.dtype}; scale the data down")
    return moments
