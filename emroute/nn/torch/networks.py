"""Capsule networks for Torch, with their files of weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emroute.capsule import mask_capsules
from emroute.errors import InputError
from emroute.nn.outputs import CapsuleOutput
from emroute.nn.sizes import convolved, pair
from emroute.nn.torch.matrix import ClassCapsules, ConvCapsules, MatrixPrimaryCapsules
from emroute.nn.torch.vector import Decoder, DynamicRouting, PrimaryCapsules
from emroute.nn.weights import network_arguments, read_network, write_network

__all__ = ["CapsNet", "MatrixCapsNet", "load", "save"]


class _CapsuleNetwork(nn.Module):
    """What both networks share: how they reconstruct, and what they were made with."""

    arguments: dict[str, Any]
    decoder: Decoder | None

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Take images ``(B, C, h, w)`` to class poses ``(B, classes, H)`` and activations ``(B, classes)``."""
        raise NotImplementedError

    def reconstruct(self, poses: Tensor, labels: Tensor) -> Tensor:
        """Draw images ``(B, C, h, w)`` from the poses ``(B, classes, H)`` of these classes alone."""
        if self.decoder is None:
            raise InputError("this network has no decoder: make it with decoder=True")
        return self.decoder(mask_capsules(poses, labels))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> CapsuleOutput:
        """Find class capsules in images and draw the images again from the capsules of one class.

        Parameters
        ----------
        images
            ``(B, C, h, w)``.
        labels
            What is reconstructed: in training the true classes ``(B,)``, or targets ``(B, classes)`` of 0 and 1; the
            predicted classes where None.
        """
        poses, activations = self.encode(images)
        if self.decoder is None:
            return CapsuleOutput(poses, activations, None)
        shown = activations.argmax(-1) if labels is None else labels
        return CapsuleOutput(poses, activations, self.reconstruct(poses, shown))


class CapsNet(_CapsuleNetwork):
    """The network of Sabour, Frosst and Hinton: two convolutions, primary capsules, class capsules, decoder.

    Parameters
    ----------
    in_channels, image_size
        Of the images; a size is one number, or height and width.
    n_classes
        How many class capsules there are.
    channels, kernel_size
        Of the convolutions; the second has stride 2.
    primary_capsules, primary_features
        Kinds of primary capsules at a position, and entries of each.
    class_features
        Entries of a class capsule.
    n_iter
        Of the routing; the tutorials have 2.
    primary_relu
        Rectify the second convolution, as the tutorials do.
    decoder
        Whether there is one.

    Raises
    ------
    InputError
        If images are too small for the convolutions.

    References
    ----------
    Sabour, S., Frosst, N. and Hinton, G. E. (2017). Dynamic routing between capsules. NeurIPS. Section 4.

    Examples
    --------
    >>> network = CapsNet()
    >>> sum(parameter.numel() for parameter in network.parameters())
    8215568
    >>> output = network(torch.zeros(1, 1, 28, 28))
    >>> output.poses.shape, output.activations.shape, output.reconstructions.shape
    (torch.Size([1, 10, 16]), torch.Size([1, 10]), torch.Size([1, 1, 28, 28]))
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
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.arguments = network_arguments(locals())
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        h, w = pair("image_size", image_size)
        grid = convolved((h, w), (kernel_size, 1), (kernel_size, 2))
        self.conv = nn.Conv2d(in_channels, channels, kernel_size, **where)
        self.primary = PrimaryCapsules(
            channels, primary_capsules, primary_features, kernel_size, stride=2, relu=primary_relu, **where
        )
        children = grid[0] * grid[1] * primary_capsules
        self.classes = DynamicRouting(children, n_classes, primary_features, class_features, n_iter=n_iter, **where)
        self.decoder = Decoder(n_classes * class_features, (in_channels, h, w), **where) if decoder else None

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Take images to class poses and their lengths."""
        found = self.classes(self.primary(self.conv(images).relu()))
        return found.poses, found.activations


class MatrixCapsNet(_CapsuleNetwork):
    """The network of Hinton, Sabour and Frosst: a convolution (A) and four layers of matrix capsules, routed by EM.

    Parameters
    ----------
    in_channels, image_size
        Of the images; a size is one number, or height and width.
    n_classes
        How many class capsules there are.
    widths
        Channels of A, kinds of capsules of the primary layer (B) and of both convolutional ones (C, D). The paper has
        ``(32, 32, 32, 32)`` and, for its small network, ``(64, 8, 16, 16)``.
    pose_size
        P, of poses P by P.
    n_iter, cost, inverse_temperature, epsilon, recompute
        Of all three routings, as of `emroute.capsule.em_routing`.
    entries
        As of `emroute.capsule.class_em_routing`.
    decoder
        Whether there is one; the paper has none.

    Raises
    ------
    InputError
        If images are too small for the windows.

    References
    ----------
    Hinton, G. E., Sabour, S. and Frosst, N. (2018). Matrix capsules with EM routing. ICLR. Section 4.

    Examples
    --------
    >>> network = MatrixCapsNet(2, 5, 32)
    >>> sum(parameter.numel() for parameter in network.parameters())
    316650
    >>> output = MatrixCapsNet(1, 10, 28, widths=(64, 8, 16, 16), decoder=True)(torch.zeros(1, 1, 28, 28))
    >>> output.poses.shape, output.activations.shape, output.reconstructions.shape
    (torch.Size([1, 10, 16]), torch.Size([1, 10]), torch.Size([1, 1, 28, 28]))
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
        entries: Sequence[int] | None = (0, 1),
        decoder: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.arguments = network_arguments(locals())
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        routing: dict[str, Any] = {
            "pose_size": pose_size,
            "n_iter": n_iter,
            "cost": cost,
            "inverse_temperature": inverse_temperature,
            "epsilon": epsilon,
            "recompute": recompute,
        }
        a, b, c, d = widths
        h, w = pair("image_size", image_size)
        convolved((h, w), (5, 2), (3, 2), (3, 1))
        self.conv = nn.Conv2d(in_channels, a, 5, stride=2, **where)
        self.primary = MatrixPrimaryCapsules(a, b, pose_size=pose_size, **where)
        self.conv_capsules1 = ConvCapsules(b, c, 3, stride=2, **routing, **where)
        self.conv_capsules2 = ConvCapsules(c, d, 3, **routing, **where)
        self.classes = ClassCapsules(d, n_classes, entries=entries, **routing, **where)
        self.decoder = Decoder(n_classes * pose_size**2, (in_channels, h, w), **where) if decoder else None

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Take images to class poses and activations."""
        poses, activations = self.primary(self.conv(images).relu())
        for layer in (self.conv_capsules1, self.conv_capsules2):
            poses, activations, _ = layer(poses, activations)
        found = self.classes(poses, activations)
        return found.poses, found.activations


NETWORKS: dict[str, type[_CapsuleNetwork]] = {"CapsNet": CapsNet, "MatrixCapsNet": MatrixCapsNet}


def save(network: CapsNet | MatrixCapsNet, path: str | os.PathLike[str]) -> None:
    """Write a network to a safetensors file, which `load` here and in `emroute.nn.flax` reads.

    Raises
    ------
    InputError
        If an argument of the network is a function, which no file holds.

    Examples
    --------
    >>> import tempfile
    >>> path = f"{tempfile.mkdtemp()}/network.safetensors"
    >>> save(MatrixCapsNet(widths=(8, 4, 4, 4)), path)
    >>> load(path).arguments["widths"]
    [8, 4, 4, 4]
    """
    tensors = {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}
    write_network(path, type(network).__name__, network.arguments, tensors)


def load(path: str | os.PathLike[str], *, device: Any = None) -> CapsNet | MatrixCapsNet:
    """Read a network that `save` wrote, here or in `emroute.nn.flax`, onto a device; it is in evaluation mode.

    Raises
    ------
    InputError
        If the file is damaged, or is not of these networks.
    FileNotFoundError
        If there is none.
    """
    kind, arguments, tensors = read_network(path, NETWORKS)
    network: Any = NETWORKS[kind](**arguments, device=device)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    return network.eval()
