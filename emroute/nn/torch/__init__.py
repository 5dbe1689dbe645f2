"""Capsule layers and networks for Torch."""

from emroute.nn.torch.layers import (
    ClassCapsules,
    ConvCapsules,
    Decoder,
    DepthwisePrimaryCapsules,
    DynamicRouting,
    MatrixPrimaryCapsules,
    PrimaryCapsules,
    SelfAttentionRouting,
)
from emroute.nn.torch.networks import CapsNet, EfficientCapsNet, MatrixCapsNet, load, save

__all__ = [
    "CapsNet",
    "ClassCapsules",
    "ConvCapsules",
    "Decoder",
    "DepthwisePrimaryCapsules",
    "DynamicRouting",
    "EfficientCapsNet",
    "MatrixCapsNet",
    "MatrixPrimaryCapsules",
    "PrimaryCapsules",
    "SelfAttentionRouting",
    "load",
    "save",
]
