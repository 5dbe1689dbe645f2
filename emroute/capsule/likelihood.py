"""Points under a mixture of Gaussians whose parameters are given, anew for each sample.

    log p(x_p) = log sum_k w_k N(x_p; v_k, s_k² I) - log sum_k w_k,   r_pk = w_k N(x_p; v_k, s_k² I) / sum of all

This is the likelihood of images under templates, of parts under objects, and of points under constellations (Kosiorek,
Sabour, Teh and Hinton 2019): the E-step of EM routing, with weights in place of activations. A *dummy* component of its
own weight and constant density takes the points that no other explains.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from emroute import backend as backends
from emroute.arrays.creation import itemsize, swap
from emroute.arrays.functions import normalize
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.capsule.checks import check_floats, for_statistics, widen
from emroute.errors import InputError
from emroute.validate import check_number, require, require_values

__all__ = ["Likelihood", "mixture_likelihood"]


class Likelihood(NamedTuple):
    """Result of `mixture_likelihood`."""

    log_prob: Array
    """``(..., P)``: of each point, times its presence."""
    responsibilities: Array
    """``(..., P, K)``; they sum to 1 over components and the dummy."""


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def mixture_likelihood(
    points: Array,
    votes: Array,
    scales: Array,
    log_weights: Array,
    *,
    presence: Array | None = None,
    dummy: tuple[float, float] | None = None,
) -> Likelihood:
    """Log-probabilities of points under a mixture of spherical Gaussians with given parameters.

    Parameters
    ----------
    points
        ``(..., P, H)``, floating.
    votes
        Means of the components, ``(..., K, H)``, or ``(..., K, P, H)`` where each point has its own.
    scales
        Standard deviations, positive: ``(..., K)`` or ``(..., K, P)``, with as many dimensions in front as points have.
    log_weights
        Logarithms of the components' weights, like `scales`. They need not be normalized, and may be minus infinity.
    presence
        ``(..., P)``: how much each point counts; None is 1.
    dummy
        Weight and density of a further component, both positive, or None for no such.

    Returns
    -------
    Likelihood
        Log-probabilities, whose sum over points is the log-likelihood, and responsibilities.

    Raises
    ------
    InputError
        If shapes do not fit, scales are not positive, or results are not finite.
    InputTypeError
        If a dtype is not floating, or arrays differ in library or device.

    References
    ----------
    Kosiorek, A. R., Sabour, S., Teh, Y. W. and Hinton, G. E. (2019). Stacked capsule autoencoders. NeurIPS. Equations 5
    and 7. The authors' code leaves the weights unnormalized.

    Examples
    --------
    >>> import numpy as np
    >>> points, votes = np.asarray([[0.0], [5.0], [99.0]]), np.asarray([[0.0], [5.0]])
    >>> found = mixture_likelihood(points, votes, np.ones(2), np.zeros(2), dummy=(0.01, 0.01))
    >>> found.responsibilities.round(2).tolist()
    [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
    """
    given = {"points": points, "votes": votes, "scales": scales, "log_weights": log_weights}
    presence = backends.namespace(points).ones_like(points[..., 0]) if presence is None else presence
    for name, x in {**given, "presence": presence}.items():
        check_floats(name, points, x)
    if points.ndim < 2 or votes.ndim not in (points.ndim, points.ndim + 1) or 0 in (*points.shape, *votes.shape):
        raise InputError(
            f"points have shape {tuple(points.shape)} and votes {tuple(votes.shape)}, expected (..., P, H) and "
            "(..., K, H) or (..., K, P, H), no axis of length 0"
        )
    *batch, p, h = points.shape
    k, axis = votes.shape[len(batch)], len(batch) + 1
    whole = [
        points,
        _of_points("votes", votes, (*batch, k, p, h), axis if votes.ndim == points.ndim else None),
        _of_points("scales", scales, (*batch, k, p), axis if scales.ndim < points.ndim else None),
        _of_points("log_weights", log_weights, (*batch, k, p), axis if log_weights.ndim < points.ndim else None),
        widen("presence", presence, (*batch, p)),
    ]
    require_values(lambda x: backends.namespace(x).min(x) > 0, scales, lambda: "scales must be positive")
    background = None if dummy is None else _check_dummy(dummy)
    backend, n = backends.get(points), math.prod(batch)
    xp, whole = backend.namespace(points), for_statistics(points, *whole)
    flat = [xp.reshape(x, (n, *x.shape[len(batch) :])) for x in whole]
    size = max(1, backend.chunk_size(3 * itemsize(whole[0]) * k * h) // p)
    parts = backend.map_blocks(lambda *some: _likelihood(some, background), flat, size, True)
    for part in parts:
        require(xp.all(xp.isfinite(part)), lambda: "results are not finite: inputs hold NaN, or no weight is positive")
    return Likelihood(*(xp.astype(xp.reshape(x, (*batch, *x.shape[1:])), points.dtype, copy=False) for x in parts))


def _of_points(name: str, x: Array, shape: tuple[int, ...], axis: int | None) -> Array:
    """Broadcast to a shape, with 1 along the axis of the points where these have all the same."""
    if axis is None:
        return widen(name, x, shape)
    return backends.namespace(x).expand_dims(widen(name, x, shape[:axis] + shape[axis + 1 :]), axis=axis)


def _check_dummy(dummy: Any) -> tuple[float, float]:
    """Return weight and density of the dummy, or raise `InputError`."""
    if not isinstance(dummy, tuple | list) or len(dummy) != 2:
        raise InputError(f"got dummy={dummy!r}, expected a weight and a density, or None")
    weight, density = (check_number("dummy", value) for value in dummy)
    if not weight * density:
        raise InputError(f"got dummy={dummy!r}, expected positive numbers")
    return weight, density


def _likelihood(block: tuple[Array, ...], dummy: tuple[float, float] | None) -> tuple[Array, Array]:
    """Log-probabilities and responsibilities of some samples."""
    points, votes, scales, log_weights, presence = block
    xp, h = backends.namespace(points), points.shape[-1]
    gaps = (points[:, None, :, :] - votes) / scales[..., None]
    log_density = -xp.sum(gaps * gaps, axis=-1) / 2 - h * (xp.log(scales) + math.log(2 * math.pi) / 2)
    log_joint = log_weights + log_density
    if dummy is not None:
        weight, density = (math.log(value) for value in dummy)
        log_weights = xp.concat([log_weights, xp.full_like(log_weights[:, :1, :], weight)], axis=-2)
        log_joint = xp.concat([log_joint, xp.full_like(log_joint[:, :1, :], weight + density)], axis=-2)
    shares, log_sum = normalize(log_joint, axis=-2)
    _, log_total = normalize(log_weights, axis=-2)
    log_prob = log_sum[:, 0, :] - log_total[:, 0, :]
    return presence * log_prob, swap(shares[:, : votes.shape[1], :])
