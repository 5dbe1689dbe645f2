"""How wide the narrowest groups of rows are, feature by feature: the unit of Gaussian fits and of their floor.

The width of a feature is that of the narrowest interval that holds a twentieth of the weight and two distinct values.
Unlike a variance, it does not grow with the distance between groups: a component of a tenth of the rows has half of
them within .67 standard deviations of its mean, so its variance cannot honestly be a millionth of the width's square.
"""

from __future__ import annotations

import math

import numpy as np

from emroute import backend as backends
from emroute._engine.nests import map_blocks
from emroute._engine.starts import sample_rows
from emroute.arrays.creation import constant
from emroute.arrays.functions import eps
from emroute.backend import Array
from emroute.data import Rows, Stream

__all__ = ["root_mean_square", "widths"]

_MOST_ROWS = 2048  # of more, so many tell quantiles to a hundredth
_STEPS, _WINDOW = 100, 5  # the quantiles are hundredths, and an interval five of them
_MARKS = (np.arange(_STEPS + 1) + 0.5) / (_STEPS + 1)
_CELLS = 2**17  # numbers that the ranks of some quantiles compare at once


def widths(source: Rows | Stream) -> tuple[Array, Array]:
    """Return the widths of the features, and their standard deviations in a sample, ``(..., d)``; 0 if constant.

    Parameters
    ----------
    source
        The data; of more than 2,048 rows some stand for all.
    """
    rows = _sample(source)
    (x,), host = rows.arrays, rows.on_host()
    if host is None:
        return _widths(eps(x), x, rows.counted.weight)
    found = _widths(eps(x), host.arrays[0], host.weight)
    return tuple(backends.get(x).from_numpy(part, x) for part in found)


def _sample(source: Rows | Stream) -> Rows:
    """Take some rows, evenly spread, but not periodically."""
    n, place = source.n, np.arange(min(source.n, _MOST_ROWS))
    if n <= _MOST_ROWS:
        return sample_rows(source, place)
    golden = (np.sqrt(5) - 1) / 2
    return sample_rows(source, np.minimum(((place + place * golden % 1) * (n / _MOST_ROWS)).astype(np.int64), n - 1))


def _widths(resolution: float, x: Array, weight: Array | None) -> tuple[Array, Array]:
    xp = backends.namespace(x)
    x, quantiles, share = _counted(x) if weight is None else _weighed(x, weight)
    gaps = quantiles[..., _WINDOW:, :] - quantiles[..., :-_WINDOW, :]
    rounding = 4 * resolution * xp.abs(quantiles[..., _WINDOW:, :])
    width = xp.min(xp.where(gaps > rounding, gaps, xp.inf), axis=-2)
    away = x - quantiles[..., _STEPS // 2, None, :]
    deviation = root_mean_square(away - _mean(away, -2, share), -2, share)
    return xp.where(xp.isfinite(width), width, 0.0), deviation[..., 0, :]


def _counted(x: Array) -> tuple[Array, Array, None]:
    """Return the values of each feature in order, and their quantiles: whatever the values, the ranks are the same."""
    xp, n = backends.namespace(x), x.shape[-2]
    ranks = np.searchsorted(np.arange(1, n + 1), n * _MARKS)
    x = xp.sort(x, axis=-2, stable=False)  # of equal values any order is right, and NumPy takes half the time
    return x, xp.take(x, backends.get(x).from_numpy(ranks, x), axis=-2), None


def _weighed(x: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Return the values of each feature in order, their quantiles, and the share of each value in the weight."""
    xp = backends.namespace(x)
    most = xp.max(weight, axis=-1, keepdims=True)
    mass = weight / xp.where(most > 0, most, 1.0)  # a sample may have no weight, and then no width
    order = xp.argsort(x, axis=-2)
    x = xp.take_along_axis(x, order, axis=-2)
    mass = xp.take_along_axis(xp.broadcast_to(mass[..., None], x.shape), order, axis=-2)
    below = xp.cumulative_sum(mass, axis=-2)
    marks = below[..., -1:, :] * constant(_MARKS, like=x)[:, None]

    def rank(mark: Array) -> Array:
        return xp.count_nonzero(below < mark[..., None, :], axis=-2)

    some = max(1, _CELLS // math.prod(below.shape))
    places = xp.moveaxis(map_blocks(rank, xp.moveaxis(marks, -2, 0), some), 0, -2)
    places = xp.where(places < x.shape[-2], places, x.shape[-2] - 1)
    total = xp.where(below[..., -1:, :] > 0, below[..., -1:, :], 1.0)
    return x, xp.take_along_axis(x, places, axis=-2), mass / total


def _mean(x: Array, axis: int, share: Array | None) -> Array:
    xp = backends.namespace(x)
    if share is None:
        return xp.mean(x, axis=axis, keepdims=True)
    return xp.sum(share * x, axis=axis, keepdims=True)


def root_mean_square(x: Array, axis: int, share: Array | None = None) -> Array:
    """Square root of the mean of squares along an axis, which is kept; tiny numbers do not underflow."""
    xp = backends.namespace(x)
    top = xp.max(xp.abs(x), axis=axis, keepdims=True)
    unit = xp.where(top > 0, top, 1.0)
    return unit * xp.sqrt(_mean((x / unit) ** 2, axis, share))
