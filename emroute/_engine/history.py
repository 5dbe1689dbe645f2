"""The trace of a fit: cut after its end, and checked, because it must not fall."""

from __future__ import annotations

from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import constant
from emroute.arrays.tracing import concrete
from emroute.errors import tell

__all__ = ["falls", "told", "trim"]


def falls(trace: np.ndarray) -> list[str]:
    """Return a remark if an objective falls by more than rounding, from its trace on the host."""
    present = trace[..., 1:] == trace[..., 1:]
    slack = np.finfo(trace.dtype).eps ** 0.5 * np.maximum(np.abs(trace[..., 1:]), np.abs(trace[..., :-1]))
    if not np.any(present & (trace[..., :-1] - trace[..., 1:] > slack)):
        return []
    return ["the objective falls: maximize does not increase the objective of this model; correct one of them"]


def told(fit: Any) -> Any:
    """Return a fit, and warn if its objective falls, if values are known."""
    backend = backends.get(fit.n_iter)
    if concrete(backend.namespace(fit.n_iter).any(fit.n_iter > 0)) is not None:
        tell(falls(backend.to_numpy(fit.trace)))
    return fit


def trim(fit: Any, max_iter: int) -> Any:
    """Cut the trace after the longest run, or after `max_iter` while a compiler is tracing.

    After the end of each problem it is NaN.
    """
    backend = backends.get(fit.n_iter)
    xp = backend.namespace(fit.n_iter)
    if concrete(xp.any(fit.n_iter > 0)) is None:
        trace = fit.trace[..., : max_iter + 1]
        made = constant(np.arange(max_iter + 1), like=fit.n_iter) <= fit.n_iter[..., None]
        return fit._replace(trace=xp.where(made, trace, xp.nan))
    n_iter, trace = backend.to_numpy(fit.n_iter), backend.to_numpy(fit.trace)
    # on the host, because a slice of every length would be compiled again
    made = np.arange(n_iter.max() + 1)
    trace = np.where(made <= n_iter[..., None], trace[..., : len(made)], np.nan).astype(trace.dtype)
    return fit._replace(trace=backend.from_numpy(trace, fit.trace))
