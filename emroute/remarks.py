"""What a result's user should know of it, with the remedies."""

from __future__ import annotations

from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.arrays.functions import eps
from emroute.arrays.tracing import concrete
from emroute.em import Status

__all__ = ["described", "figure", "lost", "places", "remarks"]


def remarks(fitted: Any, max_iter: int) -> list[str]:
    """Return how a fit did not end as it should; nothing while a compiler is tracing, or if no step was asked for."""
    status = fitted.status
    if max_iter == 0 or concrete(backends.namespace(status).all(status == status)) is None:
        return []
    host = backends.get(status).to_numpy(status)
    ends = {
        Status.MAX_ITER: f"did not converge in {max_iter} iteration{'s' * (max_iter > 1)}: raise max_iter or tol",
        Status.NON_FINITE: "met a number that is not finite, and ended before it: scale the data, or give a start "
        "under which every row is possible",
    }
    return [f"{_who(host == int(end))} {words}" for end, words in ends.items() if np.any(host == int(end))]


def described(fitted: Any, size: str, objective: str, marked: dict[str, Any] | None = None) -> str:
    """Return the repr of a fit: its size, its objective and how it ended; of a batch, how many converged.

    While a compiler is tracing nothing is known of the end.
    """
    status, batch = fitted.status, tuple(fitted.status.shape)
    fields = [f"{size}={getattr(fitted, size)}", *[f"batch={batch}"] * bool(batch)]
    if concrete(backends.namespace(status).all(status == status)) is not None:
        host, value = (backends.get(x).to_numpy(x) for x in (status, getattr(fitted, objective)))
        if np.all(np.isnan(value) & (host == int(Status.MAX_ITER))):
            fields.append("parameters given")
        elif batch:
            fields.append(f"{int(np.sum(host == int(Status.CONVERGED)))} of {host.size} converged")
        else:
            fields += [f"{objective}={figure(float(value))}", f"n_iter={int(fitted.n_iter)}"]
            fields.append(Status(int(host)).name.lower())
        if not batch:
            fields += [f"{name}={where}" for name, which in (marked or {}).items() if (where := places(which))]
    return f"{type(fitted).__name__}({', '.join(fields)})"


def figure(value: float, decimals: int = 6) -> str:
    """Return a number with so many decimals, or ten significant digits where it is very large.

    >>> figure(-1130.26396), figure(1e30)
    ('-1130.263960', '1e+30')
    """
    return f"{value:.{decimals}f}" if abs(value) < 1e12 else f"{value:.10g}"


def _who(which: np.ndarray) -> str:
    return f"{int(which.sum())} of {which.size} fits" if which.ndim else "the fit"


def lost(weights: Any) -> Any:
    """Whether components have no weight but for rounding, ``(..., k)``."""
    return weights <= eps(weights)


def places(which: Any) -> list[int]:
    """Return the components of one or more problems of which something holds, in order."""
    host = backends.get(which).to_numpy(which)
    return np.flatnonzero(host.reshape(-1, host.shape[-1]).any(axis=0)).tolist()
