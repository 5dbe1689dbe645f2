"""Capsule layers and networks for Flax NNX."""

from emroute.nn.flax.layers import (
    ClassCapsules,
    ConvCapsules,
    Decoder,
    DepthwisePrimaryCapsules,
    DynamicRouting,
    MatrixPrimaryCapsules,
    PrimaryCapsules,
    SelfAttentionRouting,
)
from emroute.nn.flax.networks import CapsNet, EfficientCapsNet, MatrixCapsNet, load, save

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
