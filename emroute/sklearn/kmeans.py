"""k-means with scikit-learn's parameters and attributes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, Self

from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from emroute import backend as backends
from emroute import kmeans
from emroute._engine.moments import moments_of
from emroute.backend import Array
from emroute.data import open_source
from emroute.em import Fit
from emroute.errors import InputError
from emroute.fitting import Options
from emroute.kmeans.clustering import cluster
from emroute.sklearn.base import Blocks, Estimator, as_array, as_bits, as_number, as_weight, generator, over_rows
from emroute.validate import as_parameter, check_choice, check_count, check_floating, check_number

__all__ = ["KMeans"]


class KMeans(TransformerMixin, ClassNamePrefixFeaturesOutMixin, ClusterMixin, Estimator):
    """k-means clustering, a replacement for `sklearn.cluster.KMeans`.

    Parameters
    ----------
    n_clusters
        The number of clusters, k.
    init
        How to start: ``"k-means++"`` (greedy) or ``"random"`` rows, centres ``(k, d)``, or a function ``(X, n_clusters,
        random_state)`` that returns them.
    n_init
        The number of starts, of which the best fit is kept. ``"auto"`` is 10 for random rows and functions, else 1.
    max_iter
        The largest number of iterations.
    tol
        Stop when the squared shifts of the centres sum to no more than this fraction of the mean variance of the
        features.
    verbose
        Whether to print the inertia of each iteration.
    random_state
        None, a seed or a `numpy.random.RandomState`.
    copy_x, algorithm
        Accepted for compatibility, without effect: the data are never changed, and ``"elkan"`` is the same as
        ``"lloyd"``.

    Attributes
    ----------
    cluster_centers_
        The centres, ``(k, d)``.
    labels_
        The nearest centre of each row, ``(n,)``.
    inertia_
        The weighted sum of squared distances of the rows to their nearest centres.
    n_iter_
        The number of iterations.
    clusters_
        The fitted `emroute.kmeans.KMeans`.
    n_features_in_, feature_names_in_
        The number and names of features, as in all of scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.asarray([[0.0], [1.0], [10.0], [11.0]])
    >>> estimator = KMeans(2, random_state=0).fit(x)
    >>> sorted(estimator.cluster_centers_[:, 0].tolist()), estimator.inertia_
    ([0.5, 10.5], 1.0)
    """

    _sparse = True
    _fitted = "cluster_centers_"

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "k-means++",
        n_init: Any = "auto",
        max_iter: int = 300,
        tol: float = 1e-4,
        verbose: int = 0,
        random_state: Any = None,
        copy_x: bool = True,
        algorithm: str = "lloyd",
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.verbose = verbose
        self.random_state = random_state
        self.copy_x = copy_x
        self.algorithm = algorithm

    def fit(self, X: Any, y: None = None, sample_weight: Any = None) -> Self:
        """Cluster rows.

        Parameters
        ----------
        X
            Rows ``(n, d)``: an array of any library, a data frame, sparse rows, or anything that scikit-learn converts
            to an array.
        y
            Not used.
        sample_weight
            The weight of each row, ``(n,)``. An integer weight is the same as repeating the row.

        Returns
        -------
        Self
            The fitted estimator.

        Raises
        ------
        ValueError
            If the data, the weights, the centres or a parameter are invalid.
        """
        check_choice("algorithm", self.algorithm, ("lloyd", "elkan"))
        x = self._read(X, reset=True)
        k, n = check_count("n_clusters", self.n_clusters), x.shape[0]
        if n < k:
            raise InputError(f"n_samples={n} should be >= n_clusters={k}")
        like = next(iter(x)) if isinstance(x, Blocks) else x
        check_floating("x", like)
        weight = as_weight(sample_weight, x)
        variance = moments_of(open_source(x)).variance
        shift_tol = check_number("tol", self.tol) * float(backends.namespace(variance).mean(variance))
        shift_tol = shift_tol if math.isfinite(shift_tol) else 0.0  # squares overflow: go on until nothing changes
        options: dict[str, Any] = {"tol": 0.0, "max_iter": self.max_iter, "callback": self._reporter()}
        options |= {"sample_weight": weight, "rng": generator(self.random_state)}
        fits = [
            cluster(x, k, Options(init=init, n_init=n_init, **options), shift_tol)
            for init, n_init in self._starts(x, like)
        ]
        clusters = min(fits, key=lambda fit: float(fit.inertia))
        self.n_iter_, at_rest = int(clusters.n_iter), bool(clusters.converged)
        if shift_tol and at_rest:  # converged centres must still make the last small shift
            clusters = cluster(x, k, Options(sample_weight=weight, init=clusters.centroids, tol=0.0, max_iter=1))
        self.clusters_, self.cluster_centers_, self.labels_ = clusters, clusters.centroids, clusters.labels
        self.inertia_ = float(clusters.inertia)
        if self.verbose:
            why = f"center shift is within tolerance {shift_tol}" if shift_tol else "strict convergence"
            print(f"Ended at iteration {self.n_iter_}: {why if at_rest else 'max_iter reached'}.")
        distinct = backends.namespace(self.labels_).unique_values(self.labels_).shape[0]
        if distinct < k:
            warnings.warn(
                f"Number of distinct clusters ({distinct}) found smaller than n_clusters ({k}). Possibly due to "
                "duplicate points in X.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _starts(self, x: Any, like: Array) -> list[tuple[Any, int]]:
        """Return starts, and how often each is drawn."""
        by_row = isinstance(self.init, str) and self.init == "k-means++"
        drawn = isinstance(self.init, str) or callable(self.init)
        if isinstance(self.n_init, str):
            check_choice("n_init", self.n_init, ("auto",))
            n_init = 10 if drawn and not by_row else 1
        else:
            n_init = check_count("n_init", self.n_init)
        if isinstance(self.init, str):
            return [(self.init, n_init)]
        if callable(self.init):
            state = check_random_state(self.random_state)
            rows = x.x if isinstance(x, Blocks) else x
            return [
                (self._centres(self.init(rows, self.n_clusters, random_state=state), like), 1) for _ in range(n_init)
            ]
        if n_init > 1:
            warnings.warn(
                f"Explicit initial center position passed: performing only one init in KMeans instead of {n_init}",
                RuntimeWarning,
                stacklevel=3,
            )
        return [(self._centres(self.init, like), 1)]

    def _centres(self, value: Any, like: Array) -> Array:
        """Return given centres as an array like the data, or raise `InputError` for their shape."""
        centres = as_parameter("starting centres", value, like, ())
        shape = tuple(centres.shape)
        expected = {"number of clusters": self.n_clusters, "number of features of the data": like.shape[1]}
        for size, (what, wanted) in zip(shape + (None,) * (2 - len(shape)), expected.items(), strict=True):
            if size != wanted:
                raise InputError(f"The shape of the initial centers {shape} does not match the {what} {wanted}.")
        return centres

    def _reporter(self) -> Callable[[int, Fit], None] | None:
        """Return the function that prints the progress, if requested."""
        if not self.verbose:
            return None
        print("Initialization complete")

        def report(iteration: int, fit: Fit) -> None:
            print(f"Iteration {iteration}, inertia {-float(backends.namespace(fit.objective).max(fit.objective))}.")

        return report

    def predict(self, X: Any) -> Array:
        """Return the nearest centre of each row, ``(n,)`` integers."""
        return self._over_rows(lambda clusters, rows: clusters.predict(rows), X)

    def transform(self, X: Any) -> Array:
        """Return the distances to all centres, ``(n, k)``."""
        return self._over_rows(lambda clusters, rows: clusters.transform(rows), X)

    def score(self, X: Any, y: None = None, sample_weight: Any = None) -> float:
        """Return minus the inertia of rows."""
        square = self._over_rows(lambda clusters, rows: clusters.assign(rows)[1], X)
        xp, weight = backends.namespace(square), as_weight(sample_weight, square)
        return -as_number(xp.sum(square) if weight is None else xp.sum(weight * square))

    def _over_rows(self, function: Callable[[kmeans.KMeans, Array], Array], X: Any) -> Array:
        clusters = self._current()
        return over_rows(lambda rows: function(clusters, rows), self._read(X, reset=False))

    def _current(self) -> kmeans.KMeans:
        """Return the fitted clusters, or those of centres that were set or changed by hand, as in scikit-learn."""
        check_is_fitted(self, self._fitted)
        centres = as_array(self.cluster_centers_)
        if hasattr(self, "clusters_") and as_bits(self.clusters_.centroids) == as_bits(centres):
            return self.clusters_
        return kmeans.fit(centres, centres.shape[0], init=centres, max_iter=0)

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)
