"""Hypothesis strategies for the inputs of emroute, including degenerate ones (``pip install hypothesis``).

Each function returns a strategy for float64 NumPy arrays, which `emroute.testing.assert_equivalent` takes. Shapes are
fixed, so that a library that compiles does so once. Numbers come from a seed that Hypothesis draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from emroute.errors import MissingDependencyError

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

__all__ = ["DEGENERATE", "activations", "poses", "rows", "sample_weights", "votes"]

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def _clusters(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    centres = 3 * rng.standard_normal((*shape[:-2], 3, shape[-1]))
    return centres[..., np.arange(shape[-2]) % 3, :] + rng.standard_normal(shape)


def _constant_feature(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    x = rng.standard_normal(shape)
    x[..., 0] = 0.1  # which no float holds exactly
    return x


def _few_rows(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    x = rng.standard_normal(shape)
    return x[..., np.arange(shape[-2]) % 2, :]


def _outlier(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    x = np.ones(shape)
    x[..., -1, :] = 1e3
    return x


DEGENERATE: dict[str, Draw] = {
    "all alike": lambda rng, shape: np.full(shape, rng.normal()),
    "all 0": lambda rng, shape: np.zeros(shape),
    "two, again and again": _few_rows,
    "one far from the others": _outlier,
    "a constant feature": _constant_feature,
    "far from 0": lambda rng, shape: rng.standard_normal(shape) + 1e4,
    "features of all sizes": lambda rng, shape: rng.standard_normal(shape) * np.geomspace(1e-6, 1e6, shape[-1]),
}
"""Degenerate rows that fits must handle, by name."""


def rows(
    n: int = 24, d: int = 3, *, batch: tuple[int, ...] = (), degenerate: bool = True
) -> SearchStrategy[np.ndarray]:
    """Rows ``(*batch, n, d)`` for mixtures and k-means: clusters, and (unless told not to) one of `DEGENERATE`.

    Raises
    ------
    MissingDependencyError
        If hypothesis is not installed; this holds for every function here.

    Examples
    --------
    >>> from hypothesis import given, settings
    >>> from emroute import kmeans
    >>> @settings(max_examples=5, database=None, derandomize=True)
    ... @given(rows(10, 2))
    ... def inertia_is_finite(x):
    ...     assert np.isfinite(kmeans.fit(x, 2, rng=0).inertia)
    >>> inertia_is_finite()
    """
    return _drawn([_clusters, *(DEGENERATE.values() if degenerate else ())], (*batch, n, d))


def sample_weights(n: int = 24, *, batch: tuple[int, ...] = ()) -> SearchStrategy[np.ndarray]:
    """Weights ``(*batch, n)``: any, integers, many of them 0, or only one row; the last is never 0."""

    def positive(draw: Draw) -> Draw:
        def drawn(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
            weight = draw(rng, shape).astype(np.float64)
            weight[..., -1] += 1
            return weight

        return drawn

    kinds: list[Draw] = [
        lambda rng, shape: rng.uniform(0.1, 3, shape),
        lambda rng, shape: rng.integers(0, 4, shape),
        lambda rng, shape: rng.uniform(0, 1, shape) * (rng.uniform(size=shape) > 0.7),
        lambda rng, shape: np.zeros(shape),
    ]
    return _drawn([positive(kind) for kind in kinds], (*batch, n))


def votes(
    children: int = 5, parents: int = 3, entries: int = 4, *, batch: tuple[int, ...] = (), degenerate: bool = True
) -> SearchStrategy[np.ndarray]:
    """Votes ``(*batch, I, J, H)`` for routing; degenerate ones agree, are 0, or are large."""
    return _drawn(_spread(degenerate), (*batch, children, parents, entries))


def poses(
    children: int = 5, size: int = 4, *, batch: tuple[int, ...] = (), degenerate: bool = True
) -> SearchStrategy[np.ndarray]:
    """Pose matrices ``(*batch, I, P, P)``; degenerate ones are alike, 0, or large."""
    return _drawn(_spread(degenerate), (*batch, children, size, size))


def activations(children: int = 5, *, batch: tuple[int, ...] = ()) -> SearchStrategy[np.ndarray]:
    """Activations ``(*batch, I)`` in [0, 1]: any, all 1, all 0, or a mixture of 0 and 1."""
    kinds: list[Draw] = [
        lambda rng, shape: rng.uniform(0, 1, shape),
        lambda rng, shape: np.ones(shape),
        lambda rng, shape: np.zeros(shape),
        lambda rng, shape: rng.integers(0, 2, shape).astype(np.float64),
    ]
    return _drawn(kinds, (*batch, children))


def _spread(degenerate: bool) -> list[Draw]:
    strange: list[Draw] = [
        lambda rng, shape: np.zeros(shape),
        lambda rng, shape: np.full(shape, rng.normal()),
        lambda rng, shape: 100 * rng.standard_normal(shape),
    ]
    return [lambda rng, shape: rng.standard_normal(shape), *(strange if degenerate else ())]


def _drawn(kinds: list[Draw], shape: tuple[int, ...]) -> SearchStrategy[np.ndarray]:
    """Draw one of some kinds, the first where Hypothesis simplifies, from a seed."""
    st: Any = _hypothesis()
    seeds = st.integers(0, 2**32 - 1)
    return st.builds(lambda kind, seed: kind(np.random.default_rng(seed), shape), st.sampled_from(kinds), seeds)


def _hypothesis() -> Any:
    try:
        from hypothesis import strategies
    except ImportError:
        raise MissingDependencyError("strategies need hypothesis; pip install hypothesis") from None
    return strategies
