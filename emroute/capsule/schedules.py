"""Inverse temperatures of the activations of parents in each iteration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emroute.errors import InputError
from emroute.validate import check_choice

__all__ = ["SCHEDULES", "temperatures"]

SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "paper": lambda t, n_iter: 0.01 * (1 - 0.95 ** (t + 1)),
    "tutorial": lambda t, n_iter: 1 + (min(n_iter, 3) - 1) * t / max(n_iter - 1, 1),
}
"""Inverse temperatures by name: those of the paper's authors, and of the tutorials, ``linspace(1, min(n, 3), n)``."""


def temperatures(inverse_temperature: Any, cost: str, n_iter: int) -> tuple[float, ...]:
    """Return the inverse temperature of each iteration, from a name, a callable, values or None."""
    if inverse_temperature is None:
        inverse_temperature = "paper" if cost == "hinton" else "tutorial"
    if isinstance(inverse_temperature, str):
        check_choice("inverse_temperature", inverse_temperature, tuple(SCHEDULES))
        inverse_temperature = SCHEDULES[inverse_temperature]
    values: Any
    try:
        given: Any = inverse_temperature
        values = [given(t, n_iter) for t in range(n_iter)] if callable(given) else list(given)
        values = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        values = ()
    if len(values) != n_iter or not all(0 <= value < float("inf") for value in values):
        raise InputError(
            f"got inverse_temperature={inverse_temperature!r}, expected {n_iter} finite numbers of at least 0, a "
            f"callable (t, n_iter) that returns them, or one of {', '.join(map(repr, SCHEDULES))}"
        )
    return values
