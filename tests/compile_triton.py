"""Compile every Triton kernel for a card that need not be here: ``python -m tests.compile_triton [90 | 80 ...]``.

Prints, for each kernel that the fused forms launch, in float32 and float64, registers a thread, bytes spilled a thread
and bytes of shared memory a program. `small` arguments make small tiles, which compile sooner.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import triton
from emroute_backends.kernels.cuda import tracing_back
from emroute_backends.kernels.triton import DeviceForm, every
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from emroute.capsule.dynamic import Products
from emroute.capsule.gaussians import em_options
from emroute.capsule.routing import Options

SHARED = {80: 163 * 1024, 90: 227 * 1024}
"""Bytes of shared memory that a program may have."""

_TOOL = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


class Compiled(NamedTuple):
    """What a kernel takes of a multiprocessor."""

    form: str
    kernel: str
    dtype: str
    registers: int
    spilled: int
    shared: int


def arguments(name: str, dtype: torch.dtype, small: bool) -> list[tuple[Any, ...]]:
    """Arguments for a form, as large as in a benchmark where they decide on tiles."""
    n, k, d = (64, 4, 4) if small else (4096, 64, 64)
    i, j, p = (4, 4, 2) if small else (64, 32, 4)
    x = partial(torch.ones, dtype=dtype)
    options = em_options("hinton", 1e-3, None, 1, recompute=True, return_path=False)
    routed = x(2, i), x(2, j), x(2, j)
    windows = x(5, i, p, p), x(5, i), torch.zeros((2, 9), dtype=torch.int64), x(2, j, 9 * i), x(2, 1, 9 * i)
    return {
        "assign_rows": [(x(n, d), x(k, d), x(()), x(n))],
        "label_rows": [(x(n, d), x(k, d))],
        "diagonal_squares": [(x(n, d).mT, x(k, d), x(k, d))],
        "diagonal_moments": [(x(n, d).mT, x(k, d), x(k, n))],
        "full_squares": [(x(n, d).mT, x(k, d), x(k, d, d))],
        "full_moments": [(x(n, d).mT, x(k, d), x(k, n))],
        "share_rows": [(x(k, n), x(n))],
        "route_votes": [(x(2, i, j, p * p), *routed, options)],
        "route_products": [(x(2, i, j, p * p), x(2, j, p * p), Options(Products(), (1.0,), True, False))],
        "route_poses": [(x(2, i, p, p), *routed, x(i, j, p, p), None, options)],
        "route_windows": [(*windows, x(2, j), x(2, j), x(9 * i, j, p, p), options, False)],
    }[name]


def compiled(form: DeviceForm, capability: int, dtype: torch.dtype, small: bool = False) -> Iterator[Compiled]:
    """Compile what a form launches, and launch nothing."""
    found = []

    def build(kernel: JITFunction, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        given = dict(zip(kernel.arg_names, args, strict=False))
        given |= {name: options.pop(name) for name in kernel.arg_names if name in options}
        signature, constants, attributes = {}, {}, {}
        for place, parameter in enumerate(kernel.params):
            value = given[parameter.name]
            if parameter.is_constexpr:
                signature[parameter.name], constants[parameter.name] = "constexpr", value
            else:
                signature[parameter.name] = _kind(value)
                if isinstance(value, torch.Tensor) or value % 16 == 0:
                    attributes[(place,)] = [["tt.divisibility", 16]]
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        registers, spilled = _resources(made.asm["cubin"])
        kind = str(dtype).removeprefix("torch.")
        found.append(Compiled(form.name, kernel.__name__, kind, registers, spilled, made.metadata.shared))

    with mock.patch.object(JITFunction, "run", build):
        for args in arguments(form.name, dtype, small):
            try:
                results = form(*args)
            except IndexError:  # nothing was computed, so that a row's number may be anything
                assert found
            else:
                if form.back:
                    getattr(tracing_back, form.back)(args, results)
    yield from found


def _kind(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return "i32"
    kinds = {torch.float32: "fp32", torch.float64: "fp64", torch.int64: "i64", torch.int32: "i32"}
    return "*" + (kinds | {torch.int16: "i16", torch.uint8: "u8"})[value.dtype]


def _resources(cubin: bytes) -> tuple[int, int]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([_TOOL, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    registers, spilled = re.search(r"REG:(\d+) STACK:(\d+)", done.stdout).groups()
    return int(registers), int(spilled)


def main(*asked: str) -> None:
    """Print what each kernel takes."""
    small, capabilities = "small" in asked, [int(each) for each in asked if each != "small"] or [90]
    dtypes = [torch.float32] if small else [torch.float32, torch.float64]
    print("card, form, kernel, dtype, registers, spilled, shared")
    for capability in capabilities:
        for form in every():
            for dtype in dtypes:
                for each in compiled(form, capability, dtype, small):
                    print(f"sm_{capability}", *each, sep=", ", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
