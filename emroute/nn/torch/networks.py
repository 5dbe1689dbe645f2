"""Capsule networks for Torch, with their files of weights."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.utils import _pytree

from emroute.nn import constellations, networks
from emroute.nn.layer import complete
from emroute.nn.network import CapsuleNetwork
from emroute.nn.outputs import CapsuleOutput
from emroute.nn.settings import changed_settings, check_kinds, configure
from emroute.nn.torch import layers
from emroute.nn.torch.layers import Layer
from emroute.nn.weights import build, check_tensors, describe_network, read_network, saved_arguments, write_network

__all__ = ["CapsNet", "ConstellationNet", "EfficientCapsNet", "MatrixCapsNet", "load", "save"]

# an exported network can only be saved if what it returns has a name; Torch's error asks for this very call
_pytree._register_namedtuple(CapsuleOutput, serialized_type_name="emroute.nn.CapsuleOutput")


class _Network(CapsuleNetwork, Layer):
    _layers = layers
    _told = ("image_shape",)


@complete
class CapsNet(networks.CapsNet, _Network):
    """Images are ``(B, C, h, w)``; `device` and `dtype` are as of `torch.nn.Conv2d`.

    Examples
    --------
    >>> network = CapsNet()
    >>> sum(parameter.numel() for parameter in network.parameters())
    8215568
    >>> output = network(torch.zeros(1, 1, 28, 28))
    >>> output.poses.shape, output.activations.shape, output.reconstructions.shape
    (torch.Size([1, 10, 16]), torch.Size([1, 10]), torch.Size([1, 1, 28, 28]))
    """


@complete
class MatrixCapsNet(networks.MatrixCapsNet, _Network):
    """Images are ``(B, C, h, w)``; `device` and `dtype` are as of `torch.nn.Conv2d`.

    Examples
    --------
    >>> network = MatrixCapsNet(2, 5, 32)
    >>> sum(parameter.numel() for parameter in network.parameters())
    316650
    >>> output = MatrixCapsNet(1, 10, 28, widths=(64, 8, 16, 16), decoder=True)(torch.zeros(1, 1, 28, 28))
    >>> output.poses.shape, output.activations.shape, output.reconstructions.shape
    (torch.Size([1, 10, 16]), torch.Size([1, 10]), torch.Size([1, 1, 28, 28]))
    """


@complete
class EfficientCapsNet(networks.EfficientCapsNet, _Network):
    """Images are ``(B, C, h, w)``; `device` and `dtype` are as of `torch.nn.Conv2d`.

    Examples
    --------
    >>> network = EfficientCapsNet(decoder=False)
    >>> sum(parameter.numel() for parameter in network.parameters())
    161824
    >>> network.eval()(torch.zeros(1, 1, 28, 28)).poses.shape
    torch.Size([1, 10, 16])
    """


@complete
class ConstellationNet(constellations.ConstellationNet, Layer):
    """`device` and `dtype` are as of `torch.nn.Linear`.

    Examples
    --------
    >>> ConstellationNet()(torch.zeros(5, 11, 2)).responsibilities.shape
    torch.Size([5, 11, 3])
    """

    _layers = layers


Network: TypeAlias = CapsNet | MatrixCapsNet | EfficientCapsNet | ConstellationNet

_NETWORKS: dict[str, type[Network]] = {
    "CapsNet": CapsNet,
    "MatrixCapsNet": MatrixCapsNet,
    "EfficientCapsNet": EfficientCapsNet,
    "ConstellationNet": ConstellationNet,
}


def save(network: Network, path: str | os.PathLike[str]) -> None:
    """Write a network to a safetensors file, which `load` here and in `emroute.nn.flax` reads.

    The file holds what the network does now: settings of its layers that were changed since it was made, such as
    ``network.classes.n_iter``, are in it too.

    Raises
    ------
    InputError
        If it is no such network, or has other weights than `load` would look for (undo parametrizations first), or it
        was changed in a way that no file holds: an inverse temperature that is a function, another stride of its
        convolution.
    MissingDependencyError
        If safetensors is not installed.
    OSError
        If the file cannot be written; one that was there stays as it was.

    Examples
    --------
    >>> import tempfile
    >>> path = f"{tempfile.mkdtemp()}/network.safetensors"
    >>> save(MatrixCapsNet(widths=(8, 4, 4, 4)), path)
    >>> load(path).arguments["widths"]
    (8, 4, 4, 4)
    """
    network = getattr(network, "_orig_mod", network)  # of torch.compile
    arguments = saved_arguments(network, _NETWORKS)
    fresh = type(network)(**arguments, device="meta")
    modules, expected = dict(network.named_modules()), dict(fresh.named_modules())
    settings = changed_settings(modules, expected)
    tensors = {name: value.detach().contiguous() for name, value in _weights(network).items()}
    check_tensors("the network to save", tensors, _shapes(fresh))
    check_kinds(modules, expected)
    write_network(path, describe_network(network, arguments, settings), tensors, "torch")


def load(path: str | os.PathLike[str], *, device: Any = None) -> Network:
    """Read a network that `save` wrote, here or in `emroute.nn.flax`, onto a device; it is in evaluation mode.

    Raises
    ------
    InputError
        If the file is damaged, or is not of these networks.
    MissingDependencyError
        If safetensors is not installed.
    OSError
        If the file cannot be read.
    """
    make, arguments, settings, tensors = read_network(path, _NETWORKS, "torch")
    network = build(path, make, {**arguments, "device": "meta"})
    check_tensors(path, tensors, _shapes(network))
    configure(path, dict(network.named_modules()), settings)
    device = torch.get_default_device() if device is None else device
    counted = {name: torch.zeros((), dtype=torch.int64) for name in network.state_dict().keys() - tensors.keys()}
    read = {name: value.to(device, copy=True) for name, value in (tensors | counted).items()}
    network.load_state_dict(read, assign=True)
    return network.eval()


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in _weights(network).items()}


def _weights(network: nn.Module) -> dict[str, torch.Tensor]:
    """Return what a network's state is, but for counts of batches, which change nothing that it finds."""
    return {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
