"""Training on JAX: a network, its optimizer, and their state as arrays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import emroute.nn.flax as nn
import training


class Learner(training.Learner):
    """A network that learns by Adam from uint8 images ``(B, h, w, C)``."""

    def __init__(self, build: Callable[[Any], Any], loss: Callable[..., Any], seed: int, clip: float) -> None:
        self.network = build(nn, rngs=nnx.Rngs(seed))
        self.graph, self.parameters, self.rest = nnx.split(self.network, nnx.Param, ...)
        adam = optax.chain(optax.clip_by_global_norm(clip), optax.scale_by_adam())
        self.moments = adam.init(self.parameters)

        @jax.jit
        def step(parameters: Any, moments: Any, rest: Any, x: Any, y: Any, learning_rate: Any, margin: Any) -> Any:
            def of(parameters: Any) -> Any:
                # flax changes moments of batches only in variables that were made while the gradient is traced
                network = nnx.merge(self.graph, parameters, jax.tree.map(lambda leaf: leaf, rest))
                output = network(x, y)
                return loss(output, x, y, margin), (output.activations, nnx.split(network, nnx.Param, ...)[2])

            (value, (activations, after)), slope = jax.value_and_grad(of, has_aux=True)(parameters)
            updates, moments = adam.update(slope, moments, parameters)
            updates = jax.tree.map(lambda u: -learning_rate * u, updates)
            finite = [jnp.isfinite(slope).all() for slope in jax.tree.leaves(slope)]
            return value, activations, finite, optax.apply_updates(parameters, updates), moments, after

        @jax.jit
        def predict(parameters: Any, rest: Any, x: Any) -> Any:
            network = nnx.merge(self.graph, parameters, rest)
            network.eval()
            return network.encode(x)[1]

        self._step, self._predict = step, predict

    def step(self, images: np.ndarray, labels: np.ndarray, learning_rate: float, margin: float) -> training.Step:
        value, activations, finite, *learned = self._step(
            self.parameters, self.moments, self.rest, _images(images), labels, learning_rate, margin
        )
        names = [".".join(map(str, place)) for place, _ in nnx.to_flat_state(self.parameters)]
        spoiled = [name for name, good in zip(names, finite, strict=True) if not good]
        if not spoiled:
            self.parameters, self.moments, self.rest = learned
        return training.Step(float(value), np.asarray(activations), spoiled)

    def predict(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self._predict(self.parameters, self.rest, _images(images)))

    def state(self) -> dict[str, np.ndarray]:
        leaves = jax.tree.leaves((self.parameters, self.moments, self.rest))
        return {f"{index:04d}": np.asarray(leaf) for index, leaf in enumerate(leaves)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        form = jax.tree.structure((self.parameters, self.moments, self.rest))
        leaves = [jnp.asarray(state[name]) for name in sorted(state)]
        self.parameters, self.moments, self.rest = jax.tree.unflatten(form, leaves)

    def save(self, path: Path) -> None:
        nn.save(nnx.merge(self.graph, self.parameters, self.rest), path)

    def adopt(self, path: Path) -> None:
        _, found, rest = nnx.split(nn.load(path), nnx.Param, ...)
        if jax.tree.map(jnp.shape, found) != jax.tree.map(jnp.shape, self.parameters):
            raise RuntimeError("another network's shapes")
        self.parameters, self.rest = found, rest


def _images(images: np.ndarray) -> jax.Array:
    x = jnp.asarray(images, dtype=jnp.float32)
    return x / 255 if images.dtype == np.uint8 else x
