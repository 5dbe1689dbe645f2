"""Capsule networks for Flax NNX, with their files of weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from emroute.capsule import Routing
from emroute.nn.flax.matrix import ClassCapsules, ConvCapsules, MatrixPrimaryCapsules
from emroute.nn.flax.vector import Decoder, DynamicRouting, PrimaryCapsules, convolution
from emroute.nn.network import CapsuleNetwork
from emroute.nn.outputs import CapsuleOutput
from emroute.nn.settings import changed_settings, check_kinds, configure
from emroute.nn.sizes import (
    capsnet_children,
    check_counts,
    em_options,
    matrix_capsnet_places,
    matrix_capsnet_widths,
    pair,
)
from emroute.nn.weights import (
    build,
    check_tensors,
    describe_network,
    network_arguments,
    read_network,
    saved_arguments,
    write_network,
)

__all__ = ["CapsNet", "MatrixCapsNet", "load", "save"]


class _Network(CapsuleNetwork, nnx.Module):
    def __call__(self, images: jax.Array, labels: jax.Array | None = None) -> CapsuleOutput:
        """Find class capsules in images ``(B, h, w, C)`` and draw the images again; as `find`."""
        return self.find(images, labels)


class CapsNet(_Network):
    """The network of Sabour, Frosst and Hinton: two convolutions, primary capsules, class capsules, decoder.

    Parameters
    ----------
    in_channels, n_classes, image_size
        As of `emroute.nn.torch.CapsNet`.
    channels, kernel_size, primary_capsules, primary_features, class_features, n_iter, primary_relu
        As of `emroute.nn.torch.CapsNet`.
    decoder, decoder_features, decoder_activation
        As of `emroute.nn.torch.CapsNet`.
    dtype, param_dtype, rngs
        As of `flax.nnx.Conv`.

    Raises
    ------
    InputError
        If images are too small for the convolutions.

    Examples
    --------
    >>> network = CapsNet(rngs=nnx.Rngs(0))
    >>> output = jax.eval_shape(network, jnp.zeros((1, 28, 28, 1)))  # computes nothing
    >>> output.poses.shape, output.activations.shape, output.reconstructions.shape
    ((1, 10, 16), (1, 10), (1, 28, 28, 1))
    """

    def __init__(
        self,
        in_channels: int = 1,
        n_classes: int = 10,
        image_size: int | tuple[int, int] = 28,
        *,
        channels: int = 256,
        kernel_size: int = 9,
        primary_capsules: int = 32,
        primary_features: int = 8,
        class_features: int = 16,
        n_iter: int = 3,
        primary_relu: bool = False,
        decoder: bool = True,
        decoder_features: Sequence[int] = (512, 1024),
        decoder_activation: str | None = "sigmoid",
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.arguments = network_arguments(locals())
        check_counts(in_channels=in_channels, n_classes=n_classes, channels=channels)
        check_counts(primary_features=primary_features, class_features=class_features)
        where: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        h, w = pair("image_size", image_size)
        self.image_shape = h, w, in_channels
        children = capsnet_children((h, w), kernel_size, primary_capsules)
        self.conv = convolution(in_channels, channels, kernel_size, **where)
        self.primary = PrimaryCapsules(
            channels, primary_capsules, primary_features, kernel_size, stride=2, relu=primary_relu, **where
        )
        own: dict[str, Any] = {"n_iter": n_iter, "init": 0.1}  # the start of the paper's authors
        self.classes = DynamicRouting(children, n_classes, primary_features, class_features, **own, **where)
        hidden: dict[str, Any] = {"hidden_features": decoder_features, "activation": decoder_activation, **where}
        self.decoder = Decoder(n_classes * class_features, self.image_shape, **hidden) if decoder else None

    def route(self, images: jax.Array) -> Routing:
        """Take images to the routing of the class capsules; activations are the lengths of poses."""
        return self.classes(self.primary(nnx.relu(self.conv(images))))


class MatrixCapsNet(_Network):
    """The network of Hinton, Sabour and Frosst: a convolution (A) and four layers of matrix capsules, routed by EM.

    Parameters
    ----------
    in_channels, n_classes, image_size, widths, pose_size
        As of `emroute.nn.torch.MatrixCapsNet`.
    coordinates, entries, decoder, decoder_features, decoder_activation
        As of `emroute.nn.torch.MatrixCapsNet`.
    n_iter, cost, inverse_temperature, epsilon, recompute
        Of all three routings, as of `emroute.capsule.em_routing`.
    dtype, param_dtype, rngs
        As of `flax.nnx.Conv`.

    Raises
    ------
    InputError
        If images are too small for the windows.

    Examples
    --------
    >>> network = MatrixCapsNet(1, 10, 28, widths=(8, 4, 4, 4), rngs=nnx.Rngs(0))
    >>> output = jax.eval_shape(network, jnp.zeros((1, 28, 28, 1)))  # computes nothing
    >>> output.poses.shape, output.activations.shape
    ((1, 10, 16), (1, 10))
    """

    def __init__(
        self,
        in_channels: int = 1,
        n_classes: int = 10,
        image_size: int | tuple[int, int] = 28,
        *,
        widths: Sequence[int] = (32, 32, 32, 32),
        pose_size: int = 4,
        n_iter: int = 3,
        cost: str = "hinton",
        inverse_temperature: Any = None,
        epsilon: float = 1e-6,
        recompute: bool = True,
        coordinates: Any = "grid",
        entries: Sequence[int] | str | None = "default",
        decoder: bool = False,
        decoder_features: Sequence[int] = (512, 1024),
        decoder_activation: str | None = "sigmoid",
        dtype: Any = None,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.arguments = network_arguments(locals())
        check_counts(in_channels=in_channels, n_classes=n_classes, pose_size=pose_size)
        where: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        routing = em_options(n_iter, cost, inverse_temperature, epsilon, recompute) | {"pose_size": pose_size}
        h, w = pair("image_size", image_size)
        self.image_shape = h, w, in_channels
        a, b, c, d = matrix_capsnet_widths((h, w), widths)
        places, entries = matrix_capsnet_places((h, w), pose_size, coordinates, entries)
        self.arguments["entries"] = entries
        self.conv = convolution(in_channels, a, 5, 2, **where)
        self.primary = MatrixPrimaryCapsules(a, b, pose_size=pose_size, **where)
        self.conv_capsules1 = ConvCapsules(b, c, 3, stride=2, **routing, **where)
        self.conv_capsules2 = ConvCapsules(c, d, 3, **routing, **where)
        self.classes = ClassCapsules(d, n_classes, entries=entries, coordinates=places, **routing, **where)
        hidden: dict[str, Any] = {"hidden_features": decoder_features, "activation": decoder_activation, **where}
        self.decoder = Decoder(n_classes * pose_size**2, self.image_shape, **hidden) if decoder else None

    def grid(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Take images to the poses ``(B, h, w, I, P, P)`` and activations ``(B, h, w, I)`` below the classes."""
        poses, activations = self.primary(nnx.relu(self.conv(images)))
        for layer in (self.conv_capsules1, self.conv_capsules2):
            poses, activations, _ = layer(poses, activations)
        return poses, activations

    def route(self, images: jax.Array) -> Routing:
        """Take images to the routing of the class capsules."""
        return self.classes(*self.grid(images))


_NETWORKS: dict[str, type[CapsNet | MatrixCapsNet]] = {"CapsNet": CapsNet, "MatrixCapsNet": MatrixCapsNet}
_TO_TORCH = {2: (1, 0), 4: (3, 2, 0, 1)}  # of kernels (in, out) and (h, w, in, out), by their number of axes
_FROM_TORCH = {2: (1, 0), 4: (2, 3, 1, 0)}


def save(network: CapsNet | MatrixCapsNet, path: str | os.PathLike[str]) -> None:
    """Write a network to a safetensors file, which `load` here and in `emroute.nn.torch` reads.

    The file holds what the network does now, but for the `dtype` of computations, which `load` takes: settings of its
    layers that were changed since it was made, such as ``network.classes.n_iter``, are in it too.

    Raises
    ------
    InputError
        If it is no such network, or has other weights than `load` would look for, or was changed in a way that no file
        holds: an inverse temperature that is a function, other strides of its convolution.
    MissingDependencyError
        If safetensors is not installed.
    OSError
        If the file cannot be written; one that was there stays as it was.

    Examples
    --------
    >>> import tempfile
    >>> path = f"{tempfile.mkdtemp()}/network.safetensors"
    >>> save(MatrixCapsNet(widths=(8, 4, 4, 4), rngs=nnx.Rngs(0)), path)
    >>> load(path).arguments["widths"]
    (8, 4, 4, 4)
    """
    arguments = saved_arguments(network, _NETWORKS)
    fresh = _outline(type(network), arguments)
    modules, expected = _modules(network), _modules(fresh)
    settings = changed_settings(modules, expected)
    weights = nnx.to_flat_state(nnx.state(network, nnx.Param))
    tensors = {_name(place): np.ascontiguousarray(_turned(place, weight[...], _TO_TORCH)) for place, weight in weights}
    check_tensors("the network to save", tensors, _shapes(nnx.to_flat_state(nnx.state(fresh))))
    check_kinds(modules, expected)
    write_network(path, describe_network(network, arguments, settings), tensors, "flax")


def load(path: str | os.PathLike[str], *, dtype: Any = None) -> CapsNet | MatrixCapsNet:
    """Read a network that `save` wrote, here or in `emroute.nn.torch`, onto the default device.

    Float64 stays so only where JAX has it (``jax_enable_x64``).

    Parameters
    ----------
    path
        Of the file.
    dtype
        Of computations; parameters have the file's.

    Raises
    ------
    InputError
        If the file is damaged, or is not of these networks.
    MissingDependencyError
        If safetensors is not installed.
    OSError
        If the file cannot be read.
    """
    make, arguments, settings, tensors = read_network(path, _NETWORKS, "flax")
    network = build(path, _outline, {"make": make, "arguments": arguments, "dtype": dtype})
    configure(path, _modules(network), settings)
    structure, state = nnx.split(network)
    weights = nnx.to_flat_state(state)
    check_tensors(path, tensors, _shapes(weights))
    read = [(place, weight.replace(_turned(place, tensors[_name(place)], _FROM_TORCH))) for place, weight in weights]
    return nnx.merge(structure, nnx.from_flat_state(read))


def _outline(make: Any, arguments: Mapping[str, Any], dtype: Any = None) -> Any:
    """Return a network that draws and holds nothing."""
    return nnx.eval_shape(lambda: make(**arguments, dtype=dtype, rngs=nnx.Rngs(0)))


def _modules(network: Any) -> dict[str, nnx.Module]:
    return {".".join(map(str, place)): module for place, module in nnx.iter_modules(network)}


def _name(place: tuple[Any, ...]) -> str:
    """Return what Torch calls a weight."""
    return ".".join(map(str, (*place[:-1], "weight" if place[-1] == "kernel" else place[-1])))


def _turned(place: tuple[Any, ...], value: jax.Array, axes: dict[int, tuple[int, ...]]) -> jax.Array:
    return value.transpose(axes[value.ndim]) if place[-1] == "kernel" else value


def _shapes(weights: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes that weights have in Torch."""
    return {_name(place): _shape(place, weight.shape) for place, weight in weights}


def _shape(place: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in _TO_TORCH[len(shape)]) if place[-1] == "kernel" else shape
