"""The bar that fits show while they run."""

from __future__ import annotations

from typing import Any

from emroute.errors import MissingDependencyError

__all__ = ["bar_of"]


def bar_of(max_iter: int) -> Any:
    """Return a bar of so many iterations, or raise `MissingDependencyError` where tqdm is not installed."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise MissingDependencyError("progress=True needs tqdm; `pip install tqdm`, or leave progress off") from None
    return tqdm(total=max_iter, desc="EM", unit="it")
