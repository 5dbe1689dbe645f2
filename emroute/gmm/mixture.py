"""Fitted mixtures of Gaussians; `emroute.gmm.fitting` makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute._engine.once import once
from emroute.arrays.creation import full
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.gmm.covariance import COVARIANCES
from emroute.gmm.model import GaussianModel, Params, begin
from emroute.gmm.spread import Spread
from emroute.gmm.start import from_init
from emroute.mixture import Mixture
from emroute.validate import check_choice, check_floating

__all__ = ["GaussianMixture"]


@dataclass(frozen=True, repr=False, eq=False)
class GaussianMixture(Mixture):
    """A mixture of Gaussians over ``x (..., n, d)``.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[0.0], [1.0], [10.0], [11.0]])
    >>> from emroute import gmm
    >>> mixture = gmm.fit(x, 2, rng=0)
    >>> sorted(mixture.means[:, 0].round(3).tolist())
    [0.5, 10.5]
    >>> mixture.score(x).round(3)
    np.float64(-1.419)
    """

    @property
    def covariance_type(self) -> str:
        """As it was given to `fit`."""
        return self.model.covariance_type

    @property
    def means(self) -> Array:
        """``(..., k, d)``: the components' means."""
        return once(backends.get(self.weights), GaussianModel.means, self.model)(self.params)

    @property
    def covariances(self) -> Array:
        """Full ``(..., k, d, d)``, tied ``(..., d, d)``, diag ``(..., k, d)``, spherical ``(..., k)``; see `fit`."""
        return once(backends.get(self.weights), GaussianModel.covariances, self.model)(self.params)

    @property
    def floored(self) -> Array:
        """``(..., k)``: which components rest on the floor in some direction; as narrow as `fit` lets them be."""
        xp = backends.namespace(self.weights)
        return xp.broadcast_to(self.params.spread.floored > 0, self.weights.shape)

    remedies = Mixture.remedies | {
        "floored": "came to rest on the floor of the covariances, so the likelihood tells of the floor and not of the "
        "data: leave out constant features, fit fewer components, another covariance_type, more rows than features to "
        "each, or raise covariance_floor"
    }

    def marked(self) -> dict[str, Array]:
        """Return what a user should know of single components, each ``(..., k)`` truth values, by its name."""
        return {**super().marked(), "floored": self.floored}

    def widened(self) -> GaussianMixture:
        """Return the mixture whose floored components have no variance below the features' width: an honest density.

        Its likelihood gains nothing from how low the floor is, so models can be compared by it.
        """
        params = once(backends.get(self.weights), GaussianModel.widen, self.model)(self.params)
        return replace(self, params=params)

    @property
    def n_parameters(self) -> int:
        """Free parameters of one problem."""
        k, d = self.params.means.shape[-2:]
        return k - 1 + k * d + self.model.covariance.n_parameters(k, d)

    @classmethod
    @Capabilities(gradients=True, jit=True, batch=True)
    def from_parameters(
        cls, weights: Array, means: Array, covariances: Array, *, covariance_type: str = "full"
    ) -> GaussianMixture:
        """Return the mixture with these parameters, shaped as the properties of the same names.

        >>> import numpy as np
        >>> one = GaussianMixture.from_parameters(np.ones(1), np.zeros((1, 2)), np.ones((1, 2)), covariance_type="diag")
        >>> one.log_prob(np.zeros((1, 2))).round(6).tolist()
        [-1.837877]
        """
        check_choice("covariance_type", covariance_type, tuple(COVARIANCES))
        check_floating("means", means)
        model = GaussianModel(covariance_type)
        k, d = means.shape[-2:] if means.ndim > 1 else (1, 1)
        nothing = full((d,), 0, like=means)
        backend = backends.get(means)
        params = once(backend, begin, model, k)(nothing, nothing + 1, nothing[..., 0], nothing + 1)
        params = from_init(model, params, (weights, means, covariances))
        spread = params.spread
        return cls.unfitted(model, params._replace(spread=spread._replace(floored=0 * spread.floored)))

    @Capabilities(batch=True)
    def sample(self, n: int, *, rng: Any = None) -> tuple[Array, Array]:
        """Draw `n` rows ``(..., n, d)`` and their component labels ``(..., n)``.

        `rng` is None, a seed or a `numpy.random.Generator`; draws are made on the host.
        """
        return self._sample(n, rng)

    def _draw(self, rng: np.random.Generator, params: Any, labels: np.ndarray, *extra: Any) -> np.ndarray:
        backend = backends.get(self.weights)
        means, covariances = (backend.to_numpy(x).astype(np.float64) for x in (self.means, self.covariances))
        k, d = means.shape[-2:]
        drawn = rng.standard_normal((*labels.shape, d))
        if self.model.covariance.matrices:
            root = np.linalg.cholesky(self.model.covariance.dense(covariances, k, d))
            for place in np.ndindex(*root.shape[:-2]):  # a component of a problem at a time
                *problem, component = place
                rows = labels[tuple(problem)] == component
                drawn[(*problem, rows)] = drawn[(*problem, rows)] @ root[place].T
        else:
            deviations = np.sqrt(covariances).reshape(*means.shape[:-1], -1)
            drawn *= np.take_along_axis(deviations, labels[..., None], axis=-2)
        drawn += np.take_along_axis(means, labels[..., None], axis=-2)
        return drawn

    @classmethod
    def restored(cls, **description: Any) -> tuple[Any, Callable[..., Any]]:
        """Return the model of a saved description, and what makes its parameters."""

        def make(weights: Array, means: Array, *rest: Array) -> Params:
            return Params(weights, means, Spread(*rest[:7]), *rest[7:])  # with axes or without

        return GaussianModel(**description), make
