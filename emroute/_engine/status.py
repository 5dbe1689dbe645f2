"""How fits end, and how that is told."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.arrays.tracing import concrete

__all__ = ["Status", "described", "figure", "places"]


class Status(IntEnum):
    """How a fit ended."""

    CONVERGED = 0
    """The objective changed by no more than `tol`."""
    MAX_ITER = 1
    """The fit made `max_iter` iterations and was still improving."""
    NON_FINITE = 2
    """The next step would have led to NaN or infinity; the parameters are those before it."""


def described(fitted: Any, objective: str, size: str = "", marked: Callable[[], dict[str, Any]] = dict) -> str:
    """Return the repr of a fit: its size, its objective and how it ended; of a batch, how many converged.

    Parameters
    ----------
    fitted
        Anything with `status`, `n_iter` and the two members that are named next.
    objective, size
        Names of members. The objective is NaN where parameters were given and nothing was fitted.
    marked
        What a user should know of single components, truth values ``(k,)`` by name.
    """
    status, batch = fitted.status, tuple(fitted.status.shape)
    fields = [f"{size}={getattr(fitted, size)}"] if size else []
    fields += [f"batch={batch}"] if batch else []
    if concrete(backends.namespace(status).all(status == status)) is not None:  # while a compiler traces, none is known
        host, value = (backends.get(x).to_numpy(x) for x in (status, getattr(fitted, objective)))
        if np.all(np.isnan(value) & (host == int(Status.MAX_ITER))):
            fields.append("parameters given")
        elif batch:
            fields.append(f"{int(np.sum(host == int(Status.CONVERGED)))} of {host.size} converged")
        else:
            fields += [f"{objective}={figure(float(value))}", f"n_iter={int(fitted.n_iter)}"]
            fields.append(Status(int(host)).name.lower())
        if not batch:
            fields += [f"{name}={where}" for name, which in marked().items() if (where := places(which))]
    return f"{type(fitted).__name__}({', '.join(fields)})"


def figure(value: float, decimals: int = 6) -> str:
    """Return a number with so many decimals, or ten significant digits where it is very large.

    >>> figure(-1130.26396), figure(1e30)
    ('-1130.263960', '1e+30')
    """
    return f"{value:.{decimals}f}" if abs(value) < 1e12 else f"{value:.10g}"


def places(which: Any) -> list[int]:
    """Return the components of one or more problems of which something holds, in order."""
    host = backends.get(which).to_numpy(which)
    return np.flatnonzero(host.reshape(-1, host.shape[-1]).any(axis=0)).tolist()
