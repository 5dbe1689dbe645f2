"""What the training examples say of gradients that are not finite, unknown classes, and what no decoder can draw."""

import dataclasses
import runpy
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jax_side
import train_capsnet
import training
from emroute.nn import CapsuleOutput
from images import Images
from tests.test_training import digits, small, train  # noqa: F401, a fixture


def spoil(output):
    """0, with gradients that are NaN: the root of 0 has an infinite slope."""
    gap = output.poses - output.poses
    return ((gap * gap).sum()) ** 0.5


def test_gradients_that_are_not_finite_are_told_by_name(digits, tmp_path):  # noqa: F811
    """The loss is finite, gradients are not: no learning rate helps."""
    task, settings = small()

    def loss(output, *rest):
        return task.loss(output, *rest) + spoil(output)

    with pytest.raises(training.TrainingError) as told:
        train(dataclasses.replace(task, loss=loss), settings, digits, 1, tmp_path, False)
    text = str(told.value)
    assert "in step 1 of epoch 1" in text
    assert "classes.transforms" in text
    assert "learning-rate" not in text
    assert not (tmp_path / training.CHECKPOINT).exists()


class Tiny(nnx.Module):
    """A network of two parameters, one of which decides the poses."""

    def __init__(self, rngs):
        self.good, self.bad = nnx.Param(jnp.ones(3)), nnx.Param(jnp.ones(3))

    def __call__(self, x, y):
        rows = x.reshape(x.shape[0], -1)[:, :3]
        return CapsuleOutput(rows[..., None] * self.bad[...], rows * self.good[...], None)


def test_jax_learns_nothing_from_gradients_that_are_not_finite():
    def loss(output, x, y, margin):
        return output.activations.sum() + margin * spoil(output)

    learner = jax_side.Learner(lambda nn, rngs: Tiny(rngs), loss, 0, 5.0)
    images, labels = np.full((2, 2, 2, 1), 100, np.uint8), np.asarray([0, 1])
    found = learner.step(images, labels, 0.1, 1.0)
    assert (np.isfinite(found.loss), found.spoiled) == (True, ["bad"])
    assert all((weight == 1).all() for weight in jax.tree.leaves(learner.parameters))
    found = learner.step(images, labels, 0.1, 0.0)
    assert np.isfinite(found.loss)


def test_a_loss_that_is_not_finite_is_told_with_its_step(digits, tmp_path):  # noqa: F811
    task, settings = small()
    calls = []

    def loss(output, images, labels, margin):
        calls.append(None)
        return task.loss(output, images, labels, margin) * (np.inf if len(calls) == 2 else 1.0)

    with pytest.raises(training.TrainingError, match=r"the loss became inf in step 2 of epoch 1: .*--learning-rate"):
        train(dataclasses.replace(task, loss=loss), settings, digits, 1, tmp_path, False)


def test_gradients_too_long_to_add_up_are_told(digits, tmp_path):  # noqa: F811
    task, settings = small()

    def loss(output, images, labels, margin):
        return (
            task.loss(output, images, labels, margin) + 1e30 * (output.activations - output.activations.detach()).sum()
        )

    with pytest.raises(training.TrainingError, match=r"gradients of .* are NaN or infinite"):
        train(dataclasses.replace(task, loss=loss), settings, digits, 1, tmp_path, False)


def test_classes_that_training_has_not_are_refused(digits, tmp_path):  # noqa: F811
    task, settings = small()
    known = Images(digits.images[digits.labels < 7], digits.labels[digits.labels < 7])
    with pytest.raises(training.TrainingError, match=r"test images have the classes \[7, 8, 9\]"):
        training.train(task, settings, known, digits, 1, tmp_path / "run", False)
    assert not (tmp_path / "run").exists()


def test_classes_that_were_not_drawn_are_told(digits, tmp_path, capsys):  # noqa: F811
    task, settings = small()
    settings = dataclasses.replace(settings, n_train=3, n_validation=0)
    train(task, settings, digits, 1, tmp_path, False)
    assert "none of the 3 training images is of the classes [" in capsys.readouterr().out


def test_standardized_images_want_a_linear_decoder(digits, tmp_path, monkeypatch):  # noqa: F811
    def standardized(settings, images, rng=None):
        return (images / np.float32(255) - np.float32(0.2)) / np.float32(0.3)

    monkeypatch.setattr(training, "view", standardized)
    decoder = {"decoder": True, "decoder_features": (4,)}
    for activation in ("sigmoid", "tanh"):
        task, settings = small(**decoder, decoder_activation=activation)
        with pytest.raises(training.TrainingError, match=r"decoder draws between .*--decoder-activation linear"):
            train(task, settings, digits, 1, tmp_path / activation, False)
    task, settings = small(**decoder, decoder_activation="linear")
    assert 0 <= train(task, settings, digits, 1, tmp_path / "linear", False) <= 1


@pytest.mark.parametrize(
    ("options", "activation"),
    [
        ([], "sigmoid"),
        (["--data", "smallnorb"], "linear"),
        (["--data", "smallnorb", "--decoder-activation", "tanh"], "tanh"),
    ],
    ids=str,
)
@pytest.mark.parametrize("script", ["train_capsnet", "train_matrix_capsnet"])
def test_the_decoder_of_smallnorb_is_linear(script, options, activation, monkeypatch):
    ran = []
    monkeypatch.setattr(training, "run", lambda *args, **options: ran.append(options))
    monkeypatch.setattr(sys, "argv", [script, *options])
    runpy.run_path(str(Path(train_capsnet.__file__).with_name(f"{script}.py")), run_name="__main__")
    assert [options["decoder_activation"] for options in ran] == [activation]
