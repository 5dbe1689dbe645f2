"""Look into trained networks: ``python docs/examples/explore.py runs/capsnet/best.safetensors``.

Writes pictures, a page that shows them with the tables beside them, and the tables by themselves (``tables.json``).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from cnn import cross_entropy
from cnn import load as load_cnn
from emroute import EmrouteError
from emroute.capsule import coordinate_addition, mask_capsules, tweak_poses, vote
from emroute.nn import capsnet_loss, matrix_capsnet_loss
from emroute.nn.sizes import check_images
from emroute.nn.torch import CapsNet
from emroute.nn.torch import load as load_network
from flags import count
from images import Images, fetch, load, multimnist_like, origin, rotate, scale, translate

WARPS: dict[str, tuple[Callable[..., np.ndarray], tuple[float, ...]]] = {
    "shifted by pixels": (lambda images, by: translate(images, by, by), (0, 1, 2, 3, 4, 5)),
    "rotated by degrees": (rotate, (0, 10, 20, 30, 40, 50)),
    "scaled by a factor": (scale, (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)),
}
EPSILONS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2)


class Model(NamedTuple):
    """A network and its loss."""

    name: str
    network: Any
    loss: Callable[..., Any]


class Finding(NamedTuple):
    """A picture, its caption and, where there are figures, a table."""

    title: str
    figure: Figure
    caption: str
    table: list[list[Any]] | None = None


def as_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 ``(n, h, w, c)`` as the networks take it."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255


def pictures(rows: list[torch.Tensor], titles: list[str], names: list[str]) -> Figure:
    """Rows of images ``(n, C, h, w)``, with a title above each column and a name before each row."""
    figure, axes = plt.subplots(
        len(rows), len(rows[0]), squeeze=False, figsize=(0.9 * len(rows[0]) + 1, 0.9 * len(rows) + 0.4)
    )
    for line, (images, name) in enumerate(zip(rows, names, strict=True)):
        for place, image in enumerate(images):
            axes[line, place].imshow(image.mean(0).numpy(), cmap="gray", vmin=0, vmax=1)
            axes[line, place].set(xticks=[], yticks=[])
        axes[line, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    for place, title in enumerate(titles):
        axes[0, place].set_title(title, fontsize=8)
    return figure


@torch.no_grad()
def reconstructions(model: Model, data: Images, n: int = 12) -> Finding:
    """Images, and what the network draws from the capsule of the class that it predicts."""
    images = as_tensor(data.images[:n])
    output = model.network(images)
    found = output.activations.argmax(-1).tolist()
    titles = [f"{true} as {seen}" for true, seen in zip(data.labels[:n].tolist(), found, strict=True)]
    figure = pictures([images, output.reconstructions], titles, ["image", "drawn again"])
    return Finding("Predictions and reconstructions", figure, "The true class, and the predicted one that is drawn.")


@torch.no_grad()
def tweaks(model: Model, data: Images) -> Finding:
    """One image drawn again with each entry of its class pose moved in steps."""
    images, labels = as_tensor(data.images[:1]), torch.from_numpy(data.labels[:1])
    poses, _ = model.network.encode(images)
    reach = 0.25 if isinstance(model.network, CapsNet) else float(poses[0, labels].std())
    steps = np.linspace(-reach, reach, 11)
    moved = tweak_poses(poses[0, labels[0]], steps=list(steps))  # (H, T, H)
    size = moved.shape[0]
    classes = torch.zeros(size * len(steps), *poses.shape[1:])
    classes[:, labels[0]] = moved.flatten(0, 1)
    drawn = model.network.decoder(classes).unflatten(0, (size, len(steps)))
    figure = pictures(list(drawn), [f"{step:+.2f}" for step in steps], [f"entry {h}" for h in range(size)])
    return Finding("Tweaked poses", figure, f"A {int(labels[0])}, each entry of its pose moved alone.")


@torch.no_grad()
def agreement(model: Model, data: Images, n: int = 100) -> Finding:
    """How far votes are from the means of their parents after each iteration, weighted by assignments."""
    network, images = model.network, as_tensor(data.images[:n])
    if isinstance(network, CapsNet):
        children = network.primary(network.conv(images).relu())
        votes, given = network.classes.votes(children), torch.ones(children.shape[:2])
        _, path = network.classes(children, return_path=True)
    else:
        poses, active = network.grid(images)
        layer = network.classes
        cast = vote(poses, layer.transforms)
        if layer.entries is not None:
            cast = coordinate_addition(cast, entries=layer.entries, coordinates=layer.coordinates)
        votes, given = cast.flatten(1, 3), active.flatten(1)
        _, path = layer(poses, active, return_path=True)
    figure, axis = plt.subplots(figsize=(6, 3.5))
    table: list[list[Any]] = [["iteration", "mean distance"]]
    for iteration, step in enumerate(path, 1):
        shares = step.assignments * given[..., None]
        means = (shares[..., None] * votes).sum(1) / shares.sum(1)[..., None].clamp_min(1e-30)
        distances = (votes - means[:, None]).norm(dim=-1)
        weights = (shares / shares.sum()).flatten()
        axis.hist(distances.flatten().numpy(), 60, weights=weights.numpy(), histtype="step", label=str(iteration))
        table.append([iteration, f"{float((weights * distances.flatten()).sum()):.4f}"])
    axis.set(xlabel="distance of a vote to its parent's mean", ylabel="share of assignments")
    axis.legend(title="iteration")
    return Finding("Agreement", figure, "Distances of votes to the means of parents, weighted by assignments.", table)


def accuracy(network: Any, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of images whose class is found."""
    with torch.no_grad():
        hits = [
            (network.encode(x)[1].argmax(-1) == y).sum()
            for x, y in zip(images.split(250), labels.split(250), strict=True)
        ]
    return float(sum(hits) / len(labels))


def robustness(models: list[Model], data: Images) -> Finding:
    """Accuracy after one step of the sign of the gradient (Goodfellow et al. 2015), each network's own."""
    images, labels = as_tensor(data.images), torch.from_numpy(data.labels)
    table: list[list[Any]] = [["network", *EPSILONS]]
    for model in models:
        signs = []
        for x, y in zip(images.split(250), labels.split(250), strict=True):
            own = x.clone().requires_grad_()
            (slope,) = torch.autograd.grad(model.loss(model.network(own, y), own.detach(), y), own)
            signs.append(slope.sign())
        sign = torch.cat(signs)
        table.append(
            [model.name, *(accuracy(model.network, (images + e * sign).clamp(0, 1), labels) for e in EPSILONS)]
        )
    return Finding("Robustness to FGSM", curves(table, "epsilon"), "Accuracy under white-box attack.", table)


def warped(models: list[Model], data: Images, kind: str) -> Finding:
    """Accuracy on test images that are moved, turned or scaled."""
    warp, amounts = WARPS[kind]
    table: list[list[Any]] = [["network", *amounts], *([model.name] for model in models)]
    labels = torch.from_numpy(data.labels)
    for amount in amounts:
        images = as_tensor(warp(data.images, amount))
        for line, model in zip(table[1:], models, strict=True):
            line.append(accuracy(model.network, images, labels))
    return Finding(f"Test images {kind}", curves(table, kind), f"Accuracy on test images {kind}.", table)


def curves(table: list[list[Any]], label: str) -> Figure:
    """A line of accuracy for each network."""
    figure, axis = plt.subplots(figsize=(6, 3.5))
    for name, *values in table[1:]:
        axis.plot(table[0][1:], values, marker="o", label=name)
    axis.set(xlabel=label, ylabel="accuracy", ylim=(0, 1.02))
    axis.legend()
    return figure


@torch.no_grad()
def overlaid(model: Model, data: Images, n: int = 10) -> Finding:
    """Two digits laid over each other, and each drawn from its own capsule."""
    h, w = (int(side) for side in model.network.decoder.out_shape[1:])
    both = multimnist_like(data, np.random.default_rng(0), n)
    edge = (both.images.shape[1] - h) // 2
    images = as_tensor(both.images[:, edge : edge + h, edge : edge + w])
    poses, activations = model.network.encode(images)
    found = activations.argsort(descending=True)[:, :2]
    drawn = [model.network.decoder(mask_capsules(poses, found[:, place])) for place in (0, 1)]
    titles = [
        f"{a}+{b} as {c}+{d}"
        for (a, b), (c, d) in zip(both.labels.tolist(), found.sort(-1).values.tolist(), strict=True)
    ]
    figure = pictures([images, *drawn], titles, ["overlaid", "first", "second"])
    return Finding("Overlaid digits", figure, "Each of the two most active capsules drawn alone.")


def write(findings: list[Finding], out: Path) -> None:
    """Write pictures and the page."""
    out.mkdir(parents=True, exist_ok=True)
    page = ["# Inside the networks", ""]
    for finding in findings:
        name = f"{finding.title.lower().replace(' ', '-')}.png"
        finding.figure.savefig(out / name, dpi=110, bbox_inches="tight")
        plt.close(finding.figure)
        page += [f"## {finding.title}", "", f"![{finding.caption}]({name})", "", finding.caption, ""]
        if finding.table:
            head, *lines = finding.table
            shown = [[f"{value:.3f}" if isinstance(value, float) else str(value) for value in line] for line in lines]
            page += [f"| {' | '.join(map(str, head))} |", "| --- " * len(head) + "|"]
            page += [f"| {' | '.join(line)} |" for line in shown] + [""]
    (out / "index.md").write_text("\n".join(page), encoding="utf-8")
    tables = {finding.title: finding.table for finding in findings if finding.table}
    (out / "tables.json").write_text(json.dumps(tables, indent=2), encoding="utf-8")


def main() -> None:
    """Find what the command line asks for; what goes wrong ends the program in one line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("network", type=Path, help="a CapsNet or MatrixCapsNet that training kept")
    options.add_argument("--cnn", type=Path, help="a CNN to compare it with")
    options.add_argument("--data", choices=("mnist", "fashion-mnist"), default="mnist")
    options.add_argument("--folder", type=Path, help="where its files are; fetched into ./data where this is not given")
    options.add_argument("--n", type=count, default=2000, help="test images for the tables")
    options.add_argument("--out", type=Path, default=Path("runs/explore"))
    try:
        explore(options.parse_args())
    except (EmrouteError, OSError) as error:
        raise SystemExit(f"error: {error}") from None


def explore(given: argparse.Namespace) -> None:
    """Read the networks and the data, find, write."""
    folder = given.folder or Path("data", origin(given.data))
    if given.folder is None:
        fetch(given.data, folder)
    test = load(given.data, folder)[1]
    network = load_network(given.network)
    check_images(as_tensor(test.images[:1]), network.image_shape)
    n_classes = network.arguments["n_classes"]
    if test.labels.max() >= n_classes:
        raise EmrouteError(f"{given.data} has labels up to {test.labels.max()}, the network {n_classes} classes")
    loss = capsnet_loss if isinstance(network, CapsNet) else matrix_capsnet_loss
    model = Model(type(network).__name__, network, loss)
    models = [model]
    if given.cnn:
        models.append(Model("CNN", load_cnn(given.cnn), lambda *some: cross_entropy(*some, 0.0)))
    few = Images(test.images[: given.n], test.labels[: given.n])
    findings = [agreement(model, test), robustness(models, few), *(warped(models, few, kind) for kind in WARPS)]
    if network.decoder is not None:
        drawn = [reconstructions(model, test), tweaks(model, test)]
        findings = [*drawn, *findings] + ([overlaid(model, test)] if given.data == "mnist" else [])
    write(findings, given.out)
    print(f"{given.out / 'index.md'} shows {len(findings)} findings")


if __name__ == "__main__":
    main()
