"""Capsule layers and networks for Flax NNX."""

from emroute.nn.flax.matrix import ClassCapsules, ConvCapsules, MatrixPrimaryCapsules
from emroute.nn.flax.networks import CapsNet, MatrixCapsNet, load, save
from emroute.nn.flax.vector import Decoder, DynamicRouting, PrimaryCapsules

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
