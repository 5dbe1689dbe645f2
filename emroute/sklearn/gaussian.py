"""Gaussian mixtures with scikit-learn's parameters and attributes."""

from __future__ import annotations

from typing import Any

import numpy as np

from emroute import backend as backends
from emroute.arrays.creation import swap
from emroute.backend import Array
from emroute.errors import InputError
from emroute.fitting import Options
from emroute.gmm.covariance import COVARIANCES
from emroute.gmm.fitting import fit_model
from emroute.gmm.mixture import GaussianMixture as Gaussians
from emroute.gmm.ridge import RidgeModel, collapsed, one_step, triangular
from emroute.gmm.start import symmetric
from emroute.kmeans.clustering import cluster
from emroute.mixture import Mixture
from emroute.sklearn.base import as_array
from emroute.sklearn.mixture import MixtureEstimator, as_start, weights_start
from emroute.validate import check_choice, check_number

__all__ = ["GaussianMixture"]

_STARTS = {
    "kmeans": {"init": "k-means++"},
    "k-means++": {"init": "k-means++", "max_iter": 0},
    "random_from_data": {"init": "random", "max_iter": 0},
    "random": {},
}


class GaussianMixture(MixtureEstimator):
    """A Gaussian mixture, a replacement for `sklearn.mixture.GaussianMixture`.

    Parameters
    ----------
    n_components
        The number of components, k.
    covariance_type
        ``"full"``, ``"tied"``, ``"diag"`` or ``"spherical"``, or one of the fourteen codes of `emroute.gmm.fit`, whose
        arrays have the shape of full (of three letters E or V), diag (EEI, VEI, EVI) or spherical ones (EII).
    tol
        Stop when the mean log-likelihood per row changes by less than this.
    reg_covar
        A constant that is added to every variance in each M-step, so that the likelihood may fall a little.
        `emroute.gmm.fit` has a floor instead, with which it never falls.
    max_iter
        The largest number of iterations.
    n_init
        The number of starts. They run in one batch, and the best fit is kept.
    init_params
        How to start: from the clusters of k-means (``"kmeans"``), from rows drawn by ``"k-means++"`` or uniformly
        (``"random_from_data"``), or from random responsibilities (``"random"``).
    weights_init, means_init, precisions_init
        Starting weights ``(k,)``, means ``(k, d)`` and precisions in the shape of `covariances_`.
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
    means_
        The means, ``(k, d)``.
    covariances_, precisions_, precisions_cholesky_
        Covariances, precisions U U' and their upper triangular factors U: full ``(k, d, d)``, tied ``(d, d)``, diag
        ``(k, d)``, spherical ``(k,)``.
    converged_
        Whether the fit converged.
    n_iter_
        The number of iterations.
    lower_bound_, lower_bounds_
        The mean log-likelihood per row at the end, and after each iteration.
    mixture_
        The fitted `emroute.gmm.GaussianMixture`.
    n_features_in_, feature_names_in_
        The number and names of features, as in all of scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[0.0], [1.0], [10.0], [11.0]])
    >>> estimator = GaussianMixture(2, random_state=0).fit(x)
    >>> sorted(estimator.means_[:, 0].round(3).tolist()), estimator.converged_
    ([0.5, 10.5], True)
    """

    _parts = ("means_", "covariances_", "precisions_cholesky_")

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
    ) -> None:
        super().__init__(
            n_components=n_components,
            tol=tol,
            max_iter=max_iter,
            n_init=n_init,
            init_params=init_params,
            weights_init=weights_init,
            random_state=random_state,
            warm_start=warm_start,
            verbose=verbose,
            verbose_interval=verbose_interval,
        )
        self.covariance_type = covariance_type
        self.reg_covar = reg_covar
        self.means_init = means_init
        self.precisions_init = precisions_init

    def sample(self, n_samples: int = 1) -> tuple[Array, Array]:
        """Draw rows ``(n, d)`` and their components ``(n,)``."""
        return self._sampled(n_samples)

    def _model(self) -> RidgeModel:
        check_choice("covariance_type", self.covariance_type, tuple(COVARIANCES))
        return RidgeModel(self.covariance_type, ridge=check_number("reg_covar", self.reg_covar))

    def _given(self, like: Array) -> tuple[Array | None, ...]:
        k, d = self.n_components, like.shape[-1]
        weights = weights_start(self.weights_init, like, k)
        means = as_start("means", self.means_init, like, (k, d))
        name = f"{self.covariance_type} precision"
        precisions = as_start(name, self.precisions_init, like, self._model().covariance.shape(k, d))
        return weights, means, None if precisions is None else self._inverse(name, precisions)

    def _inverse(self, name: str, precisions: Array) -> Array:
        xp, covariance = backends.namespace(precisions), self._model().covariance
        dense = covariance.matrices
        if (dense and not symmetric(precisions)) or not xp.all(covariance.least(precisions) > 0):
            raise InputError(f"'{name}' should be {'symmetric, positive-definite' if dense else 'positive'}")
        return covariance.inverse(precisions)

    def _drawn(self, x: Any, weight: Array | None, rng: np.random.Generator) -> tuple[Array, ...]:
        check_choice("init_params", self.init_params, tuple(_STARTS))
        if self.init_params == "random":
            shares = rng.random((x.shape[0], self.n_components))
            known = backends.get(x).from_numpy(shares / shares.sum(axis=1, keepdims=True), x)
        else:
            options = {"tol": 0.0, "max_iter": 300, "rng": rng, "sample_weight": weight}
            options |= _STARTS[self.init_params]
            known = cluster(x, self.n_components, Options(**options)).labels
        return self._parameters(self._sound(one_step(self._model(), x, self.n_components, weight, known)))

    def _climb(self, x: Any, weight: Array | None, init: tuple[Array, ...], **options: Any) -> Mixture:
        return fit_model(self._model(), x, self.n_components, 0.0, Options(sample_weight=weight, init=init, **options))

    def _parameters(self, mixture: Any) -> tuple[Array, ...]:
        return mixture.weights, mixture.means, mixture.covariances

    def _assembled(self) -> Mixture:
        """Return precisions from their factors, which have precedence as in scikit-learn, or from the covariances."""
        means = as_array(self.means_)
        weights = as_array(self.weights_, means)
        if hasattr(self, "precisions_cholesky_"):
            factor, xp = as_array(self.precisions_cholesky_, means), backends.namespace(means)
            dense = self._model().covariance.matrices
            inverse = xp.linalg.inv(factor) if dense else 1 / factor
            covariances = xp.matmul(swap(inverse), inverse) if dense else inverse**2
        else:
            covariances = as_array(self.covariances_, means)
        return Gaussians.from_parameters(weights, means, covariances, covariance_type=self.covariance_type)

    def _sound(self, mixture: Any) -> Any:
        if collapsed(mixture):
            raise InputError(
                "Fitting the mixture model failed because some components have ill-defined empirical covariance (for "
                "instance caused by singleton or collapsed samples). Try to decrease the number of components, "
                "increase reg_covar, or scale the input data."
            )
        return mixture

    def _publish(self, mixture: Any) -> None:
        self.means_, self.covariances_ = mixture.means, mixture.covariances
        self.precisions_cholesky_ = factor = triangular(mixture)
        dense = self._model().covariance.matrices
        self.precisions_ = backends.namespace(factor).matmul(factor, swap(factor)) if dense else factor**2
