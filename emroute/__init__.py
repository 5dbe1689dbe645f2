"""Algorithms that find structure by agreement, once for NumPy, CuPy, Torch and JAX arrays."""

from emroute import (
    backend,
    binomial,
    capsule,
    datasets,
    em,
    errors,
    gmm,
    kmeans,
    multinomial,
    plot,
    poisson,
    select,
    testing,
)
from emroute.errors import EmrouteError

__all__ = [
    "EmrouteError",
    "backend",
    "binomial",
    "capsule",
    "datasets",
    "em",
    "errors",
    "gmm",
    "kmeans",
    "multinomial",
    "plot",
    "poisson",
    "select",
    "testing",
]

__version__ = "0.1.0"
