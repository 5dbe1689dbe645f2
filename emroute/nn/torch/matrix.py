"""Layers of matrix capsules for Torch, on grids of poses ``(B, h, w, I, P, P)`` and activations ``(B, h, w, I)``.

They hold parameters and call `emroute.capsule`; those that route return a `Routing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emroute.capsule import class_em_routing, conv_em_routing
from emroute.nn.precision import keep_activations
from emroute.nn.settings import Configurable
from emroute.nn.sizes import check_counts, check_features, em_options, entry_pair, pair, place_tuples
from emroute.validate import check_count

__all__ = ["ClassCapsules", "ConvCapsules", "MatrixPrimaryCapsules"]

# the host tells which child is in which window, on which a compiled graph would break dozens of times
_route_grid: Any = torch.compiler.disable(conv_em_routing)


class MatrixPrimaryCapsules(nn.Module):
    """A convolution whose channels at a position are the poses and activations of matrix capsules.

    Parameters
    ----------
    in_channels, kernel_size, stride, padding, bias
        As of `torch.nn.Conv2d`. Its channels are those of all poses, then those of all activations.
    out_capsules
        How many kinds of capsules there are at each position.
    pose_size
        P, of poses P by P.

    References
    ----------
    Hinton, G. E., Sabour, S. and Frosst, N. (2018). Matrix capsules with EM routing. ICLR. Section 4, layer B.

    Examples
    --------
    >>> poses, activations = MatrixPrimaryCapsules(32, 8)(torch.zeros(1, 32, 14, 14))
    >>> poses.shape, activations.shape
    (torch.Size([1, 14, 14, 8, 4, 4]), torch.Size([1, 14, 14, 8]))
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
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, out_capsules=out_capsules, pose_size=pose_size)
        window = pair("kernel_size", kernel_size), pair("stride", stride), pair("padding", padding, 0)
        self.out_capsules, self.pose_size = out_capsules, pose_size
        channels = out_capsules * (pose_size**2 + 1)
        self.conv = nn.Conv2d(in_channels, channels, *window, bias=bias, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Take ``(B, C, h, w)`` to poses ``(B, h', w', I, P, P)`` and activations ``(B, h', w', I)``."""
        check_features(x, self.conv.in_channels, 1)
        i, p = self.out_capsules, self.pose_size
        poses, logits = self.conv(x).permute(0, 2, 3, 1).split([i * p * p, i], dim=-1)
        return poses.unflatten(-1, (i, p, p)), logits.sigmoid()

    def extra_repr(self) -> str:
        """Tell what `repr` shows."""
        return f"out_capsules={self.out_capsules}, pose_size={self.pose_size}"


class _EMRouting(Configurable, nn.Module):
    """What layers routed by EM share: transforms, betas and options."""

    def __init__(self, shape: tuple[int, ...], options: dict[str, Any], device: Any, dtype: Any) -> None:
        super().__init__()
        self.options = options
        self.transforms = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.beta_u = nn.Parameter(torch.empty(shape[-3], device=device, dtype=dtype))
        self.beta_a = nn.Parameter(torch.empty(shape[-3], device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw transforms anew, such that votes are as large as poses; both betas are 0."""
        nn.init.normal_(self.transforms, std=self.transforms.shape[-1] ** -0.5)
        nn.init.zeros_(self.beta_u)
        nn.init.zeros_(self.beta_a)

    def extra_repr(self) -> str:
        """Tell what `repr` shows."""
        *kernel, i, j, p, _ = self.transforms.shape
        size = f", kernel_size={kernel[0]}" if kernel else ""
        return f"{i}, {j}{size}, pose_size={p}, n_iter={self.options['n_iter']}, cost={self.options['cost']!r}"


class ConvCapsules(_EMRouting):
    """Capsules that those in a window vote for, found by EM routing; every position has the same transforms.

    Parameters
    ----------
    in_capsules, out_capsules
        How many kinds of capsules there are at each position below and here.
    kernel_size, stride, padding
        Of the windows.
    pose_size
        P, of poses P by P.
    n_iter, cost, inverse_temperature, epsilon, recompute
        As of `emroute.capsule.em_routing`.

    References
    ----------
    Hinton, Sabour and Frosst (2018), section 4, layers C and D.

    Examples
    --------
    >>> layer = ConvCapsules(8, 16, 3, stride=2)
    >>> found = layer(torch.zeros(1, 14, 14, 8, 4, 4), torch.ones(1, 14, 14, 8))
    >>> found.poses.shape, found.activations.shape
    (torch.Size([1, 6, 6, 16, 4, 4]), torch.Size([1, 6, 6, 16]))
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
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        check_counts(in_capsules=in_capsules, out_capsules=out_capsules, pose_size=pose_size)
        check_counts(kernel_size=kernel_size, stride=stride)
        shape = (kernel_size, kernel_size, in_capsules, out_capsules, pose_size, pose_size)
        padding = check_count("padding", padding, 0)
        super().__init__(shape, em_options(n_iter, cost, inverse_temperature, epsilon, recompute), device, dtype)
        self.stride, self.padding = stride, padding

    def forward(self, poses: Tensor, activations: Tensor, *, return_path: bool = False) -> Any:
        """Route a grid ``(B, h, w, I, P, P)`` and ``(B, h, w, I)`` to a smaller one, a `Routing`."""
        return keep_activations(
            _route_grid,
            poses,
            activations,
            self.transforms,
            self.beta_u,
            self.beta_a,
            stride=self.stride,
            padding=self.padding,
            return_path=return_path,
            **self.options,
        )

    def extra_repr(self) -> str:
        """Tell what `repr` shows."""
        return f"{super().extra_repr()}, stride={self.stride}, padding={self.padding}"


class ClassCapsules(_EMRouting):
    """One capsule a class, that all capsules of a grid vote for, with coordinate addition.

    Parameters
    ----------
    in_capsules
        How many kinds of capsules there are at each position below.
    out_capsules
        Classes.
    entries, coordinates
        As of `emroute.capsule.class_em_routing`.
    pose_size, n_iter, cost, inverse_temperature, epsilon, recompute
        As of `ConvCapsules`.

    References
    ----------
    Hinton, Sabour and Frosst (2018), section 4.

    Examples
    --------
    >>> found = ClassCapsules(16, 10)(torch.zeros(1, 4, 4, 16, 4, 4), torch.ones(1, 4, 4, 16))
    >>> found.poses.shape, found.activations.shape
    (torch.Size([1, 10, 16]), torch.Size([1, 10]))
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
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        check_counts(in_capsules=in_capsules, out_capsules=out_capsules, pose_size=pose_size)
        shape, entries = (in_capsules, out_capsules, pose_size, pose_size), entry_pair(entries, pose_size)
        super().__init__(shape, em_options(n_iter, cost, inverse_temperature, epsilon, recompute), device, dtype)
        self.entries, self.coordinates = entries, place_tuples(coordinates)

    def forward(self, poses: Tensor, activations: Tensor, *, return_path: bool = False) -> Any:
        """Route a grid ``(B, h, w, I, P, P)`` and ``(B, h, w, I)`` to a `Routing` with poses ``(B, J, P * P)``."""
        return keep_activations(
            class_em_routing,
            poses,
            activations,
            self.transforms,
            self.beta_u,
            self.beta_a,
            entries=self.entries,
            coordinates=self.coordinates,
            return_path=return_path,
            **self.options,
        )
