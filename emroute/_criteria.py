"""Information criteria of fitted mixtures, which gain nothing from how low the floor of the covariances is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute._engine.once import once
from emroute.backend import Array
from emroute.gmm import GaussianMixture
from emroute.gmm.model import GaussianModel
from emroute.remarks import places

__all__ = ["CRITERIA", "criteria_of", "varying"]

CRITERIA = ("bic", "aic", "icl")


def varying(x: Array) -> Array | None:
    """Return the places of the features that vary; None where all do, or none."""
    xp, backend = backends.namespace(x), backends.get(x)
    least, most = (backend.to_numpy(find(x, axis=0)) for find in (xp.min, xp.max))
    if np.isnan(least).any():  # gaps
        ends = ((xp.min, xp.inf), (xp.max, -xp.inf))
        least, most = (backend.to_numpy(find(xp.where(xp.isnan(x), end, x), axis=0)) for find, end in ends)
    vary = np.flatnonzero(least < most)
    return backend.from_numpy(vary, x) if 0 < len(vary) < x.shape[-1] else None


def criteria_of(mixture: Any, *data: Array, sample_weight: Array | None, names: Any = CRITERIA) -> dict[str, float]:
    """Return criteria by name. Gaussians on their floor are widened, and features that do not vary are left out."""
    if isinstance(mixture, GaussianMixture):
        (x,) = data
        vary = varying(x)
        mixture, data = _honest(mixture, vary), (x if vary is None else backends.namespace(x).take(x, vary, axis=-1),)
    return {name: float(getattr(mixture, name)(*data, sample_weight=sample_weight)) for name in names}


def _honest(mixture: GaussianMixture, vary: Array | None) -> GaussianMixture:
    """Return the mixture that gains nothing from its floor: widened, and of the features that vary."""
    mixture = mixture.widened() if places(mixture.floored) else mixture
    if vary is None:
        return mixture
    marginal = once(backends.get(vary), GaussianModel.marginal, mixture.model)
    return replace(mixture, params=marginal(mixture.params, vary))
