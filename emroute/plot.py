"""Pictures of data, fits and their traces, drawn with matplotlib (``pip install 'emroute[plot]'``).

Every function takes arrays of any library, draws on a figure of its own and returns it: nothing is shown, and
pyplot's global state is left alone. Save with ``figure.savefig(path)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from emroute import backend as backends
from emroute import gmm, kmeans
from emroute._figures import feature_names, figure_of, histogram, scatter, style, thinned, tidy
from emroute.backend import Array
from emroute.em import Fit
from emroute.errors import InputError
from emroute.mixture import Mixture
from emroute.select import Choice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["criteria", "density", "pairs", "trace"]

_MAX_FEATURES = 12
_GRID = 200


def pairs(
    x: Array, labels: Array | None = None, names: Sequence[str] | None = None, *, max_points: int = 5000
) -> Figure:
    """Scatter every pair of features, with a histogram of each on the diagonal.

    Parameters
    ----------
    x
        ``(n, d)``, d at most 12.
    labels
        ``(n,)`` integers, drawn as colours and markers.
    names
        Of the features, d of them.
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
    if x.ndim != 2 or not 1 <= x.shape[1] <= _MAX_FEATURES:
        raise InputError(f"got x of shape {tuple(x.shape)}, expected (n, d) with d from 1 to {_MAX_FEATURES}")
    x, labels = thinned(x, labels, max_points)
    d = x.shape[1]
    titles = feature_names(names, d)
    figure = figure_of(max(6.0, 2.3 * d), max(4.5, 1.9 * d))
    grid: Any = figure.subplots(d, d, sharex="col", squeeze=False)
    for row, col in np.ndindex(d, d):
        axes = grid[row, col]
        if col > row:
            axes.remove()
            continue
        if col == row:
            histogram(axes, x[:, col], labels)
        else:
            scatter(axes, x[:, [col, row]], labels)
        quantity = "rows" if row == col else titles[row] if col == 0 else ""
        tidy(axes, titles[col] if row == d - 1 else "", quantity)
    if labels is not None:
        handles, texts = grid[-1, 0].get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside upper right", ncols=min(len(texts), 8), frameon=False, title="group")
    return figure


def density(
    mixture: gmm.GaussianMixture, x: Array, names: Sequence[str] | None = None, *, max_points: int = 5000
) -> Figure:
    """Draw the density of a Gaussian mixture in the plane over the points it was fitted to.

    Contours lie 1 to 5 standard deviations of a single Gaussian below the highest density. Every component
    has a cross at its mean and ellipses at one and two of its standard deviations; points take its colour.

    Parameters
    ----------
    mixture
        Of two features, without batch dimensions.
    x
        ``(n, 2)``, of the mixture's library, dtype and device.
    names
        Of the two features.
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
    backend = backends.get(mixture.means)
    points, labels = thinned(x, mixture.predict(x), max_points)
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.12 * np.where(high > low, high - low, 1.0)
    first, second = np.linspace(low - margin, high + margin, _GRID).T
    cells = np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2)
    log_prob = backend.to_numpy(mixture.log_prob(backend.from_numpy(cells, mixture.means))).reshape(_GRID, _GRID)

    figure = figure_of(7.0, 5.0)
    axes = figure.subplots()
    # a Gaussian's log-density r standard deviations from its mean is r²/2 below its peak
    levels = log_prob.max() - np.arange(5, -1, -1) ** 2 / 2
    axes.contourf(first, second, log_prob, levels=levels, cmap="Greys", alpha=0.25)
    axes.contour(first, second, log_prob, levels=levels[:-1], colors="#777777", linewidths=0.6, linestyles="solid")
    scatter(axes, points, labels)
    k = mixture.n_components
    covariances = mixture.model.covariance.dense(backend.to_numpy(mixture.covariances), k, 2)
    angle = np.linspace(0, 2 * np.pi, 100)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    for component, (mean, covariance) in enumerate(zip(backend.to_numpy(mixture.means), covariances, strict=True)):
        colour = style(component)[0]
        for radius in (1, 2):
            ellipse = mean[:, None] + radius * np.linalg.cholesky(covariance) @ circle
            axes.plot(*ellipse, color="white", linewidth=2.8, zorder=3)
            axes.plot(*ellipse, color=colour, linewidth=1.8, zorder=3)
        axes.plot(
            *mean, marker="X", markersize=11, color=colour, markeredgecolor="white", markeredgewidth=1.5, zorder=4
        )
    axes.set(xlim=first[[0, -1]], ylim=second[[0, -1]])
    tidy(axes, *feature_names(names, 2))
    figure.legend(loc="outside upper right", ncols=min(k, 8), frameon=False, title="component")
    return figure


def trace(*fits: Fit | Mixture | kmeans.KMeans, labels: Sequence[str] | None = None, relative: bool = False) -> Figure:
    """Draw objectives against iterations; they never fall.

    Parameters
    ----------
    *fits
        Whatever has a `trace` ``(..., t)``: mixtures, k-means, `emroute.em.Fit`. Problems of a batch share a colour.
    labels
        One a fit, for the legend.
    relative
        Draw how far each objective is below its last value, on a logarithmic scale: fits of different data share
        the axes, and a straight line is linear convergence.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If there are no fits, or not one label for each.
    MissingDependencyError
        Without matplotlib.

    Examples
    --------
    >>> from emroute import gmm
    >>> fit = gmm.fit(np.arange(9.0)[:, None], 2, rng=0)
    >>> trace(fit, labels=["nine points"]).axes[0].get_xlabel()
    'iteration'
    """
    if not fits or (labels is not None and len(labels) != len(fits)):
        raise InputError(
            f"got {len(fits)} fits and {len(labels or ())} labels, expected at least one fit, a label each"
        )
    figure = figure_of(7.0, 4.5)
    axes = figure.subplots()
    for place, fit in enumerate(fits):
        values = backends.get(fit.trace).to_numpy(fit.trace)
        colour, marker = style(place)
        for number, line in enumerate(values.reshape(-1, values.shape[-1])):
            line = line[np.isfinite(line)]
            if relative:
                rounding = 8 * np.finfo(line.dtype).eps * np.abs(line[-1:])
                line = line[-1:] - line
                line = np.where(line > rounding, line, np.nan)  # a logarithm cannot show the end itself
            label = labels[place] if labels is not None and not number else None
            axes.plot(line, color=colour, marker=marker, markersize=4, linewidth=1.3, label=label)
    if relative:
        axes.set_yscale("log")
    tidy(axes, "iteration", "objective below its last value" if relative else "objective")
    axes.locator_params(axis="x", integer=True)
    if labels is not None:
        axes.legend(frameon=False)
    return figure


def criteria(choice: Choice) -> Figure:
    """Draw the criterion by which a model was chosen against the number of components, a line a covariance type.

    Parameters
    ----------
    choice
        From `emroute.select.mixtures`.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingDependencyError
        Without matplotlib.

    Examples
    --------
    >>> from emroute import select
    >>> criteria(select.mixtures(np.arange(9.0)[:, None], (1, 2), "full", rng=0)).axes[0].get_ylabel()
    'BIC'
    """
    figure = figure_of(7.0, 4.5)
    axes = figure.subplots()
    kinds = list(dict.fromkeys(row.covariance_type for row in choice.table))
    for place, kind in enumerate(kinds):
        rows = sorted(row for row in choice.table if row.covariance_type == kind)
        values = [getattr(row, choice.criterion) for row in rows]
        colour, marker = style(place)
        sizes = [row.n_components for row in rows]
        axes.plot(sizes, values, color=colour, marker=marker, markersize=5, linewidth=1.3, label=kind)
    best = choice.table[choice.index]
    place = best.n_components, getattr(best, choice.criterion)
    axes.plot(*place, "o", markersize=14, markerfacecolor="none", markeredgecolor="black", label="best", linewidth=0)
    tidy(axes, "n_components", choice.criterion.upper())
    axes.locator_params(axis="x", integer=True)
    axes.legend(frameon=False)
    return figure
