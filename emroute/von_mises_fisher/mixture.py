"""Mixtures of von Mises-Fisher distributions: the fit and its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from emroute._keywords import knows_others
from emroute.arrays.functions import safe_norm
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.em import Fit
from emroute.family import FamilyModel
from emroute.fitting import Options, fit_counts
from emroute.mixture import Mixture
from emroute.validate import check_floating
from emroute.von_mises_fisher.family import VonMisesFisher, direction, highest

__all__ = ["VonMisesFisherMixture", "fit"]


@dataclass(frozen=True, repr=False, eq=False)
class VonMisesFisherMixture(Mixture):
    """A mixture of von Mises-Fisher distributions over unit vectors ``x (..., n, d)``.

    Examples
    --------
    >>> import numpy as np
    >>> angle = np.asarray([0.1, -0.1, 0.0, 3.0, 3.2, 3.1])
    >>> mixture = fit(np.stack([np.cos(angle), np.sin(angle)], axis=-1), 2, rng=0)
    >>> sorted(mixture.means[:, 0].round(2).tolist())
    [-1.0, 1.0]
    """

    family = VonMisesFisher
    remedies = Mixture.remedies | {
        "capped": "reached the highest concentration, as for a single direction: fit fewer components"
    }

    @property
    def means(self) -> Array:
        """Mean directions, unit vectors ``(..., k, d)``; 0 if the concentration is 0."""
        return direction(self.params.vectors)

    @property
    def concentrations(self) -> Array:
        """The concentration of each component, kappa, ``(..., k)``."""
        return safe_norm(self.params.vectors)

    def marked(self) -> dict[str, Array]:
        """Return which components are lost, and which have the highest concentration."""
        kappa = self.concentrations
        return super().marked() | {"capped": kappa > 0.999 * highest(kappa)}

    @classmethod
    @Capabilities(gradients=True, jit=True, batch=True)
    def from_parameters(cls, weights: Array, means: Array, concentrations: Array) -> VonMisesFisherMixture:
        """Return the mixture with weights ``(..., k)``, unit means ``(..., k, d)`` and concentrations ``(..., k)``."""
        check_floating("weights", weights)
        family = VonMisesFisher()
        params = family.from_neutral(weights, (), weights.shape[-1], means)
        return cls.unfitted(FamilyModel(family), family.from_init((weights, (means, concentrations)), params))

    @Capabilities(batch=True)
    def sample(self, n: int, *, rng: Any = None) -> tuple[Array, Array]:
        """Draw `n` unit vectors, ``(..., n, d)``, and their components, ``(..., n)``."""
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
) -> VonMisesFisherMixture:
    """Cluster directions: fit a mixture of von Mises-Fisher distributions by expectation-maximization (EM).

    Parameters
    ----------
    x
        Unit vectors ``(..., n, d)``, such as word embeddings, or points on the circle as (cos, sin); or a source of
        such chunks.
    n_components
        The number of components, k.
    weights
        Mixing weights ``(..., k)`` to keep fixed. By default they are fitted.
    sample_weight
        The weight of each row, ``(n,)`` or ``(..., n)``.
    init
        How to start: ``"k-means++"`` or ``"random"``, starting directions ``(..., k, d)``, or ``(weights, means,
        concentrations)``. Each row is assigned to the nearest starting direction.
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
    VonMisesFisherMixture
        Its arrays have the library and device of the data.

    Raises
    ------
    InputError
        If a row does not have length 1 (the message names the first such row), or if shapes or options are invalid.
    InputTypeError
        If arrays differ in library, device or floating dtype.

    Notes
    -----
    The density of a single direction has no bound, so concentrations stop at 1e8, and at 1e4 in float32.

    References
    ----------
    Banerjee, A., Dhillon, I. S., Ghosh, J. and Sra, S. (2005). Clustering on the unit hypersphere using von
    Mises-Fisher distributions.

    Examples
    --------
    >>> import numpy as np
    >>> angle = np.asarray([0.1, -0.1, 0.0, 3.0, 3.2, 3.1])
    >>> mixture = fit(np.stack([np.cos(angle), np.sin(angle)], axis=-1), 2, rng=0)
    >>> mixture.weights.round(3).tolist(), mixture.concentrations.round().tolist()
    ([0.5, 0.5], [150.0, 150.0])
    """
    if isinstance(init, tuple) and len(init) == 3:
        init = init[0], init[1:]
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
    return fit_counts(VonMisesFisherMixture, VonMisesFisher(), x, n_components, options)
