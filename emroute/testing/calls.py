"""Arguments on their way to a library, and what a function may do to them."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.backend import Array, is_array
from emroute.testing.compare import leaves

__all__ = ["call_with", "contents", "copied", "is_floating", "line_of", "put", "rounded_to", "to_host"]


def contents(arrays: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, bytes]:
    """The bytes of each array among the arguments, by its name."""
    named = {str(place): x for place, x in enumerate(arrays)} | kwargs
    found = [pair for name, value in named.items() for pair in leaves(value, name)]
    return {path: to_host(x).tobytes() for path, x in found if is_array(x)}


def call_with(function: Callable[..., Any], arrays: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function, in a frame by which `line_of` knows what is the function's."""
    return function(*arrays, **kwargs)


def line_of(error: Exception) -> str:
    """File and line, in brackets, of the innermost frame that is in the file of the function."""
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    codes = [code for code, _ in frames]
    inner = frames[codes.index(call_with.__code__) + 1 :] if call_with.__code__ in codes else []
    own = [line for code, line in inner if code.co_filename == inner[0][0].co_filename]
    return f" ({Path(inner[0][0].co_filename).name}:{own[-1]})" if own else ""


def is_floating(x: Any) -> bool:
    """Whether something is a floating array of the host."""
    return is_array(x) and x.dtype.kind == "f"


def to_host(x: Any) -> Any:
    """Return an array on the host, and anything else as it is."""
    return backends.get(x).to_numpy(x) if is_array(x) else x


def rounded_to(dtype: str, x: Any) -> Any:
    """What is left of a floating array in a dtype, in float64."""
    x = to_host(x)
    return x.astype(dtype).astype(np.float64) if is_floating(x) else x


def copied(x: Any) -> Any:
    """Return a copy of an array, and anything else as it is."""
    return np.array(x) if is_array(x) else x


def put(anchor: Array, x: Any) -> Any:
    """Return an array where the anchor is, and anything else as it is."""
    return backends.get(anchor).from_numpy(np.array(x), anchor) if is_array(x) else x
