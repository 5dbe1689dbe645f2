"""Routing between capsules: children vote for the poses of parents, and belong to those with which they agree."""

from emroute.capsule.affine import affine_poses, compose_poses, warp
from emroute.capsule.attention import attention_routing
from emroute.capsule.classes import class_em_routing
from emroute.capsule.conv import conv_dynamic_routing, conv_em_routing
from emroute.capsule.dynamic import dynamic_routing, kmeans_routing
from emroute.capsule.em import em_routing, em_routing_from_poses
from emroute.capsule.grid_routings import (
    class_attention_routing,
    class_variational_routing,
    conv_attention_routing,
    conv_variational_routing,
)
from emroute.capsule.grid_self_routing import class_self_routing, conv_self_routing
from emroute.capsule.heinsen import Credited, HeinsenParameters, heinsen_routing
from emroute.capsule.heinsen_matrix import heinsen_matrix_routing
from emroute.capsule.likelihood import Likelihood, mixture_likelihood
from emroute.capsule.losses import (
    margin_loss,
    reconstruction_loss,
    spread_loss,
    spread_margin,
)
from emroute.capsule.masks import mask_capsules, tweak_poses
from emroute.capsule.mixture import gmm_routing
from emroute.capsule.posteriors import Prior
from emroute.capsule.routing import Routing
from emroute.capsule.self_attention import self_attention_routing
from emroute.capsule.self_routing import self_routing
from emroute.capsule.sparsity import Sparsity, sparsity
from emroute.capsule.variational import variational_bound, variational_routing
from emroute.capsule.votes import coordinate_addition, exponential_squash, squash, vote

__all__ = [
    "Credited",
    "HeinsenParameters",
    "Likelihood",
    "Prior",
    "Routing",
    "Sparsity",
    "affine_poses",
    "attention_routing",
    "class_attention_routing",
    "class_em_routing",
    "class_self_routing",
    "class_variational_routing",
    "compose_poses",
    "conv_attention_routing",
    "conv_dynamic_routing",
    "conv_em_routing",
    "conv_self_routing",
    "conv_variational_routing",
    "coordinate_addition",
    "dynamic_routing",
    "em_routing",
    "em_routing_from_poses",
    "exponential_squash",
    "gmm_routing",
    "heinsen_matrix_routing",
    "heinsen_routing",
    "kmeans_routing",
    "margin_loss",
    "mask_capsules",
    "mixture_likelihood",
    "reconstruction_loss",
    "self_attention_routing",
    "self_routing",
    "sparsity",
    "spread_loss",
    "spread_margin",
    "squash",
    "tweak_poses",
    "variational_bound",
    "variational_routing",
    "vote",
    "warp",
]
