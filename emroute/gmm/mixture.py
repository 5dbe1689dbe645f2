"""Gaussian mixtures, the results of `emroute.gmm.fitting`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute._engine.once import once
from emroute._engine.rows import outside
from emroute._engine.rowwise import each_row, each_row_once
from emroute.arrays.creation import full
from emroute.arrays.trees import map_leaves
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.data import Rows
from emroute.errors import InputError
from emroute.gmm.covariance import COVARIANCES
from emroute.gmm.gaps import GappyModel, conditional, gappy
from emroute.gmm.model import GaussianModel
from emroute.gmm.params import Params
from emroute.gmm.spare import component_axes
from emroute.gmm.spread import Spread
from emroute.gmm.start import begin, from_init
from emroute.gmm.tiles import check_seen, gaps_in, in_order, tiled
from emroute.mixture import Mixture
from emroute.validate import as_parameter, check_choice, check_count, check_floating

__all__ = ["GaussianMixture"]


@dataclass(frozen=True, repr=False, eq=False)
class GaussianMixture(Mixture):
    """A Gaussian mixture over ``x (..., n, d)``.

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
        """The means of the components, ``(..., k, d)``."""
        return once(backends.get(self.weights), GaussianModel.means, self.model)(self.params)

    @property
    def covariances(self) -> Array:
        """Covariances: full ``(..., k, d, d)``, tied ``(..., d, d)``, diag ``(..., k, d)``, spherical ``(..., k)``."""
        return once(backends.get(self.weights), GaussianModel.covariances, self.model)(self.params)

    @property
    def floored(self) -> Array:
        """Which components are on the covariance floor in some direction, as narrow as `fit` allows, ``(..., k)``."""
        xp = backends.namespace(self.weights)
        return xp.broadcast_to(self.params.spread.floored > 0, self.weights.shape)

    remedies = Mixture.remedies | {
        "floored": "came to rest on the covariance floor, so the likelihood reflects the floor and not the data: "
        "leave out constant features, fit fewer components, choose another covariance_type, use more rows, or raise "
        "covariance_floor"
    }

    def marked(self) -> dict[str, Array]:
        """Return what a user should know about single components: by name, whether it holds for each, ``(..., k)``."""
        return {**super().marked(), "floored": self.floored}

    def _component_axes(self) -> Any:
        """Return along which axis each array of the parameters has the components, None where they share it."""
        return component_axes(self.model)

    def widened(self) -> GaussianMixture:
        """Return the mixture in which no variance of a floored component is below the width of the features.

        Its likelihood gains nothing from a low floor, so it can be compared with those of other models.
        """
        params = once(backends.get(self.weights), GaussianModel.widen, self.model)(self.params)
        return replace(self, params=params)

    @property
    def n_parameters(self) -> int:
        """The number of free parameters of one problem."""
        k, d = self.params.means.shape[-2:]
        parts = {"weights": k - 1, "means": k * d, "covariances": self.model.covariance.n_parameters(k, d)}
        return sum(number for part, number in parts.items() if part not in self.model.fixed)

    @classmethod
    @Capabilities(gradients=True, jit=True, batch=True)
    def from_parameters(
        cls, weights: Array, means: Array, covariances: Array, *, covariance_type: str = "full"
    ) -> GaussianMixture:
        """Return the mixture with these parameters, which have the shapes of the properties of the same names.

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
        """Draw `n` rows ``(..., n, d)`` and their components ``(..., n)``.

        `rng` is None, a seed or a `numpy.random.Generator`. Random numbers are drawn on the host.
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

    @Capabilities(batch=True)
    def impute(self, x: Array) -> Array:
        """Rows ``(..., n, d)`` whose gaps, which are NaN, have the values expected of them given what is seen.

        >>> import numpy as np
        >>> covariances = np.asarray([[[1.0, 0.5], [0.5, 1.0]]])
        >>> one = GaussianMixture.from_parameters(np.ones(1), np.zeros((1, 2)), covariances)
        >>> one.impute(np.asarray([[2.0, np.nan], [1.0, 3.0]])).round(6).tolist()
        [[2.0, 1.0], [1.0, 3.0]]

        Raises
        ------
        InputError
            If rows hold infinity, or a compiler is tracing, so that gaps are not known.
        """
        check_seen(x)
        detached = replace(self, params=map_leaves(backends.get(self.weights).detach, self.params))
        rows = replace(detached, model=replace(self.model, missing="marginalize"))._rows((outside(x),))
        gaps = gaps_in(rows.arrays[0])
        if gaps is None:
            return outside(x)
        return detached._each_gappy(each_row, GappyModel.impute, rows, gaps)

    @Capabilities(gradients=True, jit=True, batch=True)
    def marginal(self, features: Sequence[int]) -> GaussianMixture:
        """Return the mixture of some features alone, by their places.

        >>> import numpy as np
        >>> two = GaussianMixture.from_parameters(np.ones(1), np.asarray([[1.0, 2.0]]), np.eye(2)[None])
        >>> two.marginal([1]).means.tolist()
        [[2.0]]
        """
        places = self._places(features)
        model = replace(self.model, covariance_type=self.model.covariance.of_some(self.covariance_type))
        index = backends.get(self.weights).from_numpy(np.asarray(places), self.weights)
        return self.unfitted(model, once(backends.get(self.weights), GaussianModel.marginal, model)(self.params, index))

    @Capabilities(gradients=True, jit=True, batch=True)
    def condition(self, features: Sequence[int], values: Array) -> GaussianMixture:
        """Return the mixture of the other features, given values ``(..., f)`` of these.

        Leading dimensions of the values are a batch of mixtures; they broadcast against those of this one.

        >>> import numpy as np
        >>> covariances = np.asarray([[[1.0, 0.5], [0.5, 1.0]]])
        >>> one = GaussianMixture.from_parameters(np.ones(1), np.zeros((1, 2)), covariances)
        >>> given = one.condition([0], np.asarray([2.0]))
        >>> given.means.round(9).tolist(), given.covariances.round(9).tolist()
        ([[1.0]], [[[0.75]]])
        """
        places, d = self._places(features), self.params.means.shape[-1]
        others = [place for place in range(d) if place not in places]
        if not others:
            raise InputError(f"got all {d} features; expected at least one to be left")
        values = as_parameter("values", values, self.weights, (len(places),))
        find = once(backends.get(self.weights), conditional, self.model, tuple(places), tuple(others))
        kind = self.model.covariance.of_some(self.covariance_type)
        return self.from_parameters(*find(self.params, values), covariance_type=kind)

    def _places(self, features: Sequence[int]) -> list[int]:
        d = self.params.means.shape[-1]
        features = [features] if isinstance(features, int) else features
        if not isinstance(features, Iterable):
            raise InputError(f"got features {features!r}, expected integers from 0 to {d - 1}")
        places = [check_count("a feature", feature, 0) for feature in features]
        if not places or len(set(places)) < len(places) or max(places) >= d:
            raise InputError(f"got features {list(features)!r}, expected one or more of 0 to {d - 1}, each once")
        return places

    def _each_row(self, run: Callable[..., Array], method: Callable[..., Array], rows: Rows) -> Array:
        gaps = gaps_in(rows.arrays[0]) if self.model.missing == "marginalize" else None
        if gaps is None:
            return super()._each_row(run, method, rows)
        return self._each_gappy(run, getattr(GappyModel, method.__name__, method), rows, gaps)

    def _each_gappy(
        self, run: Callable[..., Array], method: Callable[..., Array], rows: Rows, gaps: np.ndarray
    ) -> Array:
        """Run a method of `GappyModel` on rows with gaps."""
        tiles, place = tiled(rows, gaps)
        batch = tuple(self.weights.shape[:-1])
        found = run(method, gappy(self.model, tiles), self.params, tiles, batch)
        place = place if run is each_row_once else place[..., : rows.n]
        return in_order(found, place, len(np.broadcast_shapes(batch, rows.batch)))

    @classmethod
    def restored(cls, **description: Any) -> tuple[Any, Callable[..., Any]]:
        """Return the model of a saved description, and what makes its parameters."""

        def make(weights: Array, means: Array, *rest: Array) -> Params:
            return Params(weights, means, Spread(*rest[:7]), *rest[7:])  # with axes or without

        description["fixed"] = tuple(description.get("fixed", ()))
        return GaussianModel(**description), make
