"""Capsule layers and networks for Torch."""

from emroute.nn.torch.layers import (
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
from emroute.nn.torch.networks import CapsNet, ConstellationNet, EfficientCapsNet, MatrixCapsNet, load, save

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
