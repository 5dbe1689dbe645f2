"""Capsule layers and networks for Flax NNX."""

from emroute.nn.flax.layers import (
    ClassCapsules,
    ConvCapsules,
    Decoder,
    DynamicRouting,
    MatrixPrimaryCapsules,
    PrimaryCapsules,
)
from emroute.nn.flax.networks import CapsNet, MatrixCapsNet, load, save

__all__ = [
    "CapsNet",
    "ClassCapsules",
    "ConvCapsules",
    "Decoder",
    "DynamicRouting",
    "MatrixCapsNet",
    "MatrixPrimaryCapsules",
    "PrimaryCapsules",
    "load",
    "save",
]
