"""The errors and warnings of emroute: each says what was got, what was expected and what to do."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

__all__ = [
    "BackendError",
    "EmrouteError",
    "FitWarning",
    "InputError",
    "InputIndexError",
    "InputTypeError",
    "MissingDependencyError",
    "needed",
    "tell",
]


_PACKAGE = str(Path(__file__).parent)


class EmrouteError(Exception):
    """The base of every error that emroute raises on purpose."""


class InputError(EmrouteError, ValueError):
    """A value, a shape or an option that cannot be used."""


class InputIndexError(EmrouteError, IndexError):
    """An index of a problem that a batch does not have."""


class InputTypeError(EmrouteError, TypeError):
    """A dtype, an array library or a device that cannot be used, or two that cannot be mixed."""


class FitWarning(UserWarning):
    """A result to look at twice: it has not converged, or part of it is decided by something else than the data."""


class BackendError(EmrouteError, LookupError):
    """No plug-in serves an array's library."""


class MissingDependencyError(EmrouteError, ImportError):
    """An optional package is needed and not installed."""


def needed(package: str, extra: str, purpose: str) -> Any:
    """Import an optional package, or raise `MissingDependencyError`, which says what to install."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise MissingDependencyError(f"{purpose} needs {package}; pip install 'emroute[{extra}]'") from None


def tell(remarks: list[str]) -> None:
    """Warn of all remarks at once, at the line of the user's that called emroute."""
    if not remarks:
        return
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn("; ".join(remarks), FitWarning, stacklevel=level)
