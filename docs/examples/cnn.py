"""The network that capsules are compared with: a plain convolutional one of as many parameters, on Torch."""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor, nn

from emroute.nn import CapsuleOutput
from emroute.nn.sizes import convolved, pair
from emroute.nn.weights import (
    build,
    check_tensors,
    describe_network,
    network_arguments,
    read_network,
    write_network,
)


class CNN(nn.Module):
    """Two convolutions with pooling and a hidden layer as wide as makes it so many parameters in all."""

    def __init__(
        self,
        in_channels: int = 1,
        n_classes: int = 10,
        image_size: int | tuple[int, int] = 28,
        *,
        channels: tuple[int, int] = (32, 64),
        parameters: int = 8_215_568,
        device: Any = None,
    ) -> None:
        super().__init__()
        self.arguments = network_arguments(locals())
        a, b = channels
        h, w = convolved(pair("image_size", image_size), (5, 1), (2, 2), (5, 1), (2, 2))
        seen, fixed = b * h * w, 25 * in_channels * a + a + 25 * a * b + b + n_classes
        hidden = max(1, round((parameters - fixed) / (seen + 1 + n_classes)))
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, a, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(a, b, 5), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.classes = nn.Sequential(nn.Flatten(), nn.Linear(seen, hidden), nn.ReLU(), nn.Linear(hidden, n_classes))
        self.to(device)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Take images to logits, and these to probabilities."""
        logits = self.classes(self.features(images))
        return logits, logits.softmax(-1)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> CapsuleOutput:
        """Return logits where capsules have poses."""
        return CapsuleOutput(*self.encode(images), None)


def cross_entropy(output: CapsuleOutput, images: Tensor, labels: Tensor, margin: float) -> Tensor:
    """The loss of the CNN, with the arguments of the other losses."""
    return nn.functional.cross_entropy(output.poses, labels)


def save(network: CNN, path: str | os.PathLike[str]) -> None:
    """Write it to a safetensors file."""
    tensors = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    write_network(path, describe_network(network, network.arguments), tensors, "torch")


def load(path: str | os.PathLike[str]) -> CNN:
    """Read what the training kept."""
    found = read_network(path, {"CNN": CNN}, "torch")
    network = build(path, found.make, found.arguments)
    check_tensors(path, found.tensors, {name: value.shape for name, value in network.state_dict().items()})
    network.load_state_dict(found.tensors)
    return network.eval()
