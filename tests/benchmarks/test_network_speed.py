"""A training step of the matrix capsule network against the same in plain Torch; see docs/benchmarks.md."""

import torch

from tests.benchmarks.plain import networks, step
from tests.benchmarks.sections import TRAINING


def test_a_training_step(bench):
    ours, plain, images, labels = networks()
    torch.testing.assert_close(ours(images).activations, plain(images), rtol=1e-4, atol=1e-5)

    def mine():
        step(ours(images).activations, labels)

    bench.compare(TRAINING, ("Torch",), mine, {"plain Torch": lambda: step(plain(images), labels)}, threads=2)
