"""Cases, and arguments that many of them use."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from emroute import backend
from emroute.capability import Capabilities, capabilities
from emroute.testing.equivalence import Trial

__all__ = ["Case", "Draw", "look_up", "normal", "positive"]

Draw = Callable[[np.random.Generator], tuple[Any, ...]]
"""A function that makes the arguments of a case, NumPy arrays, from a generator."""


@dataclass(frozen=True)
class Case:
    """A public function, and arguments for which its results must be the same on every array library.

    Parameters
    ----------
    name
        The name of the function with its module, or ``Backend.`` and the member of a backend.
    function
        The function to run, on arrays of any library.
    draw
        Makes the arguments, NumPy arrays, from a generator.
    expected
        A plain NumPy version; by default the function itself on NumPy arrays.
    smooth
        Whether central differences give the derivatives at these arguments, which they do not at kinks or infinity.
    variant
        A label that distinguishes several cases of one function.
    also
        Names of other functions with the same capabilities that this case covers too.
    """

    name: str
    function: Callable[..., Any]
    draw: Draw
    expected: Callable[..., Any] | None = None
    smooth: bool = True
    variant: str = ""
    also: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Name and variant."""
        return f"{self.name}, {self.variant}" if self.variant else self.name

    @property
    def declared(self) -> Capabilities:
        """The declaration of the function; empty for a class whose methods have their own."""
        return capabilities(look_up(self.name)) or Capabilities()

    @property
    def gradients(self) -> bool:
        """Whether gradients are compared too."""
        return self.smooth and self.declared.gradients

    def trial(self, seed: int) -> Trial:
        """Return the comparison that `emroute.testing.assert_equivalent` would run."""
        arrays = self.draw(np.random.default_rng(seed))
        return Trial(self.function, arrays, gradients=self.gradients, expected=self.expected)


def look_up(name: str) -> Any:
    """Return the object that a case names.

    >>> look_up("gmm.fit").__module__
    'emroute.gmm.fitting'
    """
    value: Any = backend if name.startswith("Backend.") else None
    for part in name.split("."):
        value = importlib.import_module(f"emroute.{part}") if value is None else getattr(value, part)
    return value


def normal(*shapes: tuple[int, ...]) -> Draw:
    """Draw standard normal arrays of these shapes."""
    return lambda rng: tuple(rng.standard_normal(shape) for shape in shapes)


def positive(*shapes: tuple[int, ...]) -> Draw:
    """Draw arrays of these shapes between 0.1 and 0.9: weights, activations, variances."""
    return lambda rng: tuple(rng.uniform(0.1, 0.9, shape) for shape in shapes)
