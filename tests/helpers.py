"""What the tests share: array libraries under one face, data, and the equations written out in plain NumPy."""

import contextlib
import importlib
import inspect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from scipy.special import logsumexp

from emroute.backend import named
from emroute.errors import EmrouteError

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")


@dataclass(frozen=True)
class Library:
    """One array library on one device."""

    name: str
    module: Any
    device: Any = None

    def asarray(self, value, dtype=None):
        """Carry a host array over; `dtype` is a NumPy dtype."""
        return self.module.asarray(np.array(value, dtype=dtype), **self._place())

    def _place(self):
        """Where `asarray` shall put an array; CuPy's takes no device, and there is one."""
        return {} if self.device is None else {"device": self.device}

    def to_numpy(self, x):
        """Carry an array of this library, on this device, to the host."""
        assert self.owns(x), f"expected an array of {self.name}, got {type(x)} on {array_api_compat.device(x)}"
        if self.name == "cupy":
            return x.get()
        return np.asarray(x.detach().cpu() if self.name.startswith("torch") else x)

    def owns(self, x):
        """Whether an array is of this library and device."""
        like = self.module.asarray(0.0, **self._place())
        if self.name == "numpy" and isinstance(x, np.generic):  # what NumPy makes of arrays without dimensions
            return True
        return isinstance(x, type(like)) and array_api_compat.device(x) == array_api_compat.device(like)


def library(name: str) -> Library:
    """Return a library by name; ``-cuda`` at the end asks for its GPU."""
    kind, _, device = name.partition("-")
    if kind == "torch":
        import torch

        return Library(name, torch, torch.device(device or "cpu"))
    if kind == "jax":
        import jax

        return Library(name, jax.numpy, jax.devices(device or "cpu")[0])
    return Library(name, importlib.import_module(kind))


NUMPY = Library("numpy", np)


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """NumPy as a library that compiles: a fit is one function, and whatever is static must be hashable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(named("numpy"), "compile", lambda function: lambda *arguments: function(*arguments))
        yield


def rejected(call: Callable[[], Any], kind: type[EmrouteError], *words: str) -> None:
    """Assert that a call raises `kind` with every one of some words in its message."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert isinstance(caught.value, EmrouteError)
    assert all(word in message for word in words), f"expected {words} in: {message}"


def for_all(examples: int = 10, **strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Like `hypothesis.given`, with many examples on NumPy and two on any other library."""

    def wrap(check):
        drawn = given(**strategies)(check)
        few = settings(max_examples=2, phases=[Phase.generate])(given(**strategies)(check))
        many = settings(max_examples=examples)(drawn)

        def test(**arguments):
            lib = arguments.get("lib") or arguments["eager_lib"]
            (many if lib.name == "numpy" else few)(**arguments)

        test.__signature__ = inspect.signature(drawn)
        test.__name__, test.__doc__, test.__module__ = check.__name__, check.__doc__, check.__module__
        return test

    return wrap


def assert_monotone(trace: Any, weight: float, rounding: float = 64 * np.finfo(np.float64).eps) -> None:
    """Assert that every trace of a batch rises, but for the rounding of sums over rows of a total `weight`."""
    for one in np.reshape(trace, (-1, trace.shape[-1])).astype(np.float64):
        present = one[~np.isnan(one)]
        assert len(present)
        assert np.all(np.isfinite(present))
        assert np.all(np.isnan(one[len(present) :]))
        slack = rounding * (weight + np.max(np.abs(present)))
        fall = np.max(present[:-1] - present[1:], initial=0.0)
        assert fall <= slack, f"the trace falls by {fall}, rounding allows {slack}: {present}"


# Data


def clusters(n: int = 60, d: int = 3, k: int = 3, seed: int = 0, gap: float = 3.0) -> np.ndarray:
    """Rows of `k` overlapping Gaussian clusters, in random order."""
    rng = np.random.default_rng(seed)
    centres = gap * rng.standard_normal((k, d))
    shapes = np.eye(d) + 0.4 * rng.standard_normal((k, d, d))
    labels = np.arange(n) % k
    rows = centres[labels] + (shapes[labels] @ rng.standard_normal((n, d, 1)))[..., 0]
    return rng.permutation(rows)


def given_start(x: np.ndarray, k: int, covariance_type: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, distinct means among the rows, and covariances as wide as the data."""
    d = x.shape[1]
    weights = np.arange(1.0, k + 1) / np.arange(1.0, k + 1).sum()
    means = x[np.linspace(0, len(x) - 1, k).astype(int)]
    variance = x.var(axis=0)
    covariances = {
        "full": np.broadcast_to(np.diag(variance), (k, d, d)),
        "tied": np.diag(variance),
        "diag": np.broadcast_to(variance, (k, d)),
        "spherical": np.full(k, variance.mean()),
    }[covariance_type]
    return weights, means.copy(), covariances.copy()


# The equations, written out: loops over rows and components, float64


def dense(covariances: np.ndarray, covariance_type: str, k: int, d: int) -> np.ndarray:
    """A matrix a component, whatever the covariance type."""
    if covariance_type == "full":
        return covariances
    if covariance_type == "tied":
        return np.stack([covariances] * k)
    if covariance_type == "diag":
        return np.stack([np.diag(row) for row in covariances])
    return np.stack([variance * np.eye(d) for variance in covariances])


def gaussian_log_joint(x: np.ndarray, weights: np.ndarray, means: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """log w_k N(x_n | m_k, S_k), ``(n, k)``."""
    result = np.empty((len(x), len(weights)))
    for n, k in itertools.product(range(len(x)), range(len(weights))):
        gap = x[n] - means[k]
        square = gap @ np.linalg.solve(matrices[k], gap)
        log_det = np.linalg.slogdet(matrices[k])[1]
        result[n, k] = np.log(weights[k]) - 0.5 * (square + log_det + x.shape[1] * np.log(2 * np.pi))
    return result


def gaussian_em(
    x: np.ndarray, start: tuple[np.ndarray, ...], covariance_type: str, n_iter: int, sample_weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[float]]:
    """Bishop's equations 9.23-9.27, a row and a component at a time; no floor."""
    weights, means, covariances = start
    k, d = means.shape
    w = np.ones(len(x)) if sample_weight is None else sample_weight
    trace = []
    for _ in range(n_iter):
        joint = gaussian_log_joint(x, weights, means, dense(covariances, covariance_type, k, d))
        trace.append(float(np.sum(w * logsumexp(joint, axis=1))))
        shares = w[:, None] * np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        counts = shares.sum(axis=0)
        weights = counts / counts.sum()
        means = np.stack([sum(shares[n, j] * x[n] for n in range(len(x))) / counts[j] for j in range(k)])
        scatter = np.zeros((k, d, d))
        for n, j in itertools.product(range(len(x)), range(k)):
            scatter[j] += shares[n, j] * np.outer(x[n] - means[j], x[n] - means[j])
        matrices = scatter / counts[:, None, None]
        covariances = {
            "full": matrices,
            "tied": scatter.sum(axis=0) / counts.sum(),
            "diag": np.stack([np.diag(matrix) for matrix in matrices]),
            "spherical": np.stack([np.trace(matrix) / d for matrix in matrices]),
        }[covariance_type]
    joint = gaussian_log_joint(x, weights, means, dense(covariances, covariance_type, k, d))
    trace.append(float(np.sum(w * logsumexp(joint, axis=1))))
    return weights, means, covariances, trace


def lloyd(x: np.ndarray, centroids: np.ndarray, n_iter: int) -> tuple[np.ndarray, list[float]]:
    """Lloyd's iterations; clusters must not run empty."""
    trace = []
    for _ in range(n_iter):
        square = ((x[:, None] - centroids) ** 2).sum(axis=-1)
        labels = square.argmin(axis=1)
        trace.append(-float(square.min(axis=1).sum()))
        centroids = np.stack([x[labels == k].mean(axis=0) for k in range(len(centroids))])
    trace.append(-float(((x[:, None] - centroids) ** 2).sum(axis=-1).min(axis=1).sum()))
    return centroids, trace
