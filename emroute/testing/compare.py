"""Results of any shape compared entry by entry: where two differ most, and whether arrays are where they should be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import array_api_compat
import numpy as np

from emroute import backend as backends
from emroute.backend import Array, is_array

__all__ = ["Difference", "change", "compare", "leaves", "misplaced"]


class Difference(NamedTuple):
    """Where a result differs most from what was expected."""

    error: float
    """Relative to the largest entry of its array; infinite for another shape, kind or place of NaN and infinity."""
    where: str = ""
    found: Any = ""
    expected: Any = ""


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Walk nests of tuples, lists, dicts and objects with fields, and name what is in them.

    >>> list(leaves({"a": (1, [2])}))
    [("['a'][0]", 1), ("['a'][1][0]", 2)]
    """
    if not _is_nest(tree):
        yield path, tree
        return
    for step, branch in _branches(tree):
        yield from leaves(branch, path + step)


def change(tree: Any, function: Callable[[Any], Any]) -> Any:
    """Apply a function to the leaves of a nest.

    >>> change({"a": (1, [2])}, str)
    {'a': ('1', ['2'])}
    """
    if isinstance(tree, dict):
        return {key: change(value, function) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        parts = [change(value, function) for value in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if _is_nest(tree):
        given = [field.name for field in dataclasses.fields(tree) if field.init]
        return dataclasses.replace(tree, **{name: change(getattr(tree, name), function) for name in given})
    return function(tree)


def _is_nest(tree: Any) -> bool:
    fields = dataclasses.is_dataclass(tree) and not isinstance(tree, type)
    return fields or isinstance(tree, tuple | list | dict)


def _branches(tree: Any) -> list[tuple[str, Any]]:
    if isinstance(tree, dict):
        return [(f"[{key!r}]", value) for key, value in tree.items()]
    if isinstance(tree, tuple | list):
        names = getattr(tree, "_fields", None)
        if names is None:
            return [(f"[{place}]", value) for place, value in enumerate(tree)]
    else:
        names = [field.name for field in dataclasses.fields(tree)]
    return [(f".{name}", getattr(tree, name)) for name in names]


def misplaced(tree: Any, anchor: Array) -> str | None:
    """Describe the first array whose library, device or floating dtype is not the anchor's, or return None."""
    xp, device = backends.namespace(anchor), array_api_compat.device(anchor)
    for path, x in leaves(tree):
        if not is_array(x):
            continue
        name = path or "the result"
        if backends.get(x) is not backends.get(anchor):
            return f"{name} is a {_kind(x)}, expected a {_kind(anchor)}"
        if array_api_compat.device(x) != device:
            return f"{name} is on {array_api_compat.device(x)}, expected {device}"
        if xp.isdtype(x.dtype, "real floating") and x.dtype != anchor.dtype:
            return f"{name} has dtype {x.dtype}, expected {anchor.dtype}"
    return None


def _kind(x: Array) -> str:
    return f"{type(x).__module__}.{type(x).__qualname__}"


def compare(found: Any, expected: Any) -> Difference:
    """Return the largest difference between two results.

    Parameters
    ----------
    found
        A nest of arrays of any library, numbers and names.
    expected
        The same of NumPy arrays.

    Returns
    -------
    Difference
        Floating and complex entries relative to the largest finite one of their array, integers as they are. NaN and
        infinity must be in the same places. The order of a dict's keys does not count: compilers sort them.

    Examples
    --------
    >>> compare({"x": np.asarray([1.0, 2.5])}, {"x": np.asarray([1.0, 2.0])})
    Difference(error=0.25, where="['x'][1]", found=2.5, expected=2.0)
    """
    ours, theirs = dict(leaves(found)), dict(leaves(expected))
    if ours.keys() != theirs.keys():
        return Difference(np.inf, "the parts", _others(ours, theirs), _others(theirs, ours))
    differences = [_difference(path, ours[path], value) for path, value in theirs.items()]
    return max(differences, key=lambda difference: difference.error, default=Difference(0.0))


def _others(these: dict[str, Any], those: dict[str, Any]) -> str:
    return ", ".join(path or "the result" for path in these if path not in those) or "none further"


def _difference(path: str, found: Any, expected: Any) -> Difference:
    numbers = [is_array(x) or isinstance(x, int | float | complex) for x in (found, expected)]
    if not all(numbers):
        same = not any(numbers) and found == expected
        return Difference(0.0 if same else np.inf, path, found, expected)
    a = backends.get(found).to_numpy(found) if is_array(found) else np.asarray(found)
    b = np.asarray(expected)
    if a.shape != b.shape or _kind_of_number(a) != _kind_of_number(b):
        return Difference(np.inf, path, f"{a.dtype} {a.shape}", f"{b.dtype} {b.shape}")
    if not b.size:
        return Difference(0.0)
    error = _errors(a, b)
    place = np.unravel_index(np.argmax(error), error.shape)
    where = f"{path}[{', '.join(map(str, place))}]" if place else path
    return Difference(float(error[place]), where, a[place].item(), b[place].item())


def _kind_of_number(x: np.ndarray) -> str:
    return x.dtype.kind.replace("u", "i")


def _errors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    wide = np.result_type(b.dtype, np.float64)
    x, y = a.astype(wide), b.astype(wide)
    finite = np.isfinite(x) & np.isfinite(y)
    gap = np.abs(np.subtract(x, y, out=np.zeros_like(y), where=finite & ~same))
    if b.dtype.kind not in "fc":
        return np.where(same, 0.0, np.maximum(gap, 1.0))  # integers that differ, though their floats may not
    scale = np.max(np.abs(y), where=np.isfinite(y), initial=0.0)
    return np.where(same, 0.0, np.where(finite, gap / (scale or 1.0), np.inf))
