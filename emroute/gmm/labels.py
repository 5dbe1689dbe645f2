"""Rows whose components are known, or known in part: labels, and probabilities of the components.

A labelled row answers for its own component alone, and adds log w_y N(x | y) to the objective in place of the
logarithm of the sum. Probabilities p_nk multiply w_k N(x_n | k).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute._engine.once import once
from emroute.arrays.creation import one_hot
from emroute.arrays.distances import nearest
from emroute.backend import Array, is_array
from emroute.data import Rows, Stream
from emroute.errors import InputError
from emroute.family import Nearest, Statistics
from emroute.gmm.model import GaussianModel, log_known
from emroute.gmm.params import Params

__all__ = ["Informed", "labelled", "labelled_means", "read_labels"]


def read_labels(labels: Any, source: Rows | Stream, k: int) -> Array | None:
    """Return labels ``(..., n)`` as integers, or probabilities ``(..., n, k)``, for all rows in memory.

    Raises
    ------
    InputError
        If they are neither, or the data are a stream.
    """
    if labels is None:
        return None
    if isinstance(source, Stream):
        raise InputError("labels go with rows in memory, not with a source of chunks")
    (x,), n, surplus = source.arrays, source.n, source.surplus or 0
    backend = backends.get(x, labels) if is_array(labels) else backends.get(x)
    try:
        host = np.asarray(backend.to_numpy(labels) if is_array(labels) else labels)
    except ValueError:  # of lists of different lengths
        raise InputError("labels cannot be read as an array") from None
    if host.dtype.kind not in "iuf":
        raise InputError(f"labels have dtype {host.dtype}, expected integers, or probabilities in floating point")
    hard = host.dtype.kind in "iu"
    shape = (*source.batch, n) if hard else (*source.batch, n, k)
    try:
        if host.ndim < 1 + (not hard):
            raise ValueError
        host = np.broadcast_to(host, shape)
    except ValueError:
        raise InputError(
            f"labels have shape {host.shape} and dtype {host.dtype}, expected integers {(n,)}, with -1 where they are "
            f"unknown, or probabilities {(n, k)} in floating point"
        ) from None
    if hard and not ((host >= -1) & (host < k)).all():
        raise InputError(f"labels must be 0 to {k - 1}, or -1 where they are unknown")
    if not hard and not ((host >= 0).all() and np.isfinite(host).all() and (host.sum(axis=-1) > 0).all()):
        raise InputError("probabilities of components must be finite, not negative, and not all 0 in a row")
    width = [(0, surplus if axis == len(source.batch) else 0) for axis in range(host.ndim)]
    return backend.from_numpy(np.pad(host, width, "edge"), x)


@dataclass(frozen=True)
class Informed(Nearest):
    """The start of a fit with labels: known rows go to their components, the others to the nearest point."""

    def expect(self, params: tuple[Any, Array], data: tuple[Array, Array], sample_weight: Array) -> Statistics:
        """Statistics under these assignments."""
        (start, seeds), (x, known) = params, data
        shares, told = _shares(known, seeds[..., 0])
        drawn = one_hot(nearest(self.model.points(start, x), seeds), seeds.shape[-2], like=seeds)
        xp = backends.namespace(seeds)
        shares = xp.where(told, shares / xp.sum(shares, axis=-2, keepdims=True), drawn) * sample_weight[..., None, :]
        return self.model.gather(start, x, shares, 0 * shares[..., 0, 0])


def _shares(known: Array, like: Array) -> tuple[Array, Array]:
    """Return probabilities of the components ``(..., k, n)``, and whether they tell anything, ``(..., 1, n)``."""
    xp, shares = backends.namespace(like), backends.namespace(like).exp(log_known(known, like))
    return shares, xp.max(shares, axis=-2, keepdims=True) > xp.min(shares, axis=-2, keepdims=True)


def labelled(rows: Rows, known: Array) -> Rows:
    """Return rows with what is known of their components."""
    return replace(rows, block=rows.block._replace(data=(*rows.arrays, known)))


def labelled_means(model: GaussianModel, params: Params, rows: Rows, known: Array, points: Array) -> Array:
    """Return starting points: the means of the rows that are known, and `points` for components without any."""
    find = once(backends.get(points), _labelled_means, model)
    return find(params, (rows.arrays[0], known), rows.counted.weight, points)


def _labelled_means(
    model: GaussianModel, params: Params, data: tuple[Array, Array], weight: Array | None, points: Array
) -> Array:
    xp, (x, known) = backends.namespace(points), data
    shares, told = _shares(known, params.weights)
    shares = xp.where(told, shares, 0.0)
    if weight is not None:
        shares = shares * weight[..., None, :]
    total = xp.sum(shares, axis=-1)[..., None]
    means = xp.matmul(shares, model.points(params, x)) / xp.where(total > 0, total, 1.0)
    for _ in range(points.ndim - means.ndim):  # restarts
        means, total = means[..., None, :, :], total[..., None, :, :]
    return xp.where(total > 0, means, points)
