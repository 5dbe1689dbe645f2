"""Capsule layers and networks for Torch."""

from emroute.nn.torch.layers import (
    ClassCapsules,
    ConvCapsules,
    Decoder,
    DynamicRouting,
    MatrixPrimaryCapsules,
    PrimaryCapsules,
)
from emroute.nn.torch.networks import CapsNet, MatrixCapsNet, load, save

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
