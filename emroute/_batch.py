"""Single problems of a batch of results."""

from __future__ import annotations

from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.arrays.trees import map_leaves
from emroute.errors import InputIndexError

__all__ = ["problem"]


def problem(nest: Any, batch: tuple[int, ...], index: Any) -> Any:
    """Take some problems of arrays ``(*batch, ...)``, by integers and slices.

    Raises
    ------
    InputIndexError
        If there is no such problem.
    """
    index = index if isinstance(index, tuple) else (index,)
    index = tuple(int(each) if isinstance(each, np.integer) else each for each in index)
    if not batch:
        raise InputIndexError("this is one problem, not a batch, and cannot be indexed")
    if len(index) > len(batch) or not all(
        isinstance(each, int | slice) and not isinstance(each, bool) for each in index
    ):
        raise InputIndexError(f"got index {index}, expected integers and slices, at most {len(batch)}")
    for each, size in zip(index, batch, strict=False):
        if isinstance(each, int) and not -size <= each < size:  # some libraries would take the last
            raise InputIndexError(f"got index {each}, expected one of {size} problems")

    def take(x: Any) -> Any:
        x = backends.namespace(x).broadcast_to(x, (*batch, *x.shape[len(batch) :]))
        return x[(*index, ...)]

    return map_leaves(take, nest)
