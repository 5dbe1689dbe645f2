"""Capsule networks for Torch, with their files of weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from emroute.capsule import Routing
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
from emroute.nn.torch.matrix import ClassCapsules, ConvCapsules, MatrixPrimaryCapsules
from emroute.nn.torch.vector import Decoder, DynamicRouting, PrimaryCapsules
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

# an exported network can only be saved if what it returns has a name; Torch's error asks for this very call
_pytree._register_namedtuple(CapsuleOutput, serialized_type_name="emroute.nn.CapsuleOutput")


class _Network(CapsuleNetwork, nn.Module):
    def forward(self, images: Tensor, labels: Tensor | None = None) -> CapsuleOutput:
        """Find class capsules in images ``(B, C, h, w)`` and draw the images again; as `find`."""
        return self.find(images, labels)

    def extra_repr(self) -> str:
        """Tell what `repr` shows."""
        return f"image_shape={self.image_shape}"


class CapsNet(_Network):
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
    decoder, decoder_features, decoder_activation
        Whether there is one, how wide its hidden layers are, and what its last layer ends in: ``"sigmoid"`` for images
        in [0, 1], ``"tanh"`` for [-1, 1], ``"linear"`` for others, such as standardized ones.

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
        decoder_features: Sequence[int] = (512, 1024),
        decoder_activation: str | None = "sigmoid",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.arguments = network_arguments(locals())
        check_counts(in_channels=in_channels, n_classes=n_classes, channels=channels)
        check_counts(primary_features=primary_features, class_features=class_features)
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        h, w = pair("image_size", image_size)
        self.image_shape = in_channels, h, w
        children = capsnet_children((h, w), kernel_size, primary_capsules)
        self.conv = nn.Conv2d(in_channels, channels, kernel_size, **where)
        self.primary = PrimaryCapsules(
            channels, primary_capsules, primary_features, kernel_size, stride=2, relu=primary_relu, **where
        )
        own: dict[str, Any] = {"n_iter": n_iter, "init": 0.1}  # the start of the paper's authors
        self.classes = DynamicRouting(children, n_classes, primary_features, class_features, **own, **where)
        hidden: dict[str, Any] = {"hidden_features": decoder_features, "activation": decoder_activation, **where}
        self.decoder = Decoder(n_classes * class_features, self.image_shape, **hidden) if decoder else None

    def route(self, images: Tensor) -> Routing:
        """Take images to the routing of the class capsules; activations are the lengths of poses."""
        return self.classes(self.primary(self.conv(images).relu()))


class MatrixCapsNet(_Network):
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
    coordinates
        What class capsules are told of the places of those below: ``"grid"``, ``(y + 0.5) / h`` of their grid, as in
        the tutorials; ``"paper"``, the centres of their receptive fields in the image; or numbers, as of
        `emroute.capsule.coordinate_addition`.
    entries
        The two entries of a vote that this is added to: by default the paper's, last in the first two rows of a pose,
        with ``"paper"``, and the tutorials' ``(0, 1)`` else. None leaves coordinates out.
    decoder, decoder_features, decoder_activation
        Whether there is one, which the paper has not, and the rest as of `CapsNet`.

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
        coordinates: Any = "grid",
        entries: Sequence[int] | str | None = "default",
        decoder: bool = False,
        decoder_features: Sequence[int] = (512, 1024),
        decoder_activation: str | None = "sigmoid",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.arguments = network_arguments(locals())
        check_counts(in_channels=in_channels, n_classes=n_classes, pose_size=pose_size)
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        routing = em_options(n_iter, cost, inverse_temperature, epsilon, recompute) | {"pose_size": pose_size}
        h, w = pair("image_size", image_size)
        self.image_shape = in_channels, h, w
        a, b, c, d = matrix_capsnet_widths((h, w), widths)
        places, entries = matrix_capsnet_places((h, w), pose_size, coordinates, entries)
        self.arguments["entries"] = entries
        self.conv = nn.Conv2d(in_channels, a, 5, stride=2, **where)
        self.primary = MatrixPrimaryCapsules(a, b, pose_size=pose_size, **where)
        self.conv_capsules1 = ConvCapsules(b, c, 3, stride=2, **routing, **where)
        self.conv_capsules2 = ConvCapsules(c, d, 3, **routing, **where)
        self.classes = ClassCapsules(d, n_classes, entries=entries, coordinates=places, **routing, **where)
        hidden: dict[str, Any] = {"hidden_features": decoder_features, "activation": decoder_activation, **where}
        self.decoder = Decoder(n_classes * pose_size**2, self.image_shape, **hidden) if decoder else None

    def grid(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Take images to the poses ``(B, h, w, I, P, P)`` and activations ``(B, h, w, I)`` below the classes."""
        poses, activations = self.primary(self.conv(images).relu())
        for layer in (self.conv_capsules1, self.conv_capsules2):
            poses, activations, _ = layer(poses, activations)
        return poses, activations

    def route(self, images: Tensor) -> Routing:
        """Take images to the routing of the class capsules."""
        return self.classes(*self.grid(images))


_NETWORKS: dict[str, type[CapsNet | MatrixCapsNet]] = {"CapsNet": CapsNet, "MatrixCapsNet": MatrixCapsNet}


def save(network: CapsNet | MatrixCapsNet, path: str | os.PathLike[str]) -> None:
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
    tensors = {name: value.detach().contiguous() for name, value in network.state_dict().items()}
    check_tensors("the network to save", tensors, _shapes(fresh))
    check_kinds(modules, expected)
    write_network(path, describe_network(network, arguments, settings), tensors, "torch")


def load(path: str | os.PathLike[str], *, device: Any = None) -> CapsNet | MatrixCapsNet:
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
    network.load_state_dict({name: value.to(device, copy=True) for name, value in tensors.items()}, assign=True)
    return network.eval()


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.state_dict().items()}
