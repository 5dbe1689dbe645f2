"""Constellations: a stacked capsule autoencoder of points alone (Kosiorek et al. 2019, section 3.1)."""

from __future__ import annotations

import math
from types import ModuleType
from typing import ClassVar, NamedTuple, Unpack

from emroute import backend as backends
from emroute.arrays.functions import log_sigmoid
from emroute.backend import Array, namespace
from emroute.capability import Capabilities
from emroute.capsule import mixture_likelihood, sparsity
from emroute.capsule.checks import for_statistics
from emroute.errors import InputError
from emroute.nn.layer import Layer, Where
from emroute.nn.objects import Objects
from emroute.nn.weights import network_arguments

__all__ = ["ConstellationNet", "ConstellationOutput", "constellation_loss"]

_DUMMY = (0.01, 0.01)  # weight and density of what is no object's


class ConstellationOutput(NamedTuple):
    """What a `ConstellationNet` found in points."""

    log_prob: Array
    """``(B, P)``: of each point that is there."""
    responsibilities: Array
    """``(B, P, K)``: of the objects for the points."""
    objects: Objects


class ConstellationNet(Layer):
    """Points to objects, by a set transformer, and objects to the points that they vote for.

    Parameters
    ----------
    n_objects, n_votes
        K objects, and for how many points each votes.
    features, out_features, n_layers, n_heads
        Of the `SetTransformer`.
    similarity
        Objects are rotated and scaled, not sheared.

    References
    ----------
    Kosiorek, A. R., Sabour, S., Teh, Y. W. and Hinton, G. E. (2019). Stacked capsule autoencoders. NeurIPS. Section
    3.1.
    """

    _layers: ClassVar[ModuleType]

    def __init__(
        self,
        n_objects: int = 3,
        n_votes: int = 4,
        *,
        features: int = 128,
        out_features: int = 32,
        n_layers: int = 4,
        n_heads: int = 4,
        similarity: bool = True,
        **where: Unpack[Where],
    ) -> None:
        super().__init__(**where)
        self.arguments = network_arguments(locals())
        depth = {"n_layers": n_layers, "n_heads": n_heads}
        self.encoder = self._layers.SetTransformer(2, features, out_features, n_objects, **depth, **where)
        self.objects = self._layers.ObjectCapsules(n_objects, n_votes, out_features, similarity=similarity, **where)

    def forward(
        self, points: Array, presence: Array | None = None, noise: tuple[Array, Array] | None = None
    ) -> ConstellationOutput:
        """Find objects in points ``(B, P, 2)`` of presence ``(B, P)``; noise is as of `ObjectCapsules`."""
        if len(points.shape) != 3 or points.shape[-1] != 2:
            raise InputError(f"points have shape {tuple(points.shape)}, expected (B, P, 2)")
        xp, objects = namespace(points), self.objects(self.encoder(points, presence), noise)
        b, k, n = objects.scales.shape
        votes = xp.reshape(objects.votes[..., 2], (b, k * n, 2))
        flat = [xp.reshape(x, (b, k * n)) for x in (objects.scales, objects.log_weights)]
        found = mixture_likelihood(points, votes, *flat, presence=presence, dummy=_DUMMY)
        shares = xp.reshape(found.responsibilities, (*points.shape[:2], k, n))
        return ConstellationOutput(found.log_prob, xp.sum(shares, axis=-1), objects)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def constellation_loss(output: ConstellationOutput, presence: Array, *, n_classes: int = 2) -> Array:
    """Loss of a `ConstellationNet`: minus the log-likelihood of points, sparsity, and an object's evidence.

    An object that wins points learns to be there if it wins more than one. Changes of parts are kept small.

    Parameters
    ----------
    output
        What the network returned.
    presence
        Of the points, ``(B, P)``, or of several axes of examples, ``(..., P)``.
    n_classes
        As of `emroute.capsule.sparsity`.

    Returns
    -------
    Array
        A scalar.

    Examples
    --------
    >>> import torch
    >>> from emroute.nn.torch import ConstellationNet
    >>> points, presence = torch.zeros(2, 5, 2), torch.ones(2, 5)
    >>> constellation_loss(ConstellationNet(features=8, out_features=8)(points, presence), presence).shape
    torch.Size([])
    """
    xp, b, objects = namespace(presence), math.prod(presence.shape[:-1]), output.objects
    arrays = (presence, output.log_prob, output.responsibilities, objects.logits, objects.presence, objects.changes)
    there, log_prob, shares, logits, used, changes = for_statistics(presence, *arrays)
    within, between = sparsity(xp.reshape(used, (b, -1)), "l2", n_classes=n_classes)
    best = backends.get(shares).detach(shares) >= backends.get(shares).detach(xp.max(shares, axis=-1, keepdims=True))
    wins = xp.sum(xp.astype(best, shares.dtype) * there[..., None], axis=-2)
    enough, some = (xp.astype(wins > least, shares.dtype) for least in (1, 0))
    evidence = -some * (enough * log_sigmoid(logits) + (1 - enough) * log_sigmoid(-logits))
    each = -xp.sum(log_prob) + 5 * xp.sum(changes**2) + 10 * xp.sum(evidence)
    return xp.astype(each / b + within + between, presence.dtype, copy=False)
