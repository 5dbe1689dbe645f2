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
    """Parameters of a Poisson mixture; rates are ``(..., k, d)`` inside, d being 1 for plain counts."""

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
        """Rates; of plain counts one a component."""
        rates = as_parameter("rates", value, like, shape[:1] if self.plain else shape)
        xp = backends.namespace(rates)
        require(xp.all(rates >= 0), lambda: "rates must not be negative")
        return rates[..., None] if self.plain else rates

    def is_valid(self, *arrays: Array) -> Array:
        """Whether rows are counts."""
        (x,) = arrays
        return is_count(x) if self.plain else backends.namespace(x).all(is_count(x), axis=-1)

    def check(self, params: Params, *arrays: Array) -> None:
        """Rows must have as many counts as the components have rates."""
        if not self.plain:
            check_width(arrays[0], params.rates.shape[-1])

    def n_parameters(self, params: Params) -> int:
        """A rate each."""
        k, d = params.rates.shape[-2:]
        return k * d

    def draw(self, rng: np.random.Generator, params: Params, labels: np.ndarray, *extra: Any) -> np.ndarray:
        """Counts at the labelled components' rates, on the host."""
        x = rng.poisson(np.take_along_axis(params.rates.astype(np.float64), labels[..., None], axis=-2))
        return x[..., 0] if self.plain else x

    def _real(self, params: Params, data: Array) -> Array:
        x = as_real(data, params.weights)
        return x[..., None] if self.plain else x


@dataclass(frozen=True, repr=False, eq=False)
class PoissonMixture(Mixture):
    """A mixture of Poissons over rows of counts ``x (..., n, d)``, or plain counts ``x (n,)``.

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
        """``(..., k, d)``: the mean counts of each component; ``(..., k)`` for plain counts."""
        return self.params.rates[..., 0] if self.model.family.plain else self.params.rates

    @classmethod
    @Capabilities(gradients=True, jit=True, batch=True)
    def from_parameters(cls, weights: Array, rates: Array) -> PoissonMixture:
        """Return the mixture with weights ``(..., k)`` and rates ``(..., k, d)``, or ``(..., k)`` for plain counts."""
        return cls._of_family(Poisson(plain=rates.ndim == weights.ndim), weights, rates)

    @Capabilities(batch=True)
    def sample(self, n: int, *, rng: Any = None) -> tuple[Array, Array]:
        """Draw `n` rows of counts and their component labels, ``(..., n)``."""
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
    """Fit a mixture of Poissons by EM.

    Parameters
    ----------
    x
        Counts ``(..., n, d)``, whole numbers of any real dtype, or a source of such chunks. ``(n,)`` is taken as
        d = 1; the rates are then ``(..., k)``.
    n_components
        How many components, k.
    weights
        Mixing weights ``(..., k)`` to keep fixed; by default they are fitted.
    sample_weight
        ``(n,)`` or ``(..., n)``.
    init
        ``"k-means++"`` or ``"random"`` (over square roots), or rates ``(..., k, d)``, or ``(weights, rates)``.
    n_init
        Restarts, run in one batch; the best is returned. Not with a given start.
    tol, max_iter, chunk_size, callback, progress, accelerate
        As in `emroute.em.fit`.
    rng
        None, a seed or a `numpy.random.Generator`.

    Returns
    -------
    PoissonMixture
        With arrays of the data's library and device; integer data are fitted in float64 where there is one.

    Raises
    ------
    InputError
        If a count is negative or not whole, naming the first such row; if shapes or options cannot be used.
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
    # a stream's first chunk tells whether counts are plain; what can be read only once is refused later
    again = isinstance(x, Iterable) and not (is_array(x) or isinstance(x, Iterator))
    first: Any = next(iter(x), None) if again else x
    family = Poisson(plain=is_array(first) and len(first.shape) == 1)
    return fit_counts(PoissonMixture, family, x, n_components, options)
