"""Latent class analysis: mixtures of independent categorical items, such as the answers to a questionnaire.

    p(x) = sum_k w_k prod_j p_kj[x_j]        over the items j that are not missing

The M-step counts: p_kj[c] = (sum_n r_nk [x_nj = c] + a) / (sum_n r_nk [x_nj observed] + a C_j), where C_j is the number
of categories of item j and a the smoothing. With two categories per item, this is a mixture of Bernoullis.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import as_real, constant, swap
from emroute.arrays.functions import ratio, safe_log
from emroute.backend import Array, is_array
from emroute.errors import InputError
from emroute.family import Family
from emroute.mixtures.family import products
from emroute.validate import as_parameter, check_width, require

__all__ = ["Categorical"]


class Params(NamedTuple):
    """Parameters of a latent class model."""

    weights: Array
    probs: Array
    """The probabilities of the categories of all items, one after another, ``(..., k, C_1 + C_2 + ...)``."""
    constant: Array
    """Always 0, because the log-likelihood is complete."""


@dataclass(frozen=True)
class Categorical(Family):
    """Independent categorical items over ``x (..., n, items)``."""

    categories: tuple[int, ...]
    """The number of categories of each item."""
    smoothing: float = 0.0
    params = Params
    precise = True
    complaint = "an item holds a category out of its range; expected whole numbers from 0 to C - 1, or -1 for a gap"

    def __post_init__(self) -> None:
        object.__setattr__(self, "categories", tuple(self.categories))  # a saved mixture has a list

    @property
    def ranks(self) -> tuple[int, ...]:
        """The rank of one row of each data array."""
        return (1,)

    @property
    def cells(self) -> np.ndarray:
        """The item and the category of each probability, ``(2, C_1 + C_2 + ...)``."""
        items = np.repeat(np.arange(len(self.categories)), self.categories)
        return np.stack([items, np.concatenate([np.arange(c) for c in self.categories])])

    def items(self, probs: Any) -> list[Any]:
        """Split probabilities by item, ``(..., k, C_j)`` each."""
        return [probs[..., a:b] for a, b in pairwise(np.cumsum([0, *self.categories]).tolist())]

    def indicators(self, params: Params, data: Array) -> Array:
        """Return whether each item has each of its categories, ``(..., n, C_1 + C_2 + ...)``; 0 if it is missing."""
        xp, x = backends.namespace(data), as_real(data, params.weights)
        items, categories = self.cells
        own = xp.take(x, backends.get(x).from_numpy(items, x), axis=-1)
        return as_real(own == constant(categories, like=x), x)

    def sufficient_statistics(self, params: Params, data: Array) -> Array:
        """(1, indicators)."""
        x = swap(self.indicators(params, data))
        xp = backends.namespace(x)
        return xp.concat([xp.ones_like(x[..., :1, :]), x], axis=-2)

    def natural_parameters(self, params: Params) -> Array:
        """(0, log p)."""
        log_probs = safe_log(params.probs)
        return backends.namespace(log_probs).concat([0 * params.weights[..., None], log_probs], axis=-1)

    def deviance(self, params: Params, data: Array) -> Array:
        """Return −log p(x | k) in one form, which differentiates where no value is known."""
        return -products(self.natural_parameters(params), self.sufficient_statistics(params, data))

    def from_sums(self, sums: Array, params: Params) -> Params:
        """Return the share of each category among the rows that have the item."""
        xp, a = backends.namespace(sums), self.smoothing
        shares = [
            ratio(counts + a, xp.sum(counts + a, axis=-1, keepdims=True), own)
            for counts, own in zip(self.items(sums[..., 1:]), self.items(params.probs), strict=True)
        ]
        return params._replace(probs=xp.concat(shares, axis=-1))

    @property
    def has_prior(self) -> bool:
        """Whether probabilities are smoothed."""
        return self.smoothing > 0

    def log_prior(self, params: Params) -> Array | float:
        """Dirichlet priors, of which the smoothed probabilities are the mode: a sum log p."""
        if not self.has_prior:
            return 0.0
        return self.smoothing * backends.namespace(params.probs).sum(safe_log(params.probs), axis=(-2, -1))

    def log_base_measure(self, params: Params, data: Array) -> Array:
        """0."""
        x = as_real(data, params.weights)
        return backends.namespace(x).zeros_like(x[..., 0])

    def start_coordinates(self, params: Params, data: Array) -> Array:
        """Return indicators, or equal shares for a missing item."""
        xp, x = backends.namespace(data), as_real(data, params.weights)
        items, _ = self.cells
        seen = xp.take(_seen(x), backends.get(x).from_numpy(items, x), axis=-1)
        return xp.where(seen, self.indicators(params, data), constant(self.neutral(), like=x))

    def neutral(self, *arrays: Array) -> np.ndarray:
        """Equal shares."""
        return np.concatenate([np.full(c, 1 / c) for c in self.categories])

    def checked(self, value: Any, like: Array, shape: tuple[int, ...]) -> Array:
        """Return the probabilities of each item, which sum to one; one array for items of equal size."""
        k, _ = shape
        if is_array(value):
            tail = (k, len(self.categories), max(self.categories))
            whole = as_parameter("probs", value, like, tail)
            value = [whole[..., j, :c] for j, c in enumerate(self.categories)]
        if len(value) != len(self.categories):
            raise InputError(f"probs has {len(value)} items, expected {len(self.categories)}")
        xp, checked = backends.namespace(like), []
        for j, (probs, c) in enumerate(zip(value, self.categories, strict=True)):
            own = as_parameter(f"probs[{j}]", probs, like, (k, c))
            total = xp.sum(own, axis=-1, keepdims=True)
            low = own > 0 if self.smoothing else own >= 0
            require(
                xp.all(low), lambda j=j: f"probs[{j}] must {'be positive' if self.smoothing else 'not be negative'}"
            )
            require(xp.all(xp.abs(total - 1) < 1e-4), lambda j=j: f"each row of probs[{j}] must sum to 1")
            checked.append(own / total)
        return xp.concat(checked, axis=-1)

    def is_valid(self, *arrays: Array) -> Array:
        """Return whether each item is one of its categories or a gap."""
        (x,) = arrays
        x = as_real(x, backends.get(x).from_numpy(np.zeros(()), x))
        xp, count = backends.namespace(x), constant(self.categories, like=x)
        return xp.all(~_seen(x) | ((xp.floor(x) == x) & (x >= 0) & (x < count)), axis=-1)

    def check(self, params: Params, *arrays: Array) -> None:
        """Check that rows have as many items as the classes."""
        check_width(arrays[0], len(self.categories))

    def n_parameters(self, params: Params) -> int:
        """C_j − 1 per item and class."""
        return params.weights.shape[-1] * (sum(self.categories) - len(self.categories))

    def draw(self, rng: np.random.Generator, params: Params, labels: np.ndarray, *extra: Any) -> np.ndarray:
        """Draw categories of the labelled classes, on the host."""
        drawn = []
        for probs in self.items(params.probs.astype(np.float64)):
            own = np.take_along_axis(np.cumsum(probs, axis=-1), labels[..., None], axis=-2)
            below = rng.random((*labels.shape, 1)) * own[..., -1:] >= own[..., :-1]
            drawn.append(below.sum(axis=-1))
        return np.stack(drawn, axis=-1)


def _seen(x: Array) -> Array:
    """Return whether each item is present; a gap is −1 or NaN."""
    return (x == x) & (x != -1)
