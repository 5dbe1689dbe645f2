"""The progress bars of fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.errors import MissingDependencyError

__all__ = ["bar", "bar_of"]


@contextmanager
def bar(shown: bool, total: int, name: str) -> Iterator[Callable[[str], None]]:
    """Show a bar, or none; yield what moves it on by one, given a word about where it is.

    The bar is closed at its end, and also where an error leaves it before.
    """
    if not shown:
        yield lambda word: None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise MissingDependencyError("progress=True needs tqdm; `pip install tqdm`, or leave progress off") from None
    with tqdm(total=total, desc=name, unit="it") as shown_bar:

        def advance(word: str) -> None:
            shown_bar.set_postfix_str(word, refresh=False)
            shown_bar.update()

        yield advance
        shown_bar.total = shown_bar.n  # a fit may have converged long before max_iter


@contextmanager
def bar_of(options: Any) -> Iterator[Callable[[Any], None]]:
    """Show a bar if the options ask for progress; yield what moves it on by one iteration, given the objectives."""
    with bar(options.progress, options.max_iter, "EM") as advance:
        if not options.progress:
            yield lambda objective: None
            return
        yield lambda objective: advance(f"objective {np.mean(backends.get(objective).to_numpy(objective)):.6g}")
