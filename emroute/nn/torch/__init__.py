"""Capsule layers and networks for Torch."""

from emroute.nn.torch.matrix import ClassCapsules, ConvCapsules, MatrixPrimaryCapsules
from emroute.nn.torch.networks import CapsNet, MatrixCapsNet, load, save
from emroute.nn.torch.vector import Decoder, DynamicRouting, PrimaryCapsules

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
