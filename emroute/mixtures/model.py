"""What the mixtures of all families share: the E-step, the start, and the fitted mixture.

A family is exponential: log p(x | component k) = eta_k . T(x) + h(x), the first entry of T being 1. Then

    E-step    r_nk = softmax_k(log w_k + eta_k . T(x_n))          one matrix product and one logsumexp
              S_k  = sum_n r_nk T(x_n)                            one matrix product; statistics add
    M-step    w_k  = S_k0 / sum_k S_k0,    eta_k from S_k / S_k0

A weight of 0 and a coefficient of -inf mean what they say: log 0 = -inf, and 0 log 0 = 0.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from emroute import backend as backends
from emroute.arrays.creation import itemsize, one_hot, swap
from emroute.arrays.distances import nearest
from emroute.arrays.functions import eps, safe_log
from emroute.arrays.tracing import concrete, either
from emroute.backend import Array
from emroute.mixtures.family import Family, open_part, products
from emroute.mixtures.posterior import posterior, share, share_rows
from emroute.validate import check_rows

__all__ = ["FamilyModel", "Nearest", "Statistics"]

_LOST = {4: 1e-3, 8: 1e-10}  # of float32 and float64: what sums of products may err by
_POOLED = 0.05  # share of all rows' estimate in each component's start


class Statistics(NamedTuple):
    """The result of an E-step."""

    sums: tuple[Array, ...]
    """Sums of the features over the rows, weighted by responsibilities, for each component."""
    log_likelihood: Array
    """``(...,)``."""


@dataclass(frozen=True)
class FamilyModel:
    """EM of a mixture of one family, for `emroute.em.fit`."""

    family: Family
    fixed_weights: bool = False
    large: bool = False
    """Whether counts are so large that log-probabilities come from deviances, not from products."""

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
        if not self.family.closes:
            return xp.matmul(eta, statistics)
        closed = xp.any(eta == -xp.inf)
        return either(closed, lambda x: products(eta, x), lambda x: xp.matmul(open_part(eta), x), statistics)

    def constant_of(self, params: Any, data: Any) -> Array:
        """Return the part of log p(x | k) that all components share, ``(..., n)``."""
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
        shares, log_norm = share_rows(log_joint, sample_weight)
        counting = xp.where(sample_weight > 0, log_norm, 0.0)  # 0 times −inf is 0
        return self.gather(params, data, shares, xp.sum(sample_weight * counting, axis=-1))

    def maximize(self, statistics: Statistics, params: Any) -> Any:
        """M-step."""
        (sums,) = statistics.sums
        params = self.family.from_sums(sums, params)
        return params if self.fixed_weights else params._replace(weights=share(sums[..., 0]))

    def begin(self, statistics: Statistics, params: Any) -> Any:
        """Do the M-step of hard assignments, moved a little towards all rows: EM cannot leave a probability of 0."""
        (sums,) = statistics.sums
        xp = backends.namespace(sums)
        pooled = share(sums[..., 0])[..., None] * xp.sum(sums, axis=-2, keepdims=True)
        return self.maximize(Statistics(((1 - _POOLED) * sums + _POOLED * pooled,), statistics.log_likelihood), params)

    def objective(self, statistics: Statistics, params: Any) -> Array:
        """Return the total log-likelihood, with every constant, and the log-prior of the family."""
        return statistics.log_likelihood + params.constant + self.family.log_prior(params)

    def log_prob(self, params: Any, data: Any) -> Array:
        """log p(x), ``(..., n)``."""
        model = self.suited(params, data)
        return posterior(model.log_prob_of(params, data), params.weights)[1] + model.constant_of(params, data)

    def responsibilities(self, params: Any, data: Any) -> Array:
        """p(k | x), ``(..., n, k)``; the mixing weights, where x is impossible."""
        return swap(posterior(self.suited(params, data).log_prob_of(params, data), params.weights)[0])

    def predict(self, params: Any, data: Any) -> Array:
        """Return the most probable component, ``(..., n)``."""
        shares, _ = posterior(self.suited(params, data).log_prob_of(params, data), params.weights)
        return backends.namespace(shares).argmax(shares, axis=-2)

    def suited(self, params: Any, data: Any) -> FamilyModel:
        """Return the model in the form that these rows need."""
        return self.sized(self.family.size(params, data)) if self.family.precise else self

    def sized(self, size: Array) -> FamilyModel:
        """Return the model in the form for rows of these sizes, or for all if a compiler does not know them."""
        xp = backends.namespace(size)
        small = xp.all(eps(size) * size * xp.log(size + 1) < _LOST[itemsize(size)])
        return replace(self, large=self.family.precise and concrete(small) is not True)

    def describe(self) -> dict[str, Any]:
        """Return the description that is saved with the arrays of a mixture."""
        return {"fixed_weights": self.fixed_weights, **asdict(self.family)}  # `large` depends on the data

    def check(self, params: Any, source: Any) -> None:
        """Raise `InputError` for data that the family cannot score."""
        self.family.check(params, *source.arrays)
        check_rows(source, self.family.is_valid, self.family.complaint)

    def points(self, params: Any, data: Any) -> Array:
        """Coordinates ``(..., n, p)`` in which starts are drawn."""
        return self.family.start_coordinates(params, data)


@dataclass(frozen=True)
class Nearest:
    """The start of a mixture: each row goes to the nearest of some points, and one M-step gives the parameters."""

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
