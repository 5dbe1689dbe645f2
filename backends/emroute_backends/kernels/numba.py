"""Forms for NumPy arrays: which there are, and when they pay. Numba is imported by the first that runs.

Compiled functions are kept on disk, so that only the first process after an installation compiles. They free the
interpreter lock and run on the thread that calls them: blocks of rows are on a pool of threads already.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

__all__ = ["forms"]

_LOOPS = 80  # features up to which loops multiply matrices as fast as BLAS does
_WORTH = 2**13  # multiplications for which it pays to import numba


@dataclass(frozen=True)
class HostForm:
    """A form whose compiled function is in a module of its own."""

    name: str
    module: str
    work: Callable[..., int]
    """Multiplications, from the shapes of the arguments."""
    back: str = ""
    """The function of the same module that returns gradients, from the arguments and the gradients of the results."""

    def takes(self, *args: Any) -> bool:
        """Whether all arrays among the arguments are of one dtype that is compiled for, or indices, and not empty."""
        dtype = args[0].dtype
        arrays = (x for x in args if hasattr(x, "dtype"))
        alike = all(x.dtype in (dtype, np.int64) for x in arrays)
        return dtype in (np.float32, np.float64) and args[0].size > 0 and alike

    def pays(self, *args: Any) -> bool:
        """Whether there is enough to do."""
        return self.work(*(tuple(x.shape) for x in args if hasattr(x, "shape"))) >= _WORTH

    def cheap(self, *_: Any) -> bool:
        """No: a core multiplies as fast in products of matrices, which may need fewer multiplications."""
        return False

    def __call__(self, *args: Any) -> Any:
        """Do what the function of this name does."""
        return getattr(import_module(self.module), self.name)(*args)

    def run(self, _: Callable[..., Any], *args: Any) -> Any:
        """The same; NumPy knows no derivatives."""
        return self(*args)

    def gradients(self, args: tuple[Any, ...], of_results: tuple[Any, ...]) -> tuple[Any, ...]:
        """Gradients of the arguments, None for those that have none."""
        return getattr(import_module(self.module), self.back)(args, of_results)


def _assignment(rows: tuple[int, ...], centroids: tuple[int, ...], *_: Any) -> int:
    return math.prod(centroids) * rows[-2]


def _differences(z: tuple[int, ...], means: tuple[int, ...], *_: Any) -> int:
    return math.prod(means) * z[-1]


def _matrices(z: tuple[int, ...], means: tuple[int, ...], *_: Any) -> int:
    return _differences(z, means) * means[-1] if means[-1] <= _LOOPS else 0


def _votes(votes: tuple[int, ...], *_: Any) -> int:
    return math.prod(votes)


def _poses(poses: tuple[int, ...], _: Any, costs: tuple[int, ...], *__: Any) -> int:
    return math.prod(poses) * costs[-1]


def _windows(_: Any, __: Any, index: tuple[int, ...], *shapes: tuple[int, ...]) -> int:
    return index[0] * math.prod(shapes[-1])


_FORMS = (
    HostForm("assign_rows", "emroute_backends.kernels.kmeans", _assignment),
    HostForm("assign_again", "emroute_backends.kernels.kmeans", _assignment),
    HostForm("label_rows", "emroute_backends.kernels.kmeans", _assignment),
    HostForm("diagonal_squares", "emroute_backends.kernels.gaussians", _differences),
    HostForm("diagonal_moments", "emroute_backends.kernels.gaussians", _differences),
    HostForm("full_squares", "emroute_backends.kernels.gaussians", _matrices),
    HostForm("full_moments", "emroute_backends.kernels.gaussians", _matrices),
    HostForm("route_votes", "emroute_backends.kernels.routing", _votes, "votes_back"),
    HostForm("route_poses", "emroute_backends.kernels.routing", _poses, "poses_back"),
    HostForm("route_products", "emroute_backends.kernels.products", _votes),
    HostForm("route_windows", "emroute_backends.kernels.windows", _windows, "windows_back"),
)


def forms() -> dict[str, HostForm]:
    """Forms by the names of their functions; none without numba."""
    return {form.name: form for form in _FORMS} if find_spec("numba") else {}
