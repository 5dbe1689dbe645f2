"""Layers of vector capsules for Flax NNX: primary capsules, dynamic routing, and a decoder.

As `emroute.nn.torch.vector`, but for images ``(B, h, w, C)``. Of the arguments that Flax adds, `dtype` is that of
computations, by default what parameters and inputs promote to, and `param_dtype` that of parameters.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from emroute.capsule import dynamic_routing, squash
from emroute.nn.precision import keep_activations
from emroute.nn.settings import Configurable
from emroute.nn.sizes import (
    ACTIVATIONS,
    check_activation,
    check_capsules,
    check_counts,
    check_entries,
    check_features,
    counts,
    pair,
    routing_std,
)
from emroute.validate import check_count, check_number

__all__ = ["Decoder", "DynamicRouting", "PrimaryCapsules", "convolution", "promoted"]

_LAST: dict[str, Callable[[jax.Array], jax.Array]] = {
    "sigmoid": nnx.sigmoid,
    "tanh": jnp.tanh,
    "linear": lambda x: x,
}


def convolution(
    in_features: int, out_features: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, **options: Any
) -> nnx.Conv:
    """Return a convolution of images whose sizes are given as to Torch."""
    (up, left), kernel = pair("padding", padding, 0), pair("kernel_size", kernel_size)
    edges = ((up, up), (left, left))
    return nnx.Conv(in_features, out_features, kernel, pair("stride", stride), padding=edges, **options)


def promoted(dtype: Any, *arrays: jax.Array) -> list[jax.Array]:
    """Return arrays in a dtype, or in the one that they promote to, as Flax's own layers do."""
    dtype = jnp.result_type(*arrays) if dtype is None else dtype
    return [x.astype(dtype) for x in arrays]


class PrimaryCapsules(Configurable, nnx.Module):
    """A convolution whose channels at a position are the entries of capsules, squashed.

    Parameters
    ----------
    in_channels, out_capsules, out_features, kernel_size, stride, padding, relu
        As of `emroute.nn.torch.PrimaryCapsules`.
    dtype, param_dtype, rngs
        As of `flax.nnx.Conv`.

    Examples
    --------
    >>> PrimaryCapsules(256, 32, 8, 9, stride=2, rngs=nnx.Rngs(0))(jnp.zeros((1, 20, 20, 256))).shape
    (1, 1152, 8)
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
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_counts(in_channels=in_channels, out_capsules=out_capsules, out_features=out_features)
        self.out_capsules, self.out_features, self.relu = out_capsules, out_features, relu
        where: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.conv = convolution(in_channels, out_capsules * out_features, kernel_size, stride, padding, **where)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Take ``(B, h, w, C)`` to capsules ``(B, h' * w' * out_capsules, out_features)``."""
        check_features(x, self.conv.in_features, -1)
        x = self.conv(x)
        return squash((nnx.relu(x) if self.relu else x).reshape(x.shape[0], -1, self.out_features))


class DynamicRouting(Configurable, nnx.Module):
    """Capsules that all capsules below vote for, found by dynamic routing.

    Parameters
    ----------
    in_capsules, out_capsules, in_features, out_features, bias, n_iter, detach_inner, leaky, recompute
        As of `emroute.nn.torch.DynamicRouting`.
    init
        How transforms start: the standard deviation of normal numbers, or an initializer as those of
        `flax.nnx.initializers`; None keeps lengths, as of `emroute.nn.torch.DynamicRouting`.
    dtype, param_dtype, rngs
        As of `flax.nnx.Linear`.

    Examples
    --------
    >>> found = DynamicRouting(1152, 10, 8, 16, rngs=nnx.Rngs(0))(jnp.zeros((2, 1152, 8)))
    >>> found.poses.shape, found.activations.shape
    ((2, 10, 16), (2, 10))
    """

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
        init: float | Callable[..., jax.Array] | None = None,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_counts(in_capsules=in_capsules, out_capsules=out_capsules, n_iter=n_iter)
        check_counts(in_features=in_features, out_features=out_features)
        self.n_iter, self.detach_inner, self.leaky, self.recompute = n_iter, detach_inner, leaky, recompute
        self.dtype = dtype
        shape = in_capsules, out_capsules, in_features, out_features
        if not callable(init):
            keeping = routing_std(in_capsules, out_capsules, out_features, leaky)
            init = nnx.initializers.normal(keeping if init is None else check_number("init", init))
        self.transforms = nnx.Param(init(rngs.params(), shape, param_dtype))
        self.bias = nnx.Param(jnp.zeros((out_capsules, out_features), param_dtype)) if bias else nnx.data(None)

    def votes(self, poses: jax.Array) -> jax.Array:
        """Take capsules ``(B, I, in_features)`` to votes ``(B, I, J, out_features)``."""
        check_capsules(poses, self.transforms)
        poses, transforms = promoted(self.dtype, poses, self.transforms[...])
        return jnp.einsum("bid,ijdh->bijh", poses, transforms, precision="highest")  # float32 is not TF32 on a GPU

    def __call__(self, poses: jax.Array, *, return_path: bool = False) -> Any:
        """Route capsules ``(B, I, in_features)`` to a `Routing` with poses ``(B, J, out_features)``."""
        return keep_activations(
            dynamic_routing,
            self.votes(poses),
            n_iter=self.n_iter,
            bias=None if self.bias is None else self.bias[...],
            detach_inner=self.detach_inner,
            leaky=self.leaky,
            recompute=self.recompute,
            return_path=return_path,
        )


class Decoder(Configurable, nnx.Module):
    """Images from the poses of class capsules, by layers that see everything.

    Parameters
    ----------
    in_features, hidden_features, activation
        As of `emroute.nn.torch.Decoder`.
    out_shape
        ``(h, w, C)`` of the images. The last layer has its units channel by channel, as Torch's decoder has them.
    dtype, param_dtype, rngs
        As of `flax.nnx.Linear`.

    Examples
    --------
    >>> Decoder(160, (28, 28, 1), rngs=nnx.Rngs(0))(jnp.zeros((2, 10, 16))).shape
    (2, 28, 28, 1)
    """

    settings = ("activation",)

    def __init__(
        self,
        in_features: int,
        out_shape: Sequence[int],
        *,
        hidden_features: Sequence[int] = (512, 1024),
        activation: str | None = "sigmoid",
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.out_shape = counts("out_shape", out_shape, "(h, w, C)", 3)
        hidden = counts("hidden_features", hidden_features, "positive integers")
        self.in_features = check_count("in_features", in_features)
        self.activation = check_activation("activation", activation)
        sizes = (self.in_features, *hidden, math.prod(self.out_shape))
        where: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.layers = nnx.List([nnx.Linear(a, b, **where) for a, b in itertools.pairwise(sizes)])

    @property
    def range(self) -> tuple[float, float] | None:
        """Between which values its images are; None without bounds."""
        return ACTIVATIONS[self.activation]

    def __call__(self, poses: jax.Array) -> jax.Array:
        """Take poses ``(B, classes, H)``, of which all but one are 0, to images ``(B, h, w, C)``."""
        check_entries(poses, self.in_features)
        (h, w, channels), x = self.out_shape, poses.reshape(poses.shape[0], -1)
        for layer in self.layers[:-1]:
            x = nnx.relu(layer(x))
        return _LAST[self.activation](self.layers[-1](x)).reshape(-1, channels, h, w).transpose(0, 2, 3, 1)
