"""Networks of both frameworks under one face: what the tests of `emroute.nn` share."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from sklearn.datasets import load_digits

from emroute.nn import capsnet_loss, flax, matrix_capsnet_loss
from emroute.nn import torch as torch_nn


@dataclass(frozen=True)
class Framework:
    """Layers by the same names; images are ``(B, C, h, w)`` NumPy arrays on this side of it."""

    name: str
    nn: ModuleType

    def make(self, layer: str, *args: Any, seed: int = 0, **options: Any) -> Any:
        """Draw a layer or network."""
        if self.name == "flax":
            return getattr(self.nn, layer)(*args, **options, rngs=nnx.Rngs(seed))
        torch.manual_seed(seed)
        return getattr(self.nn, layer)(*args, **options)

    def outline(self, layer: str, *args: Any, **options: Any) -> Any:
        """The shapes of a layer or network, without its weights."""
        if self.name == "flax":
            return nnx.eval_shape(lambda: self.make(layer, *args, **options))
        return self.make(layer, *args, **options, device="meta")

    def shapes(self, layer: Any, *arrays: Any) -> list[tuple[int, ...]]:
        """The shapes of what a layer returns; nothing is compiled."""
        found = jax.eval_shape(lambda layer: layer(*arrays), layer) if self.name == "flax" else layer(*arrays)
        return [tuple(x.shape) for x in found if x is not None]

    def asarray(self, value: Any) -> Any:
        """An array as it stands."""
        return torch.tensor(value) if self.name == "torch" else jnp.asarray(value)

    def images(self, value: np.ndarray) -> Any:
        """Images as the framework lays them out."""
        return torch.tensor(value) if self.name == "torch" else jnp.asarray(value.transpose(0, 2, 3, 1))

    def to_numpy(self, x: Any, images: bool = False) -> np.ndarray:
        """On the host; images again as ``(B, C, h, w)``."""
        if self.name == "torch":
            return x.detach().numpy()
        return np.asarray(x).transpose(0, 3, 1, 2) if images else np.asarray(x)

    def weights(self, layer: Any) -> dict[str, np.ndarray]:
        """Parameters by their own names."""
        if self.name == "torch":
            return {name: value.detach().numpy() for name, value in layer.named_parameters()}
        flat = nnx.to_flat_state(nnx.state(layer, nnx.Param))
        return {".".join(map(str, place)): np.asarray(value[...]) for place, value in flat}

    def count(self, layer: Any) -> int:
        """How many numbers its parameters are."""
        if self.name == "torch":
            return sum(value.numel() for value in layer.parameters())
        return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(nnx.state(layer, nnx.Param)))


TORCH, FLAX = Framework("torch", torch_nn), Framework("flax", flax)
FRAMEWORKS = {"torch": TORCH, "flax": FLAX}


@cache
def digits(scale: int = 1, edge: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The first 64 of scikit-learn's digits, 8 by 8, enlarged and padded, and their labels."""
    x, y = load_digits(return_X_y=True)
    x = np.kron(x[:64].reshape(-1, 1, 8, 8) / 16, np.ones((1, 1, scale, scale)))
    return np.pad(x, ((0, 0), (0, 0), (edge, edge), (edge, edge))).astype(np.float32), y[:64]


@dataclass(frozen=True)
class Kind:
    """A network that is small enough to train in seconds, and how."""

    name: str
    options: dict[str, Any]
    scale: int
    edge: int
    loss: Callable[..., Any]
    rate: float
    """Of plain gradient descent that rounding does not lead astray."""

    @property
    def size(self) -> int:
        """Of the digits."""
        return 8 * self.scale + 2 * self.edge


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "CapsNet",
            {"channels": 32, "kernel_size": 3, "primary_capsules": 4, "primary_features": 8, "class_features": 8},
            1,
            0,
            capsnet_loss,
            10.0,
        ),
        Kind(
            "MatrixCapsNet",
            {
                "widths": (16, 4, 4, 4),
                "n_iter": 2,
                "inverse_temperature": (0.01, 0.02),
                "decoder": True,
                "recompute": False,
            },
            2,
            1,
            partial(matrix_capsnet_loss, margin=0.2),
            0.003,
        ),
    )
}
"""The paper's inverse temperatures are for thousands of children: with them, so few learn for hundreds of steps."""
