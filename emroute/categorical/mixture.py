"""Latent class models: the fit and its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from emroute import backend as backends
from emroute._engine.stream import as_arrays
from emroute._keywords import knows_others
from emroute.arrays.tracing import concrete, on_host
from emroute.backend import Array, is_array
from emroute.capability import Capabilities
from emroute.categorical.family import Categorical
from emroute.em import Fit
from emroute.errors import InputError, tell
from emroute.fitting import Options, fit_counts
from emroute.mixture import Mixture
from emroute.validate import check_count, check_number, check_real

__all__ = ["CategoricalMixture", "fit"]

_MOST = 2**14
"""The most categories of an item: each needs a probability in every class."""


@dataclass(frozen=True, repr=False, eq=False)
class CategoricalMixture(Mixture):
    """A latent class model: a mixture of independent categorical items over ``x (..., n, items)``.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[0, 0, 1], [0, 0, 1], [0, -1, 1], [1, 2, 0], [1, 2, 0], [1, 2, -1]])
    >>> mixture = fit(x, 2, rng=0)
    >>> mixture.probs[1].round(2).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """

    family = Categorical

    @property
    def probs(self) -> tuple[Array, ...]:
        """The probability of each category in each class, ``(..., k, C_j)`` for each item j."""
        return tuple(self.model.family.items(self.params.probs))

    @classmethod
    @Capabilities(gradients=True, jit=True, batch=True)
    def from_parameters(cls, weights: Array, probs: Sequence[Array]) -> CategoricalMixture:
        """Return the mixture with weights ``(..., k)`` and the probabilities of each item, ``(..., k, C_j)``."""
        return cls._of_family(Categorical(tuple(item.shape[-1] for item in probs)), weights, [*probs])

    @Capabilities(batch=True)
    def sample(self, n: int, *, rng: Any = None) -> tuple[Array, Array]:
        """Draw `n` rows of categories, ``(..., n, items)``, and their classes, ``(..., n)``."""
        return self._sample(n, rng)


@Capabilities(jit=True, batch=True, integers=True, streams=True)
@knows_others
def fit(
    x: Array | Any,
    n_components: int,
    *,
    n_categories: int | Sequence[int] | None = None,
    smoothing: float = 0.0,
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
) -> CategoricalMixture:
    """Fit a latent class model by expectation-maximization (EM).

    Parameters
    ----------
    x
        Categories ``(..., n, items)``, whole numbers from 0 of any real dtype, or a source of such chunks; subtract 1
        from data that are numbered from 1. −1 (or NaN) is a gap: the item is missing at random, and the likelihood is
        that of the others.
    n_components
        The number of latent classes, k.
    n_categories
        The number of categories of each item, or of all items. By default one more than the largest in the data. It is
        required inside ``jit``, where values are unknown.
    smoothing
        A count that is added to each category of each class. The objective then includes the corresponding Dirichlet
        prior; `log_likelihood` does not.
    weights
        Mixing weights ``(..., k)`` to keep fixed. By default they are fitted.
    sample_weight
        The weight of each row, ``(n,)`` or ``(..., n)``, such as the counts of response patterns.
    init
        How to start: ``"k-means++"`` or ``"random"`` (on indicators of the categories), the probabilities of each item,
        a list of ``(..., k, C_j)``, or ``(weights, probs)``.
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
    CategoricalMixture
        Its arrays have the library and device of the data. Integer data are fitted in float64 where the library has it.

    Raises
    ------
    InputError
        If an entry is not a category of its item (the message names the first such row), or if shapes or options are
        invalid.
    InputTypeError
        If arrays differ in library, device or floating dtype.

    References
    ----------
    Goodman, L. A. (1974). Exploratory latent structure analysis using both identifiable and unidentifiable models.
    Linzer, D. A. and Lewis, J. B. (2011). poLCA: An R package for polytomous variable latent class analysis.

    Examples
    --------
    Four test items of 216 people, as counts of the 16 patterns of answers (Stouffer and Toby 1951):

    >>> import numpy as np
    >>> x = np.asarray([[i >> j & 1 for j in (3, 2, 1, 0)] for i in range(16)])
    >>> counts = np.asarray([20.0, 2, 9, 2, 6, 1, 4, 1, 38, 7, 24, 6, 25, 6, 23, 42])
    >>> mixture = fit(x, 2, sample_weight=counts, n_init=8, tol=1e-10, rng=0)
    >>> round(float(mixture.log_likelihood), 4), sorted(mixture.weights.round(4).tolist())
    (-504.4677, [0.2793, 0.7207])
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
    family = Categorical(_categories(x, n_categories), check_number("smoothing", smoothing))
    fitted = fit_counts(CategoricalMixture, family, x, n_components, options)
    if n_categories is None:
        tell(_unused(fitted))
    return fitted


def _unused(mixture: CategoricalMixture) -> list[str]:
    """Return a remark if no row has the category 0 of some item, as in data that are numbered from 1."""
    xp = backends.namespace(mixture.weights)
    unused = [j for j, item in enumerate(mixture.probs) if concrete(xp.all(item[..., 0] == 0))]
    return [f"no row has category 0 of items {unused}; subtract 1 if categories are numbered from 1"] if unused else []


def _categories(x: Any, given: int | Sequence[int] | None) -> tuple[int, ...]:
    """Return the number of categories of each item, as given or as found in the data."""
    if isinstance(x, Iterator) or not (is_array(x) or isinstance(x, Iterable)):
        return ()  # what can be read only once, or is no data, is refused later
    chunks = (as_arrays(chunk)[0] for chunk in ([x] if is_array(x) else x))
    if given is None:
        tops = [_largest(chunk) for chunk in chunks]
        if len(widths := sorted(set(map(len, tops)))) > 1:
            raise InputError(f"the chunks have rows of {widths} items; make them alike")
        return tuple(1 + max(top) for top in zip(*tops, strict=True))
    width = next((chunk.shape[-1] for chunk in chunks if chunk.ndim > 1), 0)
    if not isinstance(given, Iterable):
        return (_checked_count(given),) * width
    counts = tuple(map(_checked_count, given))
    if len(counts) != width:
        raise InputError(f"n_categories has {len(counts)} entries, expected one for each of {width} items")
    return counts


def _checked_count(value: Any) -> int:
    if (count := check_count("n_categories", value)) > _MOST:
        raise InputError(f"an item has {count} categories, expected at most {_MOST}; an identifier is no category")
    return count


def _largest(x: Array) -> list[int]:
    """Return the largest entry of each item; 0 if there are only gaps."""
    check_real("x", x)
    xp = backends.namespace(x)
    if x.ndim > 1 and not x.shape[-1]:
        raise InputError(f"x has shape {tuple(x.shape)}; expected at least one item")
    if x.ndim < 2 or 0 in x.shape:
        return [0] * x.shape[-1] if x.ndim > 1 else []
    seen = xp.where(x == x, x, xp.zeros_like(x)) if xp.isdtype(x.dtype, "real floating") else x
    largest = on_host(xp.max(seen, axis=tuple(range(x.ndim - 1))))
    if largest is None:
        raise InputError("inside jit the categories cannot be counted; give n_categories")
    return [_checked_count(1 + int(top)) - 1 if 0 < top < math.inf else 0 for top in largest]
