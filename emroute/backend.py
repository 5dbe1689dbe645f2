"""What an array library must bring beside the Array API standard, and how its plug-in is found.

A backend is any object (a module will do) with the members of `Backend`. It is announced in the entry-point
group ``emroute.backends`` under the top-level module of its array type (``numpy``, ``torch``, ``jaxlib``, ...)
and loaded when the first such array is seen, so nothing imports a framework that the caller has not imported.
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
"""An array of any library that has a backend (the standard has no nominal type for one)."""

State = TypeVar("State")

_GROUP = "emroute.backends"


class Backend(Protocol):
    """What the standard lacks, or what must differ between libraries. Everything else is `namespace`.

    Further members are optional, and without effect on the algorithms but for the first:

    - ``tracing()``: whether a compiler is tracing now, where it does not refuse ``bool(array)`` while it does;
    - ``devices()``: names of the devices that can be used here; without it the default device alone, called ``cpu``;
    - ``anchor(device, dtype)``: an array of one zero on the device of that name (None: the default), of dtype
      ``"float32"`` or ``"float64"``; without it, the module's own ``zeros``;
    - ``enable_float64()``: allow float64, where a library leaves it out unless told otherwise;
    - ``kernels``: a mapping, faster forms of functions that `emroute.arrays.kernels.kernel` marks, by their names;
    - ``layer_product(a, b)``: the matrix product for votes, where a library has automatic precisions for layers;
    - ``gradient(function, *arrays)``: a tuple, the gradients of a function that returns a number, an array each.
    """

    @Capabilities(gradients=True, jit=True, batch=True, half=True)
    def namespace(self, x: Array, /) -> Any:
        """Return the functions of the Array API standard for this array."""
        ...

    @Capabilities(jit=True)
    def loop(self, condition: Callable[[State], Array], body: Callable[[State], State], state: State) -> State:
        """Apply `body` to `state` while `condition` holds; one compiled loop where the library has one."""
        ...

    @Capabilities(jit=True)
    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a compiled `function`; on eager libraries the very same function."""
        ...

    @Capabilities(jit=True, batch=True)
    def eigh(self, x: Array, /) -> tuple[Array, Array]:
        """Eigenvalues and eigenvectors of symmetric ``(..., d, d)``; NaN for a matrix that fails."""
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
        """Carry a host array to `like`'s device; floating values take `like`'s dtype if it is floating."""
        ...

    @Capabilities()
    def chunk_size(self, bytes_per_row: int) -> int:
        """How many rows of working memory fit the cache (CPU) or a fair part of the device."""
        ...

    @Capabilities(gradients=True, jit=True, half=True)
    def map_blocks(
        self, function: Callable[..., Any], arrays: Sequence[Array], size: int, recompute: bool = False
    ) -> Any:
        """Apply `function` to blocks of `size` along the first axis and join its arrays along theirs.

        `function` returns a tuple of arrays. The last block may be shorter. With `recompute` the backward pass
        runs each block again instead of keeping its intermediate arrays.
        """
        ...


@cache
def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=_GROUP)}


def installed() -> tuple[str, ...]:
    """Return the top-level modules that have a backend, whether or not they are themselves installed.

    >>> "numpy" in installed()
    True
    """
    return tuple(sorted(_plugins()))


@cache
def _library(kind: type) -> str | None:
    """The array library a type belongs to, its base classes included."""
    modules = (base.__module__.partition(".")[0] for base in kind.__mro__)
    return next((name for name in modules if name in _plugins()), None)


@cache
def _load(name: str) -> Backend:
    return _plugins()[name].load()


def named(name: str) -> Backend:
    """Return the backend of a library by its name, one of `installed`; this imports the library.

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
    """Whether `x` is an array of some library, served by a backend or not."""
    return hasattr(x, "shape") and hasattr(x, "dtype")


def _name(x: Array, other: Array | None = None) -> str:
    """The library of an array, or an error that tells how to make one that goes with another."""
    if not isinstance(x, np.ma.MaskedArray) and (name := _library(type(x))) is not None:
        return name
    if reason := obstacle(x):
        raise InputTypeError(reason)
    kind = f"{type(x).__module__}.{type(x).__qualname__}"
    if not is_array(x):
        call = "" if other is None else f", `{_spelled(other)}.asarray(...)`"
        raise InputTypeError(f"got {kind}, expected an array of the library of the others; convert it first{call}")
    found = ", ".join(installed()) or "none"
    raise BackendError(
        f"no backend for {kind} (found: {found}); install a plug-in for its library, or, if this is a source "
        "checkout, run `pip install -e .` again: entry points are written at installation"
    )


def _spelled(x: Array) -> str:
    """The namespace of an array as its users write it."""
    return namespace(x).__name__.removeprefix("array_api_compat.")


def get(*arrays: Array) -> Backend:
    """Return the one backend of some arrays.

    Parameters
    ----------
    *arrays
        Arrays of one library, on one device; ``None`` is passed over.

    Raises
    ------
    InputTypeError
        If something is not an array, or two arrays differ in library or device.
    BackendError
        If no plug-in serves the library.

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
            f"such as with `{_spelled(x)}.asarray`: emroute moves nothing itself"
        )
    here, there = _device(x), _device(y)
    if here is not None and there is not None and here != there:
        if reason := obstacle(x) or obstacle(y):  # sharded: on more than one
            raise InputTypeError(reason)
        raise InputTypeError(f"arrays on two devices: {here} and {there}; move one of them, emroute moves nothing")


def _of(x: Array, other: Array | None = None) -> Backend:
    """The backend of an array, looked up once a type: `get` is called for every few operations."""
    try:
        return _backends[type(x)]
    except KeyError:
        return _backends.setdefault(type(x), _load(_name(x, other)))


_backends: dict[type, Backend] = {}
"""A plain dictionary, unlike `functools.cache`, is no barrier to `torch.compile`; neither is `_spaces`."""


def _device(x: Array) -> Any:
    """The device of an array; None where a compiler is tracing and has not placed it."""
    try:
        return x.device
    except (AttributeError, TypeError):
        return None


def compiled(backend: Backend, function: Callable[..., Any], *static: Any) -> Callable[..., Any]:
    """Return ``function(*static, ...)`` compiled, once for each function and its hashable first arguments."""
    return _compiled(backend, function, *static) if compiles(backend) else partial(function, *static)


def compiles(backend: Backend) -> bool:
    """Whether the library compiles functions: where it does not, `Backend.compile` returns the function itself.

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
    """Return the standard's functions for some arrays of one library.

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
