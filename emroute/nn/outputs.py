"""The results and losses of capsule networks, for every framework."""

from __future__ import annotations

from typing import Any, NamedTuple

from emroute.backend import Array, namespace
from emroute.capability import Capabilities
from emroute.capsule.checks import for_statistics
from emroute.capsule.losses import margin_loss, reconstruction_loss, spread_loss

__all__ = ["CapsuleOutput", "capsnet_loss", "matrix_capsnet_loss"]


class CapsuleOutput(NamedTuple):
    """The result of a network."""

    poses: Array
    """The poses of the class capsules, ``(B, classes, H)``."""
    activations: Array
    """The activations of the class capsules, ``(B, classes)`` in [0, 1]: lengths of the poses, or those of EM routing.

    Their `argmax` is the prediction. They are at least float32, even if poses are float16 or bfloat16, in which classes
    would tie."""
    reconstructions: Array | None
    """Reconstructions with the shape of the input images, in the range of the decoder; None without a decoder."""


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def capsnet_loss(
    output: CapsuleOutput,
    images: Array,
    labels: Array,
    *,
    reconstruction_weight: float = 0.0005,
    reconstruction_reduction: str = "mean",
) -> Array:
    """Return the loss of a `CapsNet`: margin loss and, with a decoder, a small part of the reconstruction loss.

    Parameters
    ----------
    output
        The result of the network.
    images
        Its input.
    labels
        Integers ``(B,)``, or targets ``(B, classes)`` of 0 and 1.
    reconstruction_weight
        The weight of the sum of squares per image.
    reconstruction_reduction
        ``"mean"`` over the batch, as in the paper, or ``"sum"``, as in the code of the tutorials.

    Returns
    -------
    Array
        A scalar.

    Raises
    ------
    InputError, InputTypeError
        For the same reasons as in `emroute.capsule.margin_loss`.

    References
    ----------
    Sabour, S., Frosst, N. and Hinton, G. E. (2017). Dynamic routing between capsules. NeurIPS. Section 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> output = CapsuleOutput(np.zeros((1, 2, 4)), np.asarray([[0.9, 0.3]]), np.ones((1, 1, 2, 2)))
    >>> float(capsnet_loss(output, np.zeros((1, 1, 2, 2)), np.asarray([0])).round(6))
    0.022
    """
    (lengths,) = for_statistics(output.activations, output.activations)
    loss = margin_loss(lengths, labels)
    return _whole(loss, output, images, reconstruction_weight, reconstruction_reduction)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def matrix_capsnet_loss(
    output: CapsuleOutput,
    images: Array,
    labels: Array,
    margin: Any = 0.9,
    *,
    reconstruction_weight: float = 0.0005,
    reconstruction_reduction: str = "mean",
) -> Array:
    """Return the loss of a `MatrixCapsNet`: spread loss and, with a decoder, a small part of the reconstruction loss.

    Parameters
    ----------
    output
        The result of the network.
    images
        Its input.
    labels
        Integers ``(B,)``.
    margin
        The margin of the spread loss; see `emroute.capsule.spread_margin`.
    reconstruction_weight
        The weight of the sum of squares per image.
    reconstruction_reduction
        ``"mean"`` over the batch, as in the paper, or ``"sum"``, as in the code of the tutorials.

    Returns
    -------
    Array
        A scalar.

    Raises
    ------
    InputError, InputTypeError
        For the same reasons as in `emroute.capsule.spread_loss`.

    References
    ----------
    Hinton, G. E., Sabour, S. and Frosst, N. (2018). Matrix capsules with EM routing. ICLR. Section 4.

    Examples
    --------
    >>> import numpy as np
    >>> output = CapsuleOutput(np.zeros((1, 3, 4)), np.asarray([[0.9, 0.3, 0.8]]), None)
    >>> float(matrix_capsnet_loss(output, np.zeros((1, 1, 2, 2)), np.asarray([0]), 0.5).round(6))
    0.16
    """
    (activations,) = for_statistics(output.activations, output.activations)
    loss = spread_loss(activations, labels, margin)
    return _whole(loss, output, images, reconstruction_weight, reconstruction_reduction)


def _whole(loss: Array, output: CapsuleOutput, images: Array, weight: float, reduction: str) -> Array:
    """Add a small part of the reconstruction loss, and only then convert to the dtype of the activations."""
    if output.reconstructions is not None:
        drawn, seen = for_statistics(images, output.reconstructions, images)
        loss = loss + weight * reconstruction_loss(drawn, seen, reduction=reduction)
    return namespace(loss).astype(loss, output.activations.dtype, copy=False)
