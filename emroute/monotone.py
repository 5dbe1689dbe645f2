"""Whether an objective rises, as it must where a model's steps and its objective belong together."""

from __future__ import annotations

from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.array import concrete, eps
from emroute.backend import Array
from emroute.errors import tell

__all__ = ["falls", "told"]


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
