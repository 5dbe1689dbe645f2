"""Stacked layers of dynamic routing learn from their start on."""

import itertools
from functools import partial

import jax
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from sklearn.datasets import load_digits

from emroute import capsule
from emroute.errors import InputError
from emroute.nn.sizes import routing_std
from tests.helpers import rejected
from tests.networks import FLAX, FRAMEWORKS, TORCH

STACKS = {
    "few children": [(8, 8), (16, 8), (12, 8), (10, 8)],
    "many parents": [(8, 8), (32, 8), (24, 4), (10, 8)],
    "large capsules": [(8, 8), (6, 16), (8, 12), (10, 4)],
}


@pytest.fixture(params=FRAMEWORKS)
def framework(request):
    return FRAMEWORKS[request.param]


@pytest.fixture(autouse=True)
def one_thread():
    """Operations as small as these are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def rows():
    """Rows of 32 digits as capsules, and their labels."""
    x, y = load_digits(return_X_y=True)
    return capsule.squash(x[:32].reshape(-1, 8, 8) / 16).astype(np.float32), y[:32]


def stack(framework, sizes, **options):
    pairs = itertools.pairwise(sizes)
    return [
        framework.make("DynamicRouting", i, j, d, h, seed=seed, recompute=False, **options)
        for seed, ((i, d), (j, h)) in enumerate(pairs)
    ]


def lengths(layers, poses):
    found = []
    for layer in layers:
        poses, activations, _ = layer(poses)
        found.append(activations)
    return found


@pytest.mark.parametrize("sizes", STACKS.values(), ids=STACKS)
@pytest.mark.parametrize("leaky", [False, True], ids=["", "leaky"])
def test_lengths_last_through_layers(sizes, leaky, rows):
    for found in lengths(stack(TORCH, sizes, leaky=leaky), TORCH.asarray(rows[0])):
        assert 0.05 < found.detach().mean() < 0.8


def test_the_sum_of_votes_is_as_long_as_said(framework):
    layer = framework.make("DynamicRouting", 50, 20, 8, 32)
    u = np.random.default_rng(0).normal(size=(200, 50, 8)).astype(np.float32)
    u /= np.linalg.norm(u, axis=-1, keepdims=True)
    s = framework.to_numpy(layer.votes(framework.asarray(u))).sum(1) / 20
    assert np.mean(np.sum(s**2, axis=-1)) == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("sizes", STACKS.values(), ids=STACKS)
def test_three_layers_learn_on_torch(sizes, rows):
    layers = torch.nn.ModuleList(stack(TORCH, sizes))
    x, y = map(torch.asarray, rows)
    adam = torch.optim.Adam(layers.parameters(), lr=0.01)
    for _ in range(25):
        loss = capsule.margin_loss(lengths(layers, x)[-1], y)
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert loss.item() < 0.5


def test_three_layers_learn_on_flax(rows):
    layers = nnx.List(stack(FLAX, STACKS["few children"], n_iter=2))
    x, y = map(FLAX.asarray, rows)
    structure, weights = nnx.split(layers)
    adam = optax.adam(0.01)

    @jax.jit
    def step(weights, state):
        def of(weights):
            return capsule.margin_loss(lengths(nnx.merge(structure, weights), x)[-1], y)

        loss, slope = jax.value_and_grad(of)(weights)
        updates, state = adam.update(slope, state)
        return loss, optax.apply_updates(weights, updates), state

    state = adam.init(weights)
    for _ in range(25):
        loss, weights, state = step(weights, state)
    assert float(loss) < 0.5


def test_init_is_a_number_or_a_function():
    for layer in (TORCH, FLAX):
        drawn = layer.make("DynamicRouting", 40, 10, 8, 16, init=0.3)
        assert np.std(layer.weights(drawn)["transforms"]) == pytest.approx(0.3, rel=0.02)
    ones = TORCH.make("DynamicRouting", 4, 3, 2, 2, init=torch.nn.init.ones_)
    uniform = TORCH.make("DynamicRouting", 40, 10, 8, 16, init=partial(torch.nn.init.uniform_, a=0.0, b=2.0))
    assert (ones.transforms == 1).all()
    assert 0 <= uniform.transforms.min() < 0.1 < 1.9 < uniform.transforms.max() <= 2
    ones.transforms.data.zero_()
    ones.reset_parameters()
    assert (ones.transforms == 1).all()
    ones = FLAX.make("DynamicRouting", 4, 3, 2, 2, init=nnx.initializers.ones)
    assert (ones.transforms[...] == 1).all()


@pytest.mark.parametrize("init", [-1.0, float("nan"), "large"])
def test_what_is_no_start_is_refused(framework, init):
    rejected(lambda: framework.make("DynamicRouting", 4, 3, 2, 2, init=init), InputError, "init=")


def test_networks_start_as_their_paper_does(framework):
    network = framework.make("CapsNet", 1, 10, 16, channels=2, kernel_size=3, primary_capsules=4, decoder=False)
    assert np.std(framework.weights(network)["classes.transforms"]) == pytest.approx(0.1, rel=0.02)
    assert routing_std(1152, 10, 16, False) == pytest.approx(0.1042, abs=1e-4)
