"""What is fitted: rows in groups, starts that every library takes, and arrays of each library."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


def blobs(n: int, d: int, k: int, spread: float = 3.0, dtype: Any = np.float64) -> np.ndarray:
    """Draw n rows of k groups whose means have standard deviation ``spread`` a feature, the groups 1."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(n, d)) + rng.normal(size=(k, d))[rng.integers(k, size=n)] * spread).astype(dtype)


def start_of(x: np.ndarray, k: int, covariance_type: str) -> tuple[np.ndarray, ...]:
    """Weights, means at the first rows, and the covariance of all rows for each component."""
    cov = np.cov(x.T) if covariance_type == "full" else x.var(axis=0)
    return np.full(k, 1 / k, x.dtype), x[:k].copy(), np.stack([cov] * k).astype(x.dtype)


def library(name: str) -> Callable[[np.ndarray], Any]:
    """Return what turns NumPy arrays into those of a library, or skip."""
    if name == "numpy":
        return np.asarray
    if name == "torch":
        return pytest.importorskip("torch").asarray
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    return jax.numpy.asarray


def title(name: str) -> str:
    """A library's name as it is written."""
    return {"numpy": "NumPy", "torch": "Torch", "jax": "JAX"}[name]


def size(n: int, d: int, k: int) -> str:
    return f"{n:,} × {d:,}, k = {k}"
