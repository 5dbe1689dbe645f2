"""The losses of capsule networks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.backend import Array, is_array
from emroute.capability import Capabilities
from emroute.capsule.checks import check_floats, for_statistics
from emroute.errors import InputError, InputTypeError
from emroute.validate import check_choice, check_count, check_number, require_values

__all__ = [
    "as_targets",
    "margin_loss",
    "reconstruction_loss",
    "spread_loss",
    "spread_margin",
]

_REDUCTIONS = ("mean", "sum", "none")


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def margin_loss(
    lengths: Array,
    labels: Array,
    *,
    present: float = 0.9,
    absent: float = 0.1,
    down_weight: float = 0.5,
    reduction: str = "mean",
) -> Array:
    """Return the margin loss, ``sum_k T_k max(0, 0.9 - |v_k|)² + 0.5 (1 - T_k) max(0, |v_k| - 0.1)²``.

    Parameters
    ----------
    lengths
        The lengths of the class capsules, ``(..., classes)``.
    labels
        Integers ``(...,)``, or targets ``(..., classes)`` of 0 and 1 if several classes are present.
    present, absent
        The least length of a capsule if its class is present, and the greatest if it is absent.
    down_weight
        The weight of absent classes.
    reduction
        How to reduce the losses of the samples ``(...,)``: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns
    -------
    Array
        A scalar, or ``(...,)`` with ``"none"``.

    Raises
    ------
    InputError
        If shapes or options are invalid, or labels are not classes.
    InputTypeError
        If dtypes are not supported, or arrays differ in library or device.

    References
    ----------
    Sabour, Frosst and Hinton (2017), equation 4.

    Examples
    --------
    >>> import numpy as np
    >>> float(margin_loss(np.asarray([[0.9, 0.3]]), np.asarray([0])).round(6))
    0.02
    """
    check_floats("lengths", lengths)
    present, absent = check_number("present", present), check_number("absent", absent)
    down_weight = check_number("down_weight", down_weight)
    xp, (wide,) = backends.namespace(lengths), for_statistics(lengths, lengths)
    target = as_targets(labels, wide)
    short = xp.maximum(present - wide, xp.zeros_like(wide))
    long = xp.maximum(wide - absent, xp.zeros_like(wide))
    loss = target * short * short + down_weight * (1 - target) * long * long
    return _reduce(xp.sum(loss, axis=-1), reduction, lengths)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def spread_loss(activations: Array, labels: Array, margin: Any = 0.9, *, reduction: str = "mean") -> Array:
    """Return the spread loss, ``sum over k != t of max(0, margin - (a_t - a_k))²``, where t is the target.

    Parameters
    ----------
    activations
        The activations of the class capsules, ``(..., classes)``.
    labels
        Integers ``(...,)``.
    margin
        By how much the activation of the target should exceed the others, a number or an array of one; see
        `spread_margin`.
    reduction
        How to reduce the losses of the samples ``(...,)``: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns
    -------
    Array
        A scalar, or ``(...,)`` with ``"none"``.

    Raises
    ------
    InputError, InputTypeError
        For the same reasons as in `margin_loss`.

    References
    ----------
    Hinton, Sabour and Frosst (2018), equation 3.

    Examples
    --------
    >>> import numpy as np
    >>> float(spread_loss(np.asarray([[0.9, 0.3, 0.8]]), np.asarray([0]), 0.5).round(6))
    0.16
    """
    check_floats("activations", activations)
    backends.get(activations, labels)
    if isinstance(margin, np.generic) or not is_array(margin):  # an array may be traced
        margin = check_number("margin", margin)
    elif backends.get(activations, margin) and margin.ndim:
        raise InputError(f"margin has shape {tuple(margin.shape)}, expected one number")
    if labels.ndim != activations.ndim - 1:
        raise InputError(f"labels have shape {tuple(labels.shape)}, expected {tuple(activations.shape[:-1])}")
    xp, (wide,) = backends.namespace(activations), for_statistics(activations, activations)
    target = as_targets(labels, wide)
    true = xp.sum(target * wide, axis=-1, keepdims=True)
    short = xp.maximum(margin - (true - wide), xp.zeros_like(wide))
    return _reduce(xp.sum((1 - target) * short * short, axis=-1), reduction, activations)


def spread_margin(t: float, *, schedule: str = "epoch") -> float:
    """Return the margin of the spread loss in the course of training.

    Parameters
    ----------
    t
        The epoch, counted from 0, for ``"epoch"``; the step, counted from 0, for ``"step"``.
    schedule
        With ``"epoch"``, from 0.2 to 0.9 by 0.1 per epoch. With ``"step"``, ``0.2 + 0.79 sigmoid(min(10, t / 50000 -
        4))``, as the authors of the paper do.

    Returns
    -------
    float
        The margin.

    Raises
    ------
    InputError
        If `t` is negative or the schedule unknown.

    Examples
    --------
    >>> [round(spread_margin(epoch), 1) for epoch in (0, 3, 7, 50)]
    [0.2, 0.5, 0.9, 0.9]
    >>> round(spread_margin(10**6, schedule="step"), 4)
    0.99
    """
    check_choice("schedule", schedule, ("epoch", "step"))
    t = check_number("t", t)
    if schedule == "epoch":
        return min(0.9, 0.2 + 0.1 * t)
    return 0.2 + 0.79 / (1 + math.exp(-min(10.0, t / 50_000 - 4)))


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def reconstruction_loss(reconstructions: Array, images: Array, *, n_axes: int = 3, reduction: str = "mean") -> Array:
    """Return the sum of squared differences per image, not scaled.

    Parameters
    ----------
    reconstructions, images
        Arrays of the same shape, or with the same number of entries per image. Batch axes come first.
    n_axes
        How many trailing axes of `images` make up one image; at most all but the first.
    reduction
        How to reduce the losses of the samples ``(...,)``: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns
    -------
    Array
        A scalar, or one number per image with ``"none"``.

    Raises
    ------
    InputError, InputTypeError
        For the same reasons as in `margin_loss`.

    Examples
    --------
    >>> import numpy as np
    >>> float(reconstruction_loss(np.ones((2, 4)), np.zeros((2, 2, 2))))
    4.0
    """
    check_floats("images", reconstructions, images)
    if not images.ndim or math.prod(images.shape) != math.prod(reconstructions.shape):
        raise InputError(f"reconstructions have shape {tuple(reconstructions.shape)}, images {tuple(images.shape)}")
    xp, n_axes = backends.namespace(images), min(check_count("n_axes", n_axes, 0), images.ndim - 1)
    lead = tuple(images.shape[: images.ndim - n_axes])
    if tuple(reconstructions.shape[: len(lead)]) != lead:
        raise InputError(f"reconstructions have shape {tuple(reconstructions.shape)}, images {tuple(images.shape)}")
    flat = (*lead, math.prod(images.shape[images.ndim - n_axes :]))
    drawn, seen = for_statistics(images, reconstructions, images)
    gap = xp.reshape(drawn, flat) - xp.reshape(seen, flat)
    return _reduce(xp.sum(gap * gap, axis=-1), reduction, images)


def as_targets(labels: Array, like: Array) -> Array:
    """Return rows of 0 and 1 in the dtype of `like`, from labels or from such rows."""
    xp, n = backends.namespace(like, labels), like.shape[-1]
    if tuple(labels.shape) == tuple(like.shape):
        if xp.isdtype(labels.dtype, "bool"):
            return xp.astype(labels, like.dtype)
        if not xp.isdtype(labels.dtype, ("integral", "real floating")):
            raise InputTypeError(f"targets have dtype {labels.dtype}, expected real numbers")
        require_values(lambda x: xp.all((x == 0) | (x == 1)), labels, lambda: "targets (..., classes) must be 0 or 1")
        return xp.astype(labels, like.dtype)
    if tuple(labels.shape) != tuple(like.shape[:-1]):
        raise InputError(f"labels have shape {tuple(labels.shape)}, expected {tuple(like.shape[:-1])}")
    if not xp.isdtype(labels.dtype, "integral"):
        raise InputTypeError(f"labels have dtype {labels.dtype}, expected integers")
    classes = backends.get(labels).from_numpy(np.arange(n), labels)
    labels = xp.astype(labels, classes.dtype, copy=False)  # small dtypes cannot count that far
    if 0 not in labels.shape:
        message = f"labels must be classes from 0 to {n - 1}"
        require_values(lambda x: (xp.min(x) >= 0) & (xp.max(x) < n), labels, lambda: message)
    return xp.astype(labels[..., None] == classes, like.dtype)


def _reduce(loss: Array, reduction: str, like: Array) -> Array:
    """Reduce, and only then convert to the dtype of `like`: a sum may overflow it although the mean does not."""
    check_choice("reduction", reduction, _REDUCTIONS)
    xp = backends.namespace(loss)
    if reduction == "mean" and 0 in loss.shape:
        raise InputError(f"got no samples to take the mean of: the losses have shape {tuple(loss.shape)}")
    if reduction != "none":
        loss = xp.mean(loss) if reduction == "mean" else xp.sum(loss)
    return xp.astype(loss, like.dtype, copy=False)
