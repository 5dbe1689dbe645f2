"""The matrix capsule network in plain Torch, from the published equations: what one writes without this library.

All votes of a layer are one tensor, and autograd keeps what every iteration made of it.

    python -m tests.benchmarks.plain ours|plain

prints the peak bytes of one training step in a process of its own.
"""

import subprocess
import sys

import torch
from torch import Tensor, nn
from torch.nn import functional

from emroute.capsule import spread_loss
from emroute.nn.torch import MatrixCapsNet
from tests.benchmarks.memory import PeakMemory

BATCH = 8
SCHEDULE = [0.01 * (1 - 0.95 ** (t + 1)) for t in range(3)]


def places(size: int, kernel: int, stride: int) -> Tensor:
    """The children ``(parents, kernel²)`` in the window of each parent of a square grid."""
    index = torch.arange(size * size, dtype=torch.float32).reshape(1, 1, size, size)
    return functional.unfold(index, kernel, stride=stride)[0].T.long()


def route(votes: Tensor, given: Tensor, beta_u: Tensor, beta_a: Tensor, seen: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """EM routing of votes ``(B, q, C, J, H)`` by children ``(q, C)``, which sum to 1 over all their parents."""
    b, q, c, j, _ = votes.shape
    index = seen.flatten().expand(b, -1)

    def per_child(x: Tensor) -> Tensor:
        return x.new_zeros(b, n).scatter_add(1, index, x.reshape(b, -1)).gather(1, index).reshape(b, q, c)

    r = (1 / (j * per_child(votes.new_ones(b, q, c))))[..., None].expand(b, q, c, j)
    for t, temperature in enumerate(SCHEDULE):
        weight = (r * given[..., None])[..., None]
        total = weight.sum(2)
        mean = (weight * votes).sum(2) / total
        variance = (weight * (votes - mean[:, :, None]) ** 2).sum(2) / total + 1e-6
        cost = ((beta_u[:, None] + variance.log() / 2) * total).sum(-1)
        log_a = functional.logsigmoid(temperature * (beta_a - cost))
        if t < len(SCHEDULE) - 1:
            density = (
                (votes - mean[:, :, None]) ** 2 / variance[:, :, None] + (6.283185307 * variance[:, :, None]).log()
            ).sum(-1)
            logits = log_a[:, :, None] - density / 2
            most = logits.detach().amax(-1).reshape(b, -1)
            most = most.new_full((b, n), -torch.inf).scatter_reduce(1, index, most, "amax").gather(1, index)
            shares = (logits - most.reshape(b, q, c, 1)).exp()
            r = shares / per_child(shares.sum(-1))[..., None]
    return mean, log_a.exp()


class PlainMatrixCapsNet(nn.Module):
    """The parameters of a `MatrixCapsNet`, used plainly."""

    def __init__(self, network: MatrixCapsNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        poses, active = self.network.primary(self.network.conv(images).relu())
        for layer in (self.network.conv_capsules1, self.network.conv_capsules2):
            b, h, _, i, p, _ = poses.shape
            kernel, j = layer.transforms.shape[0], layer.transforms.shape[3]
            at = places(h, kernel, layer.stride)
            children = poses.flatten(1, 2)[:, at].flatten(2, 3)
            votes = (children[..., None, :, :] @ layer.transforms.reshape(-1, j, p, p)).flatten(-2)
            seen = (at[..., None] * i + torch.arange(i)).flatten(1)
            given = active.flatten(1, 2)[:, at].flatten(2)
            poses, active = route(votes, given, layer.beta_u, layer.beta_a, seen, h * h * i)
            side = round(len(at) ** 0.5)
            poses, active = poses.reshape(b, side, side, j, p, p), active.reshape(b, side, side, j)
        layer, (b, h, w, i, p, _) = self.network.classes, poses.shape
        votes = (poses[..., None, :, :] @ layer.transforms).flatten(-2)
        centres = torch.stack(
            torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij"), -1
        )
        shift = functional.pad(centres, (0, p * p - 2))
        votes = (votes + shift[:, :, None, None]).flatten(1, 3)[:, None]
        seen = torch.arange(h * w * i)[None]
        return route(votes, active.flatten(1)[:, None], layer.beta_u, layer.beta_a, seen, h * w * i)[1][:, 0]


def networks() -> tuple[MatrixCapsNet, PlainMatrixCapsNet, Tensor, Tensor]:
    """Both networks on the same parameters, images of 32 x 32 and labels."""
    torch.manual_seed(0)
    ours = MatrixCapsNet(1, 10, 32)
    return ours, PlainMatrixCapsNet(ours), torch.rand(BATCH, 1, 32, 32), torch.arange(BATCH)


def step(activations: Tensor, labels: Tensor) -> None:
    """The way back of a training step."""
    spread_loss(activations, labels, 0.5).backward()


def peak(which: str) -> int:
    """Peak bytes of a training step, in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.plain", which]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(which: str) -> int:
    torch.set_num_threads(2)
    ours, plain, images, labels = networks()
    forward = (lambda x: ours(x).activations) if which == "ours" else plain
    step(forward(images[:1]), labels[:1])  # gradients are there before
    with PeakMemory() as memory:
        step(forward(images), labels)
    return memory.above


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
