"""Capsule networks, as sequences of layers."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, ClassVar, Unpack

from emroute.backend import Array
from emroute.capsule import Routing
from emroute.errors import InputError
from emroute.nn.layer import Where
from emroute.nn.network import CapsuleNetwork
from emroute.nn.sizes import (
    capsnet_children,
    check_counts,
    convolved,
    counts,
    em_options,
    matrix_capsnet_places,
    matrix_capsnet_widths,
    pair,
    window,
)
from emroute.nn.weights import network_arguments

__all__ = ["CapsNet", "EfficientCapsNet", "MatrixCapsNet"]


class _Network(CapsuleNetwork):
    """What both networks share: the module of their layers, the shape of images, a decoder."""

    _layers: ClassVar[ModuleType]

    def _shape(self, channels: int, size: tuple[int, int]) -> tuple[int, int, int]:
        return (channels, *size) if self.channel_axis == 1 else (*size, channels)

    def _decoder(self, in_features: int, hidden: Sequence[int], activation: str | None, where: Where) -> Any:
        return self._layers.Decoder(
            in_features, self.image_shape, hidden_features=hidden, activation=activation, **where
        )


class CapsNet(_Network):
    """The network of Sabour, Frosst and Hinton: two convolutions, primary capsules, class capsules, decoder.

    Parameters
    ----------
    in_channels, image_size
        The channels and size of the images. A size is one number, or height and width.
    n_classes
        The number of classes.
    channels, kernel_size
        The channels and kernel size of the convolutions. The second has stride 2.
    primary_capsules, primary_features
        The number of kinds of primary capsules at a position, and the number of entries of each.
    class_features
        The number of entries of a class capsule.
    n_iter
        The number of iterations of the routing; the tutorials use 2.
    primary_relu
        Whether to rectify the output of the second convolution, as the tutorials do.
    decoder, decoder_features, decoder_activation
        Whether there is a decoder, the widths of its hidden layers, and the activation of its last layer:
        ``"sigmoid"`` for images in [0, 1], ``"tanh"`` for [-1, 1], ``"linear"`` for others, such as standardized
        ones.

    Raises
    ------
    InputError
        If images are too small for the convolutions.

    References
    ----------
    Sabour, S., Frosst, N. and Hinton, G. E. (2017). Dynamic routing between capsules. NeurIPS. Section 4.
    """

    def __init__(
        self,
        in_channels: int = 1,
        n_classes: int = 10,
        image_size: int | tuple[int, int] = 28,
        *,
        channels: int = 256,
        kernel_size: int = 9,
        primary_capsules: int = 32,
        primary_features: int = 8,
        class_features: int = 16,
        n_iter: int = 3,
        primary_relu: bool = False,
        decoder: bool = True,
        decoder_features: Sequence[int] = (512, 1024),
        decoder_activation: str | None = "sigmoid",
        **where: Unpack[Where],
    ) -> None:
        super().__init__(**where)
        self.arguments = network_arguments(locals())
        check_counts(in_channels=in_channels, n_classes=n_classes, channels=channels)
        check_counts(primary_features=primary_features, class_features=class_features)
        size = pair("image_size", image_size)
        self.image_shape = self._shape(in_channels, size)
        children = capsnet_children(size, kernel_size, primary_capsules)
        self.conv = self._convolution(in_channels, channels, window(kernel_size), **where)
        self.primary = self._layers.PrimaryCapsules(
            channels, primary_capsules, primary_features, kernel_size, stride=2, relu=primary_relu, **where
        )
        own: dict[str, Any] = {"n_iter": n_iter, "init": 0.1}  # as the authors of the paper start
        self.classes = self._layers.DynamicRouting(
            children, n_classes, primary_features, class_features, **own, **where
        )
        drawn = n_classes * class_features
        self.decoder = self._decoder(drawn, decoder_features, decoder_activation, where) if decoder else None

    def route(self, images: Array) -> Routing:
        """Map images to the routing of the class capsules. Activations are the lengths of the poses."""
        return self.classes(self.primary(self._functions["relu"](self.conv(images))))


class MatrixCapsNet(_Network):
    """The network of Hinton, Sabour and Frosst: a convolution (A) and four layers of matrix capsules, routed by EM.

    Parameters
    ----------
    in_channels, image_size
        The channels and size of the images. A size is one number, or height and width.
    n_classes
        The number of classes.
    widths
        The channels of A, and the numbers of kinds of capsules of the primary layer (B) and of both convolutional
        layers (C, D). The paper has ``(32, 32, 32, 32)`` and, for its small network, ``(64, 8, 16, 16)``.
    pose_size
        P, for poses of P by P.
    routing
        The routing of all three layers, see `ConvCapsules`.
    n_iter, cost, inverse_temperature, epsilon, recompute
        Options of all three routings, see `emroute.capsule.em_routing`.
    coordinates
        The positions for coordinate addition: ``"grid"`` for ``(y + 0.5) / h`` in the grid, as in the tutorials,
        ``"paper"`` for the centres of receptive fields in the image, or numbers as in
        `emroute.capsule.coordinate_addition`.
    entries
        The two entries of a vote to which positions are added. By default those of the paper with ``"paper"``, the
        last in the first two rows of a pose, and otherwise those of the tutorials, ``(0, 1)``. None for no addition.
    decoder, decoder_features, decoder_activation
        Whether there is a decoder (the paper has none), the widths of its hidden layers, and the activation of its
        last layer, as for `CapsNet`.

    Raises
    ------
    InputError
        If images are too small for the windows.

    References
    ----------
    Hinton, G. E., Sabour, S. and Frosst, N. (2018). Matrix capsules with EM routing. ICLR. Section 4.
    """

    def __init__(
        self,
        in_channels: int = 1,
        n_classes: int = 10,
        image_size: int | tuple[int, int] = 28,
        *,
        widths: Sequence[int] = (32, 32, 32, 32),
        pose_size: int = 4,
        routing: str = "em",
        n_iter: int = 3,
        cost: str = "hinton",
        inverse_temperature: Any = None,
        epsilon: float = 1e-6,
        recompute: bool = True,
        coordinates: Any = "grid",
        entries: Sequence[int] | str | None = "default",
        decoder: bool = False,
        decoder_features: Sequence[int] = (512, 1024),
        decoder_activation: str | None = "sigmoid",
        **where: Unpack[Where],
    ) -> None:
        super().__init__(**where)
        self.arguments = network_arguments(locals())
        check_counts(in_channels=in_channels, n_classes=n_classes, pose_size=pose_size)
        options = em_options(n_iter, cost, inverse_temperature, epsilon, recompute)
        options |= {"pose_size": pose_size, "routing": routing}
        size = pair("image_size", image_size)
        self.image_shape = self._shape(in_channels, size)
        a, b, c, d = matrix_capsnet_widths(size, widths)
        places, entries = matrix_capsnet_places(size, pose_size, coordinates, entries)
        self.arguments["entries"] = entries
        layers = self._layers
        self.conv = self._convolution(in_channels, a, window(5, 2), **where)
        self.primary = layers.MatrixPrimaryCapsules(a, b, pose_size=pose_size, **where)
        self.conv_capsules1 = layers.ConvCapsules(b, c, 3, stride=2, **options, **where)
        self.conv_capsules2 = layers.ConvCapsules(c, d, 3, **options, **where)
        self.classes = layers.ClassCapsules(d, n_classes, entries=entries, coordinates=places, **options, **where)
        drawn = n_classes * pose_size**2
        self.decoder = self._decoder(drawn, decoder_features, decoder_activation, where) if decoder else None

    def grid(self, images: Array) -> tuple[Array, Array]:
        """Map images to the poses ``(B, h, w, I, P, P)`` and activations ``(B, h, w, I)`` below the classes."""
        poses, activations = self.primary(self._functions["relu"](self.conv(images)))
        for layer in (self.conv_capsules1, self.conv_capsules2):
            poses, activations, _ = layer(poses, activations)
        return poses, activations

    def route(self, images: Array) -> Routing:
        """Map images to the routing of the class capsules."""
        return self.classes(*self.grid(images))


class EfficientCapsNet(_Network):
    """The network of Mazzia, Salvetti and Chiaberge: four convolutions, depthwise capsules, self-attention routing.

    It has 161,824 parameters for images of digits, and the decoder's. In training, batches are normalized.

    Parameters
    ----------
    in_channels, image_size
        Of the images; a size is one number, or height and width.
    n_classes
        How many class capsules there are.
    channels
        Of the four convolutions; the last is a multiple of `primary_features`.
    primary_features
        Entries of a primary capsule.
    class_features
        Entries of a class capsule.
    decoder, decoder_features, decoder_activation
        As of `CapsNet`.

    Raises
    ------
    InputError
        If images are too small for the convolutions.

    References
    ----------
    Mazzia, V., Salvetti, F. and Chiaberge, M. (2021). Efficient-CapsNet: capsule network with self-attention routing.
    Scientific Reports 11.
    """

    _windows = (5, 1), (3, 1), (3, 1), (3, 2)  # kernel and stride

    def __init__(
        self,
        in_channels: int = 1,
        n_classes: int = 10,
        image_size: int | tuple[int, int] = 28,
        *,
        channels: Sequence[int] = (32, 64, 64, 128),
        primary_features: int = 8,
        class_features: int = 16,
        decoder: bool = True,
        decoder_features: Sequence[int] = (512, 1024),
        decoder_activation: str | None = "sigmoid",
        **where: Unpack[Where],
    ) -> None:
        super().__init__(**where)
        self.arguments = network_arguments(locals())
        check_counts(in_channels=in_channels, n_classes=n_classes)
        check_counts(primary_features=primary_features, class_features=class_features)
        widths = counts("channels", channels, "those of four convolutions", 4)
        capsules, left = divmod(widths[-1], primary_features)
        if left:
            raise InputError(f"got channels={channels!r}, expected the last a multiple of {primary_features}")
        size = pair("image_size", image_size)
        self.image_shape, grid = self._shape(in_channels, size), convolved(size, *self._windows)
        below = in_channels
        for number, (width, seen) in enumerate(zip(widths, self._windows, strict=True), 1):
            setattr(self, f"conv{number}", self._convolution(below, width, window(*seen), **where))
            setattr(self, f"norm{number}", self._batch_norm(width, **where))
            below = width
        layers = self._layers
        self.primary = layers.DepthwisePrimaryCapsules(capsules, primary_features, grid, **where)
        self.classes = layers.SelfAttentionRouting(capsules, n_classes, primary_features, class_features, **where)
        drawn = n_classes * class_features
        self.decoder = self._decoder(drawn, decoder_features, decoder_activation, where) if decoder else None

    def route(self, images: Array) -> Routing:
        """Take images to the routing of the class capsules; activations are the lengths of poses."""
        for number, _ in enumerate(self._windows, 1):
            convolve, normalize = getattr(self, f"conv{number}"), getattr(self, f"norm{number}")
            images = normalize(self._functions["relu"](convolve(images)))
        return self.classes(self.primary(images))
