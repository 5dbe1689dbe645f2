"""Pictures of rows, and of the groups and the Gaussians that were found in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from emroute import backend as backends
from emroute import gmm
from emroute._figures import (
    Drawn,
    ellipses,
    figure_of,
    headline,
    histogram,
    key,
    mark,
    panels,
    scatter,
    style,
    thinned,
    tidy,
)
from emroute.backend import Array
from emroute.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["classification", "density", "pairs", "uncertainty"]

_GRID = 200
_HELD = (95, 75, 50, 25)  # per cent of the rows inside each contour
_LEVELS = (75, 95)  # percentiles of the uncertainty at which its marker changes
_MARKS = ({"s": 7, "c": "#BBBBBB"}, {"s": 18, "c": "#777777"}, {"s": 34, "c": "#000000"})


def pairs(
    x: Array, labels: Array | None = None, names: Sequence[str] | None = None, *, max_points: int = 5000
) -> Figure:
    """Scatter every pair of features, with a histogram of each on the diagonal.

    The picture says how many of the rows and features it shows, if not all.

    Parameters
    ----------
    x
        ``(n, d)``; of more than eight features, the first eight are drawn.
    labels
        ``(n,)`` integers, drawn as colours and markers.
    names
        Names of the d features.
    max_points
        The most rows drawn; of more, every second, third, ... one.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the shapes cannot be used.
    MissingDependencyError
        Without matplotlib.

    Examples
    --------
    >>> figure = pairs(np.eye(3), np.asarray([0, 1, 1]), ["a", "b", "c"])
    >>> [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]
    ['a', 'b', 'c']
    """
    drawn = _rows(x, names, max_points)
    found = thinned(labels, x, drawn.step)
    figure = _grouped(drawn, found)
    headline(figure, "Pairs of features" if found is None else "Groups, by pairs of features", drawn.note)
    if found is not None:
        key(figure, np.unique(found).tolist(), "group")
    return figure


def classification(
    mixture: gmm.GaussianMixture, x: Array, names: Sequence[str] | None = None, *, max_points: int = 5000
) -> Figure:
    """Scatter every pair of features, coloured by the likeliest component, with the Gaussians as ellipses.

    Parameters
    ----------
    mixture
        Without batch dimensions.
    x
        ``(n, d)``, of the mixture's library, dtype and device; of more than eight features, the first eight are drawn.
    names
        Names of the d features.
    max_points
        The most rows drawn; of more, every second, third, ... one.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the mixture is not one problem, or the shapes cannot be used.
    MissingDependencyError
        Without matplotlib.

    Examples
    --------
    >>> from emroute import gmm
    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> figure = classification(gmm.fit(x, 2, rng=0), x, ["a", "b", "c"])
    >>> figure.axes[1].get_ylabel()
    'b'
    """
    drawn = _rows(x, names, max_points)
    means, covariances = _gaussians(mixture)
    figure = _grouped(drawn, _host(mixture.predict(drawn.rows)), (means, covariances))
    title = f"Classification by {mixture.n_components} Gaussians ({mixture.covariance_type})"
    headline(figure, title, drawn.note)
    key(figure, range(mixture.n_components), "component", *_ellipse_marks((1, 2)))
    return figure


def uncertainty(
    mixture: gmm.GaussianMixture, x: Array, names: Sequence[str] | None = None, *, max_points: int = 5000
) -> Figure:
    """Scatter every pair of features, with large dark markers where a row may belong to another component.

    The uncertainty of a row is the probability that it is not of its likeliest component, 1 − max_k r_nk. The
    markers change at its percentiles 75 and 95, as in mclust.

    Parameters
    ----------
    mixture
        Without batch dimensions.
    x
        ``(n, d)``, of the mixture's library, dtype and device; of more than eight features, the first eight are drawn.
    names
        Names of the d features.
    max_points
        The most rows drawn; of more, every second, third, ... one.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the mixture is not one problem, or the shapes cannot be used.
    MissingDependencyError
        Without matplotlib.

    Examples
    --------
    >>> from emroute import gmm
    >>> x = np.random.default_rng(0).normal(size=(50, 2))
    >>> figure = uncertainty(gmm.fit(x, 2, rng=0), x)
    >>> figure.axes[1].get_xlabel()
    'feature 0'
    """
    drawn = _rows(x, names, max_points)
    means, covariances = _gaussians(mixture)
    unsure = 1 - _host(mixture.responsibilities(drawn.rows)).max(axis=1)
    limits = np.percentile(unsure, _LEVELS)
    level = np.searchsorted(limits, unsure)

    def fill(axes: Axes, col: int, row: int) -> None:
        for place, look in enumerate(_MARKS):
            axes.scatter(*drawn.points[level == place][:, [col, row]].T, alpha=0.7, linewidths=0, **look)
        ellipses(axes, means[:, [col, row]], covariances[:, [col, row]][:, :, [col, row]], (1,))

    def mean_of_bins(axes: Axes, col: int) -> None:
        finite = np.isfinite(drawn.points[:, col])
        values = drawn.points[finite, col]
        edges = np.histogram_bin_edges(values, bins=20)
        place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, 19)
        count = np.bincount(place, minlength=20)
        mean = np.bincount(place, weights=100 * unsure[finite], minlength=20) / np.maximum(count, 1)
        axes.stairs(mean, edges, color="#555555", fill=True, alpha=0.5)

    figure = panels(drawn, fill, mean_of_bins, "mean uncertainty, %")
    headline(figure, "Uncertainty of the classification", drawn.note)
    first, second = (f"{limit:.2g}" for limit in limits)
    words = (f"up to {first} (75 % of rows)", f"{first} to {second} (20 %)", f"above {second} (5 %)")
    others = [
        mark(word, color=look["c"], marker="o", markersize=look["s"] ** 0.5)
        for word, look in zip(words, _MARKS, strict=True)
    ]
    key(figure, (), "probability of not being\nof the likeliest component", *others, *_ellipse_marks((1,)))
    return figure


def density(
    mixture: gmm.GaussianMixture, x: Array, names: Sequence[str] | None = None, *, max_points: int = 5000
) -> Figure:
    """Draw the density of a Gaussian mixture in the plane over the points it was fitted to.

    Contours hold 25, 50, 75 and 95 % of the rows: where the density is above each, so many of them lie. Every
    component has a cross at its mean and ellipses at one and two of its standard deviations; points take its colour.

    Parameters
    ----------
    mixture
        A mixture of two features, without batch dimensions.
    x
        ``(n, 2)``, of the mixture's library, dtype and device.
    names
        Names of the two features.
    max_points
        The most rows drawn; of more, every second, third, ... one.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If the mixture is not one problem in the plane.
    MissingDependencyError
        Without matplotlib.

    Examples
    --------
    >>> from emroute import gmm
    >>> x = np.random.default_rng(0).normal(size=(50, 2))
    >>> density(gmm.fit(x, 2, rng=0), x, ["a", "b"]).axes[0].get_xlabel()
    'a'
    """
    if mixture.means.ndim != 2 or mixture.means.shape[1] != 2:
        raise InputError(f"got means of shape {tuple(mixture.means.shape)}, expected (k, 2): one mixture in the plane")
    drawn = _rows(x, names, max_points)
    points, k = drawn.points, mixture.n_components
    low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    margin = 0.12 * np.where(high > low, high - low, 1.0)
    first, second = np.linspace(low - margin, high + margin, _GRID).T
    cells = np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2)
    here = backends.get(mixture.means)
    log_prob = _host(mixture.log_prob(here.from_numpy(cells, mixture.means))).reshape(_GRID, _GRID)
    of_rows = np.percentile(_host(mixture.log_prob(drawn.rows)), [100 - held for held in _HELD])
    texts = dict(zip(of_rows.tolist(), (f"{held} %" for held in _HELD), strict=True))
    levels = sorted(texts)  # of equal ones, one
    top = max(float(log_prob.max()), levels[-1] + 1e-6)

    figure = figure_of(7.5, 5.0)
    axes = figure.subplots()
    axes.contourf(first, second, log_prob, levels=[*levels, top], cmap="Greys", alpha=0.25)
    lines = axes.contour(first, second, log_prob, levels=levels, colors="#777777", linewidths=0.8, linestyles="solid")
    axes.clabel(lines, fmt=texts, fontsize=7)
    scatter(axes, points, _host(mixture.predict(drawn.rows)))
    ellipses(axes, *_gaussians(mixture), (1, 2))
    axes.set(xlim=first[[0, -1]], ylim=second[[0, -1]])
    tidy(axes, *drawn.titles)
    headline(figure, f"Density of {k} Gaussians ({mixture.covariance_type})", drawn.note)
    contour = mark("contours of the density:\n% of the rows inside", color="#777777", linestyle="solid")
    key(figure, range(k), "component", *_ellipse_marks((1, 2)), contour)
    return figure


def _rows(x: Array, names: Sequence[str] | None, max_points: int) -> Drawn:
    if x.ndim != 2 or 0 in x.shape:
        raise InputError(f"got x of shape {tuple(x.shape)}, expected (n, d) with at least one row and one feature")
    return Drawn(x, names, max_points)


def _host(x: Array) -> np.ndarray:
    return backends.get(x).to_numpy(x)


def _gaussians(mixture: gmm.GaussianMixture) -> tuple[np.ndarray, np.ndarray]:
    """Return means ``(k, d)`` and covariance matrices ``(k, d, d)`` on the host."""
    if mixture.means.ndim != 2:
        raise InputError(f"got means of shape {tuple(mixture.means.shape)}, expected (k, d): one mixture, not a batch")
    k, d = mixture.means.shape
    return _host(mixture.means), mixture.model.covariance.dense(_host(mixture.covariances), k, d)


def _grouped(drawn: Drawn, labels: np.ndarray | None, gaussians: tuple[np.ndarray, np.ndarray] | None = None) -> Figure:
    def fill(axes: Axes, col: int, row: int) -> None:
        scatter(axes, drawn.points[:, [col, row]], labels)
        if gaussians is not None:
            means, covariances = gaussians
            ellipses(axes, means[:, [col, row]], covariances[:, [col, row]][:, :, [col, row]], (1, 2))

    return panels(drawn, fill, lambda axes, col: histogram(axes, drawn.points[:, col], labels), "% of rows")


def _ellipse_marks(radii: Sequence[int]) -> list[Any]:
    words = " and ".join(map(str, radii)) + f" standard\ndeviation{'s' * (radii[-1] > 1)}"
    ring = mark(f"ellipses: {words}", color=style(0)[0], marker="o", markerfacecolor="none", markersize=10)
    return [ring, mark("crosses: means", color=style(0)[0], marker="X", markersize=9)]
