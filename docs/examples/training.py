"""The training that the examples share: data, epochs, the test; a killed run goes on bit for bit (`checkpoints`).

Everything random in an epoch comes from a generator seeded with the run's seed and the epoch's number, so a checkpoint
holds parameters, the optimizer's moments and how far training is, and nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from tqdm import tqdm

from checkpoints import (
    BEST,
    CHECKPOINT,
    RESULT,
    TrainingError,
    adopt,
    alone,
    fresh,
    keep,
    resumed,
    score,
    size,
    write_whole,
)
from emroute import EmrouteError
from images import Images, fetch, load, origin, preprocess_norb, shift


@dataclass(frozen=True)
class Settings:
    """What makes a run the run that it is; a checkpoint is continued with these alone."""

    network: str
    library: str
    data: str
    n_train: int
    n_validation: int
    batch_size: int
    learning_rate: float
    decay: float
    clip: float
    shift: int
    seed: int
    options: dict[str, Any]
    start: str | None = None
    """Of the weights to begin with, the digest; None where they are drawn."""


@dataclass(frozen=True)
class Task:
    """A network to train: how it is made, what it loses, and by what margin in an epoch."""

    build: Callable[..., Any]
    loss: Callable[..., Any]
    margin: Callable[[int, int], float] = lambda epoch, step: 0.0


class Step(NamedTuple):
    """What a step of learning finds."""

    loss: float
    activations: np.ndarray
    """``(B, classes)``, before the step."""
    spoiled: list[str]
    """Parameters whose gradients are not finite."""


class Learner(Protocol):
    """A network that learns from uint8 images, or floating ones, ``(B, h, w, C)``; each library has one."""

    network: Any

    def step(self, images: np.ndarray, labels: np.ndarray, learning_rate: float, margin: float) -> Step:
        """Learn from a batch; nothing is learned from gradients that are not finite."""

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the activations ``(B, classes)`` of a batch."""

    def state(self) -> dict[str, np.ndarray]:
        """Return all that learning goes on from: parameters and Adam's moments."""

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `state` returned."""

    def save(self, path: Path) -> None:
        """Write the network alone."""

    def adopt(self, path: Path) -> None:
        """Take the parameters of a network that `save` wrote."""


def run(arguments: argparse.Namespace, network: str, task: Callable[..., Task], **options: Any) -> float:
    """Fetch the data and train as the command line says; what goes wrong ends the program in one line."""
    try:
        folder = arguments.folder or Path("data", origin(arguments.data))
        if arguments.folder is None:
            fetch(arguments.data, folder)
        train_set, test_set = load(arguments.data, folder)
        shared = ("library", "data", "batch_size", "learning_rate", "decay", "clip", "shift", "seed")
        settings = Settings(
            network,
            n_train=arguments.train or len(train_set.labels) - arguments.validation,
            n_validation=arguments.validation,
            options=options,
            start=None if arguments.start is None else hashlib.sha256(arguments.start.read_bytes()).hexdigest(),
            **{name: getattr(arguments, name) for name in shared},
        )
        test_set = Images(*(part[: arguments.test] for part in test_set))
        shape = view(settings, train_set.images[:1]).shape[1:]
        made = task(shape, int(train_set.labels.max()) + 1, options)
        places = arguments.out, arguments.resume, arguments.start
        return train(made, settings, train_set, test_set, arguments.epochs, *places)
    except (EmrouteError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        print("stopped: --resume goes on after the last whole epoch", file=sys.stderr)
        raise SystemExit(130) from None


def view(settings: Settings, images: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """Return images as the network sees them: moved about in training, when there is a generator."""
    if settings.data == "smallnorb":
        return preprocess_norb(images, rng=rng, brightness=0.2, contrast=0.2)
    return images if rng is None else shift(images, rng, settings.shift)


def train(
    task: Task,
    settings: Settings,
    train: Images,
    test: Images,
    epochs: int,
    out: Path,
    resume: bool,
    start: Path | None = None,
) -> float:
    """Train up to so many epochs and return the accuracy on the test set of the epoch that was best in validation.

    Raises
    ------
    TrainingError
        If there are not so many images, or those of the test have another size or classes that training has not; if the
        decoder cannot draw them; if gradients or the loss are not finite; if `out` holds a run and it shall not
        be resumed, or one with other settings, or a damaged checkpoint, or cannot be written to, or another run writes
        to it. What is there stays as it is.
    """
    kept, held = _split(train, settings)
    if test.images.shape[1:] != train.images.shape[1:]:
        raise TrainingError(f"training images are {train.images.shape[1:]}, test images {test.images.shape[1:]}")
    _check_classes(train, kept, test)
    with alone(out):
        learner = importlib.import_module(f"{settings.library}_side").Learner(
            task.build, task.loss, settings.seed, settings.clip
        )
        _check_drawable(learner.network, view(settings, kept.images[: settings.batch_size]))
        rows = resumed(out / CHECKPOINT, settings, learner) if resume else fresh(out)
        if start is not None and not rows:
            adopt(learner, start, "weights of this network to begin with")
        for epoch in range(len(rows), epochs):
            begin = time.perf_counter()
            row = {"epoch": epoch + 1, **_epoch(task, settings, learner, kept, epoch)}
            row |= {"validation": accuracy(settings, learner, held)} if len(held.labels) else {}
            rows.append(row | {"seconds": round(time.perf_counter() - begin, 1)})
            tqdm.write("  ".join(f"{name} {value:.4g}" for name, value in rows[-1].items()))
            keep(out, settings, learner, rows)
        return _test(settings, learner, test, out, rows)


def _check_classes(train: Images, kept: Images, test: Images) -> None:
    """Raise an error if the test has classes that no training image has, and tell those that none of `kept` has."""
    known, wanted = set(np.unique(train.labels).tolist()), set(np.unique(test.labels).tolist())
    if unknown := sorted(wanted - known):
        raise TrainingError(
            f"test images have the classes {unknown}, of which there is no training image ({sorted(known)} are there):"
            " take test labels that belong to the training labels"
        )
    if unseen := sorted(wanted - set(np.unique(kept.labels).tolist())):
        print(f"none of the {len(kept.labels)} training images is of the classes {unseen}: test images of them fail")


def _check_drawable(network: Any, images: np.ndarray) -> None:
    """Raise an error if the network has a decoder that cannot draw such images."""
    bounds = getattr(getattr(network, "decoder", None), "range", None)
    scale = 255 if images.dtype == np.uint8 else 1
    low, high = float(images.min()) / scale, float(images.max()) / scale
    if bounds is not None and not bounds[0] <= low <= high <= bounds[1]:
        raise TrainingError(
            f"images lie between {low:.4g} and {high:.4g}, the decoder draws between {bounds[0]:g} and {bounds[1]:g}:"
            " give --decoder-activation linear"
        )


def _check_finite(found: Step, images: np.ndarray, epoch: int, step: int) -> None:
    """Raise an error that says what is not finite, where, and what can be done."""
    where = f"in step {step + 1} of epoch {epoch + 1}"
    if not np.isfinite(found.loss):
        raise TrainingError(f"the loss became {found.loss} {where}: try a lower --learning-rate or --clip")
    if found.spoiled:
        names = ", ".join(found.spoiled)
        raise TrainingError(
            f"the loss is {found.loss:.4g} {where}, but the gradients of {names} are NaN or infinite, which no learning"
            " rate mends. Something overflows, or is divided by 0, on the way back: look for images out of proportion"
            f" (those of this step lie between {images.min():.4g} and {images.max():.4g}) and for capsules whose votes"
            " are all equal or have no weight; other options of the routing (--n-iter, --cost) or another --seed may"
            " avoid them, and --start with the best network so far begins from where gradients were finite"
        )


def _test(settings: Settings, learner: Learner, test: Images, out: Path, rows: list[dict]) -> float:
    """Return and keep the accuracy on the test set of the network that was best."""
    adopt(learner, out / BEST, "the network that was kept")
    found = accuracy(settings, learner, test)
    best = max(rows, key=score)["epoch"]
    print(f"test {found:.4f}: {round((1 - found) * len(test.labels))} of {len(test.labels)} wrong after epoch {best}")
    result = {"test": found, "n_test": len(test.labels), "epoch": best, "parameters": size(out / BEST)}
    result |= {"settings": asdict(settings)}
    write_whole(out / RESULT, lambda draft: draft.write_text(json.dumps(result, indent=2)))
    return found


def _split(train: Images, settings: Settings) -> tuple[Images, Images]:
    """Take training and validation sets, without overlap, from all images in an order of the seed's."""
    n, order = len(train.labels), np.random.default_rng(settings.seed).permutation(len(train.labels))
    wanted = settings.n_train + settings.n_validation
    if settings.n_train < 1:
        raise TrainingError(f"of {n} training images, {settings.n_validation} for validation leave none to train on")
    if wanted > n:
        raise TrainingError(f"{settings.data} has {n} training images, {wanted} were asked for")
    kept, held, _ = np.split(order, [settings.n_train, wanted])
    return _take(train, kept), _take(train, held)


def _take(data: Images, index: np.ndarray) -> Images:
    return Images(data.images[index], data.labels[index])


def batches(data: Images, size: int, order: np.ndarray | None = None) -> Iterator[Images]:
    """Cut data into batches; the last may be smaller."""
    order = np.arange(len(data.labels)) if order is None else order
    return (_take(data, order[start : start + size]) for start in range(0, len(order), size))


def _epoch(task: Task, settings: Settings, learner: Learner, data: Images, epoch: int) -> dict[str, float]:
    rng = np.random.default_rng([settings.seed, epoch])
    order = rng.permutation(len(data.labels))
    total, hits, seen = 0.0, 0, 0
    steps = -(-len(order) // settings.batch_size)
    rate = settings.learning_rate * settings.decay**epoch
    bar = tqdm(batches(data, settings.batch_size, order), f"epoch {epoch + 1}", steps, leave=False, disable=None)
    for step, (images, labels) in enumerate(bar):
        margin = task.margin(epoch, epoch * steps + step)
        seen_images = view(settings, images, rng)
        found = learner.step(seen_images, targets(labels), rate, margin)
        _check_finite(found, seen_images, epoch, step)
        total, seen = total + found.loss * len(labels), seen + len(labels)
        hits += int(right(found.activations, labels).sum())
        bar.set_postfix(loss=f"{total / seen:.4f}", accuracy=f"{hits / seen:.3f}")
    return {"loss": total / seen, "train": hits / seen, "learning_rate": rate}


def targets(labels: np.ndarray, n_classes: int = 10) -> np.ndarray:
    """Return labels ``(n,)`` as they are, and those of two digits ``(n, 2)`` as rows of 0 and 1."""
    if labels.ndim == 1:
        return labels
    return np.eye(n_classes, dtype=np.float32)[labels].sum(axis=1)


def right(activations: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the most active classes are those of the image; where it has two, both must be found."""
    labels = labels.reshape(len(labels), -1)
    found = np.argsort(-activations, axis=-1)[:, : labels.shape[1]]
    return np.all(np.sort(found) == np.sort(labels), axis=-1)


def accuracy(settings: Settings, learner: Learner, data: Images) -> float:
    """Return the share of images whose classes are found."""
    hits = [right(learner.predict(view(settings, some)), labels).sum() for some, labels in batches(data, 250)]
    return float(sum(hits) / len(data.labels))
