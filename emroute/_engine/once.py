"""What runs once in a fit, before the loop or after it.

Where a library compiles, that would be a program each, and XLA takes a tenth of a second or more for it, in which the
host has gone through a million numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from emroute.arrays.kernels import fused
from emroute.arrays.tracing import on_host
from emroute.arrays.trees import leaves, map_leaves, rebuild
from emroute.backend import Array, Backend, compiled, compiles, is_array, namespace

__all__ = ["once"]

_FEW = 2**20  # numbers that all arrays may have for the host to take them


def once(backend: Backend, function: Callable[..., Any], *static: Any) -> Callable[..., Any]:
    """Return ``function(*static, ...)``, which where a library compiles runs on the host, or compiled.

    On the host if the values are known and few. Its other arguments, and results, are nests of arrays; results are
    arrays of the library, on the device, whichever way.
    """
    if not compiles(backend):
        return partial(function, *static)

    def run(*trees: Any) -> Any:
        arrays = [x for x in leaves(trees) if is_array(x)]
        known = sum(math.prod(x.shape) for x in arrays) <= _FEW and all(on_host(x) is not None for x in arrays)
        if not known:
            return compiled(backend, function, *static)(*trees)
        host = [on_host(x) if is_array(x) else x for x in leaves(trees)]
        like = next((x for x in arrays if _is_floating(x)), arrays[0])
        with fused(False):  # a form may have to be compiled too
            found = function(*static, *rebuild(trees, host))
        return map_leaves(lambda x: backend.from_numpy(np.asarray(x), like), found)

    return run


def _is_floating(x: Array) -> bool:
    return namespace(x).isdtype(x.dtype, "real floating")
