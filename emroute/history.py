"""The trace of a fit: cut behind its end, and watched, for it must rise where steps and objective belong together."""

from __future__ import annotations

from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.array import concrete, constant, eps
from emroute.backend import Array
from emroute.errors import tell

__all__ = ["falls", "told", "trim"]


def falls(trace: Array) -> list[str]:
    """Return a remark where an objective falls by more than rounding, as far as values can be seen."""
    if concrete(backends.namespace(trace).any(trace == trace)) is None:
        return []
    host = backends.get(trace).to_numpy(trace)
    present = host[..., 1:] == host[..., 1:]
    slack = eps(trace) ** 0.5 * np.maximum(np.abs(host[..., 1:]), np.abs(host[..., :-1]))
    if not np.any(present & (host[..., :-1] - host[..., 1:] > slack)):
        return []
    return ["the objective falls: the model's maximize and objective do not belong to one likelihood; mend the model"]


def told(fit: Any) -> Any:
    """Return a fit, and warn if its objective falls."""
    tell(falls(fit.trace))
    return fit


def trim(fit: Any, max_iter: int) -> Any:
    """Cut the trace behind the longest run, or behind `max_iter` while a compiler is tracing and no length is known.

    Behind the end of each problem it is NaN.
    """
    backend = backends.get(fit.n_iter)
    xp = backend.namespace(fit.n_iter)
    if concrete(xp.any(fit.n_iter > 0)) is None:
        trace = fit.trace[..., : max_iter + 1]
        made = constant(np.arange(max_iter + 1), like=fit.n_iter) <= fit.n_iter[..., None]
        return fit._replace(trace=xp.where(made, trace, xp.nan))
    n_iter, trace = backend.to_numpy(fit.n_iter), backend.to_numpy(fit.trace)
    # on the host, for a slice of every length would be compiled anew
    made = np.arange(n_iter.max() + 1)
    trace = np.where(made <= n_iter[..., None], trace[..., : len(made)], np.nan).astype(trace.dtype)
    return fit._replace(trace=backend.from_numpy(trace, fit.trace))
