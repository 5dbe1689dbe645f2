"""The checks that public functions share. Shapes are always checked, values only if they are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute._foreign import conversion, no_seed
from emroute.arrays.tracing import concrete, traced
from emroute.backend import Array, compiled, is_array
from emroute.data import Rows, Stream, real_weight
from emroute.errors import InputError, InputTypeError

__all__ = [
    "as_generator",
    "as_parameter",
    "as_trials",
    "check_choice",
    "check_count",
    "check_floating",
    "check_loop",
    "check_number",
    "check_real",
    "check_rows",
    "check_scored",
    "check_total",
    "check_weights",
    "check_width",
    "mixing_weights",
    "require",
    "require_values",
    "visible",
]


def require(flag: Array, message: Callable[[], str]) -> None:
    """Raise `InputError` unless `flag` holds. While a compiler is tracing, no value is known and nothing is checked."""
    if concrete(flag) is False:
        raise InputError(message())


def require_values(holds: Callable[[Array], Array], x: Array, message: Callable[[], str]) -> None:
    """Raise `InputError` unless ``holds(x)``. The check is left out where it would become part of an exported graph."""
    if not traced(x):
        require(holds(x), message)


def check_floating(name: str, *arrays: Array) -> None:
    """Raise `InputTypeError` unless all arrays are float32 or float64 and have the dtype of the first.

    If there are several, the first ones are fitted parameters, and the last is the one that is named.
    """
    xp = backends.namespace(*arrays)
    for x in arrays:
        _check_order(name, x)
        if x.dtype not in (xp.float32, xp.float64):
            narrow = xp.isdtype(x.dtype, "real floating") and xp.finfo(x.dtype).bits < 32
            call = conversion(x, name, "float32" if narrow else "float64")
            raise InputTypeError(f"{name} has dtype {x.dtype}, expected float32 or float64; convert it first, `{call}`")
        if x.dtype != arrays[0].dtype:
            call = conversion(x, name, arrays[0].dtype)
            raise InputTypeError(
                f"{name} has dtype {x.dtype}, the fitted parameters have {arrays[0].dtype}; convert {name}, `{call}`"
            )


def _check_order(name: str, x: Array) -> None:
    """Raise `InputTypeError` for numbers in another byte order than this machine's, as some files have them."""
    if not getattr(x.dtype, "isnative", True):
        call = conversion(x, name, x.dtype)
        raise InputTypeError(f"{name} has dtype {x.dtype}, whose byte order is not this machine's; pass `{call}`")


def check_count(name: str, value: Any, at_least: int = 1) -> int:
    """Return a count as an int, or raise `InputError`."""
    try:
        count = int(value)
    except (TypeError, ValueError, OverflowError):
        count = None
    if count is None or count != value or count < at_least or isinstance(value, bool):
        raise InputError(f"got {name}={value!r}, expected an integer of at least {at_least}")
    return count


def check_number(name: str, value: Any) -> float:
    """Return a finite number of at least 0 as a float, or raise `InputError`."""
    try:
        number = np.nan if isinstance(value, (str, bool)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = np.nan
    if not 0 <= number < np.inf:
        raise InputError(f"got {name}={value!r}, expected a finite number of at least 0")
    return number


def check_loop(tol: Any, max_iter: Any, chunk_size: Any) -> None:
    """Raise `InputError` unless these options of the loop are valid."""
    check_number("tol", tol)
    check_count("max_iter", max_iter, 0)
    if chunk_size is not None:
        check_count("chunk_size", chunk_size)


def check_real(name: str, *arrays: Array) -> None:
    """Raise `InputTypeError` unless all arrays hold integers or floating numbers."""
    for x in arrays:
        if not backends.namespace(x).isdtype(x.dtype, ("integral", "real floating")):
            raise InputTypeError(f"{name} has dtype {x.dtype}, expected integers or floating numbers")


def visible(x: Array) -> Array:
    """Return `x`, or raise `InputError` if a compiler is tracing; for what needs Python between the steps."""
    xp = backends.namespace(x)
    if concrete(xp.all(x == x)) is None:
        raise InputError("a callback, a progress bar or a stream does not work inside jit or vmap; leave it out")
    return x


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise `InputError` unless `value` is one of the named choices."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"got {name}={value!r}, expected one of {', '.join(map(repr, choices))}")


def check_weights(name: str, weight: Array, like: Array) -> Array:
    """Return weights; integer and boolean ones become floating numbers like the data.

    Raise an error unless they are finite, not negative and not all zero.
    """
    if weight is None:
        return None
    if not is_array(weight):
        raise InputTypeError(f"got {name} of type {type(weight).__qualname__}, expected an array of the data's library")
    backend, weight = backends.get(like, weight), real_weight(weight, like)
    _check_order(name, weight)
    if weight.dtype != like.dtype:
        call = conversion(weight, name, like.dtype)
        raise InputTypeError(
            f"{name} has dtype {weight.dtype}, expected the data's {like.dtype}; convert it first, `{call}`"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        good, positive = compiled(backend, _judge_weights)(weight)
    sound = backends.namespace(weight).isfinite
    if concrete(good) is False and _first(~((weight >= 0) & sound(weight))) is None:
        raise InputError(f"the sum of {name} overflows {weight.dtype}; divide the weights by the largest")
    require(
        good,
        lambda: (
            f"{name} has a negative or non-finite entry at {_first(~((weight >= 0) & sound(weight)))}; weights are >= 0"
        ),
    )
    if concrete(positive) is False:  # some devices treat numbers below the smallest normal one as 0
        positive = np.all(backend.to_numpy(weight).astype(np.float64).sum(axis=-1) > 0)
    require(positive, lambda: f"{name} is zero everywhere (in some problem); at least one weight must be positive")
    return weight


def _judge_weights(weight: Array) -> tuple[Array, Array]:
    """Return two scalars: whether all are finite and none negative, and whether any is positive."""
    xp = backends.namespace(weight)
    total = xp.sum(weight, axis=-1) if weight.ndim else weight
    good = xp.isfinite(xp.sum(total)) & (xp.min(weight) >= 0) if 0 not in weight.shape else xp.asarray(True)
    return good, xp.all(total > 0)


def check_rows(source: Rows | Stream, good: Callable[..., Array], complaint: str) -> None:
    """Raise `InputError` with the first row for which ``good(*arrays)``, ``(..., n)``, does not hold."""
    start = 0
    for rows in [source] if isinstance(source, Rows) else source:
        step = max(1, 2**20 // max(1, int(np.prod(rows.batch, dtype=int))))
        lead = (slice(None),) * len(rows.batch)
        stored = rows.arrays[0].shape[len(rows.batch)]
        for first in range(0, stored, step):
            part = slice(first, min(first + step, stored))
            fine = good(*(x[(*lead, part, ...)] for x in rows.arrays))
            where = _first(~fine) if concrete(backends.namespace(fine).all(fine)) is False else None
            if where is not None:
                problem = f" of problem {where[:-1]}" if where[:-1] else ""
                raise InputError(f"{complaint}: first in row {start + first + where[-1]}{problem}")
        start += rows.n


def check_scored(rows: Rows, gaps: bool = False) -> None:
    """Raise `InputError` if rows to be scored hold NaN or infinity; NaN are right where they are `gaps`."""
    (x,) = rows.arrays
    xp = backends.namespace(x)
    if gaps:
        check_rows(rows, lambda x: ~xp.any(xp.isinf(x), axis=-1), "x holds infinity")
        return
    with np.errstate(invalid="ignore", over="ignore"):
        finite = concrete(xp.isfinite(xp.sum(x)))
    if finite is False:  # or the sum overflows
        check_rows(rows, lambda x: xp.all(xp.isfinite(x), axis=-1), "x holds NaN or infinity")


def check_total(n: int, n_components: int, name: str, n_problems: int = 1) -> None:
    """Raise `InputError` if there are fewer rows than components."""
    if n < n_components:
        where = f" in each of {n_problems} problems" if n_problems > 1 else ""
        rows = "row" if n == 1 else "rows"
        raise InputError(
            f"got {n} {rows}{where} for {name}={n_components}; expected at least as many rows as components"
        )


def check_width(x: Array, d: int) -> None:
    """Raise `InputError` unless rows have `d` features."""
    if x.shape[-1] != d:
        raise InputError(f"rows have {x.shape[-1]} features, the fitted components have {d}")


def _first(bad: Array) -> tuple[int, ...] | None:
    backend = backends.get(bad)
    where = np.argwhere(backend.to_numpy(bad))
    return tuple(int(i) for i in where[0]) if len(where) else None


def as_parameter(name: str, value: Any, like: Array, tail: tuple[int, ...], batch: tuple[int, ...] = ()) -> Array:
    """Return a start or weight as an array like the data, with shape ``(..., *tail)``. Plain sequences are converted.

    Raises
    ------
    InputError
        If its shape does not end in `tail`, the dimensions before do not broadcast against `batch`, or it holds NaN or
        infinity.
    InputTypeError
        If it is an array from another library or on another device.
    """
    if not is_array(value):
        try:
            host = np.asarray(value)
            if host.dtype.kind not in "iuf":
                raise ValueError(host.dtype)
            value = backends.get(like).from_numpy(host.astype(np.float64), like)
        except (TypeError, ValueError):
            expected = f"; expected shape (..., {_tail(tail)})" if tail else ""
            raise InputError(f"{name} cannot be read as numbers{expected}") from None
    xp = backends.namespace(like, value)
    if value.ndim < len(tail) or tuple(value.shape[value.ndim - len(tail) :]) != tail:
        raise InputError(f"{name} has shape {tuple(value.shape)}, expected (..., {_tail(tail)})")
    own = tuple(value.shape[: value.ndim - len(tail)])
    if any(a != b and 1 not in (a, b) for a, b in zip(own[::-1], batch[::-1], strict=False)):
        raise InputError(f"batch dimensions of {name} and the data do not broadcast: {own} and {batch}")
    if not xp.isdtype(value.dtype, ("integral", "real floating")):
        raise InputTypeError(f"{name} has dtype {value.dtype}, expected real numbers")
    value = xp.astype(value, like.dtype, copy=False)
    require(xp.all(xp.isfinite(value)), lambda: f"{name} holds NaN or infinity; starting values must be finite")
    return value


def mixing_weights(value: Any, like: Array, n_components: int) -> Array:
    """Return mixing weights ``(..., k)``, or raise `InputError` if they are negative or do not sum to one."""
    weights = as_parameter("weights", value, like, (n_components,))
    xp = backends.namespace(weights)
    total = xp.sum(weights, axis=-1)
    require(xp.all(weights >= 0), lambda: "mixing weights must not be negative")
    require(xp.all(xp.abs(total - 1) < 1e-4), lambda: "mixing weights must sum to 1")
    return weights / total[..., None]


def as_trials(value: Any) -> np.ndarray:
    """Return whole numbers of at least 0 (which may be floating) as host integers, or raise `InputError`."""
    host = backends.get(value).to_numpy(value) if is_array(value) else np.asarray(value)
    if host.dtype.kind not in "iuf" or not np.all((host >= 0) & np.isfinite(host) & (host == np.floor(host))):
        raise InputError(f"got trials={value!r}, expected whole numbers of at least 0")
    return host.astype(np.int64)


def _tail(tail: tuple[int, ...]) -> str:
    return ", ".join(map(str, tail))


def as_generator(rng: Any) -> np.random.Generator:
    """Return a generator, given a seed, a generator or None (SPEC 7)."""
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError):
        raise InputError(no_seed(rng)) from None
