"""Array libraries by name, and their devices."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from emroute import backend as backends
from emroute.arrays.kernels import fused
from emroute.backend import Array, Backend
from emroute.errors import BackendError, InputError

__all__ = ["NUMPY", "Place", "installed_libraries", "places"]


@dataclass(frozen=True)
class Place:
    """An array library on one of its devices; None is the default device of the library.

    Examples
    --------
    >>> Place("numpy", "cpu").anchor("float32")
    array([0.], dtype=float32)
    """

    library: str
    device: str | None = None
    fused: bool = False
    """Whether fused forms run wherever they accept the arrays, or only where they pay."""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.library, self.where)))

    @property
    def where(self) -> str:
        """The device, and whether forms are fused."""
        return " ".join(filter(None, (self.device, "fused" if self.fused else None)))

    @property
    def forms(self) -> AbstractContextManager[None]:
        """Return the context in which functions are called."""
        return fused(True) if self.fused else nullcontext()

    @property
    def backend(self) -> Backend:
        """The backend of the library; reading it imports the library."""
        return backends.named(self.library)

    @property
    def version(self) -> str:
        """The version of the library."""
        return str(getattr(import_module(self.library), "__version__", "unknown"))

    def enable_float64(self) -> None:
        """Enable float64 for the rest of the process, in a library that has it off by default."""
        getattr(self.backend, "enable_float64", lambda: None)()

    def anchor(self, dtype: str = "float64") -> Array:
        """Return an array of one zero, beside which a backend's `from_numpy` places others.

        Parameters
        ----------
        dtype
            ``"float32"`` or ``"float64"``.

        Raises
        ------
        InputError
            If the device or the dtype is not available.
        """
        make = getattr(self.backend, "anchor", None)
        try:
            return make(self.device, dtype) if make else self._zero(dtype)
        # each library has its own errors for a device that is not there
        except (RuntimeError, ValueError, TypeError, AssertionError, IndexError, AttributeError) as error:
            where = "its default device" if self.device is None else f"device {self.device!r}"
            reason = str(error).strip().partition("\n")[0]
            lacks = make is None and isinstance(error, AttributeError)
            advice = "; give its backend the member `anchor`" if lacks else ""
            raise InputError(f"{self.library} cannot use {where} with {dtype}: {reason}{advice}") from None

    def has(self, dtype: str) -> bool:
        """Return whether the device and the dtype are available."""
        try:
            self.anchor(dtype)
        except InputError:
            return False
        return True

    def _zero(self, dtype: str) -> Array:
        module: Any = import_module(self.library)
        options = {} if self.device in (None, "cpu") else {"device": self.device}
        return module.zeros(1, dtype=getattr(module, dtype), **options)


NUMPY = Place("numpy", "cpu")
"""The place with which the others are compared."""


def with_fused(chosen: Sequence[Place]) -> list[Place]:
    """Return places, and each a second time with fused forms if its library has some for the device.

    >>> [str(place) for place in with_fused([Place("array_api_strict", "cpu")])]
    ['array_api_strict cpu']
    """
    found = []
    for place in chosen:
        kind = (place.device or "").partition(":")[0]
        forms = getattr(place.backend, "kernels", {}).values()
        able = any(kind in getattr(form, "devices", ("cpu",)) for form in forms)
        found += [place, replace(place, fused=True)] if able else [place]
    return found


def places(libraries: str | Sequence[str] | None = None, devices: str | Sequence[str] | None = None) -> list[Place]:
    """Return array libraries and devices that can be used here, NumPy first.

    Parameters
    ----------
    libraries
        Their names, or one name; by default all installed libraries that have a backend.
    devices
        Their names in the libraries, such as ``cpu`` or ``cuda:0``, each for the libraries that have it; by default
        all.

    Raises
    ------
    BackendError
        If a named library has no backend or is not installed.
    InputError
        If no library has one of the devices, a named library has none, or arrays of neither dtype can be made on one.

    Examples
    --------
    >>> [str(place) for place in places(["numpy"])]
    ['numpy cpu']
    """
    names = installed_libraries() if libraries is None else _each_once(libraries)
    for name in names:
        if name in backends.installed() and not _present(name):
            usable = ", ".join(filter(_present, backends.installed()))
            raise BackendError(f"{name} is not installed; these are: {usable}")
        backends.named(name)
    if devices is None:
        found = [Place(name, device) for name in names for device in _devices(name)]
        for place in found:  # what cannot be had would be left out of every comparison, and nothing be said
            if not (place.has("float32") or place.has("float64")):
                place.anchor("float32")
        if idle := [] if libraries is None else sorted(set(names) - {place.library for place in found}):
            raise InputError(f"no device for {', '.join(idle)} here")
        return found
    asked = _each_once(devices)
    found = [Place(name, device) for device in asked for name in names if Place(name, device).has("float32")]
    for device in asked:
        if device not in {place.device for place in found}:
            raise InputError(f"none of {', '.join(names)} has a device {device!r} here")
    return found


def installed_libraries() -> list[str]:
    """Return the names of the array libraries that have a backend and are installed, NumPy first.

    >>> installed_libraries()[0]
    'numpy'
    """
    return sorted(_distinct(), key=lambda name: name != "numpy")


def _each_once(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(dict.fromkeys(names))


def _present(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):  # such as "a.b", "" and what is no name
        return False


def _distinct() -> list[str]:
    """Libraries that are installed; of two names for one library, such as those of arrays and of tracers, the first."""
    found: dict[Any, str] = {}
    for name in filter(_present, backends.installed()):
        backend = backends.named(name)
        found.setdefault(backend if hasattr(backend, "anchor") else name, name)
    return list(found.values())


def _devices(name: str) -> tuple[str, ...]:
    return getattr(backends.named(name), "devices", lambda: ("cpu",))()
