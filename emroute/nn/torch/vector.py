"""Layers of vector capsules for Torch: primary capsules, dynamic routing, and a decoder.

They hold parameters and call `emroute.capsule`; those that route return a `Routing`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emroute.capsule import dynamic_routing, squash
from emroute.nn.sizes import check_capsules, check_counts, check_entries, check_features, counts, pair
from emroute.validate import check_count

__all__ = ["Decoder", "DynamicRouting", "PrimaryCapsules"]


class PrimaryCapsules(nn.Module):
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


class DynamicRouting(nn.Module):
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
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        check_counts(in_capsules=in_capsules, out_capsules=out_capsules, n_iter=n_iter)
        check_counts(in_features=in_features, out_features=out_features)
        self.n_iter, self.detach_inner, self.leaky, self.recompute = n_iter, detach_inner, leaky, recompute
        shape = in_capsules, out_capsules, in_features, out_features
        self.transforms = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.register_parameter(
            "bias", nn.Parameter(torch.empty(out_capsules, out_features, device=device, dtype=dtype)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw transforms anew, N(0, 0.1²) as the paper's authors do; the bias is 0."""
        nn.init.normal_(self.transforms, std=0.1)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def votes(self, poses: Tensor) -> Tensor:
        """Take capsules ``(B, I, in_features)`` to votes ``(B, I, J, out_features)``."""
        check_capsules(poses, self.transforms)
        return torch.einsum("bid,ijdh->bijh", poses, self.transforms)

    def forward(self, poses: Tensor, *, return_path: bool = False) -> Any:
        """Route capsules ``(B, I, in_features)`` to a `Routing` with poses ``(B, J, out_features)``."""
        return dynamic_routing(
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


class Decoder(nn.Module):
    """Images from the poses of class capsules, by layers that see everything.

    Parameters
    ----------
    in_features
        Entries of all class poses of one image.
    out_shape
        ``(C, h, w)`` of the images.
    hidden_features
        Of the layers between.

    References
    ----------
    Sabour, Frosst and Hinton (2017), figure 2.

    Examples
    --------
    >>> Decoder(160, (1, 28, 28))(torch.zeros(2, 10, 16)).shape
    torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self,
        in_features: int,
        out_shape: Sequence[int],
        *,
        hidden_features: Sequence[int] = (512, 1024),
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.out_shape = counts("out_shape", out_shape, "(C, h, w)", 3)
        hidden = counts("hidden_features", hidden_features, "positive integers")
        self.in_features = check_count("in_features", in_features)
        sizes = (self.in_features, *hidden, math.prod(self.out_shape))
        self.layers = nn.ModuleList(nn.Linear(a, b, device=device, dtype=dtype) for a, b in itertools.pairwise(sizes))

    def forward(self, poses: Tensor) -> Tensor:
        """Take poses ``(B, classes, H)``, of which all but one are 0, to images ``(B, C, h, w)`` in [0, 1]."""
        check_entries(poses, self.in_features)
        x = poses.flatten(1)
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x).sigmoid().unflatten(1, self.out_shape)

    def extra_repr(self) -> str:
        """Tell what `repr` shows."""
        return f"in_features={self.in_features}, out_shape={self.out_shape}"
