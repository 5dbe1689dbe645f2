"""Mixtures of multinomials: rows of counts, such as words in documents.

    p(x) = sum_k w_k (sum_j x_j)! prod_j p_kj^x_j / x_j!

In the M-step, p_k is proportional to sum_n r_nk x_n.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from emroute import backend as backends
from emroute._keywords import knows_others
from emroute.arrays.creation import as_real, swap
from emroute.arrays.functions import ratio
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.counts import Counts
from emroute.em import Fit
from emroute.family import is_count
from emroute.fitting import Options, fit_counts
from emroute.mixture import Mixture
from emroute.validate import as_parameter, as_trials, check_width, require

__all__ = ["MultinomialMixture", "fit"]


class Params(NamedTuple):
    """Parameters of a multinomial mixture."""

    weights: Array
    probs: Array
    constant: Array
    """Sum of the weighted log multinomial coefficients of the data."""


@dataclass(frozen=True)
class Multinomial(Counts):
    """The multinomial family over ``x (..., n, d)``."""

    params = Params
    complaint = "counts must be whole numbers that are not negative"

    @property
    def ranks(self) -> tuple[int, ...]:
        """The rank of one row of each data array."""
        return (1,)

    def cells(self, params: Params, data: Array) -> Array:
        """The counts."""
        return swap(as_real(data, params.weights))

    def means(self, params: Params) -> Array:
        """Probabilities."""
        return params.probs

    def from_sums(self, sums: Array, params: Params) -> Params:
        """The share of each category."""
        xp, counts = backends.namespace(sums), sums[..., 1:]
        return params._replace(probs=ratio(counts, xp.sum(counts, axis=-1, keepdims=True), params.probs))

    def start_coordinates(self, params: Params, data: Array) -> Array:
        """Shares of the categories in each row."""
        xp, x = backends.namespace(data), as_real(data, params.weights)
        return ratio(x, xp.sum(x, axis=-1, keepdims=True), x)

    def neutral(self, *arrays: Array) -> np.ndarray:
        """Equal shares."""
        d = arrays[0].shape[-1]
        return np.full(d, 1 / d)

    def checked(self, value: Any, like: Array, shape: tuple[int, ...]) -> Array:
        """Probabilities that sum to one."""
        probs = as_parameter("probs", value, like, shape)
        xp = backends.namespace(probs)
        total = xp.sum(probs, axis=-1, keepdims=True)
        require(xp.all(probs >= 0), lambda: "probs must not be negative")
        require(xp.all(xp.abs(total - 1) < 1e-4), lambda: "each component's probs must sum to 1")
        return probs / total

    def is_valid(self, *arrays: Array) -> Array:
        """Whether each row holds counts."""
        (x,) = arrays
        return backends.namespace(x).all(is_count(x), axis=-1)

    def check(self, params: Params, *arrays: Array) -> None:
        """Check that rows have as many categories as the components."""
        check_width(arrays[0], params.probs.shape[-1])

    def n_parameters(self, params: Params) -> int:
        """d − 1 per component."""
        k, d = params.probs.shape[-2:]
        return k * (d - 1)

    def draw(self, rng: np.random.Generator, params: Params, labels: np.ndarray, *extra: Any) -> np.ndarray:
        """Draw counts of `trials` trials, on the host."""
        probs = np.take_along_axis(params.probs.astype(np.float64), labels[..., None], axis=-2)
        return rng.multinomial(np.broadcast_to(extra[0], labels.shape), probs / probs.sum(axis=-1, keepdims=True))


@dataclass(frozen=True, repr=False, eq=False)
class MultinomialMixture(Mixture):
    """A multinomial mixture over rows of counts ``x (..., n, d)``.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[9, 1], [8, 2], [1, 9], [2, 8]])
    >>> mixture = fit(x, 2, rng=0)
    >>> sorted(mixture.probs[:, 0].round(2).tolist())
    [0.15, 0.85]
    """

    family = Multinomial

    @property
    def probs(self) -> Array:
        """The probability of each category in each component, ``(..., k, d)``."""
        return self.params.probs

    @classmethod
    @Capabilities(gradients=True, jit=True, batch=True)
    def from_parameters(cls, weights: Array, probs: Array) -> MultinomialMixture:
        """Return the mixture with weights ``(..., k)`` and probabilities ``(..., k, d)``."""
        return cls._of_family(Multinomial(), weights, probs)

    @Capabilities(batch=True)
    def sample(self, n: int, trials: int = 1, *, rng: Any = None) -> tuple[Array, Array]:
        """Draw rows of `trials` counts, ``(..., n, d)``, and their components, ``(..., n)``."""
        return self._sample(n, rng, as_trials(trials))


@Capabilities(jit=True, batch=True, integers=True, streams=True)
@knows_others
def fit(
    x: Array | Any,
    n_components: int,
    *,
    weights: Any = None,
    sample_weight: Array | None = None,
    init: Any = "k-means++",
    n_init: int = 1,
    tol: float = 1e-6,
    max_iter: int = 1000,
    rng: Any = None,
    chunk_size: int | None = None,
    callback: Callable[[int, Fit], object] | None = None,
    progress: bool = False,
    accelerate: str | None = None,
) -> MultinomialMixture:
    """Fit a multinomial mixture by expectation-maximization (EM).

    Parameters
    ----------
    x
        Counts ``(..., n, d)``, whole numbers of any real dtype, or a source of such chunks.
    n_components
        The number of components, k.
    weights
        Mixing weights ``(..., k)`` to keep fixed. By default they are fitted.
    sample_weight
        The weight of each row, ``(n,)`` or ``(..., n)``.
    init
        How to start: ``"k-means++"`` or ``"random"`` (on the shares of the rows), probabilities ``(..., k, d)``, or
        ``(weights, probs)``.
    n_init
        The number of starts. They run in one batch, and the best fit is returned. Must be 1 if a start is given.
    tol
        Stop when the mean log-likelihood per row changes by no more than this. 0 goes on until nothing changes.
    max_iter
        The largest number of iterations.
    chunk_size
        Rows per block of the E-step. By default a block fits the cache, or a fair part of the device's memory.
    callback
        Called as ``callback(iteration, fit)`` after every iteration, with the `emroute.em.Fit` so far.
    progress
        Show a progress bar (needs tqdm).
    accelerate
        Whether to speed up EM: None, or ``"squarem"``; see `emroute.em.fit`.
    rng
        None, a seed or a `numpy.random.Generator`.

    Returns
    -------
    MultinomialMixture
        Its arrays have the library and device of the data. Integer data are fitted in float64 where the library has it.

    Raises
    ------
    InputError
        If a count is negative or not whole (the message names the first such row), or if shapes or options are invalid.
    InputTypeError
        If arrays differ in library, device or floating dtype.

    References
    ----------
    Rigouste, L., Cappé, O. and Yvon, F. (2007). Inference and evaluation of the multinomial mixture model for text
    clustering. Information Processing & Management 43, equations 2-4.

    Examples
    --------
    >>> import numpy as np
    >>> mixture = fit(np.asarray([[9, 1], [8, 2], [1, 9], [2, 8]]), 2, rng=0)
    >>> mixture.weights.round(3).tolist()
    [0.5, 0.5]
    """
    options = Options(
        tol,
        max_iter,
        chunk_size,
        callback,
        progress,
        accelerate,
        sample_weight=sample_weight,
        weights=weights,
        init=init,
        n_init=n_init,
        rng=rng,
    )
    return fit_counts(MultinomialMixture, Multinomial(), x, n_components, options)
