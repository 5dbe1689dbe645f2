"""Decisions that depend on values, which are unknown while a compiler is tracing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from emroute.backend import Array, get, namespace
from emroute.capability import Capabilities

__all__ = ["at_hand", "concrete", "either", "on_host", "traced"]


@Capabilities(jit=True)
def traced(x: Array) -> bool:
    """Return whether a tracing compiler would export the operations of checks."""
    return getattr(get(x), "tracing", bool)()


@Capabilities(jit=True)
def concrete(flag: Array) -> bool | None:
    """Return a truth value, or None if a compiler is tracing."""
    if not isinstance(flag, bool) and traced(flag):
        return None
    try:
        return bool(flag)
    except (TypeError, RuntimeError):  # the two errors of jax and torch.func
        return None


def at_hand(flag: Array) -> bool | None:
    """Return a truth value if that is to be had at once: None while tracing, and where a device would be waited for.

    For decisions that only save work: on a device, the work costs less than to wait.

    >>> import numpy as np
    >>> at_hand(np.asarray(True))
    True
    """
    here = getattr(get(flag), "at_hand", None)
    return concrete(flag) if here is None or here(flag) else None


def on_host(x: Array) -> np.ndarray | None:
    """Return an array on the host, or None if a compiler is tracing."""
    try:
        return None if traced(x) else get(x).to_numpy(x)
    except (TypeError, RuntimeError):
        return None


@Capabilities(jit=True, half=True)
def either(flag: Array, yes: Callable[[Array], Any], no: Callable[[Array], Any], x: Array) -> Any:
    """Return ``yes(x)`` if `flag` holds, else ``no(x)``, with the same shapes. `yes` runs only if needed.

    >>> import numpy as np
    >>> either(np.asarray(True), lambda x: (x + 1,), lambda x: (x,), np.zeros(1))
    (array([1.]),)
    """
    known = concrete(flag)
    if known is not None:
        return yes(x) if known else no(x)
    # a loop of at most one turn is the only branch that every library can compile; a compiler would move what does
    # not depend on the loop's state out of it, and so run it always
    zero = namespace(x).zeros_like(x)

    def turn(state: tuple[Array, Any]) -> tuple[Array, Any]:
        return ~state[0], yes(namespace(x).where(state[0], x, zero))

    return get(flag).loop(lambda state: state[0], turn, (flag, no(x)))[1]
