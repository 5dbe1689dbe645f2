"""Fused forms: the array code of a function is its definition, and a backend may have a faster form of it.

The array code writes each intermediate array to memory; a fused form keeps them in registers. The form runs if it
accepts the arrays and there is enough work, and the array code runs everywhere else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import update_wrapper
from typing import Any, Protocol

from emroute.arrays.tracing import traced
from emroute.backend import get

__all__ = ["Form", "Kernel", "fused", "kernel"]

_DEFAULT: bool | None = {"0": False, "1": True}.get(os.environ.get("EMROUTE_FUSED", ""))
_wanted: ContextVar[bool | None] = ContextVar("fused", default=_DEFAULT)
"""None stands for: where it pays."""


class Form(Protocol):
    """A fused form of a function. It takes the same arguments and returns the same results."""

    def takes(self, *args: Any) -> bool:
        """Return whether it accepts these arguments: their dtype, device, layout, and whether gradients are needed."""
        ...

    def pays(self, *args: Any) -> bool:
        """Return whether there is enough work."""
        ...

    def cheap(self, *args: Any) -> bool:
        """Whether it costs less than any other way to the same end, however wide the arrays are."""
        ...

    def run(self, text: Callable[..., Any], *args: Any) -> Any:
        """Do the work of the function. The array code does what the form cannot, such as second derivatives."""
        ...


def _runs(form: Form, args: tuple[Any, ...]) -> bool:
    wanted = _wanted.get()
    return wanted is not False and form.takes(*args) and (wanted or form.pays(*args))


@contextmanager
def fused(wanted: bool | None = True) -> Iterator[None]:
    """Use fused forms wherever they accept the arrays (True), nowhere (False), or where they pay (None, the default).

    The environment variable ``EMROUTE_FUSED`` decides for a whole process: 0 for nowhere, 1 for wherever possible.

    Examples
    --------
    >>> import numpy as np
    >>> from emroute import kmeans
    >>> x = np.asarray([[0.0], [1.0], [10.0], [11.0]])
    >>> with fused(False):
    ...     float(kmeans.fit(x, 2, rng=0).inertia)
    1.0
    """
    token = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(token)


class Kernel:
    """A function that may have fused forms."""

    def __init__(self, text: Callable[..., Any]) -> None:
        self.text = text
        """The function itself."""
        update_wrapper(self, text)

    def form(self, *args: Any) -> Form | None:
        """Return the form that replaces the function for these arguments, or None."""
        form = self._written(args[0])
        return None if form is None or traced(args[0]) or not _runs(form, args) else form

    def cheap(self, *args: Any) -> bool:
        """Return whether a form replaces the function for these arguments and is the cheapest way to its end."""
        form = self._written(args[0])
        return form is not None and form.cheap(*args) and self.form(*args) is not None

    def _written(self, x: Any) -> Form | None:
        return getattr(get(x), "kernels", {}).get(self.text.__name__)

    def __call__(self, *args: Any) -> Any:
        """Call the form, if there is one, or the function."""
        form = self.form(*args)
        return self.text(*args) if form is None else form.run(self.text, *args)


def kernel(text: Callable[..., Any]) -> Kernel:
    """Let a fused form of the same name replace a function without options whose first argument is an array."""
    return Kernel(text)
