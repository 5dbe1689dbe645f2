"""One result per row, computed block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute._engine.nests import first, map_blocks, stacked
from emroute._engine.once import once
from emroute._engine.rows import cut
from emroute.arrays.trees import leaves, map_leaves
from emroute.backend import Array, compiled, namespace
from emroute.data import Rows
from emroute.errors import InputError

__all__ = ["each_row", "each_row_once"]


@dataclass(frozen=True)
class _Joint:
    """Batch dimensions of parameters and of rows, which broadcast against each other."""

    params: tuple[int, ...]
    rows: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return np.broadcast_shapes(self.params, self.rows)

    def flatten(self, tree: Any, n_own: int) -> Any:
        """Give arrays that begin with `n_own` batch dimensions all of them, as one axis."""

        def widen(x: Array) -> Array:
            xp, own = namespace(x), (1,) * (len(self.shape) - n_own) + tuple(x.shape)
            event = own[len(self.shape) :]
            return xp.reshape(xp.broadcast_to(xp.reshape(x, own), (*self.shape, *event)), (-1, *event))

        return map_leaves(widen, tree)


def each_row(method: Callable[..., Any], model: Any, params: Any, rows: Rows, batch: tuple[int, ...]) -> Any:
    """Apply ``method(model, params, data)``, whose arrays are ``(..., n)`` or ``(..., n, k)``, in blocks of rows.

    Parameters
    ----------
    method, model
        A method of a class of models, and a hashable model of it.
    params
        Parameters; arrays begin with `batch`, or 1.
    rows
        Rows in memory, whose batch dimensions broadcast against `batch`.
    batch
        Batch dimensions of the parameters.

    Returns
    -------
    Array or nest of Array
        As the method's, in the joint batch dimensions.
    """
    backend, joint = backends.get(*leaves(params), *rows.arrays), _joint(batch, rows)
    found = compiled(backend, _each_row, method, model, joint)(params, rows.block.data)
    return cut(found, rows.n, len(joint.shape))


def each_row_once(method: Callable[..., Any], model: Any, params: Any, rows: Rows, batch: tuple[int, ...]) -> Any:
    """Do the same as `each_row`, for a step that a fit does once; padding rows have results too."""
    backend, joint = backends.get(*leaves(params), *rows.arrays), _joint(batch, rows)
    return once(backend, _each_row, method, model, joint)(params, rows.block.data)


def _joint(batch: tuple[int, ...], rows: Rows) -> _Joint:
    try:
        np.broadcast_shapes(batch, rows.batch)
    except ValueError:
        raise InputError(f"the parameters have batch dimensions {batch}, the data {rows.batch}") from None
    return _Joint(tuple(batch), rows.batch)


def _each_row(method: Callable[..., Any], model: Any, joint: _Joint, params: Any, data: Any) -> Any:
    n_batch = len(joint.rows)
    n = leaves(data)[0].shape[n_batch]
    one = map_leaves(lambda x: x[(*(slice(0, 1),) * len(joint.params), ...)], params)
    size = backends.get(*leaves(params)).chunk_size(model.bytes_per_scored_row(one))

    def of_rows(params: Any, data: Any) -> Any:
        return map_blocks(lambda some: method(model, params, some), data, size)

    def of_problems(both: tuple[Any, Any]) -> Any:
        return method(model, *both) if n <= size else stacked(of_rows(*first(both)))

    if joint.params:
        both = joint.flatten(params, len(joint.params)), joint.flatten(data, n_batch)
        result = map_blocks(of_problems, both, max(1, size // n))
    else:  # all problems share the parameters, so their rows stand in one line
        result = of_rows(params, map_leaves(lambda x: namespace(x).reshape(x, (-1, *x.shape[n_batch + 1 :])), data))
    before = 2 if joint.params else 1
    return map_leaves(lambda x: namespace(x).reshape(x, (*joint.shape, n, *x.shape[before:])), result)
