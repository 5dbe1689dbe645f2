"""What the mixtures of all families share: the E-step, the start, and the fitted mixture.

A family is exponential: log p(x | component k) = eta_k . T(x) + h(x), the first entry of T being 1. Then

    E-step    r_nk = softmax_k(log w_k + eta_k . T(x_n))          one matrix product and one logsumexp
              S_k  = sum_n r_nk T(x_n)                            one matrix product; statistics add
    M-step    w_k  = S_k0 / sum_k S_k0,    eta_k from S_k / S_k0

A weight of 0 and a coefficient of -inf mean what they say: log 0 = -inf, and 0 log 0 = 0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from emroute import backend as backends
from emroute._engine.problems import align
from emroute.array import (
    concrete,
    constant,
    divide,
    either,
    eps,
    full,
    itemsize,
    normalize,
    one_hot,
    safe_log,
    swap,
    tiny,
)
from emroute.backend import Array, compiled
from emroute.capability import Capabilities
from emroute.distance import distances, nearest
from emroute.validate import check_floating, check_rows, mixing_weights

__all__ = [
    "Family",
    "FamilyModel",
    "Nearest",
    "Statistics",
    "as_integers",
    "as_real",
    "distances",
    "is_count",
    "nearest",
    "posterior",
    "ratio",
    "share",
]


_LOST = {4: 1e-3, 8: 1e-10}  # of float32 and float64: what sums of products may err by
_POOLED = 0.05  # share of all rows' estimate in each component's start


class Statistics(NamedTuple):
    """What an E-step leaves behind."""

    sums: tuple[Array, ...]
    """Sums of the features over the rows, weighted by responsibilities, for each component."""
    log_likelihood: Array
    """``(...,)``."""


@dataclass(frozen=True)
class Family(ABC):
    """An exponential family of one parameter beside the mixing weights, such as rates.

    `params` is a NamedTuple of three arrays: `weights` ``(..., k)``, the parameter ``(..., k, ...)``, and `constant`
    ``(...,)``, the weighted sum of h(x) over the data, which `emroute.fitting.fit_counts` sets and an objective adds.
    """

    params: ClassVar[Any]
    """NamedTuple class of the parameters."""
    complaint: ClassVar[str]
    """Error message for invalid rows; ``: first in row N`` is appended."""

    precise: ClassVar[bool] = False
    """Whether the family has deviances, which keep their digits where rows count much."""

    @property
    def parameter(self) -> str:
        """The parameter's name."""
        return self.params._fields[1]

    @property
    @abstractmethod
    def ranks(self) -> tuple[int, ...]:
        """The rank of one row of each data array."""

    @abstractmethod
    def sufficient_statistics(self, params: Any, data: Any) -> Array:
        """T(x), ``(..., f, n)``, in the dtype of `params`; the first row is ones."""

    @abstractmethod
    def natural_parameters(self, params: Any) -> Array:
        """Return eta, ``(..., k, f)``; −inf, where a positive statistic is impossible."""

    @abstractmethod
    def from_sums(self, sums: Array, params: Any) -> Any:
        """M-step: maximum-likelihood parameters from S, ``(..., k, f)``; a component without weight keeps its own."""

    @abstractmethod
    def log_base_measure(self, params: Any, data: Any) -> Array:
        """h(x), ``(..., n)``."""

    def size(self, params: Any, data: Any) -> Array:
        """What a row counts, ``(..., n)``: where that is large, sums of products lose digits."""
        return 0 * self.log_base_measure(params, data)

    def deviance(self, params: Any, data: Any) -> Array:
        """Return `peak` less log p(x | k), ``(..., k, n)``; `precise` families have a form that does not cancel."""
        xp = backends.namespace(params.weights)
        return -xp.matmul(self.natural_parameters(params), self.sufficient_statistics(params, data))

    def peak(self, params: Any, data: Any) -> Array:
        """Return the log-probability of each row under parameters of its own, ``(..., n)``."""
        return self.log_base_measure(params, data)

    @abstractmethod
    def start_coordinates(self, params: Any, data: Any) -> Array:
        """Coordinates ``(..., n, p)`` in which starts are drawn."""

    @abstractmethod
    def neutral(self, *arrays: Array) -> np.ndarray:
        """Return the parameter of a component without data, on the host; the data's arrays tell its shape."""

    def from_neutral(self, like: Array, batch: tuple[int, ...], k: int, *arrays: Array) -> Any:
        """Return parameters of `k` equal components, for data arrays like these."""
        value = self.neutral(*arrays)
        wide = np.broadcast_to(value, (*batch, k, *value.shape))
        return self.params(full((*batch, k), 1 / k, like=like), constant(wide, like=like), full(batch, 0, like=like))

    def from_init(self, init: tuple[Any, Any], params: Any) -> Any:
        """Return parameters with the weights and the parameter that a user gives, in all their batch dimensions.

        Parameters
        ----------
        init
            Weights and the parameter; None for those that `params` have.
        params
            Parameters of the data's batch dimensions.
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
        """Return the parameter as an array ``(..., *shape)``, or raise `InputError` if it cannot be that."""

    @abstractmethod
    def is_valid(self, *arrays: Array) -> Array:
        """Whether each row is possible, ``(..., n)``."""

    @abstractmethod
    def check(self, params: Any, *arrays: Array) -> None:
        """Raise `InputError` for data of another width than the parameters'."""

    @abstractmethod
    def n_parameters(self, params: Any) -> int:
        """Free parameters of all components, the mixing weights not counted."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, params: Any, labels: np.ndarray, *extra: Any) -> np.ndarray:
        """Observations of the labelled components, on the host; `extra` is what `sample` takes beside their number."""


@dataclass(frozen=True)
class FamilyModel:
    """EM of a mixture of one family, for `emroute.em.fit`."""

    family: Family
    fixed_weights: bool = False
    large: bool = False
    """Whether rows count so much that log-probabilities are taken from deviances, not from products."""

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks of one row of each data array."""
        return self.family.ranks

    def bytes_per_row(self, params: Any) -> int:
        """Features and responsibilities."""
        eta = self.family.natural_parameters(params)
        return itemsize(eta) * (eta.shape[-1] + 3 * math.prod(eta.shape[:-1]))

    bytes_per_scored_row = bytes_per_row

    def log_prob_of(self, params: Any, data: Any) -> Array:
        """log p(x | k) without the `constant_of` each row, ``(..., k, n)``."""
        if self.large:
            return -self.family.deviance(params, data)
        xp, eta = backends.namespace(params.weights), self.family.natural_parameters(params)
        statistics = self.family.sufficient_statistics(params, data)
        closed = eta == -xp.inf
        log_prob = xp.matmul(xp.where(closed, xp.zeros_like(eta), eta), statistics)

        def where_closed(x: Array) -> Array:
            impossible = xp.matmul(xp.astype(closed, x.dtype), xp.astype(x > 0, x.dtype)) > 0
            return xp.where(impossible, -xp.inf, log_prob)

        return either(xp.any(closed), where_closed, lambda x: log_prob, statistics)

    def constant_of(self, params: Any, data: Any) -> Array:
        """What all components' log p(x | k) share, ``(..., n)``."""
        return self.family.peak(params, data) if self.large else self.family.log_base_measure(params, data)

    def gather(self, params: Any, data: Any, responsibilities: Array, log_likelihood: Array) -> Statistics:
        """Sums of the features, weighted by responsibilities ``(..., k, n)``."""
        xp = backends.namespace(responsibilities)
        sums = xp.matmul(responsibilities, swap(self.family.sufficient_statistics(params, data)))
        return Statistics((sums,), log_likelihood)

    def expect(self, params: Any, data: Any, sample_weight: Array) -> Statistics:
        """E-step."""
        xp = backends.namespace(sample_weight)
        log_joint = self.log_prob_of(params, data) + safe_log(params.weights)[..., None]
        shares, log_norm = normalize(log_joint, axis=-2, weight=sample_weight[..., None, :])
        counting = xp.where(sample_weight > 0, log_norm[..., 0, :], 0.0)  # 0 times −inf is 0
        return self.gather(params, data, shares, xp.sum(sample_weight * counting, axis=-1))

    def maximize(self, statistics: Statistics, params: Any) -> Any:
        """M-step."""
        (sums,) = statistics.sums
        params = self.family.from_sums(sums, params)
        return params if self.fixed_weights else params._replace(weights=share(sums[..., 0]))

    def begin(self, statistics: Statistics, params: Any) -> Any:
        """M-step of hard assignments, a little towards what all rows ask for: EM cannot leave a probability of 0."""
        (sums,) = statistics.sums
        xp = backends.namespace(sums)
        pooled = share(sums[..., 0])[..., None] * xp.sum(sums, axis=-2, keepdims=True)
        return self.maximize(Statistics(((1 - _POOLED) * sums + _POOLED * pooled,), statistics.log_likelihood), params)

    def objective(self, statistics: Statistics, params: Any) -> Array:
        """Return the total log-likelihood, with every constant."""
        return statistics.log_likelihood + params.constant

    def log_prob(self, params: Any, data: Any) -> Array:
        """log p(x), ``(..., n)``."""
        model = self.suited(params, data)
        return posterior(model.log_prob_of(params, data), params.weights)[1] + model.constant_of(params, data)

    def responsibilities(self, params: Any, data: Any) -> Array:
        """p(k | x), ``(..., n, k)``; the mixing weights, where x is impossible."""
        return swap(posterior(self.suited(params, data).log_prob_of(params, data), params.weights)[0])

    def predict(self, params: Any, data: Any) -> Array:
        """Return the likeliest component, ``(..., n)``."""
        shares, _ = posterior(self.suited(params, data).log_prob_of(params, data), params.weights)
        return backends.namespace(shares).argmax(shares, axis=-2)

    def suited(self, params: Any, data: Any) -> FamilyModel:
        """Return the model in the form that these rows need."""
        return self.sized(self.family.size(params, data)) if self.family.precise else self

    def sized(self, size: Array) -> FamilyModel:
        """Return the model in the form that rows of these sizes need; a compiler that sees none gets that for all."""
        xp = backends.namespace(size)
        small = xp.all(eps(size) * size * xp.log(size + 1) < _LOST[itemsize(size)])
        return replace(self, large=self.family.precise and concrete(small) is not True)

    def describe(self) -> dict[str, Any]:
        """Return what a saved mixture must know beside its arrays."""
        return {"fixed_weights": self.fixed_weights, **asdict(self.family)}  # `large` is of the data

    def check(self, params: Any, source: Any) -> None:
        """Raise `InputError` for data that the family cannot score."""
        self.family.check(params, *source.arrays)
        check_rows(source, self.family.is_valid, self.family.complaint)

    def points(self, params: Any, data: Any) -> Array:
        """Coordinates ``(..., n, p)`` in which starts are drawn."""
        return self.family.start_coordinates(params, data)


@dataclass(frozen=True)
class Nearest:
    """The start of a mixture: each row goes to the nearest of some points; one M-step then gives parameters."""

    model: Any

    def expect(self, params: tuple[Any, Array], data: Any, sample_weight: Array) -> Statistics:
        """Statistics under hard assignments."""
        start, seeds = params
        labels = nearest(self.model.points(start, data), seeds)
        responsibilities = one_hot(labels, seeds.shape[-2], like=seeds) * sample_weight[..., None, :]
        return self.model.gather(start, data, responsibilities, 0 * responsibilities[..., 0, 0])

    def maximize(self, statistics: Statistics, start: Any) -> Any:
        """Parameters from them: by the model's own ``begin`` where it has one, else by its M-step."""
        return getattr(self.model, "begin", self.model.maximize)(statistics, start)

    def bytes_per_row(self, params: tuple[Any, Array]) -> int:
        """As the model itself."""
        return self.model.bytes_per_row(params[0])


@Capabilities(gradients=True, jit=True, batch=True)
def posterior(log_prob: Array, weights: Array) -> tuple[Array, Array]:
    """Return p(k | x), ``(..., k, n)``, and log p(x), ``(..., n)``, of log p(x | k) and weights ``(..., k)``.

    Where no component can give x, p(k | x) are the weights. A weight of 0 has its derivatives, as others have.

    >>> import numpy as np
    >>> shares, log_prob = posterior(np.asarray([[-5000.0], [0.0]]), np.asarray([1.0, 0.0]))
    >>> shares.tolist(), log_prob.tolist()
    ([[1.0], [0.0]], [-5000.0])
    """
    check_floating("log_prob", log_prob)
    xp = backends.namespace(log_prob)
    shares, log_norm = normalize(log_prob + safe_log(weights)[..., None], axis=-2)
    impossible = log_norm == -xp.inf
    none = weights < tiny(weights)
    if concrete(xp.any(none)) is not False:
        # w p(x | k) / p(x) is 0 at w = 0, but has a slope
        extra = weights[..., None] * _odds(log_prob, log_norm, none[..., None] & ~impossible)
        total = xp.sum(extra, axis=-2, keepdims=True)
        shares, log_norm = shares + extra - shares * total, log_norm + total
    return xp.where(impossible, weights[..., None], shares), log_norm[..., 0, :]


def _odds(log_prob: Array, log_norm: Array, where: Array) -> Array:
    """p(x | k) / p(x), a constant, at most the root of the largest number; elsewhere 0."""
    xp = backends.namespace(log_prob)
    where = where & (log_prob > -xp.inf)
    most = math.log(xp.finfo(log_prob.dtype).max) / 2
    gap = xp.clip(xp.where(where, log_prob, 0.0) - xp.where(where, log_norm, 0.0), None, most)
    return backends.get(log_prob).detach(xp.where(where, xp.exp(gap), 0.0))


@Capabilities(gradients=True, jit=True, batch=True, integers=True, half=True)
def as_real(x: Array, like: Array) -> Array:
    """Return counts in the dtype of the parameters."""
    return backends.namespace(x).astype(x, like.dtype, copy=False)


@Capabilities(gradients=True, jit=True, batch=True, integers=True, half=True)
def as_integers(x: Array) -> Array:
    """Return integers in the library's default dtype, in which sums do not wrap around; other numbers as they are."""
    xp, backend = backends.namespace(x), backends.get(x)
    if not xp.isdtype(x.dtype, "integral"):
        return x
    return xp.astype(x, backend.from_numpy(np.zeros((), np.int64), x).dtype, copy=False)


@Capabilities(jit=True, batch=True, integers=True, half=True)
def is_count(x: Array) -> Array:
    """Whether each entry is a whole number that is not negative."""
    return compiled(backends.get(x), _is_count)(x)


def _is_count(x: Array) -> Array:
    xp = backends.namespace(x)
    if xp.isdtype(x.dtype, "unsigned integer"):
        return xp.ones_like(x, dtype=xp.bool)
    good = x >= 0
    return good & xp.isfinite(x) & (xp.floor(x) == x) if xp.isdtype(x.dtype, "real floating") else good


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def ratio(part: Array, whole: Array, otherwise: Array) -> Array:
    """Return `part` over `whole`, and `otherwise` where there is next to nothing to divide by."""
    xp = backends.namespace(part, whole)
    none = whole <= tiny(whole)  # NaN is something
    return xp.where(none, otherwise, divide(part, xp.where(none, xp.ones_like(whole), whole)))


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def share(counts: Array) -> Array:
    """Mixing weights from the weight each component answers for."""
    xp = backends.namespace(counts)
    return ratio(counts, xp.sum(counts, axis=-1, keepdims=True), counts)
