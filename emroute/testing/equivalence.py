"""Comparison of a function on every array library with float64 NumPy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import constant
from emroute.arrays.kernels import fused
from emroute.backend import Array, is_array
from emroute.errors import InputError
from emroute.testing.calls import call_with, contents, copied, is_floating, line_of, put, rounded_to, to_host
from emroute.testing.compare import Difference, change, compare, leaves, misplaced
from emroute.testing.outcome import Outcome, _doubt, report, told
from emroute.testing.place import NUMPY, Place, places
from emroute.validate import check_choice, check_number

__all__ = ["DTYPES", "RTOL", "Outcome", "Trial", "assert_equivalent", "report", "told"]

DTYPES = ("float64", "float32")
"""The dtypes in which functions are compared by default."""
RTOL = {"float64": 1e-10, "float32": 1e-4}
"""The allowed difference by default, relative to the largest entry of the array."""

_SLOPES = 32  # entries of an array whose derivatives are checked by central differences
_STEP = 7e-4  # relative to the array: the fifth root of eps
_STENCIL = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}
_STENCIL_ERROR = 1e-6


def assert_equivalent(
    function: Callable[..., Any],
    *arrays: Any,
    backends: str | Sequence[str] | None = None,
    devices: str | Sequence[str] | None = None,
    dtypes: str | Sequence[str] = DTYPES,
    rtol: float | dict[str, float] | None = None,
    gradients: bool = False,
    **kwargs: Any,
) -> None:
    """Assert that a function returns the same on every array library as on float64 NumPy.

    Parameters
    ----------
    function
        A function of arrays. It may return nested tuples, lists, dicts and objects with fields.
    *arrays
        Its arguments: NumPy arrays, or nested ones, such as a fitted mixture. Floating arrays are cast to each dtype;
        other arguments are passed as they are.
    backends
        Names of array libraries, such as ``"torch"``; by default all installed ones.
    devices
        Names of devices, such as ``"cpu"`` or ``"cuda:0"``; by default all available ones.
    dtypes
        ``"float64"``, ``"float32"`` or both. In float32 the result is compared with that of float64 NumPy on the
        rounded arguments.
    rtol
        The largest allowed difference, relative to the largest entry of the array: a number, or one per dtype. By
        default 1e-10 for float64 and 1e-4 for float32.
    gradients
        Whether to compare also the gradients of a fixed combination of the results with respect to the floating
        `arrays`, on libraries that have gradients: with central differences in float64 NumPy, and with the float64
        gradients of a library that agree with these.
    **kwargs
        More arguments, which are treated in the same way but have no gradients.

    Raises
    ------
    AssertionError
        If results differ or do not have the library, device and dtype of the arguments, or if `function` writes to an
        argument or raises an error on a library other than NumPy. The message has a table of the differences: the
        library, the largest error, its index and both values. Its cause is the first error that was raised.
    BackendError
        If a named library has no backend or is not installed.
    InputError
        If there is no array among the arguments or in the result, or no library, device or dtype to compare; or if
        gradients are requested and no array is floating, or no library here has gradients.

    Examples
    --------
    >>> from emroute.array import logsumexp
    >>> assert_equivalent(logsumexp, np.asarray([[0.0, 1000.0]]), backends=["numpy"])
    >>> assert_equivalent(lambda x: x.mean() + np.finfo(x.dtype).eps ** 0.5, np.ones(3), backends=["numpy"])
    Traceback (most recent call last):
        ...
    AssertionError: 1 of 2 results differ from float64 NumPy:
    library  device  dtype    of      error    allowed  where       found              expected
    numpy    cpu     float32  values  0.00035  0.0001   the result  1.000345230102539  1.0000000149011612
    """
    dtypes = [dtypes] if isinstance(dtypes, str) else dtypes
    for dtype in dtypes:
        check_choice("dtypes", dtype, DTYPES)
    arrays, kwargs = change((arrays, kwargs), to_host)
    if not any(is_array(x) for _, x in leaves((arrays, kwargs))):
        raise InputError("got no array among the arguments, expected one at least; wrap numbers with numpy.asarray")
    if gradients and not any(is_floating(x) for _, x in leaves(arrays)):
        raise InputError("got no floating array to take gradients by; leave gradients out")
    chosen = places(backends, devices)
    if backends is not None:
        [place.anchor(dtype) for dtype in dtypes for place in chosen]  # raises where one cannot be had
    pairs = [(place, dtype) for dtype in dtypes for place in chosen if place.has(dtype)]
    if not pairs:
        raise InputError(f"nothing to compare: got backends={backends}, devices={devices}, dtypes={list(dtypes)}")
    trial = Trial(function, arrays, kwargs, _allowed(rtol), gradients)
    found = list(trial.run(pairs))
    if gradients and not any(outcome.of == "gradients" for outcome in found):
        raise InputError(f"none of {', '.join(map(str, chosen))} differentiates; leave gradients out")
    if not all(outcome.passed for outcome in found):
        cause = next((outcome.cause for outcome in found if outcome.cause), None)
        raise AssertionError(report(found) + _doubt(found)) from cause


def _allowed(rtol: float | dict[str, float] | None) -> dict[str, float]:
    if not isinstance(rtol, dict):
        return RTOL if rtol is None else dict.fromkeys(DTYPES, check_number("rtol", rtol))
    for dtype in rtol:
        check_choice("the keys of rtol", dtype, DTYPES)
    return RTOL | {dtype: check_number("rtol", value) for dtype, value in rtol.items()}


@dataclass(frozen=True)
class Trial:
    """A function, its arguments on the host, and what to compare.

    Parameters
    ----------
    function, arrays, kwargs
        As in `assert_equivalent`.
    rtol
        What each dtype is allowed.
    gradients
        Whether to compare gradients too.
    expected
        What `function` should return, from plain NumPy; by default `function` itself of NumPy arrays.
    """

    function: Callable[..., Any]
    arrays: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    rtol: dict[str, float] = field(default_factory=lambda: RTOL)
    gradients: bool = False
    expected: Callable[..., Any] | None = None

    def run(self, pairs: Sequence[tuple[Place, str]]) -> Iterator[Outcome]:
        """Yield how each library and device does in each dtype, values first."""
        tested = self._rounded("float64")._tested(pairs) if self.gradients else {}
        judge = next((place for place, outcome in tested.items() if outcome.passed), None)
        for dtype in dict.fromkeys(dtype for _, dtype in pairs):
            rounded = self._rounded(dtype)
            arrays, kwargs = change((rounded.arrays, rounded.kwargs), copied)  # a function may write to its arguments
            with fused(False):
                expected = (self.expected or self.function)(*arrays, **kwargs)
            if not (self.expected or any(is_array(x) for _, x in leaves(expected))):
                kind = type(expected).__name__
                raise InputError(
                    f"got {kind} from the function, expected arrays, or a nest of them; did it forget to return?"
                )
            for place, its in pairs:
                if its != dtype:
                    continue
                yield rounded._try((place, dtype), "values", rounded._values, lambda _, same=expected: same)
                if self.gradients and dtype == "float64" and place in tested:
                    yield tested[place]
                elif self.gradients and _differentiates(place):
                    yield rounded._try_gradients(place, dtype, judge)

    def _rounded(self, dtype: str) -> Trial:
        arrays, kwargs = change((self.arrays, self.kwargs), partial(rounded_to, dtype))
        return replace(self, arrays=arrays, kwargs=kwargs)

    def _tested(self, pairs: Sequence[tuple[Place, str]]) -> dict[Place, Outcome]:
        """Compare float64 gradients with central differences, up to the first library that is right: it judges."""
        found = {}
        able = [place for place, dtype in pairs if dtype == "float64" and _differentiates(place)]
        for place in sorted(able, key=_compiles):  # the judge is called often
            found[place] = self._try_gradients(place, "float64", None)
            if found[place].passed:
                break
        return found

    def _try(
        self,
        where: tuple[Place, str],
        of: str,
        call: Callable[[Array], Any],
        expected: Callable[[Any], Any],
        rtol: float = 0.0,
    ) -> Outcome:
        """Call with an anchor of the place, and compare with what is expected beside that result."""
        place, dtype = where
        problem, difference, cause, start = "", Difference(0.0), None, time.perf_counter()
        try:
            anchor = place.anchor(dtype)
            with place.forms:
                found = call(anchor)
            problem = misplaced(found, anchor) or ""
            difference = difference if problem else compare(found, expected(found))
        except _OverwriteError as error:
            problem = str(error)
        except Exception as error:  # any exception is reported in the table
            problem, cause = f"{type(error).__name__}: {error}{line_of(error)}", error
        allowed = max(rtol, self.rtol[dtype])
        return Outcome(place, dtype, of, difference, allowed, problem, time.perf_counter() - start, cause)

    def _values(self, anchor: Array) -> Any:
        arrays, kwargs = change((self.arrays, self.kwargs), partial(put, anchor))
        before = contents(arrays, kwargs)
        found = call_with(self.function, arrays, kwargs)
        after = contents(arrays, kwargs)
        changed = [name for name, content in before.items() if after.get(name) != content]
        if changed and not self.expected:  # a case that has one may be of what writes, such as `set_at`
            raise _OverwriteError(f"changes its argument {changed[0]}")
        return found

    def _try_gradients(self, place: Place, dtype: str, judge: Place | None) -> Outcome:
        """Compare with the judge's gradients; without a judge, with central differences."""
        if judge is not None:
            exact = self._gradients(judge.anchor())
            return self._try((place, dtype), "gradients", self._gradients, lambda _: change(exact, to_host))
        expected = partial(_filled, self._slopes)
        return self._try((place, dtype), "gradients", self._gradients, expected, _STENCIL_ERROR)

    def _gradients(self, anchor: Array) -> dict[str, Array]:
        """Gradients with respect to the floating arrays, by their place among the arguments."""
        own = {path: x for path, x in leaves(self.arrays) if is_floating(x)}
        gradient: Any = getattr(backends.get(anchor), "gradient", None)
        found = gradient(partial(self._number, anchor), *(put(anchor, x) for x in own.values()))
        return dict(zip((f"argument {path}" for path in own), found, strict=True))

    def _number(self, anchor: Array, *own: Array) -> Array:
        """Combine all floating results into one number, the floating arguments being `own`."""
        xp, following = backends.namespace(anchor), iter(own)
        arrays = change(self.arrays, lambda x: next(following) if is_floating(x) else put(anchor, x))
        result = call_with(self.function, arrays, change(self.kwargs, partial(put, anchor)))
        # of no entry, but with a gradient, which is 0 where nothing depends on the arguments
        total = sum((xp.sum(xp.reshape(x, (-1,))[:0]) for x in own), xp.sum(anchor))
        for _, x in leaves(result):
            if is_array(x) and xp.isdtype(x.dtype, "real floating"):
                size = math.prod(x.shape)
                coefficients = np.cos(1.0 + np.arange(size)).reshape(x.shape)
                total = total + xp.sum(x * constant(coefficients, like=x))
        return total

    @cached_property
    def _slopes(self) -> dict[str, np.ndarray]:
        """Central differences in some entries of each argument, NaN in the others."""
        own = {path: x for path, x in leaves(self.arrays) if is_floating(x)}
        number, slopes = partial(self._number, NUMPY.anchor()), {}
        for path, x in own.items():
            slopes[f"argument {path}"] = slope = np.full(x.shape, np.nan)
            step = _STEP * (float(np.max(np.abs(x), initial=0.0, where=np.isfinite(x))) or 1.0)
            for entry in np.linspace(0, x.size - 1, min(x.size, _SLOPES)).astype(int):
                ends = []
                for times in _STENCIL:
                    moved = x.copy()
                    moved.flat[entry] += times * step
                    ends.append(float(number(*map(copied, (own | {path: moved}).values()))))
                slope.flat[entry] = np.dot(ends, list(_STENCIL.values())) / step
                if abs(slope.flat[entry]) < 16 * np.finfo(np.float64).eps * np.max(np.abs(ends)) / step:
                    slope.flat[entry] = 0.0  # rounding alone
        return slopes


class _OverwriteError(Exception):
    """A function wrote to its arguments: some libraries have arrays that cannot be written to."""


def _differentiates(place: Place) -> bool:
    return hasattr(place.backend, "gradient")


def _compiles(place: Place) -> bool:
    return place.backend.compile(_differentiates) is not _differentiates


def _filled(slopes: dict[str, np.ndarray], found: dict[str, Array]) -> dict[str, np.ndarray]:
    """Slopes where they are known, elsewhere what was found if it is finite."""
    host = {path: to_host(x) for path, x in found.items()}
    known = {path: np.isfinite(slope) for path, slope in slopes.items()}
    return {
        path: np.where(known[path], slope, np.where(np.isfinite(host[path]), host[path], 0.0))
        for path, slope in slopes.items()
    }
