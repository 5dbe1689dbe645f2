"""Layers of vector capsules: primary capsules, dynamic routing, and a decoder.

The layers hold parameters and call `emroute.capsule`. Layers that route return a `Routing`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Unpack

from emroute.backend import Array, namespace
from emroute.capsule import dynamic_routing, squash
from emroute.nn.layer import Layer, Where
from emroute.nn.precision import keep_activations
from emroute.nn.sizes import (
    ACTIVATIONS,
    check_activation,
    check_capsules,
    check_counts,
    check_entries,
    check_features,
    counts,
    routing_std,
    window,
)
from emroute.validate import check_count, check_number

__all__ = ["Decoder", "DynamicRouting", "PrimaryCapsules"]


class PrimaryCapsules(Layer):
    """Primary capsules: a convolution whose channels at each position are the entries of capsules, squashed.

    Parameters
    ----------
    in_channels, kernel_size, stride, padding
        Options of the convolution. Sizes are one number, or height and width.
    out_capsules
        The number of kinds of capsules at each position.
    out_features
        The number of entries of a capsule.
    relu
        Whether to rectify before squashing, as the tutorials do.

    References
    ----------
    Sabour, S., Frosst, N. and Hinton, G. E. (2017). Dynamic routing between capsules. NeurIPS. Section 4.
    """

    settings = ("relu",)

    def __init__(
        self,
        in_channels: int,
        out_capsules: int,
        out_features: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        relu: bool = False,
        **where: Unpack[Where],
    ) -> None:
        super().__init__(**where)
        check_counts(in_channels=in_channels, out_capsules=out_capsules, out_features=out_features)
        seen = window(kernel_size, stride, padding)
        self.in_channels = in_channels
        self.out_capsules, self.out_features, self.relu = out_capsules, out_features, relu
        self.conv = self._convolution(in_channels, out_capsules * out_features, seen, **where)

    def forward(self, x: Array) -> Array:
        """Map images or features to capsules ``(B, h' * w' * out_capsules, out_features)``."""
        check_features(x, self.in_channels, self.channel_axis)
        x = namespace(x).moveaxis(self.conv(x), self.channel_axis, -1)
        b, h, w, _ = x.shape
        entries = self._functions["relu"](x) if self.relu else x
        return squash(entries.reshape(b, h * w * self.out_capsules, self.out_features))


class DynamicRouting(Layer):
    """Capsules found by dynamic routing of the votes of all capsules below.

    Parameters
    ----------
    in_capsules, out_capsules
        The numbers of capsules in the layer below and in this layer.
    in_features, out_features
        The numbers of entries of these capsules.
    bias
        Whether poses have a bias.
    n_iter, detach_inner, leaky, recompute
        Options of the routing, see `emroute.capsule.dynamic_routing`.
    init
        How transforms start: the standard deviation of normal numbers, or an initializer of the framework. None
        preserves lengths: with ``sqrt(2 / (in_capsules * out_features)) * out_capsules``, the sum of votes under equal
        assignments has twice the squared length of a capsule below; squashing takes away about what routing adds. (The
        authors of the paper use 0.1 for all sizes, with which the capsules of stacked layers vanish.)

    References
    ----------
    Sabour, Frosst and Hinton (2017), equation 2 and procedure 1.
    """

    transforms: Any
    bias: Any
    settings = ("n_iter", "detach_inner", "leaky", "recompute")

    def __init__(
        self,
        in_capsules: int,
        out_capsules: int,
        in_features: int,
        out_features: int,
        *,
        n_iter: int = 3,
        bias: bool = False,
        detach_inner: bool = False,
        leaky: bool = False,
        recompute: bool = True,
        init: float | Callable[..., Any] | None = None,
        **where: Unpack[Where],
    ) -> None:
        super().__init__(**where)
        check_counts(in_capsules=in_capsules, out_capsules=out_capsules, n_iter=n_iter)
        check_counts(in_features=in_features, out_features=out_features)
        self.n_iter, self.detach_inner, self.leaky, self.recompute = n_iter, detach_inner, leaky, recompute
        if init is None:
            init = routing_std(in_capsules, out_capsules, out_features, leaky)
        start = init if callable(init) else check_number("init", init)
        self._parameter("transforms", (in_capsules, out_capsules, in_features, out_features), start, **where)
        self._parameter("bias", (out_capsules, out_features) if bias else None, 0.0, **where)

    def votes(self, poses: Array) -> Array:
        """Map capsules ``(B, I, in_features)`` to votes ``(B, I, J, out_features)``."""
        check_capsules(poses, self.transforms)
        return self._einsum("bid,ijdh->bijh", *self._promoted(poses, self._array(self.transforms)))

    def forward(self, poses: Array, *, return_path: bool = False) -> Any:
        """Route capsules ``(B, I, in_features)`` to a `Routing` with poses ``(B, J, out_features)``."""
        return keep_activations(
            dynamic_routing,
            self.votes(poses),
            n_iter=self.n_iter,
            bias=self._array(self.bias),
            detach_inner=self.detach_inner,
            leaky=self.leaky,
            recompute=self.recompute,
            return_path=return_path,
        )


class Decoder(Layer):
    """A decoder: dense layers that draw images from the poses of class capsules.

    Parameters
    ----------
    in_features
        The number of entries of all class poses of one image.
    out_shape
        The shape of the images. The last layer draws them channel by channel.
    hidden_features
        The widths of the hidden layers.
    activation
        The activation of the last layer: ``"sigmoid"`` for images in [0, 1], ``"tanh"`` for [-1, 1], ``"linear"`` for
        others.

    References
    ----------
    Sabour, Frosst and Hinton (2017), figure 2.
    """

    settings = ("activation",)

    def __init__(
        self,
        in_features: int,
        out_shape: Sequence[int],
        *,
        hidden_features: Sequence[int] = (512, 1024),
        activation: str | None = "sigmoid",
        **where: Unpack[Where],
    ) -> None:
        super().__init__(**where)
        self.out_shape = counts("out_shape", out_shape, "(C, h, w)" if self.channel_axis == 1 else "(h, w, C)", 3)
        hidden = counts("hidden_features", hidden_features, "positive integers")
        self.in_features = check_count("in_features", in_features)
        self.activation = check_activation("activation", activation)
        self.layers = self._linears((self.in_features, *hidden, math.prod(self.out_shape)), **where)

    @property
    def range(self) -> tuple[float, float] | None:
        """The range of its images; None if it is unbounded."""
        return ACTIVATIONS[self.activation]

    def forward(self, poses: Array) -> Array:
        """Map poses ``(B, classes, H)``, of which all but one are 0, to images."""
        check_entries(poses, self.in_features)
        x = poses.reshape(poses.shape[0], self.in_features)
        for layer in self.layers[:-1]:
            x = self._functions["relu"](layer(x))
        x = self._functions[self.activation](self.layers[-1](x))
        size = list(self.out_shape)
        channels = size.pop(self.channel_axis - 1)
        return namespace(x).moveaxis(x.reshape(x.shape[0], channels, *size), 1, self.channel_axis)
