"""Several fits of one problem in one batch, of which the best is kept; they share their rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from emroute import backend as backends
from emroute._engine.history import trim
from emroute._engine.loop import climb
from emroute._engine.options import LoopOptions, Options
from emroute._engine.protocol import Fit
from emroute._engine.units import Unit
from emroute.arrays.functions import eps
from emroute.arrays.trees import map_leaves
from emroute.backend import Array, compiled
from emroute.data import Rows, Stream

__all__ = ["best_of", "climb_restarts", "with_restart_axis"]


def with_restart_axis(source: Rows | Stream, params: Any, n_batch: int) -> tuple[Rows | Stream, Any]:
    """Add a dimension for restarts after the batch dimensions."""
    return source.with_restarts(), map_leaves(lambda x: backends.namespace(x).expand_dims(x, axis=n_batch), params)


def climb_restarts(model: Any, params: Any, source: Rows | Stream, options: Options, unit: Unit) -> Fit:
    """Run the loop and keep the best of the restarts, the last batch dimension. The objective is in the unit."""
    n_restart_dims = 1 if options.n_init > 1 else 0

    def in_users_unit(fit: Fit, tail: int) -> Fit:
        return fit._replace(objective=unit.restore(fit.objective, tail), trace=unit.restore(fit.trace, tail + 1))

    def callback(iteration: int, fit: Fit) -> None:
        if options.callback is not None:
            options.callback(iteration, in_users_unit(fit, n_restart_dims))

    loop_options: LoopOptions = options if options.callback is None else replace(options, callback=callback)
    fit = climb(model, source, params, loop_options)
    if n_restart_dims:
        fit = best_of(fit)
    return in_users_unit(trim(fit, options.max_iter), 0)


def best_of(fit: Fit) -> Fit:
    """Keep the restart of the highest objective, along the last batch dimension."""
    return compiled(backends.get(fit.objective), _best, fit.objective.ndim - 1)(fit)


def _best(axis: int, fit: Fit) -> Fit:
    xp = backends.namespace(fit.objective)
    finite = xp.isfinite(fit.objective)
    objective = xp.where(finite, fit.objective, xp.full_like(fit.objective, -xp.inf))
    top = xp.max(objective, axis=axis, keepdims=True)
    # treat objectives within rounding as ties: the first wins on every library
    near = objective >= top - 128 * eps(top) * xp.abs(xp.where(xp.isfinite(top), top, xp.zeros_like(top)))
    first = xp.argmax(xp.astype(near, objective.dtype), axis=axis)

    def choose(x: Array) -> Array:
        if x.shape[axis] == 1:
            return xp.squeeze(x, axis=axis)
        wide = xp.reshape(first, (*first.shape, *(1,) * (x.ndim - first.ndim)))
        wide = xp.broadcast_to(wide, (*first.shape, 1, *x.shape[axis + 1 :]))
        return xp.squeeze(xp.take_along_axis(x, wide, axis=axis), axis=axis)

    return map_leaves(choose, fit)
