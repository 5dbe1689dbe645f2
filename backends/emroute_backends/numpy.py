"""NumPy: blocks run on a pool of threads, each with BLAS held to one, because NumPy frees the interpreter lock."""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cache, partial
from operator import attrgetter
from types import ModuleType
from typing import Any

import array_api_compat.numpy
import numpy as np
from threadpoolctl import ThreadpoolController

from emroute_backends.kernels.numba import forms
from emroute_backends.portable import (
    Array,
    blocks,
    chunk_size,
    compile,
    detach,
    digamma,
    gammaln,
    loop,
)
from emroute_backends.portable import eigh as _eigh

__all__ = [
    "chunk_size",
    "compile",
    "detach",
    "digamma",
    "eigh",
    "from_numpy",
    "gammaln",
    "holding_threads",
    "kernels",
    "loop",
    "map_blocks",
    "namespace",
    "segment_sum",
    "threads",
    "to_numpy",
    "tracing",
]

to_numpy = np.asarray
kernels = forms()
tracing = bool  # no compiler ever is

# What NumPy has as the standard says. What array_api_compat and NumPy wrap around it, for arrays of other libraries,
# takes longer than the work on a small array.
_OWN = ("clip", "count_nonzero", "cumulative_sum", "finfo", "full_like", "ones_like", "take_along_axis", "zeros_like")
_REDUCTIONS = {"all": np.logical_and, "any": np.logical_or, "max": np.maximum, "min": np.minimum, "sum": np.add}

_SPACE = ModuleType(np.__name__)
vars(_SPACE).update(vars(array_api_compat.numpy), matrix_transpose=attrgetter("mT"))
vars(_SPACE).update({name: getattr(np, name) for name in _OWN})
vars(_SPACE).update({name: partial(ufunc.reduce, axis=None) for name, ufunc in _REDUCTIONS.items()})

_MATRIX_WORK = 2**17  # the cubes of the sizes of matrices that are decomposed in the time that a thread takes to wake

_inside = threading.local()
_held: ContextVar[int | None] = ContextVar("held", default=None)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="emroute")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork


class _OneBlasThread:
    """Hold BLAS to one thread while any fit is inside: the limit is the process's, fits may run side by side.

    ``with`` gives the number of threads that BLAS would have used, so that the caller's own limits hold.
    """

    def __init__(self) -> None:
        self.lock, self.inside, self.limit, self.threads = threading.Lock(), 0, None, 1

    def __enter__(self) -> int:
        with self.lock:
            if not self.inside:
                self.threads = max((library.num_threads for library in _blas().lib_controllers), default=1)
                self.limit = _blas().limit(limits=1)
            self.inside += 1
            return self.threads

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside and self.limit is not None:
                self.limit.restore_original_limits()


_one_blas_thread = _OneBlasThread()


def namespace(x: Array, /) -> ModuleType:
    return _SPACE


@contextmanager
def holding_threads(threads: int) -> Iterator[None]:
    """Run blocks on as many threads as another library would use, whatever BLAS would."""
    token = _held.set(threads)
    try:
        yield
    finally:
        _held.reset(token)


def threads() -> int:
    """On how many threads blocks run; inside of one, on its own."""
    if getattr(_inside, "worker", False):
        return 1
    with _one_blas_thread as available:
        return _held.get() or available


def map_blocks(function: Callable[..., Any], arrays: Sequence[Array], size: int, recompute: bool = False) -> Any:
    n = arrays[0].shape[0]
    if n <= size:
        return function(*arrays)
    parts = blocks(arrays, size)
    if getattr(_inside, "worker", False) or _held.get() == 1:
        return _gather((function(*part) for part in parts), n, size)

    def work(part: list[Array]) -> tuple[Array, ...]:
        _inside.worker = True  # blocks of this block stay on this thread
        return function(*part)

    with _one_blas_thread as available:
        workers = _held.get() or available
        return _gather(_ahead(_pool(workers), work, parts, 2 * workers), n, size)


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[..., Any], parts: list[list[Array]], most: int
) -> Iterator[tuple[Array, ...]]:
    """Yield results in order; at most so many blocks are ahead of what has been taken, or results would pile up."""
    waiting: deque[Future[tuple[Array, ...]]] = deque()
    for part in parts:
        # numpy.errstate holds in the threads too
        waiting.append(pool.submit(copy_context().run, work, part))
        if len(waiting) == most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _gather(results: Iterable[tuple[Array, ...]], n: int, size: int) -> tuple[Array, ...]:
    """Join results as they come, each field into one array, so that nothing is held twice."""
    joined, steps = [], []
    for index, result in enumerate(results):
        if not joined:
            rows = [n if value.shape[0] == size else -(-n // size) * value.shape[0] for value in result]
            joined = [np.empty((m, *x.shape[1:]), x.dtype) for m, x in zip(rows, result, strict=True)]
            steps = [value.shape[0] for value in result]
        for whole, value, step in zip(joined, result, steps, strict=True):
            whole[index * step : index * step + value.shape[0]] = value
    return tuple(joined)


def eigh(x: Array, /) -> tuple[Array, Array]:
    """On the same threads: those of BLAS wait for each other longer than they work on a small matrix."""
    *batch, d, _ = x.shape
    if math.prod(batch) * d**3 <= _MATRIX_WORK:  # BLAS itself gives such a matrix to one thread
        return _decomposed(x)
    with _one_blas_thread:
        values, vectors = map_blocks(_decomposed, [x.reshape(-1, d, d)], max(1, _MATRIX_WORK // d**3))
    return values.reshape(*batch, d), vectors.reshape(x.shape)


def _decomposed(x: Array) -> tuple[Array, Array]:
    return np.linalg.eigh(x) if np.isfinite(x).all() else _eigh(x)


def from_numpy(value: np.ndarray, like: Array) -> Array:
    floating = value.dtype.kind == "f" and like.dtype.kind == "f"
    return value.astype(like.dtype, copy=False) if floating else value


def segment_sum(values: Array, segments: Array, n_segments: int) -> Array:
    """Counts by `numpy.bincount`, rows by a product with a one-hot matrix: BLAS beats every scatter."""
    *batch, n, d = values.shape
    problems = math.prod(batch)
    segments = segments if segments.shape == (*batch, n) else np.broadcast_to(segments, (*batch, n))
    labels = segments.reshape(problems, n) + np.arange(problems)[:, None] * n_segments
    if d == 1:
        total = np.bincount(labels.ravel(), weights=values.ravel(), minlength=problems * n_segments)
        return total.astype(values.dtype, copy=False).reshape(*batch, n_segments, 1)
    one_hot = np.zeros((problems * n_segments, n), values.dtype)
    one_hot[labels, np.arange(n)] = 1
    return one_hot.reshape(*batch, n_segments, n) @ values
