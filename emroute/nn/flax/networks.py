"""Capsule networks for Flax NNX, with their files of weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import numpy as np
from flax import nnx

from emroute.nn import constellations, networks
from emroute.nn.flax import layers
from emroute.nn.flax.layers import Layer, complete
from emroute.nn.network import CapsuleNetwork
from emroute.nn.settings import changed_settings, check_kinds, configure
from emroute.nn.weights import build, check_tensors, describe_network, read_network, saved_arguments, write_network

__all__ = ["CapsNet", "ConstellationNet", "EfficientCapsNet", "MatrixCapsNet", "load", "save"]


class _Network(CapsuleNetwork, Layer):
    _layers = layers


@complete
class CapsNet(networks.CapsNet, _Network):
    """Images are ``(B, h, w, C)``; `dtype`, `param_dtype` and `rngs` are as of `flax.nnx.Conv`.

    Examples
    --------
    >>> network = CapsNet(rngs=nnx.Rngs(0))
    >>> output = jax.eval_shape(network, jax.numpy.zeros((1, 28, 28, 1)))  # computes nothing
    >>> output.poses.shape, output.activations.shape, output.reconstructions.shape
    ((1, 10, 16), (1, 10), (1, 28, 28, 1))
    """


@complete
class MatrixCapsNet(networks.MatrixCapsNet, _Network):
    """Images are ``(B, h, w, C)``; `dtype`, `param_dtype` and `rngs` are as of `flax.nnx.Conv`.

    Examples
    --------
    >>> network = MatrixCapsNet(1, 10, 28, widths=(8, 4, 4, 4), rngs=nnx.Rngs(0))
    >>> output = jax.eval_shape(network, jax.numpy.zeros((1, 28, 28, 1)))  # computes nothing
    >>> output.poses.shape, output.activations.shape
    ((1, 10, 16), (1, 10))
    """


@complete
class EfficientCapsNet(networks.EfficientCapsNet, _Network):
    """Images are ``(B, h, w, C)``; `dtype`, `param_dtype` and `rngs` are as of `flax.nnx.Conv`.

    Examples
    --------
    >>> network = nnx.eval_shape(lambda: EfficientCapsNet(decoder=False, rngs=nnx.Rngs(0)))  # draws nothing
    >>> sum(weight.size for weight in jax.tree.leaves(nnx.state(network, nnx.Param)))
    161824
    """


@complete
class ConstellationNet(constellations.ConstellationNet, Layer):
    """`dtype`, `param_dtype` and `rngs` are as of `flax.nnx.Linear`.

    Examples
    --------
    >>> network = ConstellationNet(rngs=nnx.Rngs(0))
    >>> jax.eval_shape(network, jax.numpy.zeros((5, 11, 2))).responsibilities.shape  # computes nothing
    (5, 11, 3)
    """

    _layers = layers


Network: TypeAlias = CapsNet | MatrixCapsNet | EfficientCapsNet | ConstellationNet

_NETWORKS: dict[str, type[Network]] = {
    "CapsNet": CapsNet,
    "MatrixCapsNet": MatrixCapsNet,
    "EfficientCapsNet": EfficientCapsNet,
    "ConstellationNet": ConstellationNet,
}
_IN_TORCH = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_TO_TORCH = {2: (1, 0), 4: (3, 2, 0, 1)}  # of kernels (in, out) and (h, w, in, out), by their number of axes
_FROM_TORCH = {2: (1, 0), 4: (2, 3, 1, 0)}


def save(network: Network, path: str | os.PathLike[str]) -> None:
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
    weights = nnx.to_flat_state(nnx.state(network, (nnx.Param, nnx.BatchStat)))
    tensors = {_name(place): np.ascontiguousarray(_turned(place, weight[...], _TO_TORCH)) for place, weight in weights}
    check_tensors("the network to save", tensors, _shapes(nnx.to_flat_state(nnx.state(fresh))))
    check_kinds(modules, expected)
    write_network(path, describe_network(network, arguments, settings), tensors, "flax")


def load(path: str | os.PathLike[str], *, dtype: Any = None) -> Network:
    """Read a network that `save` wrote, here or in `emroute.nn.torch`, onto the default device.

    It is in evaluation mode. Float64 stays so only where JAX has it (``jax_enable_x64``).

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
    network = nnx.merge(structure, nnx.from_flat_state(read))
    network.eval()
    return network


def _outline(make: Any, arguments: Mapping[str, Any], dtype: Any = None) -> Any:
    """Return a network that draws and holds nothing."""
    return nnx.eval_shape(lambda: make(**arguments, dtype=dtype, rngs=nnx.Rngs(0)))


def _modules(network: Any) -> dict[str, nnx.Module]:
    return {".".join(map(str, place)): module for place, module in nnx.iter_modules(network)}


def _name(place: tuple[Any, ...]) -> str:
    """Return what Torch calls a weight, or a moment of batches."""
    return ".".join(map(str, (*place[:-1], _IN_TORCH.get(place[-1], place[-1]))))


def _turned(place: tuple[Any, ...], value: jax.Array, axes: dict[int, tuple[int, ...]]) -> jax.Array:
    return value.transpose(axes[value.ndim]) if place[-1] == "kernel" else value


def _shapes(weights: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes that weights have in Torch."""
    return {_name(place): _shape(place, weight.shape) for place, weight in weights}


def _shape(place: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in _TO_TORCH[len(shape)]) if place[-1] == "kernel" else shape
