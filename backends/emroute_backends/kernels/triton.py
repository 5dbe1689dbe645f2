"""Forms for Torch tensors on CUDA: which there are, and when they pay. Triton is imported by the first that runs.

Triton compiles a kernel for each dtype, and each range of sizes, in about a second, and keeps it on disk. With
``TRITON_INTERPRET=1`` it runs kernels on tensors of the host instead, slowly: so they are tested without a GPU.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

__all__ = ["DeviceForm", "every", "forms", "kind"]

_WORTH = 2**16  # multiplications; the text of fewer takes no longer than a few launches
_WIDE = 2**10  # features of a row that a program holds at once

_ONE_CHILD = 2**11  # numbers of one child's votes for all parents

_BACK = "emroute_backends.kernels.cuda.tracing_back"

_broken: set[str] = set()
"""Forms that have failed here."""


@dataclass(frozen=True)
class DeviceForm:
    """A form whose kernels are in a module of their own."""

    name: str
    module: str
    work: Callable[..., int]
    """Multiplications, from the shapes of the arguments."""
    held: Callable[..., bool] = lambda *shapes: True
    """Whether registers hold what a program holds, from the shapes of the arguments."""
    back: str = ""
    """The function that returns gradients, from the arguments and the gradients of the results; else the text does."""

    def takes(self, *args: Any) -> bool:
        """Whether all tensors among the arguments are of one dtype that kernels are written for, or indices."""
        tensors = [x for x in args if isinstance(x, torch.Tensor)]
        alike = all(x.dtype in (args[0].dtype, torch.int64) and x.device == args[0].device for x in tensors)
        fit = args[0].dtype in (torch.float32, torch.float64) and args[0].numel() > 0 and self.held(*_shapes(args))
        return alike and fit and self.name not in _broken and args[0].device.type == kind()

    def pays(self, *args: Any) -> bool:
        """Whether there is enough to do."""
        return self.work(*_shapes(args)) >= _WORTH

    def cheap(self, *_: Any) -> bool:
        """Yes: tensor cores multiply in less time than intermediate arrays take to be written."""
        return True

    def __call__(self, *args: Any) -> Any:
        """Do what the function of this name does."""
        here = args[0].device
        with torch.cuda.device(here) if here.type == "cuda" else nullcontext():
            return getattr(import_module(self.module), self.name)(*args)

    def run(self, text: Callable[..., Any], *args: Any) -> Any:
        """The same; where that fails, as on a card that Triton does not compile for, the text, now and from then on."""
        found = self._tried(self, *args)
        return text(*args) if found is None else found

    def gradients(self, args: tuple[Any, ...], of_results: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Gradients of the arguments, None for those that have none; None instead of all where that fails."""
        here = args[0].device
        with torch.cuda.device(here) if here.type == "cuda" else nullcontext():
            return self._tried(getattr(import_module(_BACK), self.back), args, of_results)

    def _tried(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # compilers' errors have no base of their own
            _broken.add(self.name)
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            told = f"emroute's fused {self.name} does not run here, and is done without from now on: {reason}"
            warnings.warn(told, RuntimeWarning, stacklevel=3)
            return None


def kind() -> str:
    """The kind of device whose tensors forms take."""
    return "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


def _shapes(args: tuple[Any, ...]) -> list[tuple[int, ...]]:
    return [tuple(x.shape) for x in args if isinstance(x, torch.Tensor)]


def _assignment(rows: tuple[int, ...], centroids: tuple[int, ...], *_: Any) -> int:
    return math.prod(centroids) * rows[-2]


def _narrow(rows: tuple[int, ...], *_: Any) -> bool:
    return rows[-1] <= _WIDE


def _differences(z: tuple[int, ...], means: tuple[int, ...], *_: Any) -> int:
    return math.prod(means) * z[-1]


def _joint(log_joint: tuple[int, ...], *_: Any) -> int:
    return math.prod(log_joint)


def _votes(votes: tuple[int, ...], *_: Any) -> int:
    return math.prod(votes)


def _poses(poses: tuple[int, ...], _: Any, costs: tuple[int, ...], *__: Any) -> int:
    return math.prod(poses) * costs[-1]


def _windows(_: Any, __: Any, index: tuple[int, ...], *shapes: tuple[int, ...]) -> int:
    return index[0] * math.prod(shapes[-1])


def _few_votes(votes: tuple[int, ...], *_: Any) -> bool:
    return _padded(votes[-2]) * _padded(votes[-1]) <= _ONE_CHILD


def _few_poses(poses: tuple[int, ...], _: Any, costs: tuple[int, ...], *__: Any) -> bool:
    return _padded(costs[-1]) * _padded(poses[-1] ** 2) <= _ONE_CHILD


def _few_in_windows(poses: tuple[int, ...], *shapes: tuple[int, ...]) -> bool:
    return _few_poses(poses, (), shapes[-2])


def _padded(n: int) -> int:
    return 1 << (n - 1).bit_length()


_FORMS = (
    DeviceForm("assign_rows", "emroute_backends.kernels.cuda.kmeans", _assignment, _narrow),
    DeviceForm("label_rows", "emroute_backends.kernels.cuda.kmeans", _assignment, _narrow),
    DeviceForm("diagonal_squares", "emroute_backends.kernels.cuda.diagonals", _differences),
    DeviceForm("diagonal_moments", "emroute_backends.kernels.cuda.diagonals", _differences),
    DeviceForm("full_squares", "emroute_backends.kernels.cuda.gaussians", _differences),
    DeviceForm("full_moments", "emroute_backends.kernels.cuda.gaussians", _differences),
    DeviceForm("share_rows", "emroute_backends.kernels.cuda.posterior", _joint),
    DeviceForm("route_votes", "emroute_backends.kernels.cuda.routing", _votes, _few_votes, "votes_back"),
    DeviceForm("route_products", "emroute_backends.kernels.cuda.dynamic", _votes, _few_votes),
    DeviceForm("route_poses", "emroute_backends.kernels.cuda.routing", _poses, _few_poses, "poses_back"),
    DeviceForm("route_windows", "emroute_backends.kernels.cuda.routing", _windows, _few_in_windows, "windows_back"),
)


def every() -> tuple[DeviceForm, ...]:
    """Return all forms, whether they can run here or not."""
    return _FORMS


def forms() -> dict[str, DeviceForm]:
    """Forms by the names of their functions; none without Triton, or where Torch was built without CUDA."""
    usable = kind() == "cpu" or torch.backends.cuda.is_built()
    return {form.name: form for form in _FORMS} if find_spec("triton") and usable else {}
