"""Capsule layers for Flax NNX: what is Flax's own of `emroute.nn.vector` and `emroute.nn.matrix`.

Of the arguments that Flax adds, `dtype` is that of computations, by default what parameters and inputs promote to, and
`param_dtype` that of parameters.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from emroute.nn import efficient, layer, matrix, objects, sets, vector
from emroute.nn.sizes import Window

__all__ = [
    "ClassCapsules",
    "ConvCapsules",
    "Decoder",
    "DepthwisePrimaryCapsules",
    "DynamicRouting",
    "Layer",
    "MatrixPrimaryCapsules",
    "ObjectCapsules",
    "PrimaryCapsules",
    "SelfAttentionRouting",
    "SetTransformer",
    "complete",
]


_Class = TypeVar("_Class", bound=type)


class Layer(layer.Layer, nnx.Module):
    """What layers in Flax are made of."""

    channel_axis = 3
    _functions: ClassVar = {"relu": nnx.relu, "sigmoid": nnx.sigmoid, "tanh": jnp.tanh, "linear": lambda x: x}

    _ones = staticmethod(nnx.initializers.ones)

    def __init__(self, *, dtype: Any = None, param_dtype: Any = jnp.float32, rngs: nnx.Rngs) -> None:
        super().__init__()
        self.dtype = dtype

    def _parameter(self, name: str, shape: Sequence[int] | None, start: Any, **where: Any) -> None:
        if shape is None:
            setattr(self, name, nnx.data(None))
            return
        dtype = where.get("param_dtype", jnp.float32)
        if callable(start) or start:
            draw = start if callable(start) else nnx.initializers.normal(start)
            setattr(self, name, nnx.Param(draw(where["rngs"].params(), shape, dtype)))
        else:
            setattr(self, name, nnx.Param(jnp.zeros(shape, dtype)))

    def _array(self, parameter: nnx.Param | None) -> jax.Array | None:
        return None if parameter is None else parameter[...]

    def _promoted(self, *arrays: jax.Array) -> list[jax.Array]:
        """Return arrays in `dtype`, or in the one that they promote to, as Flax's own layers do."""
        dtype = jnp.result_type(*arrays) if self.dtype is None else self.dtype
        return [x.astype(dtype) for x in arrays]

    def _einsum(self, equation: str, *arrays: jax.Array) -> jax.Array:
        return jnp.einsum(equation, *arrays, precision="highest")  # float32 is not TF32 on a GPU

    def _convolution(
        self, n_in: int, n_out: int, window: Window, bias: bool = True, groups: int = 1, **where: Any
    ) -> nnx.Conv:
        edges = [(edge, edge) for edge in window.padding]
        options = {"padding": edges, "use_bias": bias, "feature_group_count": groups}
        return nnx.Conv(n_in, n_out, window.kernel_size, window.stride, **options, **where)

    def _batch_norm(self, n: int, **where: Any) -> nnx.BatchNorm:
        return nnx.BatchNorm(n, momentum=0.99, epsilon=1e-3, **where)

    def _linears(self, sizes: Sequence[int], **where: Any) -> nnx.List:
        return nnx.List([nnx.Linear(a, b, **where) for a, b in itertools.pairwise(sizes)])


def complete(cls: _Class) -> _Class:
    """Give a class what `emroute.nn.layer.complete` gives it, and make its layers functions, as Flax' own are."""
    cls.__call__ = cls.forward
    return layer.complete(cls)


@complete
class PrimaryCapsules(vector.PrimaryCapsules, Layer):
    """Images and features are ``(B, h, w, C)``; `dtype`, `param_dtype` and `rngs` are as of `flax.nnx.Conv`.

    Examples
    --------
    >>> PrimaryCapsules(256, 32, 8, 9, stride=2, rngs=nnx.Rngs(0))(jnp.zeros((1, 20, 20, 256))).shape
    (1, 1152, 8)
    """


@complete
class DynamicRouting(vector.DynamicRouting, Layer):
    """Initializers are as those of `flax.nnx.initializers`; `dtype`, `param_dtype` and `rngs` as of `flax.nnx.Linear`.

    Examples
    --------
    >>> found = DynamicRouting(1152, 10, 8, 16, rngs=nnx.Rngs(0))(jnp.zeros((2, 1152, 8)))
    >>> found.poses.shape, found.activations.shape
    ((2, 10, 16), (2, 10))
    """


@complete
class DepthwisePrimaryCapsules(efficient.DepthwisePrimaryCapsules, Layer):
    """Features are ``(B, h, w, C)``; `dtype`, `param_dtype` and `rngs` are as of `flax.nnx.Conv`.

    Examples
    --------
    >>> DepthwisePrimaryCapsules(16, 8, 9, rngs=nnx.Rngs(0))(jnp.zeros((1, 9, 9, 128))).shape
    (1, 16, 8)
    """


@complete
class SelfAttentionRouting(efficient.SelfAttentionRouting, Layer):
    """`dtype`, `param_dtype` and `rngs` are as of `flax.nnx.Linear`.

    Examples
    --------
    >>> found = SelfAttentionRouting(16, 10, 8, 16, rngs=nnx.Rngs(0))(jnp.zeros((2, 16, 8)))
    >>> found.poses.shape, found.activations.shape
    ((2, 10, 16), (2, 10))
    """


@complete
class SetTransformer(sets.SetTransformer, Layer):
    """`dtype`, `param_dtype` and `rngs` are as of `flax.nnx.Linear`.

    Examples
    --------
    >>> SetTransformer(2, 8, 16, 3, rngs=nnx.Rngs(0))(jnp.zeros((5, 7, 2))).shape
    (5, 3, 16)
    """


@complete
class ObjectCapsules(objects.ObjectCapsules, Layer):
    """`dtype`, `param_dtype` and `rngs` are as of `flax.nnx.Linear`.

    Examples
    --------
    >>> ObjectCapsules(3, 4, 16, rngs=nnx.Rngs(0))(jnp.zeros((5, 3, 16))).votes.shape
    (5, 3, 4, 2, 3)
    """


@complete
class Decoder(vector.Decoder, Layer):
    """Images are ``(B, h, w, C)``; `dtype`, `param_dtype` and `rngs` are as of `flax.nnx.Linear`.

    Examples
    --------
    >>> Decoder(160, (28, 28, 1), rngs=nnx.Rngs(0))(jnp.zeros((2, 10, 16))).shape
    (2, 28, 28, 1)
    """


@complete
class MatrixPrimaryCapsules(matrix.MatrixPrimaryCapsules, Layer):
    """Images and features are ``(B, h, w, C)``; `dtype`, `param_dtype` and `rngs` are as of `flax.nnx.Conv`.

    Examples
    --------
    >>> poses, activations = MatrixPrimaryCapsules(32, 8, rngs=nnx.Rngs(0))(jnp.zeros((1, 14, 14, 32)))
    >>> poses.shape, activations.shape
    ((1, 14, 14, 8, 4, 4), (1, 14, 14, 8))
    """


@complete
class ConvCapsules(matrix.ConvCapsules, Layer):
    """`dtype`, `param_dtype` and `rngs` are as of `flax.nnx.Conv`.

    Examples
    --------
    >>> layer = ConvCapsules(8, 16, 3, stride=2, rngs=nnx.Rngs(0))
    >>> found = jax.eval_shape(layer, jnp.zeros((1, 14, 14, 8, 4, 4)), jnp.ones((1, 14, 14, 8)))  # computes nothing
    >>> found.poses.shape, found.activations.shape
    ((1, 6, 6, 16, 4, 4), (1, 6, 6, 16))
    """


@complete
class ClassCapsules(matrix.ClassCapsules, Layer):
    """`dtype`, `param_dtype` and `rngs` are as of `flax.nnx.Linear`.

    Examples
    --------
    >>> layer = ClassCapsules(16, 10, rngs=nnx.Rngs(0))
    >>> found = jax.eval_shape(layer, jnp.zeros((1, 4, 4, 16, 4, 4)), jnp.ones((1, 4, 4, 16)))  # computes nothing
    >>> found.poses.shape, found.activations.shape
    ((1, 10, 16), (1, 10))
    """
