"""Clusterings by k-means: what `emroute.kmeans.fit` returns."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emroute import backend as backends
from emroute._batch import problem
from emroute._engine.rowwise import each_row
from emroute._engine.status import described
from emroute.arrays.creation import as_integers
from emroute.arrays.distances import alike
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.data import Stream, open_source
from emroute.em import Status
from emroute.errors import InputError, InputTypeError
from emroute.kmeans.model import KMeansModel, Params, Shared
from emroute.mixtures.storage import kind_of, loaded, read, write
from emroute.validate import check_floating, check_scored, check_width, require

__all__ = ["KMeans"]

_HISTORY = ("inertia", "trace", "n_iter", "status")


@dataclass(frozen=True, repr=False, eq=False)
class KMeans:
    """A clustering by k-means; made by `emroute.kmeans.fit`, or from centroids.

    Examples
    --------
    >>> import numpy as np
    >>> from emroute import kmeans
    >>> clusters = kmeans.fit(np.asarray([[0.0], [1.0], [10.0], [11.0]]), 2, rng=0)
    >>> sorted(clusters.centroids[:, 0].tolist()), float(clusters.inertia)
    ([0.5, 10.5], 1.0)
    """

    model: KMeansModel
    params: Params
    labels: Array
    """``(..., n)``: the nearest centroid of each row that was fitted."""
    inertia: Array
    """``(...,)``: weighted squared distances to the nearest centroids, from differences, not products."""
    trace: Array
    """``(..., t)``: minus the inertia, at the start and after each iteration."""
    n_iter: Array
    """``(...,)``: iterations made."""
    status: Array
    """``(...,)``: an `emroute.em.Status` each."""

    @property
    def centroids(self) -> Array:
        """``(..., k, d)``."""
        return (self.params.centroids + self.params.centre[..., None, :]) * self.params.unit[..., None, None]

    @property
    def converged(self) -> Array:
        """``(...,)``: whether the inertia came to rest."""
        return self.status == int(Status.CONVERGED)

    @property
    def n_clusters(self) -> int:
        """How many clusters, k."""
        return self.params.centroids.shape[-2]

    def __repr__(self) -> str:
        return described(self, "inertia", "n_clusters")

    def __getitem__(self, index: int | slice | tuple[int | slice, ...]) -> KMeans:
        """Return one problem of a batch, or several.

        Parameters
        ----------
        index
            An integer for a problem, a slice for several; a tuple of these where the batch has several dimensions.

        Raises
        ------
        InputIndexError
            If there is no such problem, or this is no batch.
        """
        parts = (self.params, self.labels, *(getattr(self, name) for name in _HISTORY))
        return KMeans(self.model, *problem(parts, tuple(self.params.centroids.shape[:-2]), index))

    @Capabilities(jit=True, batch=True)
    def predict(self, x: Array) -> Array:
        """Return the nearest centroid of each row, ``(..., n)`` integers."""
        return self.assign(x)[0]

    @Capabilities(gradients=True, jit=True, batch=True)
    def assign(self, x: Array) -> tuple[Array, Array]:
        """Return the nearest centroid of each row, and the squared distance to it, both ``(..., n)``."""
        return self._each(KMeansModel.assign, x)

    @Capabilities(gradients=True, jit=True, batch=True)
    def transform(self, x: Array) -> Array:
        """Distances to all centroids, ``(..., n, k)``."""
        return self._each(KMeansModel.distances, x)

    @classmethod
    @Capabilities(gradients=True, jit=True, batch=True)
    def from_centroids(cls, centroids: Array) -> KMeans:
        """Return the clustering with these centroids, ``(..., k, d)``, which has labels of no rows.

        Examples
        --------
        >>> import numpy as np
        >>> KMeans.from_centroids(np.asarray([[0.0], [10.0]])).predict(np.asarray([[1.0], [7.0]])).tolist()
        [0, 1]
        """
        check_floating("centroids", centroids)
        if centroids.ndim < 2 or 0 in centroids.shape[-2:]:
            raise InputError(f"got centroids of shape {tuple(centroids.shape)}, expected (..., k, d)")
        xp = backends.namespace(centroids)
        require(xp.all(xp.isfinite(centroids)), lambda: "centroids hold NaN or infinity")
        zero = 0 * centroids[..., 0, 0]
        shared = Shared(0 * centroids[..., 0, :], zero, zero, zero + 1)
        params = Params(centroids, zero, alike(centroids), *shared)
        count = xp.astype(zero, xp.int32)
        labels = as_integers(count[..., None][..., :0])
        nothing = zero + xp.nan
        status = count + int(Status.MAX_ITER)
        return cls(KMeansModel(False), params, labels, nothing, nothing[..., None], count, status)

    @Capabilities(batch=True)
    def save(self, path: str | Path) -> None:
        """Write the clustering to ``.npz``, or ``.safetensors`` (needs that package); nothing is pickled.

        Raises
        ------
        InputError
            If the suffix is neither.
        """
        arrays = {f"params.{name}": value for name, value in self.params._asdict().items()}
        arrays |= {name: getattr(self, name) for name in ("labels", *_HISTORY)}
        header = {"kind": "KMeans", "centred": self.model.centred, "scaled": self.model.scaled}
        write(Path(path), json.dumps(header), {name: backends.get(x).to_numpy(x) for name, x in arrays.items()})

    @classmethod
    @Capabilities(batch=True)
    def load(cls, path: str | Path, *, like: Array | None = None) -> KMeans:
        """Read a clustering written by `save`.

        Parameters
        ----------
        path
            The file.
        like
            An array of the library and device to load into; NumPy by default. The dtype is that of the file.

        Raises
        ------
        InputError
            If the suffix is neither of those of `save`, or the file holds something else.
        """
        path = Path(path)
        if kind_of(path) != "KMeans":
            raise InputError(f"{path.name} is not a clustering saved by emroute")
        header, host = read(path)
        settings, names = json.loads(header), [*(f"params.{name}" for name in Params._fields), "labels", *_HISTORY]
        arrays = loaded([host[name] for name in names], like)
        params = Params(*arrays[: len(Params._fields)])
        return cls(KMeansModel(settings["centred"], settings["scaled"]), params, *arrays[len(params) :])

    def _each(self, method: Callable[..., Any], x: Array) -> Any:
        rows = open_source(x, None, (1,)).filled()
        if isinstance(rows, Stream):
            raise InputTypeError("got a source of chunks, expected an array; call this for each chunk")
        check_floating("x", self.params.centroids, *rows.arrays)
        check_width(rows.arrays[0], self.params.centroids.shape[-1])
        check_scored(rows)
        with np.errstate(over="ignore"):  # labels are right where squared distances are beyond the dtype
            return each_row(method, self.model, self.params, rows, tuple(self.params.centroids.shape[:-2]))
