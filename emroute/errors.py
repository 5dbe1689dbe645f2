"""The errors and warnings of emroute. Each says what was given, what was expected and what to do."""

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
    """The base class of every error that emroute raises on purpose."""


class InputError(EmrouteError, ValueError):
    """An invalid value, shape or option."""


class InputIndexError(EmrouteError, IndexError):
    """An index of a problem that a batch does not have."""


class InputTypeError(EmrouteError, TypeError):
    """A dtype, array library or device that is not supported, or two that cannot be mixed."""


class FitWarning(UserWarning):
    """A doubtful result: the fit did not converge, or something other than the data decides part of it."""


class BackendError(EmrouteError, LookupError):
    """No plug-in is installed for the library of an array."""


class MissingDependencyError(EmrouteError, ImportError):
    """An optional package is needed but not installed."""


def needed(package: str, extra: str, purpose: str) -> Any:
    """Import an optional package, or raise `MissingDependencyError`, which says what to install."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise MissingDependencyError(f"{purpose} needs {package}; pip install 'emroute[{extra}]'") from None


def tell(remarks: list[str]) -> None:
    """Issue one warning with all remarks, at the user's line that called emroute."""
    if not remarks:
        return
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn("; ".join(remarks), FitWarning, stacklevel=level)
