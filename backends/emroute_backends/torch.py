"""Torch: eager, its own threads inside each operation, so blocks are large and run one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from types import ModuleType
from typing import Any

import array_api_compat.torch
import numpy as np
import torch
from torch._functorch.pyfunctorch import retrieve_all_functorch_interpreters
from torch.utils.checkpoint import checkpoint

from emroute_backends import portable
from emroute_backends.kernels.tensors import on_tensors
from emroute_backends.numpy import holding_threads, threads
from emroute_backends.numpy import map_blocks as map_blocks_of_numpy
from emroute_backends.portable import Array, compile, join, loop, replaced

__all__ = [
    "at_hand",
    "chunk_size",
    "compile",
    "detach",
    "devices",
    "digamma",
    "eigh",
    "from_numpy",
    "gammaln",
    "gradient",
    "kernels",
    "layer_product",
    "loop",
    "map_blocks",
    "namespace",
    "segment_sum",
    "to_numpy",
    "tracing",
]

gammaln = torch.lgamma
digamma = torch.digamma
layer_product = torch.matmul
tracing = torch.compiler.is_compiling

_CPU_BYTES = 2**24
_CPU_ROWS = 2**13  # products add up rows one after another: more of them cost digits
_DEVICE_BYTES = 2**28
_DEVICE_SHARE = 64  # of a card's memory: 1.25 GiB of 80, which is few blocks, so that launches are few
_HOST_ROWS, _BATCHED_ROWS, _FEW_MATRICES = 128, 32, 64  # of matrices to be decomposed
_FULL = ("none", "ieee", "highest")


@contextmanager
def _full_precision(kind: str) -> Iterator[None]:
    """Multiply in the arrays' own precision: in TF32 or bfloat16 a log-likelihood is 1e-3 wrong and may fall.

    Autocast and `torch.set_float32_matmul_precision` are for layers; the user's settings hold again afterwards.
    """
    with ExitStack() as stack:
        if torch.is_autocast_enabled(kind):
            stack.enter_context(torch.autocast(kind, enabled=False))
        for settings in _PRECISIONS:
            if (before := settings.fp32_precision) not in _FULL:
                settings.fp32_precision = "ieee"
                stack.callback(setattr, settings, "fp32_precision", before)
        yield


class _Legacy:
    """The one setting of releases before 2.9, under the name and the values of the later ones."""

    @property
    def fp32_precision(self) -> str:
        return torch.get_float32_matmul_precision()

    @fp32_precision.setter
    def fp32_precision(self, value: str) -> None:
        torch.set_float32_matmul_precision("highest" if value == "ieee" else value)


def _precisions() -> tuple[Any, ...]:
    each = (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    return each if all(hasattr(settings, "fp32_precision") for settings in each) else (_Legacy(),)


_PRECISIONS = _precisions()


def _is_full(kind: str) -> bool:
    switched = not all(settings.fp32_precision in _FULL for settings in _PRECISIONS)
    return not (switched or torch.is_autocast_enabled(kind))


def _precise(name: str, product: Callable[..., Array]) -> Callable[..., Array]:
    @wraps(product)
    def full(a: Array, b: Array, /, **options: Any) -> Array:
        kind = a.device.type
        if tracing() or kind == "meta" or _is_full(kind):
            return product(a, b, **options)
        with _full_precision(kind):
            return product(a, b, **options)

    return full


_SPACE = replaced(array_api_compat.torch, _precise)


def namespace(x: Array, /) -> ModuleType:
    return _SPACE


def segment_sum(values: Array, segments: Array, n_segments: int) -> Array:
    """In float64: one row after another, a float32 sum stands still at 2**24 times a row."""
    wide = values if values.device.type == "mps" else values.to(torch.float64)  # MPS has none
    index = segments.expand(values.shape[:-1])[..., None].expand(values.shape)
    shape = (*values.shape[:-2], n_segments, values.shape[-1])
    return wide.new_zeros(shape).scatter_add(-2, index, wide).to(values.dtype)


def at_hand(x: Array, /) -> bool:
    return x.device.type == "cpu"


def detach(x: Array, /) -> Array:
    return x.detach()


def to_numpy(x: Array, /) -> np.ndarray:
    return x.detach().cpu().numpy()


def from_numpy(value: np.ndarray, like: Array) -> Array:
    x = torch.tensor(value)  # torch.compile knows no dtypes of NumPy arrays
    floating = x.dtype.is_floating_point and like.dtype.is_floating_point
    return x.to(device=like.device, dtype=like.dtype if floating else x.dtype)


def eigh(x: Array, /) -> tuple[Array, Array]:
    if x.device.type != "cuda" or x.requires_grad or tracing() or not _belongs_on_host(x):
        return portable.eigh(x)
    return eigh_on_host(x)


def _belongs_on_host(x: Array) -> bool:
    """Whether a core is sooner done than the device, which takes matrices of more than 32 rows one after another.

    Of up to 32 rows it takes all at once, which pays for many. Either way the host waits: for the results, or to hear
    that the device has found them.
    """
    d = x.shape[-1]
    return d <= _HOST_ROWS and (d > _BATCHED_ROWS or x.shape[:-2].numel() <= _FEW_MATRICES)


def eigh_on_host(x: Array) -> tuple[Array, Array]:
    """Decompose matrices of a device on the host, shared out among threads."""
    matrices = to_numpy(x).reshape(-1, *x.shape[-2:])
    with holding_threads(torch.get_num_threads()):
        parts = -(-len(matrices) // threads())
        values, vectors = map_blocks_of_numpy(portable.eigh, [matrices], max(1, parts))
    return from_numpy(values, x).reshape(x.shape[:-1]), from_numpy(vectors, x).reshape(x.shape)


def chunk_size(bytes_per_row: int) -> int:
    if torch.cuda.is_available():
        whole = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        return max(1024, whole // _DEVICE_SHARE // max(1, bytes_per_row))
    if torch.accelerator.is_available():
        return max(1024, _DEVICE_BYTES // max(1, bytes_per_row))
    return min(_CPU_ROWS, max(1024, _CPU_BYTES // max(1, bytes_per_row)))


class _Peel(torch.autograd.Function):
    """Take the rows of one block from an array: on the way back all blocks write into one gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Array, start: int, stop: int) -> tuple[Array, Array]:
        return x[start:stop], x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Array, int, int], output: tuple[Array, Array]) -> None:
        x, *ctx.rows = inputs
        ctx.shape = x.shape
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Array | None) -> tuple[Array | None, None, None]:
        block, whole = gradients
        if block is not None:
            whole = block.new_zeros(ctx.shape) if whole is None else whole
            whole[slice(*ctx.rows)] = block
        return whole, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Array) -> tuple[Array, Array]:
        return tangents[0][slice(*ctx.rows)], tangents[0].view_as(tangents[0])


def map_blocks(function: Callable[..., Any], arrays: Sequence[Array], size: int, recompute: bool = False) -> Any:
    def run(*block: Array) -> Any:
        if not torch.amp.is_autocast_available(block[0].device.type):  # the meta device has none
            return function(*block)
        with torch.autocast(block[0].device.type, enabled=False):  # it would make the sums bfloat16
            return function(*block)

    # what a checkpoint keeps is kept by hooks, which torch.func does not support
    transformed = not tracing() and retrieve_all_functorch_interpreters()
    if recompute and torch.is_grad_enabled() and not transformed:
        run = partial(checkpoint, run, use_reentrant=False)
    n, rest, results = arrays[0].shape[0], list(arrays), []
    if isinstance(n, torch.SymInt) or n <= size:  # an exported graph holds for any n, so it has one block
        return run(*arrays)
    if tracing():  # a compiler lays out gradients itself
        return join([run(*block) for block in zip(*(torch.split(x, size) for x in arrays), strict=True)])
    for start in range(0, n, size):
        peeled = [_Peel.apply(x, start, min(start + size, n)) for x in rest]
        rest = [whole for _, whole in peeled]
        results.append(run(*(block for block, _ in peeled)))
    return join(results)


kernels = on_tensors()


def devices() -> tuple[str, ...]:
    kind = torch.accelerator.current_accelerator(check_available=True)
    return ("cpu", *(f"{kind}:{place}" for place in range(torch.accelerator.device_count())))


def gradient(function: Callable[..., Array], *arrays: Array) -> tuple[Array, ...]:
    own = [x.detach().requires_grad_() for x in arrays]
    return torch.autograd.grad(function(*own), own, materialize_grads=True)
