"""Mixtures of counts, with the parameters and attributes that scikit-learn would give them."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar, TypeVar

import numpy as np
from sklearn.utils import Tags
from sklearn.utils.validation import check_non_negative

from emroute import backend as backends
from emroute import binomial, multinomial, poisson
from emroute._texts import joined
from emroute.arrays.creation import as_integers
from emroute.backend import Array
from emroute.errors import InputError
from emroute.mixture import Mixture
from emroute.sklearn.base import Blocks, as_array
from emroute.sklearn.mixture import MixtureEstimator, as_start, weights_start

__all__ = ["BinomialMixture", "MultinomialMixture", "PoissonMixture"]

_SECTIONS = """
Parameters
----------
n_components
    The number of components, k.
tol
    Stop when the mean log-likelihood per row changes by less than this.
max_iter
    The largest number of iterations.
n_init
    The number of starts. They run in one batch, and the best fit is kept.
init_params
    How to draw the rows from which components start: ``"k-means++"`` or ``"random"``.
weights_init, {parameter}_init
    Starting weights ``(k,)``, and starting parameters {shape}.
random_state
    None, a seed or a `numpy.random.RandomState`.
warm_start
    Whether `fit` continues from the last fit.
verbose, verbose_interval
    Whether to print the log-likelihood, and how often, in iterations.

Attributes
----------
weights_
    The mixing weights, ``(k,)``.
{parameter}_
    {meaning}, {shape}.
converged_
    Whether the fit converged.
n_iter_
    The number of iterations.
lower_bound_, lower_bounds_
    The mean log-likelihood per row at the end, and after each iteration.
mixture_
    The fitted `{mixture}`.
n_features_in_, feature_names_in_
    The number and names of features, as in all of scikit-learn.
"""

_Class = TypeVar("_Class", bound="type[_CountMixture]")


def _complete(shape: str, meaning: str) -> Callable[[_Class], _Class]:
    """Add the common sections to the docstring of an estimator, with the shape and the meaning of its parameter."""

    def complete(cls: _Class) -> _Class:
        mixture = f"{cls._mixture.__module__}.{cls._mixture.__name__}"
        sections = _SECTIONS.format(parameter=cls._parameter, shape=shape, meaning=meaning, mixture=mixture)
        cls.__doc__ = joined(sections, cls.__doc__)
        return cls

    return complete


class _CountMixture(MixtureEstimator):
    """A mixture of one count family."""

    _sparse = True
    _family: ClassVar[ModuleType]
    _mixture: ClassVar[Any]
    _parameter = "probs"

    def _keep(self, arguments: dict[str, Any]) -> None:
        """Store the arguments of a constructor under their names, as scikit-learn expects."""
        for name, value in arguments.items():
            if name != "self":
                setattr(self, name, value)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.categorical = True  # scikit-learn's checks have no other tag for whole numbers
        return tags

    def _read(self, X: Any, reset: bool) -> Any:
        x = super()._read(X, reset)
        if isinstance(x, Blocks | np.ndarray):
            check_non_negative(x.x if isinstance(x, Blocks) else x, type(self).__name__)
        return x

    def _shape(self, d: int) -> tuple[int, ...]:
        """Shape of the family's parameter."""
        return (self.n_components, d)

    def _given(self, like: Array) -> tuple[Array | None, ...]:
        value = getattr(self, f"{self._parameter}_init")
        parameter = as_start(self._parameter, value, like, self._shape(like.shape[-1]))
        return weights_start(self.weights_init, like, self.n_components), parameter

    def _drawn(self, x: Any, weight: Array | None, rng: np.random.Generator) -> tuple[Array, ...]:
        return self._parameters(self._climb(x, weight, self.init_params, max_iter=0, rng=rng))

    def _climb(self, x: Any, weight: Array | None, init: Any, **options: Any) -> Mixture:
        return self._family.fit(*self._data(x), self.n_components, sample_weight=weight, init=init, **options)

    def _parameters(self, mixture: Mixture) -> tuple[Array, ...]:
        return mixture.weights, getattr(mixture, self._parameter)

    @property
    def _parts(self) -> tuple[str, ...]:  # type: ignore[override]
        return (f"{self._parameter}_",)

    def _assembled(self) -> Mixture:
        parameter = as_array(getattr(self, f"{self._parameter}_"))
        return self._mixture.from_parameters(as_array(self.weights_, parameter), parameter)

    def _publish(self, mixture: Mixture) -> None:
        setattr(self, f"{self._parameter}_", getattr(mixture, self._parameter))


class _ProbsMixture(_CountMixture):
    """A mixture of counts whose components are probabilities."""

    def __init__(
        self,
        n_components: int = 1,
        *,
        tol: float = 1e-3,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "k-means++",
        weights_init: Any = None,
        probs_init: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
    ) -> None:
        self._keep(locals())


@_complete("``(k,)``", "The probability of heads")
class BinomialMixture(_ProbsMixture):
    """A binomial mixture over rows of heads and tails ``(n, 2)``, as in generalized linear models.

    The first column counts heads and the second counts tails, so the sum of a row is its number of trials. From heads
    and trials, ``np.stack([heads, trials - heads], axis=1)``.

    Examples
    --------
    >>> import numpy as np
    >>> heads = np.asarray([5, 9, 8, 4, 7])
    >>> x = np.stack([heads, 10 - heads], axis=1)
    >>> estimator = BinomialMixture(2, weights_init=[0.5, 0.5], probs_init=[0.6, 0.5], tol=1e-9).fit(x)
    >>> estimator.probs_.round(2).tolist(), estimator.predict(x).tolist()
    ([0.79, 0.51], [1, 0, 0, 1, 0])
    """

    _family, _mixture = binomial, binomial.BinomialMixture
    _sparse = False

    def _shape(self, d: int) -> tuple[int, ...]:
        return (self.n_components,)

    def _read(self, X: Any, reset: bool) -> Any:
        x = super()._read(X, reset)
        if x.shape[1] < 2:
            raise InputError(f"got {x.shape[1]} feature(s), expected two: heads and tails")
        return x

    def _data(self, x: Array) -> tuple[Array, Array]:
        x = as_integers(x)
        return x[:, 0], backends.namespace(x).sum(x, axis=1, dtype=x.dtype)

    def sample(self, n_samples: int = 1, trials: int = 1) -> tuple[Array, Array]:
        """Draw heads and tails ``(n, 2)`` of a number of trials, and their components ``(n,)``."""
        heads, labels = self._sampled(n_samples, trials=trials)
        return backends.namespace(heads).stack([heads, trials - heads], axis=1), labels


@_complete("``(k, d)``", "The probability of each category")
class MultinomialMixture(_ProbsMixture):
    """A multinomial mixture over rows of counts ``(n, d)``, which may be sparse.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[9, 1], [8, 2], [1, 9], [2, 8]])
    >>> estimator = MultinomialMixture(2, random_state=0).fit(x)
    >>> sorted(estimator.probs_[:, 0].round(2).tolist())
    [0.15, 0.85]
    """

    _family, _mixture = multinomial, multinomial.MultinomialMixture

    def sample(self, n_samples: int = 1, trials: int = 1) -> tuple[Array, Array]:
        """Draw rows of a number of counts ``(n, d)``, and their components ``(n,)``."""
        return self._sampled(n_samples, trials=trials)


@_complete("``(k, d)``", "The mean counts")
class PoissonMixture(_CountMixture):
    """A Poisson mixture over rows of independent counts ``(n, d)``, which may be sparse.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[1], [0], [2], [1], [20], [22], [18], [20]])
    >>> estimator = PoissonMixture(2, random_state=0).fit(x)
    >>> sorted(estimator.rates_[:, 0].round(2).tolist())
    [1.0, 20.0]
    """

    _family, _mixture = poisson, poisson.PoissonMixture
    _parameter = "rates"

    def __init__(
        self,
        n_components: int = 1,
        *,
        tol: float = 1e-3,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "k-means++",
        weights_init: Any = None,
        rates_init: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
    ) -> None:
        self._keep(locals())

    def sample(self, n_samples: int = 1) -> tuple[Array, Array]:
        """Draw rows of counts ``(n, d)``, and their components ``(n,)``."""
        return self._sampled(n_samples)
