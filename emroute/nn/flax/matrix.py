"""Layers of matrix capsules for Flax NNX, on grids of poses ``(B, h, w, I, P, P)`` and activations ``(B, h, w, I)``.

As `emroute.nn.torch.matrix`; of `dtype` and `param_dtype` see `emroute.nn.flax.vector`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from emroute.capsule import class_em_routing, conv_em_routing
from emroute.nn.flax.vector import convolution, promoted
from emroute.nn.precision import keep_activations
from emroute.nn.settings import Configurable
from emroute.nn.sizes import check_counts, check_features, em_options, entry_pair, place_tuples
from emroute.validate import check_count

__all__ = ["ClassCapsules", "ConvCapsules", "MatrixPrimaryCapsules"]


class MatrixPrimaryCapsules(nnx.Module):
    """A convolution whose channels at a position are the poses and activations of matrix capsules.

    Parameters
    ----------
    in_channels, out_capsules, pose_size, kernel_size, stride, padding, bias
        As of `emroute.nn.torch.MatrixPrimaryCapsules`.
    dtype, param_dtype, rngs
        As of `flax.nnx.Conv`.

    Examples
    --------
    >>> poses, activations = MatrixPrimaryCapsules(32, 8, rngs=nnx.Rngs(0))(jnp.zeros((1, 14, 14, 32)))
    >>> poses.shape, activations.shape
    ((1, 14, 14, 8, 4, 4), (1, 14, 14, 8))
    """

    def __init__(
        self,
        in_channels: int,
        out_capsules: int,
        *,
        pose_size: int = 4,
        kernel_size: int | tuple[int, int] = 1,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        bias: bool = False,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_counts(in_channels=in_channels, out_capsules=out_capsules, pose_size=pose_size)
        self.out_capsules, self.pose_size = out_capsules, pose_size
        channels = out_capsules * (pose_size**2 + 1)
        where: dict[str, Any] = {"use_bias": bias, "dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.conv = convolution(in_channels, channels, kernel_size, stride, padding, **where)

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Take ``(B, h, w, C)`` to poses ``(B, h', w', I, P, P)`` and activations ``(B, h', w', I)``."""
        check_features(x, self.conv.in_features, -1)
        i, p = self.out_capsules, self.pose_size
        poses, logits = jnp.split(self.conv(x), [i * p * p], axis=-1)
        return poses.reshape(*poses.shape[:-1], i, p, p), nnx.sigmoid(logits)


class _EMRouting(Configurable, nnx.Module):
    """What layers routed by EM share: transforms, betas and options."""

    def __init__(
        self, shape: tuple[int, ...], options: dict[str, Any], dtype: Any, param_dtype: Any, rngs: nnx.Rngs
    ) -> None:
        self.options, self.dtype = options, dtype
        draw = nnx.initializers.normal(shape[-1] ** -0.5)  # such that votes are as large as poses
        self.transforms = nnx.Param(draw(rngs.params(), shape, param_dtype))
        self.beta_u = nnx.Param(jnp.zeros(shape[-3], param_dtype))
        self.beta_a = nnx.Param(jnp.zeros(shape[-3], param_dtype))

    def _arrays(self, poses: jax.Array, activations: jax.Array) -> tuple[jax.Array, ...]:
        poses, transforms = promoted(self.dtype, poses, self.transforms[...])
        return poses, activations, transforms, self.beta_u[...], self.beta_a[...]


class ConvCapsules(_EMRouting):
    """Capsules that those in a window vote for, found by EM routing; every position has the same transforms.

    Parameters
    ----------
    in_capsules, out_capsules, kernel_size, stride, padding, pose_size
        As of `emroute.nn.torch.ConvCapsules`.
    n_iter, cost, inverse_temperature, epsilon, recompute
        As of `emroute.capsule.em_routing`.
    dtype, param_dtype, rngs
        As of `flax.nnx.Conv`.

    Examples
    --------
    >>> layer = ConvCapsules(8, 16, 3, stride=2, rngs=nnx.Rngs(0))
    >>> found = jax.eval_shape(layer, jnp.zeros((1, 14, 14, 8, 4, 4)), jnp.ones((1, 14, 14, 8)))  # computes nothing
    >>> found.poses.shape, found.activations.shape
    ((1, 6, 6, 16, 4, 4), (1, 6, 6, 16))
    """

    settings = ("options", "stride", "padding")

    def __init__(
        self,
        in_capsules: int,
        out_capsules: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        pose_size: int = 4,
        n_iter: int = 3,
        cost: str = "hinton",
        inverse_temperature: Any = None,
        epsilon: float = 1e-6,
        recompute: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_counts(in_capsules=in_capsules, out_capsules=out_capsules, pose_size=pose_size)
        check_counts(kernel_size=kernel_size, stride=stride)
        shape = (kernel_size, kernel_size, in_capsules, out_capsules, pose_size, pose_size)
        options = em_options(n_iter, cost, inverse_temperature, epsilon, recompute)
        padding = check_count("padding", padding, 0)
        super().__init__(shape, options, dtype, param_dtype, rngs)
        self.stride, self.padding = stride, padding

    def __call__(self, poses: jax.Array, activations: jax.Array, *, return_path: bool = False) -> Any:
        """Route a grid ``(B, h, w, I, P, P)`` and ``(B, h, w, I)`` to a smaller one, a `Routing`."""
        options: dict[str, Any] = {"stride": self.stride, "padding": self.padding, **self.options}
        return keep_activations(conv_em_routing, *self._arrays(poses, activations), return_path=return_path, **options)


class ClassCapsules(_EMRouting):
    """One capsule a class, that all capsules of a grid vote for, with coordinate addition.

    Parameters
    ----------
    in_capsules, out_capsules, entries, coordinates, pose_size
        As of `emroute.nn.torch.ClassCapsules`.
    n_iter, cost, inverse_temperature, epsilon, recompute
        As of `emroute.capsule.em_routing`.
    dtype, param_dtype, rngs
        As of `flax.nnx.Linear`.

    Examples
    --------
    >>> layer = ClassCapsules(16, 10, rngs=nnx.Rngs(0))
    >>> found = jax.eval_shape(layer, jnp.zeros((1, 4, 4, 16, 4, 4)), jnp.ones((1, 4, 4, 16)))  # computes nothing
    >>> found.poses.shape, found.activations.shape
    ((1, 10, 16), (1, 10))
    """

    settings = ("options", "entries", "coordinates")

    def __init__(
        self,
        in_capsules: int,
        out_capsules: int,
        *,
        entries: Sequence[int] | None = (0, 1),
        coordinates: Any = None,
        pose_size: int = 4,
        n_iter: int = 3,
        cost: str = "hinton",
        inverse_temperature: Any = None,
        epsilon: float = 1e-6,
        recompute: bool = True,
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        check_counts(in_capsules=in_capsules, out_capsules=out_capsules, pose_size=pose_size)
        shape, entries = (in_capsules, out_capsules, pose_size, pose_size), entry_pair(entries, pose_size)
        options = em_options(n_iter, cost, inverse_temperature, epsilon, recompute)
        super().__init__(shape, options, dtype, param_dtype, rngs)
        self.entries, self.coordinates = entries, place_tuples(coordinates)

    def __call__(self, poses: jax.Array, activations: jax.Array, *, return_path: bool = False) -> Any:
        """Route a grid ``(B, h, w, I, P, P)`` and ``(B, h, w, I)`` to a `Routing` with poses ``(B, J, P * P)``."""
        options: dict[str, Any] = {"entries": self.entries, "coordinates": self.coordinates, **self.options}
        return keep_activations(class_em_routing, *self._arrays(poses, activations), return_path=return_path, **options)
