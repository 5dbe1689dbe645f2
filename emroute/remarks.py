"""What a user should know about a result, with the remedies."""

from __future__ import annotations

from typing import Any

import numpy as np

from emroute import backend as backends
from emroute._engine.status import Status, places
from emroute.arrays.functions import eps
from emroute.arrays.tracing import concrete

__all__ = ["lost", "places", "remarks"]


def remarks(fitted: Any, max_iter: int) -> list[str]:
    """Return what went wrong in a fit; nothing while a compiler is tracing, or if no step was requested."""
    status = fitted.status
    if max_iter == 0 or concrete(backends.namespace(status).all(status == status)) is None:
        return []
    host = backends.get(status).to_numpy(status)
    ends = {
        Status.MAX_ITER: f"did not converge in {max_iter} iteration{'s' * (max_iter > 1)}: raise max_iter or tol",
        Status.NON_FINITE: "met a number that is not finite, and stopped before it: scale the data, or give a start "
        "under which every row is possible",
    }
    return [f"{_who(host == int(end))} {words}" for end, words in ends.items() if np.any(host == int(end))]


def _who(which: np.ndarray) -> str:
    return f"{int(which.sum())} of {which.size} fits" if which.ndim else "the fit"


def lost(weights: Any) -> Any:
    """Return whether components have no weight beyond rounding, ``(..., k)``."""
    return weights <= eps(weights)
