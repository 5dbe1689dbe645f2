"""Three small classic data sets as NumPy arrays, for the demo, the documentation and the tests.

- ``coins.csv``: five sets of ten tosses, and the coin that was tossed. Do, C. B. and Batzoglou, S. (2008). What is
  the expectation maximization algorithm? Nature Biotechnology 26, figure 1. Five counts; facts have no copyright.
- ``iris.csv``: four lengths, in cm, of 150 flowers of three species. Fisher, R. A. (1936). The use of multiple
  measurements in taxonomic problems. Annals of Eugenics 7. Public domain. These are the paper's numbers, as in R and
  scikit-learn; the file of the UCI repository differs from them in two rows.
- ``faithful.csv``: 272 eruptions of the Old Faithful geyser, their duration and the wait for the next, in minutes.
  R's ``datasets::faithful`` (W. Härdle, 1991), from Azzalini, A. and Bowman, A. W. (1990). A look at some data on
  the Old Faithful geyser. Applied Statistics 39. A table of measurements; facts have no copyright.
"""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import NamedTuple

import numpy as np

__all__ = ["Dataset", "coins", "faithful", "iris"]


class Dataset(NamedTuple):
    """Observations, and their groups if these are known."""

    x: np.ndarray
    """The observations, ``(n, d)`` float64."""
    names: tuple[str, ...]
    """The names of the `d` features."""
    labels: np.ndarray | None = None
    """The groups, integers ``(n,)`` into `label_names`; None if they are not known."""
    label_names: tuple[str, ...] = ()


def _read(name: str, n_features: int) -> Dataset:
    """Read `n_features` columns of numbers, and the groups from the column after them, if there is one."""
    text = files(__name__).joinpath(f"{name}.csv").read_text(encoding="utf-8")
    header, *rows = csv.reader(text.splitlines())
    x = np.asarray([row[:n_features] for row in rows], dtype=np.float64)
    if len(header) == n_features:
        return Dataset(x, tuple(header))
    label_names, labels = np.unique([row[n_features] for row in rows], return_inverse=True)
    return Dataset(x, tuple(header[:n_features]), labels, tuple(label_names.tolist()))


def coins() -> Dataset:
    """Heads and tosses of five trials with two coins (Do & Batzoglou 2008).

    >>> heads, trials = coins().x.T
    >>> heads.tolist(), trials.tolist()
    ([5.0, 9.0, 8.0, 4.0, 7.0], [10.0, 10.0, 10.0, 10.0, 10.0])
    """
    return _read("coins", 2)


def iris() -> Dataset:
    """Sepals and petals of three species of iris, in cm (Fisher 1936).

    >>> flowers = iris()
    >>> flowers.x.shape, flowers.label_names
    ((150, 4), ('setosa', 'versicolor', 'virginica'))
    """
    return _read("iris", 4)


def faithful() -> Dataset:
    """Durations and waiting times of the Old Faithful geyser, in minutes (Azzalini & Bowman 1990).

    >>> faithful().x.shape, faithful().names
    ((272, 2), ('eruptions', 'waiting'))
    """
    return _read("faithful", 2)
