"""Objects that look like arrays but cannot be used as they are, and the call that converts them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

__all__ = ["conversion", "no_seed", "obstacle"]


def obstacle(x: Any) -> str | None:
    """Return why `x` cannot be used as it is, and what to pass instead; None if nothing is known about it.

    Only its class is inspected, because wrappers may answer for their arrays; no library is imported.

    Examples
    --------
    >>> import numpy as np
    >>> obstacle(np.ones(3)) is None, obstacle(np.ma.ones(3))[:19]
    (True, 'got a masked array;')
    """
    traits = _traits(type(x))
    if not traits:
        return None
    kind = f"{type(x).__module__}.{type(x).__qualname__}"
    has = traits.__contains__
    if has("mask"):  # NumPy functions ignore the mask
        return (
            "got a masked array; leave masked rows out, `x[~np.ma.getmaskarray(x).any(axis=1)].data`, or give them "
            "sample_weight 0, and pass .data"
        )
    if has("collect") and not has("__iter__"):
        return f"got {kind}, a query, expected an array; pass its numbers, `.collect().to_numpy()`"
    if has("compute") and has("dask"):
        return (
            f"got {kind}, expected an array; pass `.compute()`, all rows in memory, or, where they do not fit, "
            "an object whose __iter__ yields computed blocks"
        )
    if has("to_numpy"):
        return f"got {kind}, expected an array; pass its numbers, `.to_numpy()`"
    if has("is_nested") and x.is_nested:  # its shape raises an error of its own
        return f"got a nested {kind}, expected an array; pass its parts as chunks, `emroute.data.Chunks(x.unbind())`"
    if not hasattr(x, "shape"):
        return None
    sparse = next((name for name in ("toarray", "todense") if has(name)), None)
    if sparse is None and has("to_dense") and "sparse" in str(getattr(x, "layout", "")):
        sparse = "to_dense"
    if sparse is not None:
        return (
            f"got {kind}, a sparse array, expected a dense one; pass `.{sparse}()`, or, for rows that do not fit in "
            "memory, an object whose __iter__ yields dense blocks of rows"
        )
    if has("get_value"):
        return f"got {kind}, which holds an array; pass that, `param[...]`"
    if has("chunks"):
        return (
            f"got {kind}, which is on disk, expected an array; pass `x[:]`, all rows in memory, or, where they do not "
            "fit, an object whose __iter__ yields blocks of rows, `x[start:stop]`"
        )
    if (number := _n_devices(x)) > 1:
        return (
            f"got an array that is sharded over {number} devices, expected one on a single device; bring it together, "
            "`device_put(x, device)`"
        )
    return None


_TRAITS = ["__iter__", "chunks", "collect", "compute", "dask", "devices", "get_value", "is_nested"]
_TRAITS += ["to_dense", "to_numpy", "toarray", "todense"]


@cache
def _traits(kind: type) -> frozenset[str]:
    """What tells arrays from what only looks like them; nothing for the usual kinds."""
    if issubclass(kind, np.ndarray):
        return frozenset({"mask"} if issubclass(kind, np.ma.MaskedArray) else ())
    return frozenset(name for name in _TRAITS if hasattr(kind, name))


def _n_devices(x: Any) -> int:
    """Return how many devices an array is spread over; 1 if a compiler is tracing."""
    try:
        return len(x.devices()) if "devices" in _traits(type(x)) else 1
    except (AttributeError, TypeError):
        return 1


def no_seed(rng: Any) -> str:
    """Say why draws cannot be made by what was given, and what to pass in its place.

    >>> no_seed("a")
    "got rng='a', expected None, a seed or a numpy.random.Generator"
    """
    advice = "draws are made by NumPy on the host, so that one seed gives one fit on every library; pass a seed"
    if hasattr(rng, "initial_seed"):
        return f"got a {type(rng).__module__}.{type(rng).__qualname__}; {advice}, `rng=generator.initial_seed()`"
    if str(getattr(rng, "dtype", "")).startswith(("key<", "uint32")):
        return f"got a key; {advice} that is known outside jit, `rng=int(random.bits(key))`"
    return f"got rng={rng!r}, expected None, a seed or a numpy.random.Generator"


def conversion(x: Any, name: str, dtype: Any) -> str:
    """Return the call that converts an array to another dtype, in the style of its library.

    >>> import numpy as np
    >>> conversion(np.ones(3, int), "x", "float64"), conversion(np.ones(3, ">f8"), "x", "float64")
    ("x.astype('float64')", "x.astype(x.dtype.newbyteorder('='))")
    """
    name, dtype = name if name.isidentifier() else "x", str(dtype).rpartition(".")[2]
    if not getattr(x.dtype, "isnative", True):
        return f"{name}.astype({name}.dtype.newbyteorder('='))"
    if hasattr(type(x), "astype"):
        return f"{name}.astype('{dtype}')"
    library = type(x).__module__.partition(".")[0]
    return f"{name}.to({library}.{dtype})" if hasattr(type(x), "to") else f"{library}.astype({name}, {library}.{dtype})"
