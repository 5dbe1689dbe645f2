"""Fused forms of functions: a function of arrays is its text, and a library's backend may bring a faster form of it.

The text is the definition. It writes each intermediate array to memory; a fused form keeps them in registers. The form
runs where it takes the arrays and the work is worth it, the text everywhere else.
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
"""None: where it pays."""


class Form(Protocol):
    """A fused form of a function: it is called with the same arguments, and its results are the function's."""

    def takes(self, *args: Any) -> bool:
        """Whether it can work on these arguments: their dtype, device, layout, and whether gradients are wanted."""
        ...

    def pays(self, *args: Any) -> bool:
        """Whether there is enough to do."""
        ...

    def run(self, text: Callable[..., Any], *args: Any) -> Any:
        """Do what the function does; what the form cannot, such as a second derivative, is left to the text."""
        ...


def _runs(form: Form, args: tuple[Any, ...]) -> bool:
    wanted = _wanted.get()
    return wanted is not False and form.takes(*args) and (wanted or form.pays(*args))


@contextmanager
def fused(wanted: bool | None = True) -> Iterator[None]:
    """Use fused forms wherever they take the arrays, or nowhere; None, as ever: where they pay.

    The environment variable ``EMROUTE_FUSED`` says so for a whole process: 0 is nowhere, 1 wherever they take the
    arrays.

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
    """A function that may have forms."""

    def __init__(self, text: Callable[..., Any]) -> None:
        self.text = text
        """The function itself."""
        update_wrapper(self, text)

    def form(self, *args: Any) -> Form | None:
        """Return the form that stands in for the function with these arguments, or None."""
        form = getattr(get(args[0]), "kernels", {}).get(self.text.__name__)
        return None if form is None or traced(args[0]) or not _runs(form, args) else form

    def __call__(self, *args: Any) -> Any:
        """Do what the function does, in the form that there is."""
        form = self.form(*args)
        return self.text(*args) if form is None else form.run(self.text, *args)


def kernel(text: Callable[..., Any]) -> Kernel:
    """Let the form of its name stand in for a function whose first argument is an array, and which has no options."""
    return Kernel(text)
