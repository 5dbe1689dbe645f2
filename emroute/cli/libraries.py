"""Array libraries by name. Only the command line needs this: the algorithms take the library of their input."""

from __future__ import annotations

from enum import StrEnum
from importlib.util import find_spec

import numpy as np

from emroute import backend as backends
from emroute.backend import Array
from emroute.errors import MissingDependencyError
from emroute.testing.place import Place

__all__ = ["Library", "anchor", "host", "need", "put"]


class Library(StrEnum):
    """The libraries the command line can carry data to."""

    numpy = "numpy"
    torch = "torch"
    jax = "jax"
    cupy = "cupy"


def need(package: str, extra: str, purpose: str) -> None:
    """Raise `MissingDependencyError`, saying what to install, unless a package is there."""
    if find_spec(package) is None:
        raise MissingDependencyError(f"{purpose} needs {package}; pip install 'emroute[{extra}]'")


def anchor(library: Library, device: str | None = None, dtype: str = "float64") -> Array:
    """Return an array of a library on a device, beside which `put` places others.

    Parameters
    ----------
    library
        Its name.
    device
        As the library spells it (``cpu``, ``cuda:1``, ``gpu``); its own choice by default.
    dtype
        ``"float32"`` or ``"float64"``.

    Raises
    ------
    MissingDependencyError
        If the library is not installed.
    InputError
        If the device or the dtype cannot be had.
    """
    if library is not Library.numpy:
        need(library, library, f"--backend {library}")
    place = Place(library, device)
    if dtype == "float64":
        place.enable_float64()
    return place.anchor(dtype)


def put(value: np.ndarray, like: Array) -> Array:
    """Carry a floating host array to an anchor's library, device and dtype."""
    return backends.get(like).from_numpy(value, like)


def host(x: Array) -> np.ndarray:
    """Copy an array of any library to the host."""
    return backends.get(x).to_numpy(x)
