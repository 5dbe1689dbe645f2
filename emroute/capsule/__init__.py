"""Routing between capsules: children vote for the poses of parents, and belong to those with which they agree."""

from emroute.capsule.classes import class_em_routing
from emroute.capsule.conv import conv_dynamic_routing, conv_em_routing
from emroute.capsule.dynamic import dynamic_routing, kmeans_routing
from emroute.capsule.em import em_routing, em_routing_from_poses
from emroute.capsule.losses import (
    margin_loss,
    reconstruction_loss,
    spread_loss,
    spread_margin,
)
from emroute.capsule.masks import mask_capsules, tweak_poses
from emroute.capsule.mixture import gmm_routing
from emroute.capsule.routing import Routing
from emroute.capsule.votes import coordinate_addition, squash, vote

__all__ = [
    "Routing",
    "class_em_routing",
    "conv_dynamic_routing",
    "conv_em_routing",
    "coordinate_addition",
    "dynamic_routing",
    "em_routing",
    "em_routing_from_poses",
    "gmm_routing",
    "kmeans_routing",
    "margin_loss",
    "mask_capsules",
    "reconstruction_loss",
    "spread_loss",
    "spread_margin",
    "squash",
    "tweak_poses",
    "vote",
]
