"""Routings and losses; NumPy itself says what is right, as our tests against the equations do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from emroute import capsule
from emroute.backend import Array
from emroute.nn import (
    CapsuleOutput,
    ConstellationOutput,
    Objects,
    capsnet_loss,
    constellation_loss,
    matrix_capsnet_loss,
)
from emroute.testing.cases.case import Case, Draw, normal, positive

__all__ = ["ROUTINGS"]


def _with_activations(*shapes: tuple[int, ...], children: tuple[int, ...], parents: int) -> Draw:
    """Normal arrays, activations of the children inside (0, 1), and both costs."""

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        costs = rng.standard_normal((2, parents))
        return (*normal(*shapes)(rng), rng.uniform(0.2, 0.8, children), costs[0], costs[1])

    return draw


def _ladder(rng: np.random.Generator) -> tuple[Any, ...]:
    """Poses, and means, variances and weights of their parents."""
    poses, means = normal((2, 5, 3), (2, 4, 3))(rng)
    return poses, (means, rng.uniform(0.5, 2, (2, 4, 3)), rng.uniform(0.2, 0.8, (2, 4)))


def _lengths(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of class capsules away from the margins, and labels."""
    return rng.uniform(0.2, 0.8, (6, 4)), rng.integers(0, 4, 6)


def _outputs(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """What a capsule network returns, its images, and labels."""
    lengths, labels = _lengths(rng)
    return rng.standard_normal((6, 4, 3)), lengths, *rng.uniform(size=(2, 6, 1, 2, 2)), labels


def _tweaked(poses: Array) -> Array:
    return capsule.tweak_poses(poses, steps=(-0.5, 0.25))


def _losses(loss: Callable[..., Array]) -> Callable[..., Any]:
    return lambda *arrays: [loss(*arrays, reduction=reduction) for reduction in ("mean", "sum", "none")]


def _network_loss(loss: Callable[..., Array]) -> Callable[..., Any]:
    """Of a network with a decoder, and of one without."""

    def run(poses: Array, lengths: Array, drawn: Array, images: Array, labels: Array) -> list[Array]:
        return [loss(CapsuleOutput(poses, lengths, seen), images, labels) for seen in (drawn, None)]

    return run


def _ladder_steps(poses: Array, start: tuple[Array, ...]) -> Any:
    return capsule.gmm_routing(poses, start, prior="cost", summed=True, n_iter=2, return_path=True)


def _from_poses(poses: Array, transforms: Array, activations: Array, beta_u: Array, beta_a: Array) -> Any:
    return capsule.em_routing_from_poses(poses, transforms, activations, beta_u, beta_a, n_iter=2)


def _conv(poses: Array, transforms: Array, activations: Array, beta_u: Array, beta_a: Array) -> Any:
    return capsule.conv_em_routing(poses, activations, transforms, beta_u, beta_a, padding=1, stride=2, n_iter=2)


def _classes(poses: Array, transforms: Array, activations: Array, beta_u: Array, beta_a: Array) -> Any:
    return capsule.class_em_routing(poses, activations, transforms, beta_u, beta_a, n_iter=2)


def _conv_variational(poses: Array, transforms: Array, activations: Array, beta_u: Array, beta_a: Array) -> Any:
    return capsule.conv_variational_routing(poses, activations, transforms, beta_u, beta_a, padding=1, n_iter=2)


def _class_variational(poses: Array, transforms: Array, activations: Array, beta_u: Array, beta_a: Array) -> Any:
    return capsule.class_variational_routing(poses, activations, transforms, beta_u, beta_a, n_iter=2)


def _self_grid(*kernel: int) -> Draw:
    """Poses and activations of a grid, and what children choose and vote by."""
    learned = normal((*kernel, 2, 3, 4), (*kernel, 2, 3), (*kernel, 2, 3, 4, 4))

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        return *normal((1, 3, 4, 2, 2, 2))(rng), rng.uniform(0.2, 0.8, (1, 3, 4, 2)), *learned(rng)

    return draw


def _starved(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Votes for two parents of which one, agreed upon, takes all children: log-shares of the other are about -110."""
    votes = rng.standard_normal((3, 2, 32)) * np.asarray([0.002, 1.0])[:, None]
    return votes, rng.uniform(0.5, 1, 3), np.zeros(2), np.zeros(2)


def _far(rng: np.random.Generator) -> tuple[Any, ...]:
    """Poses, and means of which the last is so far from all that its log-shares are about -300."""
    means = 0.2 * rng.standard_normal((3, 3)) + np.asarray([0.0, 0.0, 15.0])[:, None]
    return 0.2 * rng.standard_normal((6, 3)), (means, np.ones((3, 3)), np.full(3, 0.3))


def _self(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Poses of vectors, activations of the children, and what they choose and vote by."""
    poses, weights, bias, transforms = normal((2, 5, 3), (5, 3, 3), (5, 3), (5, 3, 3, 2))(rng)
    return poses, rng.uniform(0.2, 0.8, (2, 5)), weights, bias, transforms


def _heinsen(x: Array, parameters: tuple[Array, ...]) -> Any:
    return capsule.heinsen_routing(x, capsule.HeinsenParameters(*parameters))


def _sequence(rng: np.random.Generator) -> tuple[Any, ...]:
    """Vectors, and the parameters of Heinsen's routing."""
    shapes = (4, 3), (4,), (2, 3), (3, 5), (2, 5), (5, 3), (2, 3), (2, 3), (4, 2), (4, 2), (4, 2), (4, 2)
    return *normal((2, 4, 3))(rng), normal(*shapes)(rng)


def _shares(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Votes, activations of the children, and assignments that sum to 1."""
    shares = rng.uniform(0.2, 0.8, (2, 5, 3))
    return *normal((2, 5, 3, 4))(rng), rng.uniform(0.2, 0.8, (2, 5)), shares / shares.sum(axis=-1, keepdims=True)


def _points(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Points, votes, scales, log-weights and presence."""
    points, votes, log_weights = normal((2, 5, 3), (2, 4, 3), (2, 4))(rng)
    return points, votes, rng.uniform(0.5, 2, (2, 4)), log_weights, rng.uniform(0.2, 0.8, (2, 5))


def _constellation(*arrays: Array) -> Any:
    return capsule.mixture_likelihood(*arrays[:4], presence=arrays[4], dummy=(0.01, 0.01))


def _found(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """What a constellation autoencoder finds: log-probabilities, responsibilities, logits, log-weights, changes."""
    log_prob, logits, log_weights, changes = normal((2, 5), (2, 3), (2, 3, 4), (2, 3, 4, 6))(rng)
    shares, presence = positive((2, 5, 3), (2, 5))(rng)
    return log_prob, shares, logits, -np.abs(log_weights), changes, presence


def _of_constellations(*arrays: Array) -> Array:
    log_prob, shares, logits, log_weights, changes, presence = arrays
    objects = Objects(logits, log_weights, logits, logits, logits, changes)
    return constellation_loss(ConstellationOutput(log_prob, shares, objects), presence)


def _warped(templates: Array, raw: Array) -> Array:
    return capsule.warp(templates, capsule.affine_poses(0.5 * raw), (4, 5))


def _small(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    return (0.03 * rng.standard_normal((5, 3, 4)),)


_VOTES = _with_activations((2, 5, 3, 4), children=(2, 5), parents=3)
_POSES = _with_activations((2, 5, 2, 2), (5, 3, 2, 2), children=(2, 5), parents=3)
_GRID_SHAPES = (1, 3, 4, 2, 2, 2), (3, 3, 2, 3, 2, 2)
_GRID = _with_activations(*_GRID_SHAPES, children=(1, 3, 4, 2), parents=3)
_CLASSES = _with_activations((1, 2, 3, 2, 2, 2), (2, 3, 2, 2), children=(1, 2, 3, 2), parents=3)
_GRID_TO_CLASSES = normal((1, 3, 4, 2, 2, 2), (2, 3, 2, 2))
_IMAGES = normal((2, 12), (2, 2, 2, 3))

ROUTINGS = (
    Case("capsule.squash", capsule.squash, lambda rng: (1e25 * rng.normal(size=(5, 3)),), smooth=False, variant="long"),
    Case("capsule.squash", capsule.squash, normal((5, 3))),
    Case("capsule.vote", capsule.vote, normal((2, 3, 2, 2), (3, 4, 2, 2))),
    Case("capsule.coordinate_addition", capsule.coordinate_addition, normal((2, 3, 2, 2, 4))),
    Case(
        "capsule.coordinate_addition",
        partial(capsule.coordinate_addition, entries=(1, 3), coordinates=((0.3, 0.6), (0.1, 0.5, 0.7))),
        normal((2, 3, 2, 2, 4)),
        variant="given places",
    ),
    Case("capsule.dynamic_routing", capsule.dynamic_routing, normal((2, 5, 3, 4))),
    Case("capsule.kmeans_routing", capsule.kmeans_routing, normal((2, 5, 3, 4))),
    Case("capsule.kmeans_routing", capsule.kmeans_routing, _small, variant="small"),
    Case("capsule.em_routing", capsule.em_routing, _VOTES),
    Case("capsule.em_routing", partial(capsule.em_routing, cost="normalized", n_iter=2), _VOTES, variant="normalized"),
    Case("capsule.em_routing", partial(capsule.em_routing, n_iter=2, epsilon=1e-3), _starved, variant="starved"),
    Case("capsule.em_routing", partial(capsule.em_routing, covariance="full", epsilon=0.1), _VOTES, variant="full"),
    Case("capsule.variational_routing", capsule.variational_routing, _VOTES),
    Case(
        "capsule.variational_routing",
        partial(capsule.variational_routing, covariance="full", n_iter=2),
        _VOTES,
        variant="full",
    ),
    Case("capsule.variational_bound", capsule.variational_bound, _shares),
    Case("capsule.attention_routing", capsule.attention_routing, normal((2, 5, 3, 4))),
    Case("capsule.self_routing", capsule.self_routing, _self),
    Case("capsule.self_attention_routing", capsule.self_attention_routing, normal((2, 5, 3, 4), (5, 3))),
    Case("capsule.heinsen_routing", _heinsen, _sequence),
    Case("capsule.heinsen_matrix_routing", capsule.heinsen_matrix_routing, normal((2, 5, 3, 4), (2, 5), *2 * [(5, 3)])),
    Case("capsule.exponential_squash", capsule.exponential_squash, normal((5, 3))),
    Case("capsule.mixture_likelihood", _constellation, _points),
    Case("capsule.affine_poses", capsule.affine_poses, normal((2, 6))),
    Case("capsule.compose_poses", capsule.compose_poses, normal((2, 2, 3), (2, 2, 3))),
    Case("capsule.warp", _warped, normal((2, 3, 4), (2, 6))),
    Case("capsule.sparsity", partial(capsule.sparsity, n_classes=2), positive((3, 4))),
    Case("capsule.sparsity", partial(capsule.sparsity, kind="entropy"), positive((3, 4)), variant="entropy"),
    Case("capsule.em_routing_from_poses", _from_poses, _POSES),
    Case("capsule.gmm_routing", _ladder_steps, _ladder),
    Case("capsule.gmm_routing", partial(capsule.gmm_routing, n_iter=1), _far, variant="far"),
    Case("capsule.conv_em_routing", _conv, _GRID),
    Case("capsule.conv_dynamic_routing", capsule.conv_dynamic_routing, normal(*_GRID_SHAPES)),
    Case("capsule.class_em_routing", _classes, _CLASSES),
    Case("capsule.conv_variational_routing", _conv_variational, _GRID),
    Case("capsule.class_variational_routing", _class_variational, _CLASSES),
    Case("capsule.conv_attention_routing", capsule.conv_attention_routing, normal(*_GRID_SHAPES)),
    Case("capsule.class_attention_routing", capsule.class_attention_routing, _GRID_TO_CLASSES),
    Case("capsule.conv_self_routing", capsule.conv_self_routing, _self_grid(2, 2)),
    Case("capsule.class_self_routing", capsule.class_self_routing, _self_grid()),
    Case("capsule.margin_loss", _losses(capsule.margin_loss), _lengths),
    Case("capsule.spread_loss", _losses(capsule.spread_loss), _lengths),
    Case("capsule.reconstruction_loss", _losses(capsule.reconstruction_loss), normal((2, 6), (2, 2, 3))),
    Case("capsule.mask_capsules", capsule.mask_capsules, normal((5, 3, 4))),
    Case("capsule.tweak_poses", _tweaked, normal((2, 3))),
    Case("nn.constellation_loss", _of_constellations, _found),
    Case("nn.capsnet_loss", _network_loss(capsnet_loss), _outputs),
    Case("nn.matrix_capsnet_loss", _network_loss(matrix_capsnet_loss), _outputs),
)
"""What `emroute.capsule` holds, and the losses of `emroute.nn`."""
