"""The progress bar of fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.errors import MissingDependencyError

__all__ = ["bar_of"]


@contextmanager
def bar_of(options: Any) -> Iterator[Callable[[Any], None]]:
    """Show a bar if requested; yield the function that advances it by one iteration, given the objectives."""
    if not options.progress:
        yield lambda objective: None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise MissingDependencyError("progress=True needs tqdm; `pip install tqdm`, or leave progress off") from None
    bar = tqdm(total=options.max_iter, desc="EM", unit="it")

    def advance(objective: Any) -> None:
        mean = np.mean(backends.get(objective).to_numpy(objective))
        bar.set_postfix_str(f"objective {mean:.6g}", refresh=False)
        bar.update()

    yield advance
    bar.total = bar.n  # the fit may have converged long before max_iter
    bar.close()
