"""What can be fitted, and what a fit returns: `emroute.em.Model`, `emroute.em.Fit` and `emroute.em.Status`."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from emroute._engine.status import Status, described
from emroute.backend import Array

__all__ = ["Fit", "Model", "Status"]


class Model(Protocol):
    """What can be fitted: hashable, static settings only; arrays live in `params`.

    `Params` and `Statistics` are (nests of) NamedTuples of arrays. Every array in them begins with the problem's
    batch dimensions; one that all problems share may have 1 there. Some more members are optional:

    - ``merge(a, b)``: the statistics of two sets of rows; without it, every field is added;
    - ``ranks``: the rank of one row of each data array, e.g. ``(1, 0)`` for ``(x, y)``;
    - ``bytes_per_row(params)``: working memory of the E-step, from which chunks are sized;
    - ``pack(params)`` and ``unpack(nest, params)``: coordinates that may be extrapolated freely, a nest of arrays, and
      parameters from them, by the side of others; without them ``accelerate`` extrapolates every number by itself.
    """

    def expect(self, params: Any, data: Any, sample_weight: Array, /) -> Any:
        """E-step: the statistics of some rows under `params`."""
        ...

    def maximize(self, statistics: Any, params: Any, /) -> Any:
        """M-step: better parameters."""
        ...

    def objective(self, statistics: Any, params: Any, /) -> Array:
        """Return what never decreases, one number a problem, at the `params` that gave `statistics`."""
        ...


class Fit(NamedTuple):
    """The end of a fit. A NamedTuple, so JAX can return it from compiled functions."""

    params: Any
    objective: Array
    """``(...,)``, at `params`: the total over observations."""
    trace: Array
    """``(..., t)``: the objective at the start and after each M-step, NaN where a problem had ended."""
    n_iter: Array
    """``(...,)``: M-steps that led to `params`."""
    status: Array
    """``(...,)``: a `Status` each."""

    @property
    def converged(self) -> Array:
        """Whether each problem's objective came to rest."""
        return self.status == int(Status.CONVERGED)

    def __repr__(self) -> str:
        return described(self, "objective")
