"""Families of distributions, and what their mixtures share; to write a family, subclass `Family`."""

from emroute.arrays.creation import as_integers, as_real
from emroute.arrays.distances import distances, nearest
from emroute.arrays.functions import ratio
from emroute.mixtures.family import Family, is_count
from emroute.mixtures.model import FamilyModel, Nearest, Statistics
from emroute.mixtures.posterior import posterior, share

__all__ = [
    "Family",
    "FamilyModel",
    "Nearest",
    "Statistics",
    "as_integers",
    "as_real",
    "distances",
    "is_count",
    "nearest",
    "posterior",
    "ratio",
    "share",
]
