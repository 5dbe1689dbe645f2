"""What a public function can do on every array library, said once, beside it.

The tests and the tables of the documentation read what is said here; nothing is added to a call.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeVar

__all__ = ["Capabilities", "capabilities"]

F = TypeVar("F")

_NAME = "__capabilities__"

_SAID = {
    "gradients": "differentiable on Torch and JAX",
    "jit": "works inside `jax.jit`",
    "batch": "leading dimensions are batch",
    "integers": "integer data accepted",
    "half": "float16 and bfloat16 accepted",
    "streams": "streams of chunks accepted",
}


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a function can do beside what all can: float64 and float32, of every array library, on its devices.

    It is a decorator too, which gives back the very function, or class, that it was given.

    Parameters
    ----------
    gradients
        Whether floating results have derivatives with respect to floating arguments, where a library differentiates.
        Of all others, the results are constants to it.
    jit
        Whether it works inside the caller's `jax.jit`. All others refuse what is traced, for they need the values.
    batch
        Whether leading dimensions are separate problems.
    integers
        Whether data may be integers. They are computed in floating numbers.
    half
        Whether float16 and bfloat16 go in and come out.
    streams
        Whether data may be a source of chunks that can be read again and again.

    Examples
    --------
    >>> @Capabilities(gradients=True)
    ... def double(x):
    ...     return 2 * x
    >>> double(2), str(capabilities(double))
    (4, 'differentiable on Torch and JAX')
    """

    gradients: bool = False
    jit: bool = False
    batch: bool = False
    integers: bool = False
    half: bool = False
    streams: bool = False

    def __call__(self, function: F) -> F:
        """Let a function declare this."""
        setattr(function, _NAME, self)
        return function

    def __str__(self) -> str:
        return "; ".join(_SAID[field.name] for field in fields(self) if getattr(self, field.name))


def capabilities(function: Any) -> Capabilities | None:
    """Return what a function, method or class itself declares, or None; what a base class declares does not count.

    >>> capabilities(print)
    """
    function = getattr(function, "__func__", function)
    return getattr(function, "__dict__", {}).get(_NAME)
