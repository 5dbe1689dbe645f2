"""Layers of vector capsules for Torch: primary capsules, dynamic routing, and a decoder.

They hold parameters and call `emroute.capsule`; those that route return a `Routing`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

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

__all__ = ["Decoder", "DynamicRouting", "PrimaryCapsules"]

_LAST: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "linear": lambda x: x}


class PrimaryCapsules(Configurable, nn.Module):
    """A convolution whose channels at a position are the entries of capsules, squashed.

    Parameters
    ----------
    in_channels, kernel_size, stride, padding
        As of `torch.nn.Conv2d`.
    out_capsules
        How many kinds of capsules there are at each position.
    out_features
        Entries of a capsule.
    relu
        Rectify before squashing, as the tutorials do.

    References
    ----------
    Sabour, S., Frosst, N. and Hinton, G. E. (2017). Dynamic routing between capsules. NeurIPS. Section 4.

    Examples
    --------
    >>> PrimaryCapsules(256, 32, 8, 9, stride=2)(torch.zeros(1, 256, 20, 20)).shape
    torch.Size([1, 1152, 8])
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
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, out_capsules=out_capsules, out_features=out_features)
        window = pair("kernel_size", kernel_size), pair("stride", stride), pair("padding", padding, 0)
        self.out_capsules, self.out_features, self.relu = out_capsules, out_features, relu
        self.conv = nn.Conv2d(in_channels, out_capsules * out_features, *window, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Take ``(B, C, h, w)`` to capsules ``(B, h' * w' * out_capsules, out_features)``."""
        check_features(x, self.conv.in_channels, 1)
        x = self.conv(x)
        capsules = (x.relu() if self.relu else x).unflatten(1, (self.out_capsules, self.out_features))
        return squash(capsules.permute(0, 3, 4, 1, 2).flatten(1, 3))

    def extra_repr(self) -> str:
        """Tell what `repr` shows."""
        return f"out_capsules={self.out_capsules}, out_features={self.out_features}, relu={self.relu}"


class DynamicRouting(Configurable, nn.Module):
    """Capsules that all capsules below vote for, found by dynamic routing.

    Parameters
    ----------
    in_capsules, out_capsules
        How many there are below and here.
    in_features, out_features
        Entries of a capsule below and here.
    bias
        Whether poses have a bias.
    n_iter, detach_inner, leaky, recompute
        As of `emroute.capsule.dynamic_routing`.
    init
        How transforms start: the standard deviation of normal numbers, or a function that fills a tensor, as those of
        `torch.nn.init` do. None keeps lengths: with ``sqrt(2 / (in_capsules * out_features)) * out_capsules``, the sum
        of votes under equal assignments has twice the squared length of a capsule below, of which squashing takes
        about what routing gives. (The paper's authors have 0.1, whatever the sizes, at which stacked layers vanish.)

    References
    ----------
    Sabour, Frosst and Hinton (2017), equation 2 and procedure 1.

    Examples
    --------
    >>> found = DynamicRouting(1152, 10, 8, 16)(torch.zeros(2, 1152, 8))
    >>> found.poses.shape, found.activations.shape
    (torch.Size([2, 10, 16]), torch.Size([2, 10]))
    """

    bias: Tensor | None
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
        init: float | Callable[[Tensor], Any] | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        check_counts(in_capsules=in_capsules, out_capsules=out_capsules, n_iter=n_iter)
        check_counts(in_features=in_features, out_features=out_features)
        self.n_iter, self.detach_inner, self.leaky, self.recompute = n_iter, detach_inner, leaky, recompute
        self.init = init if init is None or callable(init) else check_number("init", init)
        shape = in_capsules, out_capsules, in_features, out_features
        self.transforms = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.register_parameter(
            "bias", nn.Parameter(torch.empty(out_capsules, out_features, device=device, dtype=dtype)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw transforms anew, as `init` says; the bias is 0."""
        if callable(self.init):
            with torch.no_grad():
                self.init(self.transforms)
        else:
            i, j, _, h = self.transforms.shape
            nn.init.normal_(self.transforms, std=routing_std(i, j, h, self.leaky) if self.init is None else self.init)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def votes(self, poses: Tensor) -> Tensor:
        """Take capsules ``(B, I, in_features)`` to votes ``(B, I, J, out_features)``."""
        check_capsules(poses, self.transforms)
        return torch.einsum("bid,ijdh->bijh", poses, self.transforms)

    def forward(self, poses: Tensor, *, return_path: bool = False) -> Any:
        """Route capsules ``(B, I, in_features)`` to a `Routing` with poses ``(B, J, out_features)``."""
        return keep_activations(
            dynamic_routing,
            self.votes(poses),
            n_iter=self.n_iter,
            bias=self.bias,
            detach_inner=self.detach_inner,
            leaky=self.leaky,
            recompute=self.recompute,
            return_path=return_path,
        )

    def extra_repr(self) -> str:
        """Tell what `repr` shows."""
        i, j, d, h = self.transforms.shape
        return f"{i}, {j}, in_features={d}, out_features={h}, n_iter={self.n_iter}, bias={self.bias is not None}"


class Decoder(Configurable, nn.Module):
    """Images from the poses of class capsules, by layers that see everything.

    Parameters
    ----------
    in_features
        Entries of all class poses of one image.
    out_shape
        ``(C, h, w)`` of the images.
    hidden_features
        Of the layers between.
    activation
        Of the last layer: ``"sigmoid"`` for images in [0, 1], ``"tanh"`` for [-1, 1], ``"linear"`` for any.

    References
    ----------
    Sabour, Frosst and Hinton (2017), figure 2.

    Examples
    --------
    >>> Decoder(160, (1, 28, 28))(torch.zeros(2, 10, 16)).shape
    torch.Size([2, 1, 28, 28])
    """

    settings = ("activation",)

    def __init__(
        self,
        in_features: int,
        out_shape: Sequence[int],
        *,
        hidden_features: Sequence[int] = (512, 1024),
        activation: str | None = "sigmoid",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.out_shape = counts("out_shape", out_shape, "(C, h, w)", 3)
        hidden = counts("hidden_features", hidden_features, "positive integers")
        self.in_features = check_count("in_features", in_features)
        self.activation = check_activation("activation", activation)
        sizes = (self.in_features, *hidden, math.prod(self.out_shape))
        self.layers = nn.ModuleList(nn.Linear(a, b, device=device, dtype=dtype) for a, b in itertools.pairwise(sizes))

    @property
    def range(self) -> tuple[float, float] | None:
        """Between which values its images are; None without bounds."""
        return ACTIVATIONS[self.activation]

    def forward(self, poses: Tensor) -> Tensor:
        """Take poses ``(B, classes, H)``, of which all but one are 0, to images ``(B, C, h, w)``."""
        check_entries(poses, self.in_features)
        x = poses.flatten(1)
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return _LAST[self.activation](self.layers[-1](x)).unflatten(1, self.out_shape)

    def extra_repr(self) -> str:
        """Tell what `repr` shows."""
        return f"in_features={self.in_features}, out_shape={self.out_shape}, activation={self.activation!r}"
