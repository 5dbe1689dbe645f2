"""Algorithms that find structure by agreement, once for NumPy, CuPy, Torch and JAX arrays."""

import importlib
from types import ModuleType

from emroute import (
    backend,
    binomial,
    capsule,
    categorical,
    datasets,
    em,
    errors,
    gmm,
    kmeans,
    multinomial,
    nn,
    plot,
    poisson,
    select,
    student_t,
    testing,
    von_mises_fisher,
)
from emroute.errors import EmrouteError, FitWarning

__all__ = [
    "EmrouteError",
    "FitWarning",
    "backend",
    "binomial",
    "capsule",
    "categorical",
    "datasets",
    "em",
    "errors",
    "gmm",
    "kmeans",
    "multinomial",
    "nn",
    "plot",
    "poisson",
    "select",
    "student_t",
    "testing",
    "von_mises_fisher",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    """Load what needs a framework when it is first asked for."""
    if name == "sklearn":
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
