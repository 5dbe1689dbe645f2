"""What a case is, and arguments that many of them take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from emroute.testing.equivalence import Trial

__all__ = ["Case", "Draw", "normal", "positive"]

Draw = Callable[[np.random.Generator], tuple[Any, ...]]
"""Makes the arguments of a case, NumPy arrays, from a generator."""


@dataclass(frozen=True)
class Case:
    """A public function, and arguments for which it must be the same on every array library.

    Parameters
    ----------
    name
        Of the function, with its module; or ``Backend.`` and the member of a backend.
    function
        What to run, on arrays of any library.
    draw
        Makes the arguments, NumPy arrays, from a generator.
    expected
        What plain NumPy says; where this is left out, the function itself on NumPy arrays.
    gradients
        Whether gradients are compared too.
    variant
        Tells several cases of one function apart.
    """

    name: str
    function: Callable[..., Any]
    draw: Draw
    expected: Callable[..., Any] | None = None
    gradients: bool = False
    variant: str = ""

    @property
    def title(self) -> str:
        """Name and variant."""
        return f"{self.name}, {self.variant}" if self.variant else self.name

    def trial(self, seed: int) -> Trial:
        """Return what `emroute.testing.assert_equivalent` would run."""
        arrays = self.draw(np.random.default_rng(seed))
        return Trial(self.function, arrays, gradients=self.gradients, expected=self.expected)


def normal(*shapes: tuple[int, ...]) -> Draw:
    """Draw standard normal arrays of these shapes."""
    return lambda rng: tuple(rng.standard_normal(shape) for shape in shapes)


def positive(*shapes: tuple[int, ...]) -> Draw:
    """Draw arrays of these shapes between 0.1 and 0.9: weights, activations, variances."""
    return lambda rng: tuple(rng.uniform(0.1, 0.9, shape) for shape in shapes)
