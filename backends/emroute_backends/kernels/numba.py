"""Forms for NumPy arrays: which there are, and when they pay. Numba is imported by the first that runs.

Compiled functions are kept on disk, so that only the first process after an installation compiles. They free the
interpreter lock and run on the thread that calls them: blocks of rows are on a pool of threads already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

__all__ = ["forms"]

_WORTH = 2**13  # multiplications for which it pays to import numba


@dataclass(frozen=True)
class HostForm:
    """A form whose compiled function is in a module of its own."""

    name: str
    module: str
    work: Callable[..., int]
    """Multiplications, from the shapes of the arguments."""

    def takes(self, *args: Any) -> bool:
        """Whether all arrays among the arguments are of one dtype that is compiled for."""
        dtype = args[0].dtype
        return dtype in (np.float32, np.float64) and all(x.dtype == dtype for x in args if hasattr(x, "dtype"))

    def pays(self, *args: Any) -> bool:
        """Whether there is enough to do."""
        return self.work(*(x.shape for x in args if hasattr(x, "shape"))) >= _WORTH

    def __call__(self, *args: Any) -> Any:
        """Do what the function of this name does."""
        return getattr(import_module(self.module), self.name)(*args)


def _pairs(rows: tuple[int, ...], centres: tuple[int, ...], *_: Any) -> int:
    return int(np.prod(centres)) * rows[-2]


def _votes(votes: tuple[int, ...], *_: Any) -> int:
    return int(np.prod(votes))


def _poses(poses: tuple[int, ...], _: Any, costs: tuple[int, ...], *__: Any) -> int:
    return int(np.prod(poses)) * costs[-1]


_FORMS = (
    HostForm("assign_rows", "emroute_backends.kernels.kmeans", _pairs),
    HostForm("label_rows", "emroute_backends.kernels.kmeans", _pairs),
    HostForm("route_votes", "emroute_backends.kernels.routing", _votes),
    HostForm("route_poses", "emroute_backends.kernels.routing", _poses),
)


def forms() -> dict[str, HostForm]:
    """Forms by the names of their functions; none without numba."""
    return {form.name: form for form in _FORMS} if find_spec("numba") else {}
