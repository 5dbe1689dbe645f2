"""What the estimators of mixtures share."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from emroute import backend as backends
from emroute._engine.history import trim
from emroute._engine.once import once
from emroute._engine.restarts import best_of
from emroute._engine.rows import joined
from emroute.arrays.functions import eps
from emroute.backend import Array
from emroute.em import Fit
from emroute.errors import FitWarning, InputError
from emroute.mixture import Mixture
from emroute.sklearn.base import Blocks, Estimator, as_bits, as_number, as_weight, generator, over_rows, refuse_masks
from emroute.validate import as_parameter, check_count, check_total

__all__ = ["MixtureEstimator", "as_start", "weights_start"]


class MixtureEstimator(DensityMixin, Estimator):
    """The estimator of a mixture. The mathematics is that of its family, whose fitted mixture is `mixture_`."""

    _parts: ClassVar[tuple[str, ...]] = ()
    """The attributes of the mixture other than the weights."""

    def __init__(
        self,
        *,
        n_components: int,
        tol: float,
        max_iter: int,
        n_init: int,
        init_params: str,
        weights_init: Any,
        random_state: Any,
        warm_start: bool,
        verbose: int,
        verbose_interval: int,
    ) -> None:
        self.n_components = n_components
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval

    @abstractmethod
    def _given(self, like: Array) -> tuple[Array | None, ...]:
        """Return the parts of the start that the user gave, weights first."""

    @abstractmethod
    def _drawn(self, x: Any, weight: Array | None, rng: np.random.Generator) -> tuple[Array, ...]:
        """Draw a start from the data."""

    @abstractmethod
    def _climb(self, x: Any, weight: Array | None, init: tuple[Array, ...], **options: Any) -> Mixture:
        """Fit from a start, or from a batch of them."""

    @abstractmethod
    def _parameters(self, mixture: Mixture) -> tuple[Array, ...]:
        """Return the parameters that make a start, weights first."""

    @abstractmethod
    def _publish(self, mixture: Mixture) -> None:
        """Set the attributes of the family."""

    @abstractmethod
    def _assembled(self) -> Mixture:
        """Return the mixture of the attributes as they are."""

    def _sound(self, mixture: Mixture) -> Mixture:
        """Return a fitted mixture, or raise `InputError` if it has collapsed."""
        return mixture

    def _data(self, x: Any) -> tuple[Any, ...]:
        """Arrange rows as the family's data."""
        return (x,)

    def fit(self, X: Any, y: None = None, sample_weight: Any = None) -> Self:
        """Estimate the mixture by EM: the best of `n_init` restarts, all run in one batch.

        Parameters
        ----------
        X
            ``(n, d)``: an array of any library, a frame, or what scikit-learn makes an array of.
        y
            Not used.
        sample_weight
            ``(n,)``; a whole weight equals repeating the row.

        Returns
        -------
        Self
            The fitted estimator.

        Raises
        ------
        ValueError
            If the data, the weights, the start or a parameter are invalid.
        """
        k = check_count("n_components", self.n_components)
        x = self._read(X, reset=True)
        check_total(x.shape[0], k, "n_components")
        first = next(iter(x)) if isinstance(x, Blocks) else x
        like = backends.get(first).from_numpy(np.zeros((1, x.shape[1])), first)
        weight = as_weight(sample_weight, x)
        if self.warm_start and hasattr(self, "mixture_"):
            init = self._parameters(self._current())
        else:
            init = self._start(x, weight, like)
        with warnings.catch_warnings():  # users of scikit-learn expect its own message, below
            warnings.simplefilter("ignore", FitWarning)
            mixture = self._sound(self._run(x, weight, init))
        self.mixture_, self.weights_ = mixture, mixture.weights
        self._publish(mixture)
        self._published = self._stamp()
        self.converged_, self.n_iter_ = bool(mixture.converged), int(mixture.n_iter)
        total = x.shape[0] if weight is None else float(backends.namespace(weight).sum(weight))
        trace = backends.get(mixture.trace).to_numpy(mixture.trace) / total
        self.lower_bound_, self.lower_bounds_ = float(trace[-1]), trace[1:].tolist()
        if not self.converged_ and self.max_iter > 0:
            warnings.warn(
                "Best performing initialization did not converge. Try different init parameters, or increase "
                "max_iter, tol, or check for degenerate data.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _start(self, x: Any, weight: Array | None, like: Array) -> tuple[Array, ...]:
        """Return as many starts as there are restarts, as a batch if there are several."""
        given = self._given(like)
        if all(part is not None for part in given):
            return given
        rng, xp = generator(self.random_state), backends.namespace(like)
        starts = [self._drawn(x, weight, rng) for _ in range(check_count("n_init", self.n_init))]
        starts = [tuple(b if a is None else a for a, b in zip(given, start, strict=True)) for start in starts]
        return starts[0] if len(starts) == 1 else tuple(xp.stack(parts) for parts in zip(*starts, strict=True))

    def _run(self, x: Any, weight: Array | None, init: tuple[Array, ...]) -> Mixture:
        """Fit from one start or several.

        scikit-learn checks the change of the bound before its last step, so one more step is made once it is small.
        """
        mixture = self._climb(x, weight, init, tol=self.tol, max_iter=self.max_iter, callback=self._reporter())
        if mixture.status.ndim:
            fit = Fit(mixture.params, mixture.log_likelihood, mixture.trace, mixture.n_iter, mixture.status)
            mixture = type(mixture)(mixture.model, *trim(best_of(fit), self.max_iter))
        if mixture.converged and int(mixture.n_iter) < self.max_iter:
            last = self._climb(x, weight, self._parameters(self._sound(mixture)), tol=self.tol, max_iter=1)
            mixture = replace(
                mixture,
                params=last.params,
                log_likelihood=last.log_likelihood,
                trace=joined([mixture.trace, last.trace[1:]], 0),
                n_iter=mixture.n_iter + last.n_iter,
            )
        return mixture

    def _reporter(self) -> Callable[[int, Fit], None] | None:
        """Return the function that prints the progress, if requested."""
        if not self.verbose:
            return None
        interval = check_count("verbose_interval", self.verbose_interval)

        def report(iteration: int, fit: Fit) -> None:
            if iteration % interval == 0:
                highest = backends.namespace(fit.objective).max(fit.objective)
                print(f"Iteration {iteration}: log-likelihood {float(highest):.6f}")

        return report

    def fit_predict(self, X: Any, y: None = None, sample_weight: Any = None) -> Array:
        """Fit, and return the most probable component of each row, integers ``(n,)``."""
        return self.fit(X, sample_weight=sample_weight).predict(X)

    def predict(self, X: Any) -> Array:
        """Return the most probable component of each row, integers ``(n,)``."""
        return self._each("predict", X)

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each component given each row, ``(n, k)``."""
        return self._each("responsibilities", X)

    def score_samples(self, X: Any) -> Array:
        """Return the log-density (for counts, the log-probability) of each row, ``(n,)``."""
        return self._each("log_prob", X)

    def score(self, X: Any, y: None = None, sample_weight: Any = None) -> float:  # type: ignore[override]
        """Return the mean log-density per row, a weighted mean if weights are given."""
        log_prob = self.score_samples(X)
        weight = as_weight(sample_weight, log_prob)
        return as_number(once(backends.get(log_prob, weight), _mean)(log_prob, weight))

    def bic(self, X: Any) -> float:
        """Return the Bayesian information criterion. Lower is better."""
        return self._criterion(X, math.log)

    def aic(self, X: Any) -> float:
        """Return Akaike's information criterion. Lower is better."""
        return self._criterion(X, lambda n: 2.0)

    def _criterion(self, X: Any, penalty: Callable[[int], float]) -> float:
        log_prob = self.score_samples(X)
        n, total = log_prob.shape[0], as_number(backends.namespace(log_prob).sum(log_prob))
        return -2 * total + penalty(n) * self._current().n_parameters

    def _current(self) -> Mixture:
        """Return the fitted mixture, or that of attributes which were set or changed by hand, as in scikit-learn."""
        check_is_fitted(self, self._fitted)
        if not hasattr(self, "mixture_") or self._stamp() != self._published:
            return self._assembled()
        return self.mixture_

    def _stamp(self) -> list[bytes]:
        """The bits of the attributes that make the mixture."""
        return [as_bits(getattr(self, name, ())) for name in ("weights_", *self._parts)]

    def _each(self, name: str, X: Any) -> Array:
        function = getattr(self._current(), name)
        return over_rows(lambda rows: function(*self._data(rows)), self._read(X, reset=False))

    def _sampled(self, n_samples: int, **options: Any) -> tuple[Array, Array]:
        mixture: Any = self._current()
        if n_samples < 1:
            raise InputError(f"Invalid value for 'n_samples': {n_samples}; expected at least 1")
        return mixture.sample(n_samples, rng=generator(self.random_state), **options)


def _mean(x: Array, weight: Array | None) -> Array:
    xp = backends.namespace(x)
    return xp.mean(x) if weight is None else xp.sum(weight * x) / xp.sum(weight)


def as_start(name: str, value: Any, like: Array, shape: tuple[int, ...]) -> Array | None:
    """Return a part of the start as an array like the data, or raise `InputError` for its shape."""
    if value is None:
        return None
    refuse_masks(value)
    value = as_parameter(name, value, like, ())
    if tuple(value.shape) != shape:
        raise InputError(f"The parameter '{name}' should have the shape of {shape}, but got {tuple(value.shape)}")
    return value


def weights_start(value: Any, like: Array, n_components: int) -> Array | None:
    """Return starting weights that are shares of one, or raise `InputError`."""
    weights = as_start("weights", value, like, (n_components,))
    if weights is None:
        return None
    xp = backends.namespace(weights)
    low, high, total = float(xp.min(weights)), float(xp.max(weights)), float(xp.sum(weights))
    if low < 0 or high > 1:
        raise InputError(
            f"The parameter 'weights' should be in the range [0, 1], but got max value {high:.5f}, min value {low:.5f}"
        )
    if abs(total - 1) > eps(weights) ** 0.5:
        raise InputError(f"The parameter 'weights' should be normalized, but got sum(weights) = {total:.5f}")
    return weights
