"""The options of a fit, apart from the data and the number of components."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from emroute._engine.protocol import Fit
from emroute._engine.starts import STARTS
from emroute.errors import InputError
from emroute.validate import check_choice, check_count, check_loop

__all__ = ["LoopOptions", "Options"]


@dataclass(frozen=True)
class LoopOptions:
    """The options of the loop; see `emroute.em.fit`."""

    tol: float = 1e-6
    max_iter: int = 1000
    chunk_size: int | None = None
    callback: Callable[[int, Fit], object] | None = None
    progress: bool = False
    accelerate: str | None = None

    def __post_init__(self) -> None:
        check_loop(self.tol, self.max_iter, self.chunk_size)
        if self.accelerate is not None:
            check_choice("accelerate", self.accelerate, ("squarem",))
        if self.chunk_size is not None:
            object.__setattr__(self, "chunk_size", int(self.chunk_size))

    @property
    def watched(self) -> bool:
        """Whether a callback or a progress bar follows every step."""
        return self.callback is not None or self.progress


@dataclass(frozen=True, kw_only=True)
class Options(LoopOptions):
    """The options that all fits share."""

    sample_weight: Any = None
    weights: Any = None
    """Mixing weights to keep."""
    labels: Any = None
    """What is known of the rows' components."""
    init: Any = "k-means++"
    n_init: int = 1
    rng: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "n_init", check_count("n_init", self.n_init))
        if self.draws:
            check_choice("init", self.init, STARTS)
        elif self.n_init > 1:
            raise InputError(f"got n_init={self.n_init} with a given start: every restart would be the same")

    @property
    def draws(self) -> bool:
        """Whether the start is drawn from the data."""
        return isinstance(self.init, str)
