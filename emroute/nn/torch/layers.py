"""Capsule layers for Torch: what is Torch's own of `emroute.nn.vector` and `emroute.nn.matrix`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from emroute.nn import efficient, layer, matrix, objects, sets, vector
from emroute.nn.layer import complete
from emroute.nn.sizes import Window
from emroute.nn.ways import WAYS, routings

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
]


class Layer(layer.Layer, nn.Module):
    """What layers in Torch are made of."""

    channel_axis = 1
    _functions: ClassVar = {"relu": torch.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "linear": lambda x: x}
    _ones = staticmethod(nn.init.ones_)
    _told: ClassVar[tuple[str, ...]] = ()
    """Attributes that `repr` shows."""

    def __init__(self, *, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self._starts: dict[str, Any] = {}

    def reset_parameters(self) -> None:
        """Draw parameters anew, as they were when the layer was made."""
        for name, start in self._starts.items():
            _fill(getattr(self, name), start)

    def extra_repr(self) -> str:
        """Extra information for `repr`."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self._told)

    def _parameter(self, name: str, shape: Sequence[int] | None, start: Any, **where: Any) -> None:
        if shape is None:
            self.register_parameter(name, None)
            return
        parameter = nn.Parameter(torch.empty(shape, **where))
        self.register_parameter(name, parameter)
        self._starts[name] = start
        _fill(parameter, start)

    def _array(self, parameter: Tensor | None) -> Tensor | None:
        return parameter

    def _promoted(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        return arrays  # what autocast leaves them

    def _einsum(self, equation: str, *arrays: Tensor) -> Tensor:
        return torch.einsum(equation, *arrays)

    def _convolution(
        self, n_in: int, n_out: int, window: Window, bias: bool = True, groups: int = 1, **where: Any
    ) -> nn.Conv2d:
        return nn.Conv2d(n_in, n_out, *window, groups=groups, bias=bias, **where)

    def _batch_norm(self, n: int, **where: Any) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(n, eps=1e-3, momentum=0.01, **where)

    def _linears(self, sizes: Sequence[int], **where: Any) -> nn.ModuleList:
        return nn.ModuleList(nn.Linear(a, b, **where) for a, b in itertools.pairwise(sizes))


def _fill(parameter: Tensor, start: float | Callable[[Tensor], Any]) -> None:
    if callable(start):
        with torch.no_grad():
            start(parameter)
    elif start:
        nn.init.normal_(parameter, std=start)
    else:
        nn.init.zeros_(parameter)


@complete
class PrimaryCapsules(vector.PrimaryCapsules, Layer):
    """Images and features are ``(B, C, h, w)``; `device` and `dtype` are as of `torch.nn.Conv2d`.

    Examples
    --------
    >>> PrimaryCapsules(256, 32, 8, 9, stride=2)(torch.zeros(1, 256, 20, 20)).shape
    torch.Size([1, 1152, 8])
    """

    _told = ("out_capsules", "out_features", "relu")


@complete
class DynamicRouting(vector.DynamicRouting, Layer):
    """Initializers fill a tensor, as those of `torch.nn.init` do; `device` and `dtype` are as of `torch.nn.Linear`.

    Examples
    --------
    >>> found = DynamicRouting(1152, 10, 8, 16)(torch.zeros(2, 1152, 8))
    >>> found.poses.shape, found.activations.shape
    (torch.Size([2, 10, 16]), torch.Size([2, 10]))
    """

    def extra_repr(self) -> str:
        """Extra information for `repr`."""
        i, j, d, h = self.transforms.shape
        return f"{i}, {j}, in_features={d}, out_features={h}, n_iter={self.n_iter}, bias={self.bias is not None}"


@complete
class DepthwisePrimaryCapsules(efficient.DepthwisePrimaryCapsules, Layer):
    """Features are ``(B, C, h, w)``; `device` and `dtype` are as of `torch.nn.Conv2d`.

    Examples
    --------
    >>> DepthwisePrimaryCapsules(16, 8, 9)(torch.zeros(1, 128, 9, 9)).shape
    torch.Size([1, 16, 8])
    """

    _told = ("out_capsules", "out_features")


@complete
class SelfAttentionRouting(efficient.SelfAttentionRouting, Layer):
    """`device` and `dtype` are as of `torch.nn.Linear`.

    Examples
    --------
    >>> found = SelfAttentionRouting(16, 10, 8, 16)(torch.zeros(2, 16, 8))
    >>> found.poses.shape, found.activations.shape
    (torch.Size([2, 10, 16]), torch.Size([2, 10]))
    """

    def extra_repr(self) -> str:
        """Extra information for `repr`."""
        i, j, d, h = self.transforms.shape
        return f"{i}, {j}, in_features={d}, out_features={h}"


@complete
class SetTransformer(sets.SetTransformer, Layer):
    """`device` and `dtype` are as of `torch.nn.Linear`.

    Examples
    --------
    >>> SetTransformer(2, 8, 16, 3)(torch.zeros(5, 7, 2)).shape
    torch.Size([5, 3, 16])
    """


@complete
class ObjectCapsules(objects.ObjectCapsules, Layer):
    """`device` and `dtype` are as of `torch.nn.Linear`.

    Examples
    --------
    >>> ObjectCapsules(3, 4, 16)(torch.zeros(5, 3, 16)).votes.shape
    torch.Size([5, 3, 4, 2, 3])
    """


@complete
class Decoder(vector.Decoder, Layer):
    """Images are ``(B, C, h, w)``; `device` and `dtype` are as of `torch.nn.Linear`.

    Examples
    --------
    >>> Decoder(160, (1, 28, 28))(torch.zeros(2, 10, 16)).shape
    torch.Size([2, 1, 28, 28])
    """

    _told = ("in_features", "out_shape", "activation")


@complete
class MatrixPrimaryCapsules(matrix.MatrixPrimaryCapsules, Layer):
    """Images and features are ``(B, C, h, w)``; `device` and `dtype` are as of `torch.nn.Conv2d`.

    Examples
    --------
    >>> poses, activations = MatrixPrimaryCapsules(32, 8)(torch.zeros(1, 32, 14, 14))
    >>> poses.shape, activations.shape
    (torch.Size([1, 14, 14, 8, 4, 4]), torch.Size([1, 14, 14, 8]))
    """

    _told = ("out_capsules", "pose_size")


@complete
class ConvCapsules(matrix.ConvCapsules, Layer):
    """`device` and `dtype` are as of `torch.nn.Conv2d`.

    Examples
    --------
    >>> layer = ConvCapsules(8, 16, 3, stride=2)
    >>> found = layer(torch.zeros(1, 14, 14, 8, 4, 4), torch.ones(1, 14, 14, 8))
    >>> found.poses.shape, found.activations.shape
    (torch.Size([1, 6, 6, 16, 4, 4]), torch.Size([1, 6, 6, 16]))
    """

    # the host tells which child is in which window, on which a compiled graph would break dozens of times
    _routings: ClassVar = {name: torch.compiler.disable(route) for name, route in routings("conv").items()}

    def extra_repr(self) -> str:
        """Extra information for `repr`."""
        size = self.transforms.shape[0]
        return _routed(self, f", kernel_size={size}") + f", stride={self.stride}, padding={self.padding}"


@complete
class ClassCapsules(matrix.ClassCapsules, Layer):
    """`device` and `dtype` are as of `torch.nn.Linear`.

    Examples
    --------
    >>> found = ClassCapsules(16, 10)(torch.zeros(1, 4, 4, 16, 4, 4), torch.ones(1, 4, 4, 16))
    >>> found.poses.shape, found.activations.shape
    (torch.Size([1, 10, 16]), torch.Size([1, 10]))
    """

    def extra_repr(self) -> str:
        """Extra information for `repr`."""
        return _routed(self)


def _routed(layer: ConvCapsules | ClassCapsules, kernel_size: str = "") -> str:
    """Return what `repr` shows of layers that route."""
    *_, i, j, p, _ = layer.transforms.shape
    p = math.isqrt(p) if layer.routing == "self" else p
    options = {name: layer.options[name] for name in ("n_iter", "cost") if name in WAYS[layer.routing].options}
    told = {"routing": layer.routing, **options} if layer.routing != "em" else options
    return f"{i}, {j}{kernel_size}, pose_size={p}, " + ", ".join(f"{name}={value!r}" for name, value in told.items())
