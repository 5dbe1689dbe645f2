"""Functions that run once in a fit, before or after the loop.

If the library compiles, each would be a program, for which XLA needs a tenth of a second or more. The host processes a
million numbers in that time.
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

_FEW = 2**20  # largest total size of arrays for which the host is used


def once(backend: Backend, function: Callable[..., Any], *static: Any) -> Callable[..., Any]:
    """Return ``function(*static, ...)``, which runs on the host or compiled if the library compiles.

    It runs on the host if the values are known and few. Its other arguments and its results are nested arrays. In both
    cases, results are arrays of the library on the device.
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
