"""What the pictures share: figures and their titles, groups of points, ellipses, axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from emroute import backend as backends
from emroute.backend import Array
from emroute.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Drawn",
    "ellipses",
    "feature_names",
    "figure_of",
    "groups",
    "headline",
    "histogram",
    "key",
    "mark",
    "panels",
    "scatter",
    "sizes_figure",
    "style",
    "thinned",
    "tidy",
]

# the first six are Okabe & Ito's (2008), told apart by every kind of colour vision; the markers, of which there are
# seven, make 84 groups look different
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_COLOURS += ("#882255", "#332288", "#999933", "#7F7F7F", "#8C510A", "#000000")
_MARKERS = ("o", "^", "s", "D", "v", "P", "X")
MAX_FEATURES = 8
"""The most features in a picture of pairs."""


def figure_of(width: float, height: float) -> Figure:
    """Return an empty figure, or say what to install."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("pictures need matplotlib; `pip install 'emroute[plot]'`") from None
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


class Drawn:
    """The rows of a picture, on the host, and what it leaves out, in words."""

    def __init__(
        self, x: Array, names: Sequence[str] | None, max_points: int, MAX_FEATURES: int = MAX_FEATURES
    ) -> None:
        n, d = x.shape
        self.step = max(1, -(-n // max_points))
        self.titles = feature_names(names, d)[:MAX_FEATURES]
        self.rows = x[:: self.step, ...]
        self.points = backends.get(x).to_numpy(self.rows)[:, :MAX_FEATURES]
        shown = len(self.points)
        words = [f"{shown:,} of {n:,} rows"] if shown < n else []
        words += [f"the first {MAX_FEATURES} of {d} features"] if d > MAX_FEATURES else []
        self.note = ", ".join(words)


def thinned(labels: Array | None, x: Array, step: int) -> np.ndarray | None:
    """Return the labels of the rows that are drawn, on the host."""
    if labels is None:
        return None
    if tuple(labels.shape) != tuple(x.shape[:1]):
        raise InputError(f"got labels of shape {tuple(labels.shape)}, expected one a row, ({x.shape[0]},)")
    return backends.get(labels).to_numpy(labels[::step])


def feature_names(names: Sequence[str] | None, d: int) -> list[str]:
    """Return names of features, by default their numbers."""
    if names is None:
        return [f"feature {index}" for index in range(d)]
    if len(names) != d:
        raise InputError(f"got {len(names)} names, expected one a feature: {d}")
    return list(names)


def headline(figure: Figure, title: str, note: str = "") -> None:
    """Write a title over a figure, and below it what is left out."""
    figure.suptitle(f"{title}\n({note})" if note else title, x=0.02, ha="left", fontsize=11)


def style(group: int) -> tuple[str, str]:
    """Return the colour and the marker of a group."""
    return _COLOURS[group % len(_COLOURS)], _MARKERS[group % len(_MARKERS)]


def groups(labels: np.ndarray | None) -> Iterator[tuple[int | None, Any]]:
    """Give each label and where it is; one group without a label where there are none."""
    if labels is None:
        yield None, ...
        return
    for label in np.unique(labels).tolist():
        yield label, labels == label


def panels(
    drawn: Drawn, fill: Callable[[Axes, int, int], object], diagonal: Callable[[Axes, int], object], quantity: str
) -> Figure:
    """Return a figure with a panel for every pair of features, and one of a quantity for each feature."""
    d = drawn.points.shape[1]
    figure = figure_of(max(6.5, 2.3 * d), max(5.0, 1.9 * d))
    grid: Any = figure.subplots(d, d, sharex="col", squeeze=False)
    for row, col in np.ndindex(d, d):
        axes = grid[row, col]
        if col > row:
            axes.remove()
            continue
        if col == row:
            diagonal(axes, col)
        else:
            fill(axes, col, row)
        axes.set_xlim(*_span(drawn.points[:, col]))
        if col != row:
            axes.set_ylim(*_span(drawn.points[:, row]))
        upright = quantity if row == col else drawn.titles[row] if col == 0 else ""
        tidy(axes, drawn.titles[col] if row == d - 1 else "", upright)
    return figure


def _span(values: np.ndarray) -> tuple[float, float]:
    """Return the range of finite values and a little more: ellipses may reach beyond it."""
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def scatter(axes: Axes, points: np.ndarray, labels: np.ndarray | None) -> None:
    """Draw points in the colours and markers of their groups."""
    for label, rows in groups(labels):
        colour, marker = style(label or 0)
        axes.scatter(*points[rows].T, s=_area(len(points)), c=colour, marker=marker, alpha=0.6, linewidths=0)


def _area(n: int) -> float:
    return float(np.clip(25_000 / max(1, n), 5, 26))


def histogram(axes: Axes, values: np.ndarray, labels: np.ndarray | None) -> None:
    """Draw which share of all rows lies in each bin, of each group."""
    finite = values[np.isfinite(values)]
    bins = np.histogram_bin_edges(finite, bins=20).tolist()
    for label, rows in groups(labels):
        colour, _ = style(label or 0)
        weights = np.full(len(values[rows]), 100 / len(values))
        axes.hist(values[rows], bins=bins, weights=weights, histtype="stepfilled", alpha=0.25, color=colour)
        axes.hist(values[rows], bins=bins, weights=weights, histtype="step", color=colour)


def ellipses(axes: Axes, means: np.ndarray, covariances: np.ndarray, radii: Sequence[float]) -> None:
    """Draw Gaussians in the plane: a cross at each mean, and ellipses at so many standard deviations."""
    angle = np.linspace(0, 2 * np.pi, 100)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    for component, (mean, covariance) in enumerate(zip(means, covariances, strict=True)):
        colour = style(component)[0]
        for radius in radii:
            ellipse = mean[:, None] + radius * np.linalg.cholesky(covariance) @ circle
            axes.plot(*ellipse, color="white", linewidth=2.8, zorder=3)
            axes.plot(*ellipse, color=colour, linewidth=1.8, zorder=3)
        mark_at = {"marker": "X", "markersize": 9, "markeredgecolor": "white", "markeredgewidth": 1.2}
        axes.plot(*mean, color=colour, zorder=4, linestyle="none", **mark_at)


def mark(label: str, **look: Any) -> Any:
    """Return an entry of a legend, large and opaque whatever the points are."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **{"linestyle": "none", "markersize": 7, **look}, label=label)


def key(figure: Figure, labels: Sequence[int], title: str, *others: Any) -> None:
    """Draw the legend of groups, and of what else there is: in the empty corner of many panels, or right of few."""
    found = [mark(str(label), color=style(label)[0], marker=style(label)[1]) for label in labels]
    roomy = len(figure.axes) > 3
    place: dict[str, Any] = {"loc": "upper right" if roomy else "outside right upper"}
    figure.legend(
        handles=[*found, *others], title=title, frameon=False, fontsize=11 if roomy else 9, alignment="left", **place
    )


def tidy(axes: Axes, xlabel: str, ylabel: str) -> None:
    """Name the axes of a panel, and leave out what is not needed."""
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def sizes_figure(
    lines: Mapping[str, tuple[Sequence[int], Sequence[float]]], best: tuple[int, float], criterion: str
) -> Figure:
    """Draw a criterion against the number of components, a line a name, and mark the best."""
    figure = figure_of(7.0, 4.5)
    axes = figure.subplots()
    for place, (name, (sizes, values)) in enumerate(lines.items()):
        colour, marker = style(place)
        axes.plot(sizes, values, color=colour, marker=marker, markersize=5, linewidth=1.3, label=name or None)
    axes.plot(*best, "o", markersize=14, markerfacecolor="none", markeredgecolor="black", label="best", linewidth=0)
    tidy(axes, "number of components", criterion)
    axes.locator_params(axis="x", integer=True)
    axes.legend(frameon=False)
    headline(figure, f"{criterion} of each number of components")
    return figure
