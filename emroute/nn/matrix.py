"""Layers of matrix capsules, on grids of poses ``(B, h, w, I, P, P)`` and activations ``(B, h, w, I)``.

The layers hold parameters and call `emroute.capsule`. Layers that route return a `Routing`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Unpack

from emroute.arrays.functions import softmax
from emroute.backend import Array, namespace
from emroute.capsule.checks import for_statistics
from emroute.nn.layer import Layer, Where
from emroute.nn.precision import keep_activations
from emroute.nn.sizes import check_counts, check_features, em_options, entry_pair, place_tuples, window
from emroute.nn.ways import WAYS, check_routing, in_one_pass, routings
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


class _Routed(Layer):
    """The transforms, the other parameters of the routing, and the options that layers with routing share."""

    transforms: Any
    _routings: ClassVar[Mapping[str, Callable[..., Any]]]

    def _prepare(self, routing: str, shape: tuple[int, ...], options: dict[str, Any], where: Where) -> None:
        self.routing, self.options = check_routing(routing, options["cost"]), options
        *lead, p, _ = shape
        if routing == "self":  # of poses as vectors
            self._parameter("transforms", (*lead, p * p, p * p), 1 / p, **where)
            self._parameter("route_weights", (*lead, p * p), 0.0, **where)
            self._parameter("route_bias", lead, 0.0, **where)
            return
        self._parameter("transforms", shape, p**-0.5, **where)  # such that votes are as large as poses
        if routing == "attention":
            self._parameter("gain", (p * p,), self._ones, **where)
            self._parameter("bias", (p * p,), 0.0, **where)
        else:
            self._parameter("beta_u", lead[-1:], 0.0, **where)
            self._parameter("beta_a", lead[-1:], 0.0, **where)

    def _route(self, grid: tuple[Array, Array], return_path: bool, **own: Any) -> Any:
        way = WAYS[self.routing]
        poses, transforms = self._promoted(grid[0], self._array(self.transforms))
        learned = {name: self._array(getattr(self, name)) for name in way.learned}
        given = {"activations": grid[1]} if way.activations else {}
        options = {name: self.options[name] for name in way.options} | dict(way.fixed)
        own = {name: value for name, value in own.items() if name not in way.without}
        route = in_one_pass(self._routings["self"]) if self.routing == "self" else self._routings[way.name]
        arrays = {**given, "transforms": transforms, **learned}
        return keep_activations(route, poses, return_path=return_path, **arrays, **options, **own)


class ConvCapsules(_Routed):
    """Convolutional capsules, found by routing the votes in each window. All positions share their transforms.

    Parameters
    ----------
    in_capsules, out_capsules
        The numbers of kinds of capsules at each position in the layer below and in this layer.
    kernel_size, stride, padding
        The geometry of the windows.
    pose_size
        P, for poses of P by P.
    routing
        The routing: ``"em"`` (diagonal covariances), ``"full"`` (EM with full covariances), ``"variational"``,
        ``"attention"`` or ``"self"``; see `emroute.capsule`.
    n_iter, cost, inverse_temperature, epsilon, recompute
        Options of the routing, see `emroute.capsule.em_routing`. Variational and attention routing take only `n_iter`,
        self-routing takes none.

    References
    ----------
    Hinton, Sabour and Frosst (2018), section 4, layers C and D.
    """

    settings = ("options", "stride", "padding")
    _routings: ClassVar = routings("conv")

    def __init__(
        self,
        in_capsules: int,
        out_capsules: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        pose_size: int = 4,
        routing: str = "em",
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
        self._prepare(routing, shape, em_options(n_iter, cost, inverse_temperature, epsilon, recompute), where)

    def forward(self, poses: Array, activations: Array, *, return_path: bool = False) -> Any:
        """Route a grid ``(B, h, w, I, P, P)`` and ``(B, h, w, I)`` to a smaller one; return a `Routing`."""
        return self._route((poses, activations), return_path, stride=self.stride, padding=self.padding)


class ClassCapsules(_Routed):
    """Class capsules, one per class, for which all capsules of a grid vote, with coordinate addition.

    Parameters
    ----------
    in_capsules
        The number of kinds of capsules at each position in the layer below.
    out_capsules
        The number of classes.
    entries, coordinates
        Options of the coordinate addition, see `emroute.capsule.class_em_routing`.
    pose_size, routing, n_iter, cost, inverse_temperature, epsilon, recompute
        As in `ConvCapsules`. Attention routing has no activations: the activation of a class is then the softmax of a
        learned score, which is linear in the pose and shared by all classes.

    References
    ----------
    Hinton, Sabour and Frosst (2018), section 4.
    """

    score: Any
    settings = ("options", "entries", "coordinates")
    _routings: ClassVar = routings("class")

    def __init__(
        self,
        in_capsules: int,
        out_capsules: int,
        *,
        entries: Sequence[int] | None = (0, 1),
        coordinates: Any = None,
        pose_size: int = 4,
        routing: str = "em",
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
        self._prepare(routing, shape, em_options(n_iter, cost, inverse_temperature, epsilon, recompute), where)
        if routing == "attention":
            self._parameter("score", (pose_size**2,), 1 / pose_size, **where)

    def forward(self, poses: Array, activations: Array, *, return_path: bool = False) -> Any:
        """Route a grid ``(B, h, w, I, P, P)`` and ``(B, h, w, I)`` to a `Routing` with poses ``(B, J, P * P)``."""
        places = {"entries": self.entries, "coordinates": self.coordinates}
        found = self._route((poses, activations), return_path, **places)
        if self.routing != "attention":
            return found
        steps = found[1] if return_path else (found,)
        scored = [step._replace(activations=self._scores(step.poses)) for step in steps]
        return (scored[-1], tuple(scored)) if return_path else scored[-1]

    def _scores(self, poses: Array) -> Array:
        """Of each class, from a linear function of its pose that all share."""
        (wide,) = for_statistics(poses, poses)
        return softmax(namespace(wide).sum(wide * self._array(self.score), axis=-1))
