"""Pictures of how fits went, and of the choice among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from emroute import backend as backends
from emroute import kmeans
from emroute._figures import figure_of, headline, sizes_figure, style, tidy
from emroute.em import Fit
from emroute.errors import InputError
from emroute.mixture import Mixture
from emroute.select import Choice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["criteria", "trace"]


def trace(*fits: Fit | Mixture | kmeans.KMeans, labels: Sequence[str] | None = None, relative: bool = False) -> Figure:
    """Draw objectives against iterations: log-likelihoods of mixtures, minus the inertia of k-means. They never fall.

    Parameters
    ----------
    *fits
        Whatever has a `trace` ``(..., t)``: mixtures, k-means, `emroute.em.Fit`. Problems of a batch share a colour.
    labels
        One a fit, for the legend.
    relative
        Draw how much each objective still has to gain, the last value less the value, on a logarithmic scale: fits of
        different data share the axes, and a straight line is linear convergence.

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
    quantity = _objective(fits)
    tidy(axes, "iteration", f"last {quantity} − {quantity} at this iteration" if relative else quantity)
    headline(figure, f"What the {quantity} still had to gain" if relative else f"The {quantity} at each iteration")
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
    lines: dict[str, tuple[list[int], list[float]]] = {}
    for row in sorted(choice.table, key=lambda row: row.n_components):
        sizes, values = lines.setdefault(row.covariance_type, ([], []))
        sizes.append(row.n_components)
        values.append(getattr(row, choice.criterion))
    best = choice.table[choice.index]
    return sizes_figure(lines, (best.n_components, getattr(best, choice.criterion)), choice.criterion.upper())


def _objective(fits: Sequence[Fit | Mixture | kmeans.KMeans]) -> str:
    """Return what fits climb; a word for all where they differ."""
    if all(isinstance(fit, Mixture) for fit in fits):
        return "log-likelihood"
    return "−inertia" if all(isinstance(fit, kmeans.KMeans) for fit in fits) else "objective"
