"""What a family of distributions must define. `emroute.family` exports it, with the model for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from emroute import backend as backends
from emroute._engine.problems import align
from emroute.arrays.creation import constant, full
from emroute.backend import Array, compiled
from emroute.capability import Capabilities
from emroute.validate import mixing_weights

__all__ = ["Family", "is_count"]


@dataclass(frozen=True)
class Family(ABC):
    """An exponential family with one parameter besides the mixing weights, such as rates.

    `params` is a NamedTuple of three arrays: `weights` ``(..., k)``, the parameter ``(..., k, ...)``, and `constant`
    ``(...,)``, the weighted sum of h(x) over the data, which `emroute.fitting.fit_counts` sets and an objective adds.
    """

    params: ClassVar[Any]
    """The NamedTuple class of the parameters."""
    complaint: ClassVar[str]
    """The error message for invalid rows; ``: first in row N`` is appended."""

    precise: ClassVar[bool] = False
    """Whether the family has deviances, which keep their digits if counts are large."""

    closes: ClassVar[bool] = True
    """Whether natural parameters may be −inf, which forbids rows in which that statistic is positive."""

    starts_at_points: ClassVar[bool] = False
    """Whether a start given without weights is of points, to which rows are assigned, and not of parameters."""

    @property
    def has_prior(self) -> bool:
        """Whether `log_prior` is not 0. Weights then count rows, and are not rescaled."""
        return False

    def log_prior(self, params: Any) -> Array | float:
        """What the objective adds to the log-likelihood, ``(...,)``; 0 for maximum likelihood."""
        return 0.0

    @property
    def parameter(self) -> str:
        """The name of the parameter."""
        return self.params._fields[1]

    @property
    @abstractmethod
    def ranks(self) -> tuple[int, ...]:
        """The rank of one row of each data array."""

    @abstractmethod
    def sufficient_statistics(self, params: Any, data: Any) -> Array:
        """Return T(x), ``(..., f, n)``, in the dtype of `params`. The first row is ones."""

    @abstractmethod
    def natural_parameters(self, params: Any) -> Array:
        """Return eta, ``(..., k, f)``; −inf if a positive statistic is impossible."""

    @abstractmethod
    def from_sums(self, sums: Array, params: Any) -> Any:
        """M-step: return parameters from S, ``(..., k, f)``; a component without weight keeps its own."""

    @abstractmethod
    def log_base_measure(self, params: Any, data: Any) -> Array:
        """h(x), ``(..., n)``."""

    def size(self, params: Any, data: Any) -> Array:
        """Return the total count of each row, ``(..., n)``. If it is large, sums of products lose digits."""
        return 0 * self.log_base_measure(params, data)

    def deviance(self, params: Any, data: Any) -> Array:
        """Return `peak` minus log p(x | k), ``(..., k, n)``; `precise` families have a form without cancellation."""
        xp = backends.namespace(params.weights)
        return -xp.matmul(self.natural_parameters(params), self.sufficient_statistics(params, data))

    def peak(self, params: Any, data: Any) -> Array:
        """Return the log-probability of each row under its own parameters, ``(..., n)``."""
        return self.log_base_measure(params, data)

    @abstractmethod
    def start_coordinates(self, params: Any, data: Any) -> Array:
        """Return the coordinates ``(..., n, p)`` in which starts are drawn."""

    @abstractmethod
    def neutral(self, *arrays: Array) -> np.ndarray:
        """Return the parameter of a component without data, on the host. The data determine its shape."""

    def from_neutral(self, like: Array, batch: tuple[int, ...], k: int, *arrays: Array) -> Any:
        """Return parameters of `k` equal components, for data arrays like these."""
        value = self.neutral(*arrays)
        wide = np.broadcast_to(value, (*batch, k, *value.shape))
        return self.params(full((*batch, k), 1 / k, like=like), constant(wide, like=like), full(batch, 0, like=like))

    def from_init(self, init: tuple[Any, Any], params: Any) -> Any:
        """Return parameters with the weights and the parameter that a user gave, in all batch dimensions.

        Parameters
        ----------
        init
            The weights and the parameter; None for those of `params`.
        params
            Parameters with the batch dimensions of the data.
        """
        (weights, value), k = init, params.weights.shape[-1]
        event = tuple(params[1].shape[params.weights.ndim :])
        weights = params.weights if weights is None else mixing_weights(weights, params.weights, k)
        value = params[1] if value is None else self.checked(value, params[1], (k, *event))
        own = (weights, 1), (value, 1 + len(event))
        (weights, value), constant = align(tuple(params.constant.shape), own, params.constant)
        return self.params(weights, value, constant)

    @abstractmethod
    def checked(self, value: Any, like: Array, shape: tuple[int, ...]) -> Array:
        """Return the parameter as an array ``(..., *shape)``, or raise `InputError` if it is invalid."""

    @abstractmethod
    def is_valid(self, *arrays: Array) -> Array:
        """Return whether each row is valid, ``(..., n)``."""

    @abstractmethod
    def check(self, params: Any, *arrays: Array) -> None:
        """Raise `InputError` if the data have another width than the parameters."""

    @abstractmethod
    def n_parameters(self, params: Any) -> int:
        """Return the number of free parameters of all components, without the mixing weights."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, params: Any, labels: np.ndarray, *extra: Any) -> np.ndarray:
        """Draw observations of the labelled components, on the host. `extra` holds further arguments of `sample`."""


def open_part(eta: Array) -> Array:
    """Return natural parameters with 0 for −inf."""
    xp = backends.namespace(eta)
    return xp.where(eta == -xp.inf, xp.zeros_like(eta), eta)


def products(eta: Array, statistics: Array) -> Array:
    """eta . T(x), ``(..., k, n)``: −inf where a statistic is positive whose natural parameter is −inf."""
    xp = backends.namespace(eta)
    closed, positive = (xp.astype(flag, eta.dtype) for flag in (eta == -xp.inf, statistics > 0))
    return xp.where(xp.matmul(closed, positive) > 0, -xp.inf, xp.matmul(open_part(eta), statistics))


@Capabilities(jit=True, batch=True, integers=True, half=True)
def is_count(x: Array) -> Array:
    """Return whether each entry is a non-negative whole number."""
    return compiled(backends.get(x), _is_count)(x)


def _is_count(x: Array) -> Array:
    xp = backends.namespace(x)
    if xp.isdtype(x.dtype, "unsigned integer"):
        return xp.ones_like(x, dtype=xp.bool)
    good = x >= 0
    return good & xp.isfinite(x) & (xp.floor(x) == x) if xp.isdtype(x.dtype, "real floating") else good
