"""Algorithms that find structure by agreement, once for NumPy, CuPy, Torch and JAX arrays."""

from emroute import backend, binomial, em, errors, gmm, kmeans, multinomial, poisson
from emroute.errors import EmrouteError

__all__ = ["EmrouteError", "backend", "binomial", "em", "errors", "gmm", "kmeans", "multinomial", "poisson"]

__version__ = "0.1.0"
