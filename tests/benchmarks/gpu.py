"""Speed on a GPU, beside what it takes at least: ``python -m tests.benchmarks.gpu [--write docs/gpu.md]``.

Everything is made on the device, in float32, and runs ten iterations from given starts, or one step. A figure is the
median of five; on Torch between CUDA events. Matrix products are in full precision everywhere, TF32 being off. It takes
less than five minutes; without CUDA it says so and measures nothing.
"""

import argparse
import math
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from emroute import capsule, gmm, kmeans
from emroute.errors import FitWarning
from emroute.nn import capsnet_loss
from tests.benchmarks.test_capsule_speed import plain as plain_routing

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX would take most of the memory
COMMAND = "python -m tests.benchmarks.gpu --write docs/gpu.md"
LIBRARIES = ("torch", "cupy", "jax")
ROUNDS, ITERATIONS = 5, 10
WAITS = "There are no figures yet: the machine that wrote this page had no GPU."
VERSIONS = ("emroute", "torch", "triton", "cupy-cuda12x", "jax")

Call = Callable[[], object]


@dataclass(frozen=True)
class Work:
    """Something to measure."""

    name: str
    arrays: Callable[[], tuple[torch.Tensor, ...]]
    """Made on the device."""
    run: Callable[..., object]
    """Of the arrays of any library."""
    plain: Callable[..., object] | None = None
    """The same in plain Torch, as one writes it without this library."""
    bytes: float = 0
    """That must be read or written at least."""
    products: float = 0
    """Multiplications with additions that matrix products take at least."""
    at_most: float = math.nan
    """Milliseconds that it is meant to take on Torch, on an H100."""
    on: tuple[str, ...] = LIBRARIES


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, device="cuda")


def rows(n: int, d: int, k: int) -> torch.Tensor:
    """Rows of k groups that overlap."""
    return normal(n, d) + 3 * normal(k, d)[torch.randint(k, (n,), device="cuda")]


# What is measured


def cluster(x: Any, start: Any) -> object:
    return kmeans.fit(x, len(start), init=start, max_iter=ITERATIONS)


def plain_kmeans(x: torch.Tensor, start: torch.Tensor) -> object:
    centroids, ones = start, x.new_ones(len(x))
    for _ in range(ITERATIONS):
        labels = torch.addmm((centroids**2).sum(1) / 2, x, centroids.T, alpha=-1).argmin(1)
        sums, counts = torch.zeros_like(centroids), ones.new_zeros(len(start))
        centroids = sums.index_add_(0, labels, x) / counts.index_add_(0, labels, ones).clamp(min=1)[:, None]
    return centroids, labels


def mix(covariance_type: str, x: Any, weights: Any, means: Any, covariances: Any) -> object:
    start = weights, means, covariances
    return gmm.fit(x, len(means), covariance_type=covariance_type, init=start, max_iter=ITERATIONS, tol=0)


def mixture(covariance_type: str, n: int, d: int, k: int) -> tuple[torch.Tensor, ...]:
    x, eye = rows(n, d, k), torch.eye(d, device="cuda")
    wide = {"full": eye.expand(k, d, d), "diag": eye.new_ones(k, d), "spherical": eye.new_ones(k)}[covariance_type]
    return x, x.new_full((k,), 1 / k), x[:k].clone(), 10 * wide.contiguous()


def many(x: Any, means: Any) -> object:
    return gmm.fit(x, 3, init=means, max_iter=ITERATIONS, tol=0)


def votes(b: int = 1152, i: int = 288, j: int = 32, h: int = 16) -> tuple[torch.Tensor, ...]:
    return normal(b, i, j, h), torch.rand(b, i, device="cuda"), *torch.zeros(2, j, device="cuda")


def back(route: Callable[..., Any], *arrays: torch.Tensor) -> object:
    """Forward and backward."""
    leaves = [x.detach().requires_grad_() for x in arrays]
    poses, activations, *_ = route(*leaves)
    return torch.autograd.grad(poses.sum() + activations.sum(), leaves)


def train(network: torch.nn.Module, loss: Callable[..., Any], images: torch.Tensor, labels: torch.Tensor) -> object:
    """One step: forward, backward, Adam."""
    optimizer = network.__dict__.setdefault("_optimizer", torch.optim.Adam(network.parameters()))
    optimizer.zero_grad()
    loss(network(images, labels), images, labels).backward()
    return optimizer.step()


def spread(output: Any, _: torch.Tensor, labels: torch.Tensor) -> Any:
    return capsule.spread_loss(output.activations, labels, 0.5)


def images(b: int, size: int) -> tuple[torch.Tensor, ...]:
    return torch.rand(b, 1, size, size, device="cuda"), torch.arange(b, device="cuda") % 10


def works() -> Iterator[Work]:
    """Everything, in the order of the page."""
    for (n, d, k), at_most in {(10**6, 128, 1024): 60, (10**6, 64, 64): 6, (4 * 10**6, 16, 16): 9}.items():
        yield Work(
            f"k-means, {n:,} × {d}, k = {k}", partial(lambda n, d, k: (x := rows(n, d, k), x[:k].clone()), n, d, k),
            cluster, plain_kmeans, 4.0 * ITERATIONS * n * d, 1.0 * ITERATIONS * n * d * k, at_most,
        )  # fmt: skip
    for kind, n, d, k, at_most in (
        ("full", 10**6, 16, 16, 15), ("full", 10**6, 64, 64, 200),
        ("diag", 250_000, 128, 256, 40), ("spherical", 250_000, 128, 256, 40),
    ):  # fmt: skip
        wide = d * (d + 1) // 2 if kind == "full" else 2 * d
        yield Work(
            f"Gaussians, {kind}, {n:,} × {d}, k = {k}", partial(mixture, kind, n, d, k), partial(mix, kind),
            bytes=4.0 * ITERATIONS * n * d, products=2.0 * ITERATIONS * n * k * wide, at_most=at_most,
        )  # fmt: skip
    yield Work(
        "Gaussians, 4,096 problems of 500 × 4, k = 3", lambda: ((x := normal(4096, 500, 4)), x[:, :3].clone()), many,
        bytes=4.0 * ITERATIONS * 4096 * 500 * 4, at_most=15,
    )  # fmt: skip
    route = partial(capsule.em_routing, n_iter=3)
    size = 4.0 * 1152 * 288 * 32 * 16
    plain = partial(plain_routing, torch)
    yield Work("EM routing of votes (1152, 288, 32, 16)", votes, route, plain, bytes=size, at_most=1.5)
    yield Work(
        "the same, forward and backward", votes, partial(back, route), partial(back, plain),
        bytes=3 * size, at_most=6, on=("torch",),
    )  # fmt: skip
    dynamic = partial(capsule.dynamic_routing, n_iter=3)
    yield Work(
        "dynamic routing of votes (128, 1152, 10, 16)", lambda: votes(128, 1152, 10, 16)[:1], dynamic,
        bytes=4.0 * 128 * 1152 * 160,
    )  # fmt: skip
    torch_networks = import_module("emroute.nn.torch")
    for name, network, loss, data, at_most in (
        ("CapsNet", lambda: torch_networks.CapsNet(), capsnet_loss, (128, 28), 15),
        ("MatrixCapsNet 32/32/32/32", lambda: torch_networks.MatrixCapsNet(1, 10, 28), spread, (64, 28), 70),
    ):
        step = partial(train, network().cuda(), loss)
        yield Work(
            f"training step of {name}, batch {data[0]}", partial(images, *data), step, at_most=at_most, on=("torch",)
        )


# How


def carried(name: str, arrays: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
    """The same memory as arrays of another library."""
    if name == "torch":
        return arrays
    module = import_module("jax.numpy" if name == "jax" else name)
    return tuple(map(module.from_dlpack, arrays))


def milliseconds(name: str, call: Call) -> float:
    """Median of five, after one to warm up."""
    call()
    return median(_once(name, call) for _ in range(ROUNDS))


def _once(name: str, call: Call) -> float:
    torch.cuda.synchronize()
    if name == "torch":
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        stop.record()
        torch.cuda.synchronize()
        return start.elapsed_time(stop)
    began = time.perf_counter()
    found = call()
    if name == "jax":
        import_module("jax").block_until_ready([x for x in vars(found).values() if hasattr(x, "block_until_ready")])
    else:
        import_module("cupy").cuda.Device().synchronize()
    return 1e3 * (time.perf_counter() - began)


def usable(name: str) -> bool:
    """Whether a library is here and sees the device."""
    try:
        module = import_module(name)
        return module.cuda.is_available() if name != "jax" else module.default_backend() == "gpu"
    except ImportError:
        return False


def limits() -> tuple[float, float]:
    """Bytes a millisecond of a copy, and products a millisecond of matrices in float32."""
    x, y = torch.empty(2**28, device="cuda"), normal(8192, 8192)
    return 8 * len(x) / milliseconds("torch", x.clone), 8192**3 / milliseconds("torch", lambda: y @ y)


def measured(work: Work, names: list[str]) -> dict[str, str]:
    """Milliseconds of each library, and of plain Torch; a reason where something failed."""
    cells, given = {}, work.arrays()
    calls = {name: partial(work.run, *carried(name, given)) for name in names if name in work.on}
    if work.plain:
        calls["plain"] = partial(work.plain, *given)
    for name, call in calls.items():
        try:
            cells[name] = f"{milliseconds('torch' if name == 'plain' else name, call):.3g}"
        except Exception as error:  # one failure leaves the other figures
            cells[name] = f"failed: {type(error).__name__}"
            print(f"{work.name}, {name}: {error}")
    torch.cuda.empty_cache()
    return cells


def run() -> str:
    """Measure everything, print it line by line, and return the table."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    names = [name for name in LIBRARIES if usable(name)]
    if "jax" in names:
        import_module("jax").config.update("jax_default_matmul_precision", "highest")
    a_copy, a_product = limits()
    lines = [
        "| work | bound | plain Torch | Torch | CuPy | JAX | at most |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for work in works():
        cells, bound = measured(work, names), max(work.bytes / a_copy, work.products / a_product)
        found = [cells.get(name, "–") for name in ("plain", *LIBRARIES)]
        least = f"{bound:.3g}" if bound else "–"
        most = "–" if math.isnan(work.at_most) else f"{work.at_most:g}"
        lines.append(f"| {' | '.join([work.name, least, *found, most])} |")
        print(lines[-1], flush=True)
    speed = f"Here a copy moves {a_copy / 1e9:.2f} TB/s, and matrices multiply at {2 * a_product / 1e9:.1f} TFLOP/s."
    return f"{speed}\n\n" + "\n".join(lines)


def page(found: str) -> str:
    """The page."""
    return f"""# Benchmarks on a GPU

Times in milliseconds, for ten iterations from given starts or for one step, in float32 with TF32 off; medians of five.
The bound is the time the device needs to read the data once per iteration, or to multiply matrices in float32,
whichever is longer. *At most* is the goal for Torch on an H100. From a checkout, on a machine with CUDA,

```bash
{COMMAND}
```

measures everything and writes this page.

{found}
"""


def _card() -> str:
    found = []
    for name in VERSIONS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    card = torch.cuda.get_device_name()
    return f"Measured on {date.today()} on one {card}, with Python {platform.python_version()}, {', '.join(found)}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", type=Path, help="the page to write")
    target = parser.parse_args().write
    if torch.cuda.is_available():
        warnings.simplefilter("ignore", FitWarning)  # ten iterations are no convergence
        found = f"{_card()} {run()}"
    else:
        print("no CUDA device here: nothing is measured")
        found = WAITS
    if target:
        target.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
