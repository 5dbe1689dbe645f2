"""Models that can be fitted, and results of fits: `emroute.em.Model`, `emroute.em.Fit` and `emroute.em.Status`."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from emroute._engine.status import Status, described
from emroute.backend import Array

__all__ = ["Fit", "Model", "Status"]


class Model(Protocol):
    """A model that can be fitted. It is hashable and holds static settings only; arrays live in `params`.

    `Params` and `Statistics` are (nests of) NamedTuples of arrays. Every array in them begins with the batch dimensions
    of the problems; an array that all problems share may have 1 there. Some more members are optional:

    - ``merge(a, b)``: combines the statistics of two sets of rows; by default every field is added;
    - ``ranks``: the rank of one row of each data array, e.g. ``(1, 0)`` for ``(x, y)``;
    - ``bytes_per_row(params)``: the working memory of the E-step per row, which decides the size of a block;
    - ``pack(params)`` and ``unpack(nest, params)``: nested arrays that can be extrapolated freely, and parameters made
      from them; without these, ``accelerate`` extrapolates every number by itself.
    """

    def expect(self, params: Any, data: Any, sample_weight: Array, /) -> Any:
        """Return the statistics of some rows under `params` (E-step)."""
        ...

    def maximize(self, statistics: Any, params: Any, /) -> Any:
        """Return better parameters (M-step)."""
        ...

    def objective(self, statistics: Any, params: Any, /) -> Array:
        """Return the quantity that never decreases, one number per problem, at the `params` that gave `statistics`."""
        ...


class Fit(NamedTuple):
    """The result of a fit. It is a NamedTuple, so that JAX can return it from compiled functions."""

    params: Any
    objective: Array
    """The total objective of the data at `params`, ``(...,)``."""
    trace: Array
    """The objective at the start and after each M-step, ``(..., t)``; NaN once a problem has ended."""
    n_iter: Array
    """The number of M-steps that led to `params`, ``(...,)``."""
    status: Array
    """How each problem ended, a `Status`, ``(...,)``."""

    @property
    def converged(self) -> Array:
        """Whether each problem converged."""
        return self.status == int(Status.CONVERGED)

    def __repr__(self) -> str:
        return described(self, "objective")
