"""Capsule layers and networks for Flax NNX."""

from emroute.nn.flax.layers import (
    ClassCapsules,
    ConvCapsules,
    Decoder,
    DepthwisePrimaryCapsules,
    DynamicRouting,
    MatrixPrimaryCapsules,
    ObjectCapsules,
    PrimaryCapsules,
    SelfAttentionRouting,
    SetTransformer,
)
from emroute.nn.flax.networks import CapsNet, ConstellationNet, EfficientCapsNet, MatrixCapsNet, load, save

__all__ = [
    "CapsNet",
    "ClassCapsules",
    "ConstellationNet",
    "ConvCapsules",
    "Decoder",
    "DepthwisePrimaryCapsules",
    "DynamicRouting",
    "EfficientCapsNet",
    "MatrixCapsNet",
    "MatrixPrimaryCapsules",
    "ObjectCapsules",
    "PrimaryCapsules",
    "SelfAttentionRouting",
    "SetTransformer",
    "load",
    "save",
]
