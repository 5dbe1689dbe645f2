"""Inputs for decoders: poses of one class among zeros, and poses with one entry changed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import constant
from emroute.arrays.functions import safe_norm
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.capsule.checks import check_floats
from emroute.capsule.losses import as_targets
from emroute.errors import InputError

__all__ = ["mask_capsules", "tweak_poses"]


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def mask_capsules(poses: Array, labels: Array | None = None) -> Array:
    """Set all class capsules to 0, except those of the labels, or the longest.

    Parameters
    ----------
    poses
        The poses of class capsules, ``(..., classes, H)``.
    labels
        Integers ``(...,)``, or targets ``(..., classes)`` of 0 and 1; None predicts the class by length. After EM
        routing, where length has no meaning, pass the `argmax` of the activations.

    Returns
    -------
    Array
        Poses of the same shape.

    Raises
    ------
    InputError, InputTypeError
        For the same reasons as in `margin_loss`.

    Examples
    --------
    >>> import numpy as np
    >>> mask_capsules(np.asarray([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [[0.0, 0.0], [3.0, 4.0]]
    """
    check_floats("poses", poses)
    if poses.ndim < 2 or 0 in poses.shape[-2:]:
        raise InputError(f"poses have shape {tuple(poses.shape)}, expected (..., classes, H), no axis of length 0")
    lengths = safe_norm(poses)
    xp = backends.namespace(poses)
    if labels is None:
        labels = xp.argmax(lengths, axis=-1)
    return xp.where(as_targets(labels, lengths)[..., None] > 0, poses, xp.zeros_like(poses))


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def tweak_poses(poses: Array, *, steps: Sequence[float] | None = None) -> Array:
    """Change each entry of a pose separately, to see what it represents.

    Parameters
    ----------
    poses
        Poses ``(..., H)``.
    steps
        The T values that are added to an entry; by default 11 from -0.5 to 0.5.

    Returns
    -------
    Array
        Poses ``(..., H, T, H)``: at ``[h, t]``, entry ``h`` is changed by step ``t``.

    Raises
    ------
    InputError, InputTypeError
        If `poses` are not floating vectors, or steps are invalid.

    Examples
    --------
    >>> import numpy as np
    >>> tweak_poses(np.zeros(2), steps=[-0.5, 0.5]).tolist()
    [[[-0.5, 0.0], [0.5, 0.0]], [[0.0, -0.5], [0.0, 0.5]]]
    """
    check_floats("poses", poses)
    if not poses.ndim:
        raise InputError("poses have no axis, expected (..., H)")
    try:
        values = np.linspace(-0.5, 0.5, 11) if steps is None else np.asarray(steps, dtype=float)
    except (TypeError, ValueError):
        values = np.asarray(np.nan)
    if values.ndim != 1 or not np.all(np.isfinite(values)):
        raise InputError(f"got steps={steps!r}, expected a sequence of finite numbers")
    shift = np.eye(poses.shape[-1])[:, None, :] * values[:, None]
    return poses[..., None, None, :] + constant(shift, like=poses)
