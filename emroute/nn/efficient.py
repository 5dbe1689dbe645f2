"""Layers of Efficient-CapsNet: primary capsules that see a channel each, and self-attention routing.

They hold parameters and call `emroute.capsule`.
"""

from __future__ import annotations

from typing import Any, Unpack

from emroute.backend import Array, namespace
from emroute.capsule import exponential_squash, self_attention_routing
from emroute.nn.layer import Layer, Where
from emroute.nn.precision import keep_activations
from emroute.nn.sizes import check_capsules, check_counts, check_features, routing_std, window
from emroute.nn.ways import in_one_pass

__all__ = ["DepthwisePrimaryCapsules", "SelfAttentionRouting"]


class DepthwisePrimaryCapsules(Layer):
    """A depthwise convolution whose channels at a position are the entries of capsules, squashed.

    Parameters
    ----------
    out_capsules
        How many kinds of capsules there are at each position.
    out_features
        Entries of a capsule; features below have ``out_capsules * out_features`` channels.
    kernel_size, stride, padding
        Of the convolution; sizes are one number, or height and width.

    References
    ----------
    Mazzia, V., Salvetti, F. and Chiaberge, M. (2021). Efficient-CapsNet: capsule network with self-attention routing.
    Scientific Reports 11.
    """

    def __init__(
        self,
        out_capsules: int,
        out_features: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        **where: Unpack[Where],
    ) -> None:
        super().__init__(**where)
        check_counts(out_capsules=out_capsules, out_features=out_features)
        seen, channels = window(kernel_size, stride, padding), out_capsules * out_features
        self.out_capsules, self.out_features = out_capsules, out_features
        self.conv = self._convolution(channels, channels, seen, groups=channels, **where)

    def forward(self, x: Array) -> Array:
        """Take features to capsules ``(B, h' * w' * out_capsules, out_features)``."""
        check_features(x, self.out_capsules * self.out_features, self.channel_axis)
        x = namespace(x).moveaxis(self.conv(x), self.channel_axis, -1)
        b, h, w, _ = x.shape
        return exponential_squash(x.reshape(b, h * w * self.out_capsules, self.out_features))


class SelfAttentionRouting(Layer):
    """Capsules that all capsules below vote for, found by self-attention routing.

    Parameters
    ----------
    in_capsules, out_capsules
        How many there are below and here.
    in_features, out_features
        Entries of a capsule below and here.
    recompute
        As of `emroute.capsule.self_attention_routing`.

    References
    ----------
    Mazzia, Salvetti and Chiaberge (2021), equations 3 to 6. Transforms start as those of `DynamicRouting`.
    """

    transforms: Any
    bias: Any
    settings = ("recompute",)

    def __init__(
        self,
        in_capsules: int,
        out_capsules: int,
        in_features: int,
        out_features: int,
        *,
        recompute: bool = True,
        **where: Unpack[Where],
    ) -> None:
        super().__init__(**where)
        check_counts(in_capsules=in_capsules, out_capsules=out_capsules)
        check_counts(in_features=in_features, out_features=out_features)
        self.recompute = recompute
        start = routing_std(in_capsules, out_capsules, out_features, leaky=False)
        self._parameter("transforms", (in_capsules, out_capsules, in_features, out_features), start, **where)
        self._parameter("bias", (in_capsules, out_capsules), 0.0, **where)

    def forward(self, poses: Array, *, return_path: bool = False) -> Any:
        """Route capsules ``(B, I, in_features)`` to a `Routing` with poses ``(B, J, out_features)``."""
        check_capsules(poses, self.transforms)
        votes = self._einsum("bid,ijdh->bijh", *self._promoted(poses, self._array(self.transforms)))
        route, bias = in_one_pass(self_attention_routing), self._array(self.bias)
        return keep_activations(route, votes, bias, recompute=self.recompute, return_path=return_path)
