"""Options of the command line, by name."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["CovarianceType", "Criterion", "Dtype", "Family", "Format", "Missing"]


class Family(StrEnum):
    """What can be fitted from the command line."""

    gmm = "gmm"
    kmeans = "kmeans"
    binomial = "binomial"


class CovarianceType(StrEnum):
    """Of a Gaussian mixture."""

    full = "full"
    tied = "tied"
    diag = "diag"
    spherical = "spherical"
    EII = "EII"
    VII = "VII"
    EEI = "EEI"
    VEI = "VEI"
    EVI = "EVI"
    VVI = "VVI"
    EEE = "EEE"
    VEE = "VEE"
    EVE = "EVE"
    VVE = "VVE"
    EEV = "EEV"
    VEV = "VEV"
    EVV = "EVV"
    VVV = "VVV"
    all = "all"


class Criterion(StrEnum):
    """By which the number of components is chosen."""

    bic = "bic"
    aic = "aic"
    icl = "icl"


class Dtype(StrEnum):
    """Of the fit."""

    float32 = "float32"
    float64 = "float64"


class Format(StrEnum):
    """Of a saved mixture."""

    npz = "npz"
    safetensors = "safetensors"


class Missing(StrEnum):
    """What empty cells and NaN are."""

    refuse = "refuse"
    marginalize = "marginalize"
