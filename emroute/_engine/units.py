"""Units in which weights and rows are neither huge nor tiny, so that sums and squares do not over- or underflow.

Units are powers of two, so that no digit changes; numbers of ordinary size have the unit 1. They are found on the host,
where numbers below the smallest normal one still count, which some devices take for 0. A compiler that is tracing has
no values to show: there the largest number is the unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import itemsize
from emroute.arrays.tracing import concrete
from emroute.backend import Array
from emroute.data import Rows, Stream

__all__ = ["Unit", "in_unit_of_length", "in_unit_of_weight", "out_of_range"]

_ORDINARY = 2.0**20  # weights
_RANGE = {4: 126, 8: 1022}  # of the exponents of normal numbers


@dataclass(frozen=True)
class Unit:
    """What the numbers of each problem were divided by; products of units are units."""

    exponent: np.ndarray | None = None
    """Of two, ``(...,)``."""
    factors: tuple[Array, ...] = ()
    """``(...,)``, while a compiler is tracing."""

    def __mul__(self, other: Unit) -> Unit:
        known = [x.exponent for x in (self, other) if x.exponent is not None]
        return Unit(np.asarray(sum(known)) if known else None, self.factors + other.factors)

    def restore(self, x: Array, tail: int = 0) -> Array:
        """Return numbers ``(..., *tail)``, whose tail has so many dimensions, in the user's unit."""
        wide = (..., *(None,) * tail)
        for factor in self.factors:
            x = x * factor[wide]
        if self.exponent is None:
            return x
        backend = backends.get(x)
        with np.errstate(over="ignore", under="ignore"):
            value = np.ldexp(backend.to_numpy(x).astype(np.float64), self.exponent[wide])
            return backend.from_numpy(np.asarray(value), x)

    def square_in(self, value: float) -> float:
        """Return the square of a length, a number of the host, in the unit that all problems have."""
        if value == 0 or self.exponent is None:
            return value
        exponent = -2 * int(np.max(self.exponent))
        return float(np.clip(np.ldexp(value, max(-900, min(900, exponent))), 1e-30, 1e30))


def out_of_range(found: Array, inertia: Array) -> list[str]:
    """Return a remark where an inertia, known in a unit of its own, has left the range of its dtype in the user's."""
    xp = backends.namespace(found)
    out = ((found == 0) & (inertia > 0)) | (~xp.isfinite(found) & xp.isfinite(inertia))
    if not concrete(xp.any(out)):
        return []
    return [
        f"the inertia is outside the range of {found.dtype}, and is 0 or infinite; labels and centroids are right: "
        "scale the data so that they are nearer to 1"
    ]


def in_unit_of_weight(source: Rows | Stream) -> tuple[Rows | Stream, Unit]:
    """Return data whose weights are of ordinary size, and the unit of weight."""
    weight = source.weight
    if weight is None:
        return source, Unit()
    xp, backend = backends.namespace(weight), backends.get(weight)
    top = xp.max(weight, axis=-1)
    ordinary = (top > 1 / _ORDINARY) & (top < _ORDINARY)
    known = concrete(xp.all(ordinary))
    if known:
        return source, Unit()
    if known is None:
        factor = xp.where(ordinary, xp.ones_like(top), top)
        return _weighted(source, weight / factor[..., None]), Unit(factors=(factor,))
    host = backend.to_numpy(weight).astype(np.float64)
    most = host.max(axis=-1)
    exponent = np.where((most > 1 / _ORDINARY) & (most < _ORDINARY), 0, np.frexp(most)[1])
    return _weighted(source, backend.from_numpy(np.ldexp(host, -exponent[..., None]), weight)), Unit(exponent)


def _weighted(source: Rows | Stream, weight: Array) -> Rows | Stream:
    """Return data of other weights."""
    if isinstance(source, Rows):
        return replace(source, block=source.block._replace(weight=weight))
    return replace(source, weight=weight)


def in_unit_of_length(source: Rows | Stream, square: Array, joint: bool) -> tuple[Rows | Stream, Unit, Array | None]:
    """Return rows whose squares neither over- nor underflow, their unit, and that as an array; None where it is 1.

    Parameters
    ----------
    source
        Rows of real numbers.
    square
        Mean squared length of the rows of each problem, ``(...,)``, whatever has become of it.
    joint
        Whether all problems shall have one unit.
    """
    xp, backend, most = backends.namespace(square), backends.get(square), _RANGE[itemsize(square)]
    bound = 2.0 ** (most // 2)
    ordinary = (square > 1 / bound) & (square < bound)
    known = concrete(xp.all(ordinary))
    if known or (known is None and joint):
        return source, Unit(), None
    top = xp.max(xp.stack([_largest(rows) for rows in _parts(source)]), axis=0)
    if known is None:
        factor = xp.where(ordinary | ~(top > 0) | ~xp.isfinite(top), xp.ones_like(top), top)
        return _divided(source, factor), Unit(factors=(factor,)), factor
    plain, host = backend.to_numpy(ordinary), backend.to_numpy(top).astype(np.float64)
    exponent = np.where(np.isfinite(host) & ~plain, np.frexp(host)[1], 0)
    exponent = np.clip(np.full_like(exponent, exponent.max()) if joint else exponent, -most, most)
    if not exponent.any():
        return source, Unit(), None
    factor = backend.from_numpy(np.asarray(np.ldexp(1.0, exponent)), square)
    return _divided(source, factor), Unit(exponent), factor


def _parts(source: Rows | Stream) -> Iterator[Rows]:
    return iter([source] if isinstance(source, Rows) else source)


def _largest(rows: Rows) -> Array:
    (x,) = rows.arrays
    xp = backends.namespace(x)
    return xp.max(xp.abs(x), axis=(-2, -1))


@dataclass(frozen=True)
class _Divided(Stream):
    """A stream whose rows are divided by a unit as they are read."""

    unit: Array

    def __iter__(self) -> Iterator[Rows]:
        return (_divided_rows(rows, self.unit) for rows in super().__iter__())


def _divided(source: Rows | Stream, unit: Array) -> Rows | Stream:
    if isinstance(source, Rows):
        return _divided_rows(source, unit)
    return _Divided(
        source.source, source.weight, source.head / unit[..., None, None], source.seal, unit, fills=source.fills
    )


def _divided_rows(rows: Rows, unit: Array) -> Rows:
    return replace(rows, block=rows.block._replace(data=rows.block.data / unit[..., None, None]))
