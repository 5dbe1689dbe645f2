"""What an array library must provide beyond the Array API standard, and how its plug-in is found.

A backend is any object (a module will do) with the members of `Backend`. It is registered in the entry-point group
``emroute.backends`` under the top-level module of its array type (``numpy``, ``torch``, ``jaxlib``, ...) and loaded
when the first such array is seen, so emroute never imports a framework that the caller has not imported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import cache, lru_cache, partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np

from emroute._foreign import obstacle
from emroute.capability import Capabilities
from emroute.errors import BackendError, InputTypeError

__all__ = ["Array", "Backend", "compiled", "get", "installed", "is_array", "named", "namespace"]

Array: TypeAlias = Any
"""An array of any library that has a backend. The standard defines no type for it."""

State = TypeVar("State")

_GROUP = "emroute.backends"


class Backend(Protocol):
    """What the standard lacks, or what must differ between libraries. `namespace` has everything else.

    Further members are optional. Only the first affects results:

    - ``tracing()``: whether a compiler is tracing now, for libraries that allow ``bool(array)`` while tracing;
    - ``at_hand(array)``: whether values can be read without waiting for a device; by default they can;
    - ``devices()``: the names of the devices that can be used here; by default only ``cpu``, the default device;
    - ``anchor(device, dtype)``: an array of one zero on the device of that name (None: the default), with dtype
      ``"float32"`` or ``"float64"``; by default, made by ``zeros`` of the library's module;
    - ``enable_float64()``: enables float64 in a library that has it off by default;
    - ``kernels``: a mapping from the names of functions marked by `emroute.arrays.kernels.kernel` to faster forms;
    - ``layer_product(a, b)``: the matrix product for votes, if the library has automatic precision for layers;
    - ``gradient(function, *arrays)``: a tuple with the gradient of a scalar function by each array.
    """

    @Capabilities(gradients=True, jit=True, batch=True, half=True)
    def namespace(self, x: Array, /) -> Any:
        """Return the functions of the Array API standard for this array."""
        ...

    @Capabilities(jit=True)
    def loop(self, condition: Callable[[State], Array], body: Callable[[State], State], state: State) -> State:
        """Apply `body` to `state` while `condition` holds, in one compiled loop if the library has one."""
        ...

    @Capabilities(jit=True)
    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a compiled `function`; on eager libraries, the function itself."""
        ...

    @Capabilities(jit=True, batch=True)
    def eigh(self, x: Array, /) -> tuple[Array, Array]:
        """Return eigenvalues and eigenvectors of symmetric ``(..., d, d)``; NaN for a matrix that fails."""
        ...

    @Capabilities(gradients=True, jit=True, batch=True)
    def gammaln(self, x: Array, /) -> Array:
        """Return the logarithm of the gamma function for positive `x`."""
        ...

    @Capabilities(jit=True, batch=True)
    def digamma(self, x: Array, /) -> Array:
        """Return the derivative of `gammaln` for positive `x`."""
        ...

    @Capabilities(gradients=True, jit=True, batch=True, half=True)
    def segment_sum(self, values: Array, segments: Array, n_segments: int) -> Array:
        """Sum rows ``(..., n, d)`` by their segment ``(..., n)`` into ``(..., n_segments, d)``."""
        ...

    @Capabilities(jit=True, batch=True, half=True)
    def detach(self, x: Array, /) -> Array:
        """Return the same values, outside any gradient."""
        ...

    @Capabilities(batch=True)
    def to_numpy(self, x: Array, /) -> np.ndarray:
        """Copy to the host."""
        ...

    @Capabilities(batch=True)
    def from_numpy(self, value: np.ndarray, like: Array) -> Array:
        """Copy a host array to the device of `like`. Floating values take the dtype of `like` if it is floating."""
        ...

    @Capabilities()
    def chunk_size(self, bytes_per_row: int) -> int:
        """Return how many rows of working memory fit the cache (CPU) or a fair part of the device."""
        ...

    @Capabilities(gradients=True, jit=True, half=True)
    def map_blocks(
        self, function: Callable[..., Any], arrays: Sequence[Array], size: int, recompute: bool = False
    ) -> Any:
        """Apply `function` to blocks of `size` along the first axis and join its arrays along theirs.

        `function` returns a tuple of arrays. The last block may be shorter. With `recompute`, the backward pass
        computes each block again instead of keeping its intermediate arrays.
        """
        ...


@cache
def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=_GROUP)}


def installed() -> tuple[str, ...]:
    """Return the top-level modules that have a backend, whether or not they are installed themselves.

    >>> "numpy" in installed()
    True
    """
    return tuple(sorted(_plugins()))


@cache
def _library(kind: type) -> str | None:
    """Return the array library that a type, or one of its base classes, belongs to."""
    modules = (base.__module__.partition(".")[0] for base in kind.__mro__)
    return next((name for name in modules if name in _plugins()), None)


@cache
def _load(name: str) -> Backend:
    return _plugins()[name].load()


def named(name: str) -> Backend:
    """Return the backend of a library by its name, one of `installed`. This imports the library.

    Raises
    ------
    BackendError
        If there is none.

    Examples
    --------
    >>> import numpy as np
    >>> named("numpy") is get(np.ones(1))
    True
    """
    if name not in _plugins():
        near = get_close_matches(str(name), installed(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise BackendError(f"no backend for {name!r}{hint} (found: {', '.join(installed()) or 'none'})")
    return _load(name)


def is_array(x: object) -> bool:
    """Return whether `x` is an array of some library, with or without a backend."""
    return hasattr(x, "shape") and hasattr(x, "dtype")


def _name(x: Array, other: Array | None = None) -> str:
    """Return the library of an array, or raise an error that says how to convert it."""
    if not isinstance(x, np.ma.MaskedArray) and (name := _library(type(x))) is not None:
        return name
    if reason := obstacle(x):
        raise InputTypeError(reason)
    kind = f"{type(x).__module__}.{type(x).__qualname__}"
    if not is_array(x):
        call = "" if other is None else f", `{_spelled(other)}.asarray(...)`"
        raise InputTypeError(f"got {kind}, expected an array of the same library as the others; convert it first{call}")
    found = ", ".join(installed()) or "none"
    raise BackendError(
        f"no backend for {kind} (found: {found}); install a plug-in for its library, or, if this is a source "
        "checkout, run `pip install -e .` again: entry points are written at installation"
    )


def _spelled(x: Array) -> str:
    """Return the namespace of an array as its users write it."""
    return namespace(x).__name__.removeprefix("array_api_compat.")


def get(*arrays: Array) -> Backend:
    """Return the backend that some arrays share.

    Parameters
    ----------
    *arrays
        Arrays of one library, on one device. ``None`` is ignored.

    Raises
    ------
    InputTypeError
        If an argument is not an array, or two arrays differ in library or device.
    BackendError
        If there is no plug-in for the library.

    Examples
    --------
    >>> import numpy as np
    >>> get(np.ones(3)).to_numpy(np.ones(1))
    array([1.])
    """
    first, backend = None, None
    for x in arrays:
        if x is None:
            continue
        if backend is None:
            first, backend = x, _of(x)
        else:
            _check_together(first, x)
    if backend is None:
        raise InputTypeError("got None, expected an array")
    return backend


def _check_together(x: Array, y: Array) -> None:
    """Raise `InputTypeError` unless two arrays are of one library, on one device."""
    if _of(x) is not _of(y, x):
        raise InputTypeError(
            f"arrays of two libraries: {_name(x)} and {_name(y)}; convert one of them, "
            f"for example with `{_spelled(x)}.asarray`: emroute moves nothing itself"
        )
    here, there = _device(x), _device(y)
    if here is not None and there is not None and here != there:
        if reason := obstacle(x) or obstacle(y):  # sharded: on more than one
            raise InputTypeError(reason)
        raise InputTypeError(f"arrays on two devices: {here} and {there}; move one of them (emroute moves nothing)")


def _of(x: Array, other: Array | None = None) -> Backend:
    """Return the backend of an array. It is looked up once per type, because `get` is called very often."""
    try:
        return _backends[type(x)]
    except KeyError:
        return _backends.setdefault(type(x), _load(_name(x, other)))


_backends: dict[type, Backend] = {}
"""A plain dictionary, like `_spaces`: `torch.compile` cannot trace through `functools.cache`."""


def _device(x: Array) -> Any:
    """Return the device of an array; None if a compiler is tracing and has not placed it."""
    try:
        return x.device
    except (AttributeError, TypeError):
        return None


def compiled(backend: Backend, function: Callable[..., Any], *static: Any) -> Callable[..., Any]:
    """Return ``function(*static, ...)`` compiled, once per function and its hashable first arguments."""
    return _compiled(backend, function, *static) if compiles(backend) else partial(function, *static)


def compiles(backend: Backend) -> bool:
    """Return whether the library compiles functions. If not, `Backend.compile` returns the function itself.

    >>> import numpy as np
    >>> compiles(get(np.ones(1)))
    False
    """
    if backend.compile not in _compilers:
        _compilers[backend.compile] = backend.compile(compiles) is not compiles
    return _compilers[backend.compile]


_compilers: dict[Callable[..., Any], bool] = {}
"""Whether functions that compile return something else; to ask JAX takes as long as a small product."""


@lru_cache(maxsize=1024)
def _compiled(backend: Backend, function: Callable[..., Any], *static: Any) -> Callable[..., Any]:
    return backend.compile(partial(function, *static))


def namespace(*arrays: Array) -> Any:
    """Return the functions of the standard for some arrays of one library.

    >>> import numpy as np
    >>> float(namespace(np.ones(3)).sum(np.ones(3)))
    3.0
    """
    first, *others = arrays
    if others:
        get(*arrays)
    try:
        return _spaces[type(first)]
    except KeyError:
        first = next((x for x in arrays if x is not None), None)
        return _spaces.setdefault(type(first), get(first).namespace(first))


_spaces: dict[type, Any] = {}
