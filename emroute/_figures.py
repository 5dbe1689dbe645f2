"""What the pictures share: figures, groups of points, axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from emroute import backend as backends
from emroute.backend import Array
from emroute.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["feature_names", "figure_of", "histogram", "scatter", "style", "thinned", "tidy"]

# Okabe & Ito (2008): told apart by every kind of colour vision. There is one marker more than colours, so that
# 56 groups look different.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442")
_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")


def figure_of(width: float, height: float) -> Figure:
    """Return an empty figure, or say what to install."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("pictures need matplotlib; `pip install 'emroute[plot]'`") from None
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def thinned(x: Array, labels: Array | None, max_points: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Evenly spaced rows on the host, thinned before they cross."""
    if labels is not None and tuple(labels.shape) != tuple(x.shape[:1]):
        raise InputError(f"got labels of shape {tuple(labels.shape)}, expected one a row, ({x.shape[0]},)")
    step = max(1, -(-x.shape[0] // max_points))
    few = [None if a is None else backends.get(a).to_numpy(a[::step, ...]) for a in (x, labels)]
    return few[0], few[1]  # type: ignore[return-value]


def feature_names(names: Sequence[str] | None, d: int) -> list[str]:
    """Return names of features, by default their numbers."""
    if names is None:
        return [f"feature {index}" for index in range(d)]
    if len(names) != d:
        raise InputError(f"got {len(names)} names, expected one a feature: {d}")
    return list(names)


def style(group: int) -> tuple[str, str]:
    """Return the colour and the marker of a group."""
    return _COLOURS[group % len(_COLOURS)], _MARKERS[group % len(_MARKERS)]


def groups(labels: np.ndarray | None) -> Iterator[tuple[int | None, Any]]:
    if labels is None:
        yield None, ...
        return
    for label in np.unique(labels).tolist():
        yield label, labels == label


def scatter(axes: Axes, points: np.ndarray, labels: np.ndarray | None) -> None:
    size = float(np.clip(12_000 / len(points), 3, 26))
    for label, rows in groups(labels):
        colour, marker = style(label or 0)
        text = None if label is None else str(label)
        axes.scatter(
            *points[rows].T, s=size, c=colour, marker=marker, alpha=0.75, edgecolors="white", linewidths=0.3, label=text
        )


def histogram(axes: Axes, values: np.ndarray, labels: np.ndarray | None) -> None:
    finite = values[np.isfinite(values)]
    bins = np.histogram_bin_edges(finite, bins=20).tolist()
    for label, rows in groups(labels):
        colour, _ = style(label or 0)
        axes.hist(values[rows], bins=bins, histtype="stepfilled", alpha=0.25, color=colour)
        axes.hist(values[rows], bins=bins, histtype="step", color=colour, label=None if label is None else str(label))


def tidy(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
