"""NumPy: blocks run on a pool of threads, each with BLAS held to one, because NumPy frees the interpreter lock."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from emroute_backends.portable import (
    Array,
    blocks,
    chunk_size,
    compile,
    detach,
    digamma,
    eigh,
    from_numpy,
    gammaln,
    loop,
    namespace,
    segment_sum,
    to_numpy,
)

__all__ = [
    "chunk_size",
    "compile",
    "detach",
    "digamma",
    "eigh",
    "from_numpy",
    "gammaln",
    "loop",
    "map_blocks",
    "namespace",
    "segment_sum",
    "to_numpy",
]

_inside = threading.local()


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="emroute")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork


def _threads() -> int:
    """As many as BLAS would have used, so that the caller's own limits hold."""
    return max((library.num_threads for library in _blas().lib_controllers), default=1)


def map_blocks(function: Callable[..., Any], arrays: Sequence[Array], size: int, recompute: bool = False) -> Any:
    n = arrays[0].shape[0]
    if n <= size:
        return function(*arrays)
    parts = blocks(arrays, size)
    threads = min(_threads(), len(parts))
    joined: list[Array] = []

    def run(index: int) -> None:
        _inside.worker = True
        store(index, function(*parts[index]))

    def store(index: int, result: tuple[Array, ...]) -> None:
        for field, value in zip(joined, result, strict=True):
            step = value.shape[0] if index < len(parts) - 1 else (field.shape[0] - value.shape[0]) // index
            field[index * step : index * step + value.shape[0]] = value

    first = function(*parts[0])
    length = [n if field.shape[0] == size else len(parts) * field.shape[0] for field in first]
    joined.extend(np.empty((rows, *field.shape[1:]), field.dtype) for rows, field in zip(length, first, strict=True))
    store(0, first)
    if threads == 1 or getattr(_inside, "worker", False):
        for index in range(1, len(parts)):
            store(index, function(*parts[index]))
    else:
        with _blas().limit(limits=1):
            list(_pool(threads).map(run, range(1, len(parts))))
    return tuple(joined)
