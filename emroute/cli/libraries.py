"""Array libraries by name. Only the command line needs this: the algorithms take the library of their input."""

from __future__ import annotations

from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.backend import Array
from emroute.errors import InputError, MissingDependencyError

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
    try:
        return _zeros(library, device, dtype)
    # each library has its own errors for a device that is not there
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError, AttributeError) as error:
        where = "its default device" if device is None else f"device {device!r}"
        raise InputError(f"{library} cannot use {where} with {dtype}: {str(error).strip().split(chr(10))[0]}") from None


def _zeros(library: Library, device: str | None, dtype: str) -> Array:
    module: Any = import_module("jax.numpy" if library is Library.jax else library)
    place: dict[str, Any] = {} if device is None else {"device": device}
    if library is Library.jax:
        jax: Any = import_module("jax")
        jax.config.update("jax_enable_x64", True)
        if device is not None:
            kind, _, index = device.partition(":")
            place = {"device": jax.devices(kind)[int(index or 0)]}
    elif library is Library.cupy:
        module.cuda.Device(int((device or "cuda").partition(":")[2] or 0)).use()
        place = {}
    return module.zeros(1, dtype=getattr(module, dtype), **place)


def put(value: np.ndarray, like: Array) -> Array:
    """Carry a floating host array to an anchor's library, device and dtype."""
    return backends.get(like).from_numpy(value, like)


def host(x: Array) -> np.ndarray:
    """Copy an array of any library to the host."""
    return backends.get(x).to_numpy(x)
