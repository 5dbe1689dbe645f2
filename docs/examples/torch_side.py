"""Training on Torch: a network, its optimizer, and their state as arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

import cnn
import emroute.nn.torch as nn
import training


class Learner(training.Learner):
    """A network that learns by Adam from uint8 images ``(B, h, w, C)``."""

    def __init__(self, build: Callable[[Any], Any], loss: Callable[..., Any], seed: int, clip: float) -> None:
        torch.manual_seed(seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = build(nn).to(self.device)
        self.loss, self.clip = loss, clip
        self.adam = torch.optim.Adam(self.network.parameters())

    def step(self, images: np.ndarray, labels: np.ndarray, learning_rate: float, margin: float) -> training.Step:
        x, y = self._images(images), torch.from_numpy(labels).to(self.device)
        self.network.train()
        output = self.network(x, y)
        loss = self.loss(output, x, y, margin)
        self.adam.zero_grad()
        loss.backward()
        slopes = {name: weight.grad for name, weight in self.network.named_parameters() if weight.grad is not None}
        length = torch.nn.utils.get_total_norm(slopes.values())
        spoiled = [] if length.isfinite() else [name for name in slopes if not slopes[name].norm().isfinite()]
        if not spoiled:
            torch.nn.utils.clip_grads_with_norm_(self.network.parameters(), self.clip, length)
            for group in self.adam.param_groups:
                group["lr"] = learning_rate
            self.adam.step()
        return training.Step(float(loss.detach()), output.activations.detach().cpu().numpy(), spoiled)

    @torch.no_grad()
    def predict(self, images: np.ndarray) -> np.ndarray:
        self.network.eval()
        return self.network.encode(self._images(images))[1].cpu().numpy()

    def state(self) -> dict[str, np.ndarray]:
        found = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for index, moments in self.adam.state_dict()["state"].items():
            found |= {f"adam.{index}.{name}": value for name, value in moments.items()}
        return {name: value.cpu().numpy() for name, value in found.items()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        found = {name: torch.tensor(value) for name, value in state.items()}
        own = {name.removeprefix("network."): value for name, value in found.items() if name.startswith("network.")}
        self.network.load_state_dict(own)
        moments: dict[int, dict[str, Any]] = {}
        for name, value in found.items():
            if name.startswith("adam."):
                _, index, key = name.split(".")
                moments.setdefault(int(index), {})[key] = value
        self.adam.load_state_dict({**self.adam.state_dict(), "state": moments})

    def save(self, path: Path) -> None:
        save = cnn.save if isinstance(self.network, cnn.CNN) else nn.save
        save(self.network, path)

    def adopt(self, path: Path) -> None:
        found = load_file(path, str(self.device))
        counts = {name: value for name, value in self.network.state_dict().items() if not value.is_floating_point()}
        self.network.load_state_dict(counts | found)  # of batches, which no file holds

    def _images(self, images: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float()
        return x / 255 if images.dtype == np.uint8 else x
