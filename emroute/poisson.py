"""Mixtures of Poissons: rows of independent counts.

    p(x) = sum_k w_k prod_j exp(-m_kj) m_kj^x_j / x_j!

The M-step is m_k = sum_n r_nk x_n / sum_n r_nk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from emroute import backend as backends
from emroute._keywords import knows_others
from emroute.arrays.creation import as_real, swap
from emroute.arrays.functions import ratio
from emroute.backend import Array, is_array
from emroute.capability import Capabilities
from emroute.counts import Counts
from emroute.em import Fit
from emroute.family import is_count
from emroute.fitting import Options, fit_counts
from emroute.mixture import Mixture
from emroute.validate import as_parameter, check_width, require

__all__ = ["PoissonMixture", "fit"]


class Params(NamedTuple):
    """Parameters of a Poisson mixture. Internally, rates are ``(..., k, d)``, with d = 1 for plain counts."""

    weights: Array
    rates: Array
    constant: Array
    """Minus the sum of the weighted log factorials of the data."""


@dataclass(frozen=True)
class Poisson(Counts):
    """The Poisson family over ``x (..., n, d)``, or over plain counts ``x (n,)``."""

    plain: bool = False
    conditional = False
    params = Params
    complaint = "counts must be whole numbers that are not negative"

    @property
    def ranks(self) -> tuple[int, ...]:
        """The rank of a row."""
        return (0,) if self.plain else (1,)

    def cells(self, params: Params, data: Array) -> Array:
        """The counts."""
        return swap(self._real(params, data))

    def means(self, params: Params) -> Array:
        """Rates."""
        return params.rates

    def from_sums(self, sums: Array, params: Params) -> Params:
        """Mean counts."""
        return params._replace(rates=ratio(sums[..., 1:], sums[..., :1], params.rates))

    def start_coordinates(self, params: Params, data: Array) -> Array:
        """Square roots, whose variance is the same at every rate."""
        x = self._real(params, data)
        return backends.namespace(x).sqrt(x)

    def neutral(self, *arrays: Array) -> np.ndarray:
        """Rates of one."""
        return np.ones(1 if self.plain else arrays[0].shape[-1])

    def checked(self, value: Any, like: Array, shape: tuple[int, ...]) -> Array:
        """Rates; for plain counts, one per component."""
        rates = as_parameter("rates", value, like, shape[:1] if self.plain else shape)
        xp = backends.namespace(rates)
        require(xp.all(rates >= 0), lambda: "rates must not be negative")
        return rates[..., None] if self.plain else rates

    def is_valid(self, *arrays: Array) -> Array:
        """Whether each row holds counts."""
        (x,) = arrays
        return is_count(x) if self.plain else backends.namespace(x).all(is_count(x), axis=-1)

    def check(self, params: Params, *arrays: Array) -> None:
        """Check that rows have as many counts as the components have rates."""
        if not self.plain:
            check_width(arrays[0], params.rates.shape[-1])

    def n_parameters(self, params: Params) -> int:
        """One rate per component and feature."""
        k, d = params.rates.shape[-2:]
        return k * d

    def draw(self, rng: np.random.Generator, params: Params, labels: np.ndarray, *extra: Any) -> np.ndarray:
        """Draw counts at the rates of the labelled components, on the host."""
        x = rng.poisson(np.take_along_axis(params.rates.astype(np.float64), labels[..., None], axis=-2))
        return x[..., 0] if self.plain else x

    def _real(self, params: Params, data: Array) -> Array:
        x = as_real(data, params.weights)
        return x[..., None] if self.plain else x


@dataclass(frozen=True, repr=False, eq=False)
class PoissonMixture(Mixture):
    """A Poisson mixture over rows of counts ``x (..., n, d)``, or plain counts ``x (n,)``.

    Examples
    --------
    >>> import numpy as np
    >>> mixture = fit(np.asarray([1, 0, 2, 1, 20, 22, 18, 20]), 2, rng=0)
    >>> sorted(mixture.rates.round(2).tolist())
    [1.0, 20.0]
    """

    family = Poisson

    @property
    def rates(self) -> Array:
        """The mean counts of each component, ``(..., k, d)``, or ``(..., k)`` for plain counts."""
        return self.params.rates[..., 0] if self.model.family.plain else self.params.rates

    @classmethod
    @Capabilities(gradients=True, jit=True, batch=True)
    def from_parameters(cls, weights: Array, rates: Array) -> PoissonMixture:
        """Return the mixture with weights ``(..., k)`` and rates ``(..., k, d)``, or ``(..., k)`` for plain counts."""
        return cls._of_family(Poisson(plain=rates.ndim == weights.ndim), weights, rates)

    @Capabilities(batch=True)
    def sample(self, n: int, *, rng: Any = None) -> tuple[Array, Array]:
        """Draw `n` rows of counts, and their components ``(..., n)``."""
        return self._sample(n, rng)


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
) -> PoissonMixture:
    """Fit a Poisson mixture by expectation-maximization (EM).

    Parameters
    ----------
    x
        Counts ``(..., n, d)``, whole numbers of any real dtype, or a source of such chunks. Counts ``(n,)`` are taken
        as d = 1, and the rates are then ``(..., k)``.
    n_components
        The number of components, k.
    weights
        Mixing weights ``(..., k)`` to keep fixed. By default they are fitted.
    sample_weight
        The weight of each row, ``(n,)`` or ``(..., n)``.
    init
        How to start: ``"k-means++"`` or ``"random"`` (on square roots), rates ``(..., k, d)``, or ``(weights, rates)``.
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
    PoissonMixture
        Its arrays have the library and device of the data. Integer data are fitted in float64 where the library has it.

    Raises
    ------
    InputError
        If a count is negative or not whole (the message names the first such row), or if shapes or options are invalid.
    InputTypeError
        If arrays differ in library, device or floating dtype.

    References
    ----------
    McLachlan, G. and Peel, D. (2000). Finite Mixture Models, section 5.2.

    Examples
    --------
    >>> import numpy as np
    >>> mixture = fit(np.asarray([1, 0, 2, 1, 20, 22, 18, 20]), 2, rng=0)
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
    # the first chunk of a stream shows whether counts are plain; a source that can be read only once is refused later
    again = isinstance(x, Iterable) and not (is_array(x) or isinstance(x, Iterator))
    first: Any = next(iter(x), None) if again else x
    family = Poisson(plain=is_array(first) and len(first.shape) == 1)
    return fit_counts(PoissonMixture, family, x, n_components, options)
