"""Operations, each against plain NumPy: what a backend brings, and what is made of the standard's functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from emroute import array
from emroute import backend as backends
from emroute.backend import Array
from emroute.testing.cases.case import Case, normal, positive

__all__ = ["OPERATIONS"]


def _of_backend(x: Array) -> Any:
    """Return the backend and the namespace of an array."""
    backend = backends.get(x)
    return backend, backend.namespace(x)


def _standard(x: Array) -> tuple[Array, ...]:
    """Functions of the standard on which everything rests."""
    _, xp = _of_backend(x)
    return (
        xp.matmul(xp.matrix_transpose(x), x),
        xp.cumulative_sum(xp.sum(x, axis=0)),
        xp.argmax(x, axis=-1),
        xp.take_along_axis(x, xp.argsort(x, axis=-1), axis=-1),
        xp.where(x > 0, xp.exp(-x), xp.log1p(x * x)),
        xp.linalg.solve(xp.matmul(xp.matrix_transpose(x), x), x[0, :]),
    )


def _standard_numpy(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """The same as `_standard`, from NumPy's own names."""
    return (
        x.T @ x,
        np.cumsum(x.sum(axis=0)),
        x.argmax(axis=-1),
        np.sort(x, axis=-1),
        np.where(x > 0, np.exp(-x), np.log1p(x * x)),
        np.linalg.solve(x.T @ x, x[0]),
    )


def _twice_a_turn(x: Array) -> Array:
    """Five turns of a loop."""
    backend, xp = _of_backend(x)
    start = xp.zeros_like(x[0], dtype=xp.int32), x
    return backend.loop(lambda state: state[0] < 5, lambda state: (state[0] + 1, state[1] * 2), start)[1]


def _sum_of_squares(m: Array, x: Array) -> Array:
    """What JAX 0.10.2 compiles wrongly for the CPU (jax#39103)."""
    backend, xp = _of_backend(x)
    return backend.compile(lambda m, x: xp.sum(xp.matmul(m, xp.matrix_transpose(x)) ** 2, axis=0))(m, x)


def _eigen(x: Array) -> tuple[Array, ...]:
    """Eigenvalues, and what does not depend on the signs of the vectors."""
    backend, xp = _of_backend(x)
    values, vectors = backend.eigh(x)
    turned = xp.matrix_transpose(vectors)
    return values, xp.matmul(vectors * values[..., None, :], turned), xp.matmul(turned, vectors)


def _symmetric(rng: np.random.Generator) -> tuple[np.ndarray]:
    """Three matrices, the second not finite."""
    x = rng.standard_normal((3, 4, 4))
    x = x + x.swapaxes(-1, -2)
    x[1, 2, 2] = np.nan
    return (x,)


def _eigen_numpy(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """The same as `_eigen`."""
    values = np.stack([np.full(4, np.nan) if np.isnan(m).any() else np.linalg.eigvalsh(m) for m in x])
    failed = np.isnan(values)[..., None]
    return values, np.where(failed, np.nan, x), np.where(failed, np.nan, np.eye(4))


def _half_integers(rng: np.random.Generator) -> tuple[np.ndarray]:
    """Where the gamma function has a closed form, in random order."""
    return (rng.permutation(np.arange(1, 60) / 2),)


@np.vectorize
def _digamma_numpy(x: float) -> float:
    """Harmonic numbers."""
    terms = [1 / k for k in range(1, int(x))] if x % 1 == 0 else [1 / (k - 0.5) for k in range(1, int(x + 0.5))]
    return math.fsum(terms) - float(np.euler_gamma) - (0 if x % 1 == 0 else 2 * math.log(2))


def _labelled(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two problems, and the segments they belong to; one segment stays empty."""
    return rng.standard_normal((2, 9, 3)), rng.permuted(np.arange(18).reshape(2, 9) % 4, axis=-1)


def _segment_sum_numpy(values: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Row by row."""
    total = np.zeros((2, 5, 3))
    for place in np.ndindex(2, 9):
        total[place[0], segments[place]] += values[place]
    return total


def _there_and_back(x: Array, index: Array) -> tuple[Array, Array]:
    """To the host and to the device again, floating numbers and integers."""
    backend, _ = _of_backend(x)
    return backend.from_numpy(2 * backend.to_numpy(x), x), backend.from_numpy(backend.to_numpy(index) + 1, x)


def _in_blocks(x: Array, y: Array, recompute: bool = False) -> tuple[Array, Array]:
    """Blocks of three rows, the last one shorter, of which each gives rows and a sum."""
    backend, xp = _of_backend(x)
    return backend.map_blocks(lambda a, b: (a * b + a, xp.sum(a, axis=0, keepdims=True)), [x, y], 3, recompute)


def _in_blocks_numpy(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same as `_in_blocks`."""
    return x * y + x, np.stack([x[start : start + 3].sum(axis=0) for start in range(0, len(x), 3)])


def _scores(rng: np.random.Generator) -> tuple[np.ndarray]:
    """Rows of logarithms of any size, some infinite."""
    x = rng.standard_normal((5, 4)) + np.asarray([0, 1e3, -1e3, 50, 0])[:, None]
    x[3, 1], x[4, 2] = -np.inf, np.inf
    return (x,)


def _large_scores(rng: np.random.Generator) -> tuple[np.ndarray]:
    """The finite ones of `_scores`, whose exponentials overflow."""
    return (_scores(rng)[0][:3],)


def _small_scores(rng: np.random.Generator) -> tuple[np.ndarray]:
    """Those among which central differences can be taken."""
    return (rng.standard_normal((3, 4)) + np.asarray([0, 10, -10])[:, None],)


def _large(rng: np.random.Generator) -> tuple[np.ndarray]:
    """Numbers whose squares float32 does not hold."""
    return (1e25 * rng.uniform(1, 2, (3, 2)),)


def _logsumexp_numpy(x: np.ndarray) -> np.ndarray:
    """Pairwise `logaddexp`."""
    return np.logaddexp.reduce(x, axis=-1)


def _softmax_numpy(x: np.ndarray) -> np.ndarray:
    """Exponentials of what is left of the largest."""
    share = np.exp(x - x.max(axis=-1, keepdims=True))
    return share / share.sum(axis=-1, keepdims=True)


def _normalize_numpy(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _softmax_numpy(x), _logsumexp_numpy(x)[..., None]


def _log_sigmoid_numpy(x: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0, -x)


def _vectors(rng: np.random.Generator) -> tuple[np.ndarray]:
    """Vectors of any length, one of them 0."""
    return (rng.standard_normal((4, 3)) * np.asarray([1, 0, 1e-3, 1e3])[:, None],)


def _either(x: Array) -> tuple[Array, Array]:
    """Both branches, which may not be known before the program runs."""
    xp = _of_backend(x)[1]
    signs = xp.any(x > 0), xp.any(x != x)
    return tuple(array.either(sign, lambda x: (2 * x,), lambda x: (-x,), x)[0] for sign in signs)  # type: ignore[return-value]


def _trees(x: Array, y: Array) -> Any:
    """A nest taken apart and put together again."""
    tree = x, (y, None)
    return array.rebuild(tree, array.leaves(array.map_leaves(lambda a, b: a + b, tree, tree)))


def _made(x: Array) -> tuple[Array, ...]:
    """Arrays made beside another."""
    table = array.constant([[1.5, 2.0]], like=x)
    return table, array.full((2, 3), 0.1, like=x)


def _made_numpy(x: np.ndarray) -> tuple[np.ndarray, ...]:
    return np.asarray([[1.5, 2.0]]), np.full((2, 3), 0.1)


def _indices(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(0, 5, (2, 7)), np.zeros(1)


def _one_hot_numpy(index: np.ndarray, x: np.ndarray) -> np.ndarray:
    return (np.arange(5)[:, None] == index[:, None, :]).astype(float)


def _set_at_numpy(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack([x[0], y, x[2]])


OPERATIONS = (
    Case("Backend.namespace", _standard, normal((5, 3)), _standard_numpy),
    Case("Backend.from_numpy", _there_and_back, _labelled, lambda x, index: (2 * x, index + 1)),
    Case("Backend.to_numpy", _there_and_back, _labelled, lambda x, index: (2 * x, index + 1)),
    Case("Backend.loop", _twice_a_turn, normal((3,)), lambda x: 32 * x),
    Case("Backend.compile", _sum_of_squares, normal((3, 3), (40_000, 3)), lambda m, x: ((m @ x.T) ** 2).sum(axis=0)),
    Case("Backend.eigh", _eigen, _symmetric, _eigen_numpy),
    Case("Backend.gammaln", lambda x: backends.get(x).gammaln(x), _half_integers, np.vectorize(math.lgamma)),
    Case("Backend.digamma", lambda x: backends.get(x).digamma(x), _half_integers, _digamma_numpy),
    Case(
        "Backend.segment_sum",
        lambda x, s: backends.get(x).segment_sum(x, s, 2),
        lambda rng: (np.full((2_000_000, 1), 777.7), np.zeros(2_000_000, dtype=np.int64)),
        lambda x, s: np.asarray([[x.sum()], [0.0]]),
        smooth=False,
        variant="two million rows",
    ),
    Case("Backend.segment_sum", lambda x, s: backends.get(x).segment_sum(x, s, 5), _labelled, _segment_sum_numpy),
    Case("Backend.detach", lambda x: backends.get(x).detach(x), normal((3,)), lambda x: x),
    Case("Backend.chunk_size", lambda x: backends.get(x).chunk_size(8) >= 1, normal((1,)), lambda x: True),
    Case("Backend.map_blocks", _in_blocks, normal((8, 2), (8, 2)), _in_blocks_numpy),
    Case(
        "Backend.map_blocks",
        lambda x, y: _in_blocks(x, y, recompute=True),
        normal((8, 2), (8, 2)),
        _in_blocks_numpy,
        variant="computed again",
    ),
    Case("array.constant", _made, normal((1,)), _made_numpy),
    Case("array.full", _made, normal((1,)), _made_numpy),
    Case("array.broadcast", lambda x: array.broadcast(x, (3, 2)), normal((1, 2)), lambda x: np.repeat(x, 3, axis=0)),
    Case("array.swap", array.swap, normal((2, 3)), lambda x: x.swapaxes(-1, -2)),
    Case("array.leaves", _trees, normal((2,), (3,)), lambda x, y: (2 * x, (2 * y, None))),
    Case("array.map_leaves", _trees, normal((2,), (3,)), lambda x, y: (2 * x, (2 * y, None))),
    Case("array.rebuild", _trees, normal((2,), (3,)), lambda x, y: (2 * x, (2 * y, None))),
    Case("array.concrete", lambda x: array.concrete(_of_backend(x)[1].all(x == x)), normal((3,)), lambda x: True),
    Case("array.either", _either, positive((3,)), lambda x: (2 * x, -x)),
    Case("array.logsumexp", lambda x: array.logsumexp(x), _scores, _logsumexp_numpy, smooth=False),
    Case("array.logsumexp", lambda x: array.logsumexp(x), _small_scores, _logsumexp_numpy, variant="small"),
    Case("array.normalize", lambda x: array.normalize(x, axis=-1), _large_scores, _normalize_numpy, smooth=False),
    Case("array.normalize", lambda x: array.normalize(x, axis=-1), _small_scores, _normalize_numpy, variant="small"),
    Case("array.softmax", lambda x: array.softmax(x), _large_scores, _softmax_numpy, smooth=False),
    Case("array.softmax", lambda x: array.softmax(x), _small_scores, _softmax_numpy, variant="small"),
    Case("array.log_sigmoid", lambda x: array.log_sigmoid(x), _small_scores, _log_sigmoid_numpy),
    Case("array.log_softmax", lambda x: array.log_softmax(x), _small_scores, lambda x: np.log(_softmax_numpy(x))),
    Case("array.divide", lambda x: array.divide(1e25, x), _large, lambda x: 1e25 / x, smooth=False, variant="large"),
    Case("array.divide", lambda x: array.divide(1.0, x), positive((3, 2)), lambda x: 1 / x),
    Case("array.traced", lambda x: array.traced(x), normal((3,)), lambda x: False),
    Case("array.safe_log", lambda x: array.safe_log(x), positive((4,)), np.log),
    Case(
        "array.safe_log",
        lambda x: array.safe_log(x),
        lambda rng: (np.asarray([0.0, 1.0]),),
        lambda x: np.asarray([-np.inf, 0.0]),
        smooth=False,
        variant="of 0",
    ),
    Case("array.safe_norm", lambda x: array.safe_norm(x), _vectors, lambda x: np.linalg.norm(x, axis=-1), smooth=False),
    Case("array.safe_norm", array.safe_norm, normal((4, 3)), lambda x: np.linalg.norm(x, axis=-1), variant="small"),
    Case("array.one_hot", lambda i, x: array.one_hot(i, 5, like=x), _indices, _one_hot_numpy),
    Case("array.set_at", lambda x, y: array.set_at(x, 1, y), normal((3, 2), (2,)), _set_at_numpy),
)
"""In an order in which what is broken comes before what rests on it."""
