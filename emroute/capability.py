"""What a public function supports on every array library, declared once with its definition.

The tests and the tables of the documentation read these declarations. A call does not change.
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
    """What a function supports, besides float64 and float32 on every array library and its devices.

    It is also a decorator, which returns the same function or class.

    Parameters
    ----------
    gradients
        Whether floating results have derivatives with respect to floating arguments, on libraries that have gradients.
        If not, the results are constants.
    jit
        Whether the function works inside the caller's `jax.jit`. If not, it raises an error, because it needs values.
    batch
        Whether leading dimensions are separate problems.
    integers
        Whether data may be integers, which are converted to floating numbers.
    half
        Whether the function takes and returns float16 and bfloat16.
    streams
        Whether data may be a source of chunks that can be read repeatedly.

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
        """Attach this declaration to a function."""
        setattr(function, _NAME, self)
        return function

    def __str__(self) -> str:
        return "; ".join(_SAID[field.name] for field in fields(self) if getattr(self, field.name))


def capabilities(function: Any) -> Capabilities | None:
    """Return the declaration of a function, method or class itself, not of a base class; None if there is none.

    >>> capabilities(print)
    """
    function = getattr(function, "__func__", function)
    return getattr(function, "__dict__", {}).get(_NAME)
