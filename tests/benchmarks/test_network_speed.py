"""A training step of the matrix capsule network against the same in plain Torch; see docs/benchmarks.md."""

import torch

from tests.benchmarks.plain import networks, peak, step
from tests.benchmarks.test_speed import MEMORY, library

SPEED = "A training step of MatrixCapsNet 32/32/32/32, 8 images of 32 × 32: arrays, seconds, peer's seconds, ratio"


def test_a_training_step(versus, row):
    library("torch")
    ours, plain, images, labels = networks()
    torch.testing.assert_close(ours(images).activations, plain(images), rtol=1e-4, atol=1e-5)
    mine, theirs = versus(lambda: step(ours(images).activations, labels), lambda: step(plain(images), labels))
    row(SPEED, "torch", f"{mine:.2f}", f"{theirs:.2f}", f"{theirs / mine:.2f}")


def test_memory_of_a_training_step(row):
    ours, plain = peak("ours"), peak("plain")
    row(MEMORY, "A training step of MatrixCapsNet 32/32/32/32, 8 images of 32 × 32", f"{plain / ours:.1f} times less")
    assert plain > 3 * ours
