"""EM routing against the plain broadcasting form of the same library; see docs/benchmarks.md."""

import os
import shutil
from functools import partial

import numpy as np
import pytest

from emroute import capsule
from tests.benchmarks.inputs import library, title
from tests.benchmarks.sections import ROUTING

SAMPLES, CHILDREN, PARENTS, SIDE = 72, 288, 32, 4


def plain(xp, votes, activations, beta_u, beta_a):
    """Procedure 1 with whole tensors."""
    r = xp.full(votes.shape[:-1], 1 / votes.shape[-2], dtype=votes.dtype)
    for t in range(3):
        weight = (r * activations[..., None])[..., None]
        total = weight.sum(-3)
        mean = (weight * votes).sum(-3) / total
        squares = (votes - mean[..., None, :, :]) ** 2
        variance = (weight * squares).sum(-3) / total + 1e-6
        cost = ((beta_u[:, None] + xp.log(variance) / 2) * total).sum(-1)
        a = 1 / (1 + xp.exp(-0.01 * (1 - 0.95 ** (t + 1)) * (beta_a - cost)))
        if t < 2:
            density = -(squares / (2 * variance[..., None, :, :])).sum(-1)
            logits = xp.log(a)[..., None, :] + density - (xp.log(2 * np.pi * variance) / 2).sum(-1)[..., None, :]
            shares = xp.exp(logits - xp.amax(logits, -1)[..., None])
            r = shares / shares.sum(-1)[..., None]
    return mean, a


def plain_from_poses(xp, poses, transforms, *rest):
    votes = (poses[:, :, None] @ transforms).reshape((*poses.shape[:2], transforms.shape[1], -1))
    return plain(xp, votes, *rest)


WAYS = {"votes": (capsule.em_routing, plain), "poses": (capsule.em_routing_from_poses, plain_from_poses)}


def inputs(kind):
    rng = np.random.default_rng(0)
    poses, transforms = (SAMPLES, CHILDREN, SIDE, SIDE), (CHILDREN, PARENTS, SIDE, SIDE)
    shapes = [(SAMPLES, CHILDREN, PARENTS, SIDE**2)] if kind == "votes" else [poses, transforms]
    activations, betas = rng.uniform(0.1, 1, size=(SAMPLES, CHILDREN)), np.zeros(PARENTS)
    arrays = [*(rng.normal(size=shape) for shape in shapes), activations, betas, betas]
    return [x.astype(np.float32) for x in arrays]


def ways(name, kind):
    """Ours and the peers of a library, ready to be called with its arrays."""
    ours, theirs = WAYS[kind]
    if name == "numpy":
        return ours, {"plain NumPy": partial(theirs, np)}
    if name == "jax":
        import jax

        def ready(function):
            compiled = jax.jit(function)
            return lambda *x: jax.block_until_ready(compiled(*x))

        return ready(ours), {"plain JAX": ready(partial(theirs, jax.numpy))}
    import torch

    peers = {"plain Torch": partial(theirs, torch)}
    if shutil.which(os.environ.get("CXX", "g++")):
        peers["compiled plain Torch"] = torch.compile(peers["plain Torch"])
    return ours, peers


@pytest.mark.parametrize("kind", WAYS)
@pytest.mark.parametrize("name", ["numpy", "jax", "torch"])
def test_forward(bench, name, kind):
    asarray = library(name)
    arrays = [asarray(x) for x in inputs(kind)]
    ours, peers = ways(name, kind)
    for peer in peers.values():
        np.testing.assert_allclose(np.asarray(ours(*arrays)[0]), np.asarray(peer(*arrays)[0]), atol=1e-3)
    calls = {peer: partial(function, *arrays) for peer, function in peers.items()}
    bench.compare(ROUTING, (title(name), kind, "forward"), partial(ours, *arrays), calls)


@pytest.mark.parametrize("kind", WAYS)
def test_forward_and_backward_on_torch(bench, kind):
    asarray = library("torch")
    arrays = [asarray(x) for x in inputs(kind)]
    first = arrays[0].requires_grad_()
    ours, peers = ways("torch", kind)

    def both(route):
        first.grad = None
        found = route(*arrays)
        (found[0].sum() + found[1].sum()).backward()

    calls = {peer: partial(both, function) for peer, function in peers.items()}
    bench.compare(ROUTING, ("Torch", kind, "forward and backward"), partial(both, ours), calls)
