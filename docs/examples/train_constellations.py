"""Find the squares and triangles that points are of: ``python docs/examples/train_constellations.py``.

The constellation autoencoder of Kosiorek et al. (2019), which is told of no object.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from constellations import Constellations, draw, errors
from emroute.nn import constellation_loss
from flags import count, positive

N_TEST = 2000
Made: TypeAlias = tuple[Any, Callable[..., float], Callable[..., np.ndarray]]
"""A network, a function that makes a step, and one that returns responsibilities."""


def torch_step(
    seed: int, rate: Callable[[int], float], **sizes: int
) -> tuple[Any, Callable[..., float], Callable[..., np.ndarray]]:
    """With Torch."""
    import torch

    from emroute.nn.torch import ConstellationNet

    torch.manual_seed(seed)
    network = ConstellationNet(**sizes)
    adam = torch.optim.Adam(network.parameters())

    def step(number: int, points: np.ndarray, presence: np.ndarray, *noise: np.ndarray) -> float:
        x, d, *drawn = map(torch.from_numpy, (points, presence, *noise))
        loss = constellation_loss(network(x, d, tuple(drawn)), d)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        for group in adam.param_groups:
            group["lr"] = rate(number)
        adam.step()
        return float(loss.detach())

    @torch.no_grad()
    def predict(points: np.ndarray, presence: np.ndarray) -> np.ndarray:
        return network(torch.from_numpy(points), torch.from_numpy(presence)).responsibilities.numpy()

    return network, step, predict


def jax_step(
    seed: int, rate: Callable[[int], float], **sizes: int
) -> tuple[Any, Callable[..., float], Callable[..., np.ndarray]]:
    """The same with Flax."""
    import jax
    import optax
    from flax import nnx

    from emroute.nn.flax import ConstellationNet

    network = ConstellationNet(**sizes, rngs=nnx.Rngs(seed))
    graph, parameters = nnx.split(network)
    adam = optax.chain(optax.clip_by_global_norm(5.0), optax.scale_by_adam())
    state = {"parameters": parameters, "moments": adam.init(parameters)}

    @jax.jit
    def learn(parameters: Any, moments: Any, rate: Any, points: Any, presence: Any, noise: Any) -> Any:
        def loss(parameters: Any) -> Any:
            return constellation_loss(nnx.merge(graph, parameters)(points, presence, noise), presence)

        value, slope = jax.value_and_grad(loss)(parameters)
        updates, moments = adam.update(slope, moments, parameters)
        return value, optax.apply_updates(parameters, jax.tree.map(lambda u: -rate * u, updates)), moments

    found = jax.jit(lambda parameters, *x: nnx.merge(graph, parameters)(*x).responsibilities)

    def step(number: int, points: np.ndarray, presence: np.ndarray, *noise: np.ndarray) -> float:
        value, state["parameters"], state["moments"] = learn(
            state["parameters"], state["moments"], rate(number), points, presence, noise
        )
        nnx.update(network, state["parameters"])
        return float(value)

    return network, step, lambda *x: np.asarray(found(state["parameters"], *x))


def cosine(first: float, steps: int, number: int) -> float:
    """The learning rate of a step, from the first to 0."""
    return first * (1 + np.cos(np.pi * number / steps)) / 2


def test(predict: Callable[..., np.ndarray], data: list[Constellations]) -> float:
    """Return the share of points that are given to another object than their own."""
    wrong, total = np.sum([errors(some, predict(some.points, some.presence)) for some in data], axis=0)
    return float(wrong / total)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--library", choices=("torch", "jax"), default="torch", help="what computes")
    options.add_argument("--out", type=Path, default=Path("runs/constellations"), help="where log and network go")
    options.add_argument("--steps", type=count, default=30_000, help="how many")
    options.add_argument("--batch-size", type=count, default=32, help="examples a step")
    options.add_argument("--learning-rate", type=positive, default=1e-3, help="of Adam; it falls to 0 as a cosine does")
    options.add_argument("--features", type=count, default=128, help="of the set transformer's blocks")
    options.add_argument("--layers", type=count, default=4, help="how many blocks")
    options.add_argument("--seed", type=int, default=0, help="of all that is random")
    given = options.parse_args()
    rng = np.random.default_rng(given.seed)
    tests = [
        draw(np.random.default_rng([given.seed, number]), given.batch_size)
        for number in range(N_TEST // given.batch_size)
    ]
    make = {"torch": torch_step, "jax": jax_step}[given.library]
    rate = partial(cosine, given.learning_rate, given.steps)
    network, step, predict = make(given.seed, rate, features=given.features, n_layers=given.layers)
    given.out.mkdir(parents=True, exist_ok=True)
    start, losses, every = time.process_time(), [], max(1, given.steps // 20)
    for number in range(given.steps):
        data = draw(rng, given.batch_size)
        noise = (rng.uniform(-2, 2, (given.batch_size, *shape)).astype("f") for shape in ((3,), (3, 4)))
        losses.append(step(number, data.points, data.presence, *noise))
        if (number + 1) % every == 0:
            row = {"step": number + 1, "loss": float(np.mean(losses[-every:])), "error": test(predict, tests)}
            row["seconds"] = round(time.process_time() - start, 1)
            print(json.dumps(row), flush=True)
            with (given.out / "log.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
    importlib.import_module(f"emroute.nn.{'flax' if given.library == 'jax' else 'torch'}").save(
        network, given.out / "best.safetensors"
    )


if __name__ == "__main__":
    main()
