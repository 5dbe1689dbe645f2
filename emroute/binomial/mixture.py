"""Mixtures of binomials: tosses of several coins, with no record of which coin was tossed (Do & Batzoglou 2008).

    p(h | t) = sum_k w_k C(t, h) p_k^h (1 - p_k)^(t - h)

The counts are heads and tails, h and t - h; the M-step is p_k = sum_n r_nk h_n / sum_n r_nk t_n.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from emroute import backend as backends
from emroute._keywords import knows_others
from emroute.arrays.creation import as_integers, as_real
from emroute.arrays.functions import ratio
from emroute.backend import Array, is_array
from emroute.capability import Capabilities
from emroute.counts import Counts
from emroute.em import Fit
from emroute.errors import InputTypeError
from emroute.family import is_count
from emroute.fitting import Options, fit_counts
from emroute.mixture import Mixture
from emroute.validate import as_parameter, as_trials, require

__all__ = ["Binomial", "BinomialMixture", "Params", "as_pair", "fit"]


class Params(NamedTuple):
    """Parameters of a binomial mixture."""

    weights: Array
    probs: Array
    constant: Array
    """Sum of the weighted log binomial coefficients of the data."""


@dataclass(frozen=True)
class Binomial(Counts):
    """The binomial family over ``(heads, trials)``."""

    params = Params
    complaint = "heads and trials must be whole numbers with 0 <= heads <= trials"

    @property
    def ranks(self) -> tuple[int, ...]:
        """The rank of one row of each data array."""
        return (0, 0)

    def cells(self, params: Params, data: tuple[Array, Array]) -> Array:
        """Heads and tails."""
        heads, trials = self._real(params, data)
        return backends.namespace(heads).stack([heads, trials - heads], axis=-2)

    def means(self, params: Params) -> Array:
        """(p, 1 − p)."""
        return backends.namespace(params.probs).stack([params.probs, 1 - params.probs], axis=-1)

    def from_sums(self, sums: Array, params: Params) -> Params:
        """Heads over tosses."""
        return params._replace(probs=ratio(sums[..., 1], sums[..., 1] + sums[..., 2], params.probs))

    def start_coordinates(self, params: Params, data: tuple[Array, Array]) -> Array:
        """The rate of heads."""
        heads, trials = self._real(params, data)
        return ratio(heads, trials, 0 * heads + 0.5)[..., None]

    def neutral(self, *arrays: Array) -> np.ndarray:
        """A fair coin."""
        return np.asarray(0.5)

    def checked(self, value: Any, like: Array, shape: tuple[int, ...]) -> Array:
        """Probabilities."""
        probs = as_parameter("probs", value, like, shape)
        xp = backends.namespace(probs)
        require(xp.all((probs >= 0) & (probs <= 1)), lambda: "probs must lie between 0 and 1")
        return probs

    def is_valid(self, *arrays: Array) -> Array:
        """Whether each row holds counts, and heads do not exceed trials."""
        heads, trials = arrays
        xp = backends.namespace(heads, trials)
        if heads.dtype != trials.dtype:  # in the floating dtype, if any: integers of different dtypes could wrap around
            heads, trials = as_integers(heads), as_integers(trials)
            floating = [x.dtype for x in (heads, trials) if xp.isdtype(x.dtype, "real floating")]
            heads, trials = (xp.astype(x, floating[0]) if floating else x for x in (heads, trials))
        return is_count(heads) & is_count(trials) & (as_integers(heads) <= as_integers(trials))

    def check(self, params: Params, *arrays: Array) -> None:
        """Accept any two arrays of counts."""

    def n_parameters(self, params: Params) -> int:
        """One per component."""
        return params.probs.shape[-1]

    def draw(self, rng: np.random.Generator, params: Params, labels: np.ndarray, *extra: Any) -> np.ndarray:
        """Draw the heads of tosses of the labelled coins, on the host."""
        return rng.binomial(extra[0], np.take_along_axis(params.probs, labels, axis=-1))

    def _real(self, params: Params, data: tuple[Array, Array]) -> tuple[Array, Array]:
        heads, trials = data
        return as_real(heads, params.weights), as_real(trials, params.weights)


@dataclass(frozen=True, repr=False, eq=False)
class BinomialMixture(Mixture):
    """A binomial mixture. Its methods take ``(heads, trials)``, each ``(..., n)``.

    Examples
    --------
    >>> import numpy as np
    >>> heads = np.asarray([5, 9, 8, 4, 7])
    >>> mixture = fit(heads, 10, 2, init=[0.6, 0.5], weights=[0.5, 0.5], tol=0)
    >>> mixture.probs.round(6).tolist()
    [0.796789, 0.519583]
    >>> mixture.predict(heads, 10).tolist()
    [1, 0, 0, 1, 0]
    """

    family = Binomial

    @property
    def probs(self) -> Array:
        """The probability of heads of each component, ``(..., k)``."""
        return self.params.probs

    @classmethod
    @Capabilities(gradients=True, jit=True, batch=True)
    def from_parameters(cls, weights: Array, probs: Array) -> BinomialMixture:
        """Return the mixture with these ``(..., k)`` weights and probabilities.

        >>> import numpy as np
        >>> coins = BinomialMixture.from_parameters(np.asarray([0.5, 0.5]), np.asarray([0.5, 0.5]))
        >>> np.exp(coins.log_prob(np.asarray([1]), np.asarray([1]))).round(6).tolist()
        [0.5]
        """
        return cls._of_family(Binomial(), weights, probs)

    def data(self, *data: Any) -> Any:
        """Accept one number of trials for all observations."""
        if len(data) != 2:
            raise InputTypeError(f"got {len(data)} positional arguments, expected two: heads and trials")
        return as_pair(*data)

    @Capabilities(batch=True)
    def sample(self, n: int, trials: int | Array = 1, *, rng: Any = None) -> tuple[Array, Array]:
        """Draw the heads of `trials` tosses, and the coins that were tossed.

        Parameters
        ----------
        n
            The number of observations of each problem.
        trials
            The number of tosses per observation, a number or ``(n,)``.
        rng
            None, a seed or a `numpy.random.Generator`.

        Returns
        -------
        tuple of Array
            Heads ``(..., n)`` as floating numbers, and component labels ``(..., n)``.
        """
        return self._sample(n, rng, as_trials(trials))


def as_pair(heads: Any, trials: Any) -> tuple[Array, Array]:
    """Return heads and trials as two arrays; a single number of trials holds for all."""
    if trials is None:
        raise InputTypeError("got trials=None with heads in one array; give an array of trials, or one number for all")
    if is_array(heads) and not is_array(trials):
        backend = backends.get(heads)
        trials = backend.from_numpy(np.broadcast_to(np.asarray(trials), heads.shape), heads)
    return heads, trials


@Capabilities(jit=True, batch=True, integers=True, streams=True)
@knows_others
def fit(
    heads: Array | Any,
    trials: Array | int | None,
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
) -> BinomialMixture:
    """Fit a binomial mixture by expectation-maximization (EM).

    Parameters
    ----------
    heads
        Successes ``(..., n)``, whole numbers of any real dtype. Or, with ``trials=None``, a source of ``(heads,
        trials)`` chunks that can be read repeatedly.
    trials
        Trials ``(..., n)``, or one number for all.
    n_components
        The number of components, k.
    weights
        Mixing weights ``(..., k)`` to keep fixed. By default they are fitted.
    sample_weight
        The weight of each row, ``(n,)`` or ``(..., n)``.
    init
        How to start: ``"k-means++"`` or ``"random"`` (on rates), probabilities ``(..., k)``, or ``(weights, probs)``.
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
    BinomialMixture
        Its arrays have the library and device of the data. Integer data are fitted in float64 where the library has it.

    Raises
    ------
    InputError
        If a count is negative or not whole, or heads exceed trials (the message names the first such row), or if shapes
        or options are invalid.
    InputTypeError
        If arrays differ in library, device or floating dtype.

    References
    ----------
    Do, C. B. and Batzoglou, S. (2008). What is the expectation maximization algorithm? Nature Biotechnology 26.

    Examples
    --------
    >>> import numpy as np
    >>> mixture = fit(np.asarray([5, 9, 8, 4, 7]), 10, 2, init=[0.6, 0.5], weights=[0.5, 0.5], tol=0)
    >>> float(mixture.log_likelihood.round(6))
    -9.796924
    """
    data = heads if trials is None and not is_array(heads) else as_pair(heads, trials)
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
    return fit_counts(BinomialMixture, Binomial(), data, n_components, options)
