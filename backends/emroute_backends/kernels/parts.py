"""Rows of one problem shared out among threads, where a form is not on one of a pool already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from emroute_backends.numpy import map_blocks, threads

__all__ = ["in_parts"]

_WORTH = 2**20  # multiplications that take ten times as long as a thread takes to wake


def in_parts(function: Callable[..., Any], arrays: Sequence[np.ndarray], work: int) -> tuple[np.ndarray, ...]:
    """Return what a function returns for parts of rows, joined along first axes.

    Parameters
    ----------
    function
        Of some rows of each array; the first axis of each array that it returns is that of the rows, or has one entry.
    arrays
        Rows first.
    work
        Multiplications a row.
    """
    n = len(arrays[0])
    parts = threads() if n * work > _WORTH else 1
    return map_blocks(function, arrays, -(-n // parts))
