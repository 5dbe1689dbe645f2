"""Layers of matrix capsules, on grids of poses ``(B, h, w, I, P, P)`` and activations ``(B, h, w, I)``.

The layers hold parameters and call `emroute.capsule`. Layers that route return a `Routing`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Unpack

from emroute.backend import Array, namespace
from emroute.capsule import class_em_routing, conv_em_routing
from emroute.nn.layer import Layer, Where
from emroute.nn.precision import keep_activations
from emroute.nn.sizes import check_counts, check_features, em_options, entry_pair, place_tuples, window
from emroute.validate import check_count

__all__ = ["ClassCapsules", "ConvCapsules", "MatrixPrimaryCapsules"]


class MatrixPrimaryCapsules(Layer):
    """Primary capsules: a convolution whose channels at each position are poses and activations of matrix capsules.

    Parameters
    ----------
    in_channels, kernel_size, stride, padding, bias
        Options of the convolution. Sizes are one number, or height and width. Its channels are those of all poses, then
        those of all activations.
    out_capsules
        The number of kinds of capsules at each position.
    pose_size
        P, for poses of P by P.

    References
    ----------
    Hinton, G. E., Sabour, S. and Frosst, N. (2018). Matrix capsules with EM routing. ICLR. Section 4, layer B.
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
        **where: Unpack[Where],
    ) -> None:
        super().__init__(**where)
        check_counts(in_channels=in_channels, out_capsules=out_capsules, pose_size=pose_size)
        seen = window(kernel_size, stride, padding)
        self.in_channels, self.out_capsules, self.pose_size = in_channels, out_capsules, pose_size
        self.conv = self._convolution(in_channels, out_capsules * (pose_size**2 + 1), seen, bias, **where)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Map images or features to poses ``(B, h', w', I, P, P)`` and activations ``(B, h', w', I)``."""
        check_features(x, self.in_channels, self.channel_axis)
        x = namespace(x).moveaxis(self.conv(x), self.channel_axis, -1)
        i, p = self.out_capsules, self.pose_size
        poses, logits = x[..., : i * p * p], x[..., i * p * p :]
        return poses.reshape(*poses.shape[:-1], i, p, p), self._functions["sigmoid"](logits)


class _EMRouting(Layer):
    """The transforms, betas and options that layers routed by EM share."""

    transforms: Any
    beta_u: Any
    beta_a: Any

    def _prepare(self, shape: tuple[int, ...], options: dict[str, Any], where: Where) -> None:
        self.options = options
        self._parameter("transforms", shape, shape[-1] ** -0.5, **where)  # so that votes are as large as poses
        self._parameter("beta_u", shape[-3:-2], 0.0, **where)
        self._parameter("beta_a", shape[-3:-2], 0.0, **where)

    def _route(self, route: Callable[..., Any], grid: tuple[Array, Array], **options: Any) -> Any:
        poses, transforms = self._promoted(grid[0], self._array(self.transforms))
        betas = self._array(self.beta_u), self._array(self.beta_a)
        return keep_activations(route, poses, grid[1], transforms, *betas, **options, **self.options)


class ConvCapsules(_EMRouting):
    """Convolutional capsules, found by EM routing of the votes in each window. All positions share their transforms.

    Parameters
    ----------
    in_capsules, out_capsules
        The numbers of kinds of capsules at each position in the layer below and in this layer.
    kernel_size, stride, padding
        The geometry of the windows.
    pose_size
        P, for poses of P by P.
    n_iter, cost, inverse_temperature, epsilon, recompute
        Options of the routing, see `emroute.capsule.em_routing`.

    References
    ----------
    Hinton, Sabour and Frosst (2018), section 4, layers C and D.
    """

    settings = ("options", "stride", "padding")
    _routing: ClassVar[Callable[..., Any]] = staticmethod(conv_em_routing)

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
        **where: Unpack[Where],
    ) -> None:
        super().__init__(**where)
        check_counts(in_capsules=in_capsules, out_capsules=out_capsules, pose_size=pose_size)
        check_counts(kernel_size=kernel_size, stride=stride)
        self.stride, self.padding = stride, check_count("padding", padding, 0)
        shape = (kernel_size, kernel_size, in_capsules, out_capsules, pose_size, pose_size)
        self._prepare(shape, em_options(n_iter, cost, inverse_temperature, epsilon, recompute), where)

    def forward(self, poses: Array, activations: Array, *, return_path: bool = False) -> Any:
        """Route a grid ``(B, h, w, I, P, P)`` and ``(B, h, w, I)`` to a smaller one; return a `Routing`."""
        own = {"stride": self.stride, "padding": self.padding, "return_path": return_path}
        return self._route(self._routing, (poses, activations), **own)


class ClassCapsules(_EMRouting):
    """Class capsules, one per class, for which all capsules of a grid vote, with coordinate addition.

    Parameters
    ----------
    in_capsules
        The number of kinds of capsules at each position in the layer below.
    out_capsules
        The number of classes.
    entries, coordinates
        Options of the coordinate addition, see `emroute.capsule.class_em_routing`.
    pose_size
        P, for poses of P by P.
    n_iter, cost, inverse_temperature, epsilon, recompute
        Options of the routing, see `emroute.capsule.em_routing`.

    References
    ----------
    Hinton, Sabour and Frosst (2018), section 4.
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
        **where: Unpack[Where],
    ) -> None:
        super().__init__(**where)
        check_counts(in_capsules=in_capsules, out_capsules=out_capsules, pose_size=pose_size)
        self.entries, self.coordinates = entry_pair(entries, pose_size), place_tuples(coordinates)
        shape = (in_capsules, out_capsules, pose_size, pose_size)
        self._prepare(shape, em_options(n_iter, cost, inverse_temperature, epsilon, recompute), where)

    def forward(self, poses: Array, activations: Array, *, return_path: bool = False) -> Any:
        """Route a grid ``(B, h, w, I, P, P)`` and ``(B, h, w, I)`` to a `Routing` with poses ``(B, J, P * P)``."""
        own = {"entries": self.entries, "coordinates": self.coordinates, "return_path": return_path}
        return self._route(class_em_routing, (poses, activations), **own)
