"""Fitted mixtures: what every family's result can do."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from emroute import backend as backends
from emroute import em
from emroute._batch import problem
from emroute._engine.once import once
from emroute._engine.rowwise import each_row, each_row_once
from emroute._engine.status import described
from emroute.arrays.creation import full
from emroute.arrays.tracing import concrete
from emroute.arrays.trees import map_leaves
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.data import Rows, Stream, open_source, real_weight
from emroute.errors import InputError, InputTypeError
from emroute.family import Family, FamilyModel
from emroute.mixtures.order import in_order, order_of
from emroute.mixtures.storage import check_suffix, loaded, named, read, write
from emroute.mixtures.sums import certainty, weighted
from emroute.remarks import lost, places, remarks
from emroute.validate import as_generator, check_count, check_floating, check_weights

__all__ = ["Mixture"]


@dataclass(frozen=True, repr=False, eq=False)
class Mixture:
    """A mixture of `k` components, fitted to data or made from given parameters.

    Methods take the family's data: ``x (..., n, d)``, or ``heads, trials (..., n)`` for binomials.
    """

    model: Any
    params: Any  # in standard coordinates, for the methods alone
    log_likelihood: Array
    """The total log-likelihood of the data, with every constant, ``(...,)``."""
    trace: Array
    """The log-likelihood at the start and after each iteration, ``(..., t)``."""
    n_iter: Array
    """The number of iterations, ``(...,)``."""
    status: Array
    """How each fit ended, an `emroute.em.Status`, ``(...,)``."""

    family: ClassVar[type[Family]]
    remedies: ClassVar[dict[str, str]] = {"lost": "lost all weight: fit fewer components, or raise n_init"}
    families: ClassVar[dict[str, type[Mixture]]] = {}

    def __init_subclass__(cls) -> None:
        Mixture.families[cls.__name__] = cls

    @property
    def weights(self) -> Array:
        """Mixing weights, ``(..., k)``."""
        return self.params.weights

    @property
    def converged(self) -> Array:
        """Whether each fit converged, ``(...,)``."""
        return self.status == int(em.Status.CONVERGED)

    @property
    def n_components(self) -> int:
        """The number of components, k."""
        return self.weights.shape[-1]

    @property
    def n_parameters(self) -> int:
        """The number of free parameters of one problem."""
        free = 0 if self.model.fixed_weights else self.n_components - 1
        return free + self.model.family.n_parameters(self.params)

    def marked(self) -> dict[str, Array]:
        """Return what a user should know about single components: by name, whether it holds for each, ``(..., k)``."""
        return {} if self.model.fixed_weights else {"lost": lost(self.weights)}

    def remarks(self, max_iter: int) -> list[str]:
        """Return what a user should know about a fit of at most `max_iter` iterations, with the remedies."""
        if not max_iter or concrete(backends.namespace(self.weights).any(self.weights > 0)) is None:
            return []
        found = remarks(self, max_iter)
        for name, which in self.marked().items():
            if where := places(which):
                found.append(f"{'components' if len(where) > 1 else 'component'} {where} {self.remedies[name]}")
        return found

    def __repr__(self) -> str:
        return described(self, "log_likelihood", "n_components", self.marked)

    def __getitem__(self, index: int | slice | tuple[int | slice, ...]) -> Self:
        """Return one problem of a batch, or several: by an integer, a slice, or a tuple of these for more dimensions.

        Raises
        ------
        InputIndexError
            If there is no such problem, or this is no batch.
        """
        history = (self.log_likelihood, self.trace, self.n_iter, self.status)
        params, *history = problem((self.params, *history), tuple(self.weights.shape[:-1]), index)
        return type(self)(self.model, params, *history)

    @Capabilities(gradients=True, jit=True, batch=True)
    def sorted(self, by: str | Array = "weights") -> Self:
        """Return the same mixture with its components in another order.

        Parameters
        ----------
        by
            ``"weights"``, the heaviest first; another parameter, such as ``"means"``, ascending by the first feature;
            or keys ``(..., k)``, ascending.

        Raises
        ------
        InputError
            If there is no such parameter, or the keys have another shape.

        Examples
        --------
        >>> import numpy as np
        >>> from emroute import poisson
        >>> mixture = poisson.PoissonMixture.from_parameters(np.asarray([0.2, 0.8]), np.asarray([9.0, 4.0]))
        >>> mixture.sorted().rates.tolist(), mixture.sorted(by=np.asarray([1, 0])).rates.tolist()
        ([4.0, 9.0], [4.0, 9.0])
        """
        return replace(self, params=in_order(self.params, self._component_axes(), order_of(self, by)))

    def _component_axes(self) -> Any:
        """Return along which axis each array of the parameters has the components, None where they share it."""
        return type(self.params)(-1, self.weights.ndim - 1 - self.params[1].ndim, None)

    @classmethod
    def unfitted(cls, model: Any, params: Any) -> Self:
        """Wrap parameters in a mixture without a history."""
        xp = backends.namespace(params.weights)
        batch = tuple(params.weights.shape[:-1])
        nothing, trace = (full(shape, np.nan, like=params.weights) for shape in (batch, (*batch, 1)))
        count = xp.zeros_like(nothing, dtype=xp.int32)
        return cls(model, params, nothing, trace, count, count + int(em.Status.MAX_ITER))

    @classmethod
    def _of_family(cls, family: Family, weights: Array, value: Array) -> Self:
        """Return the mixture of a family with these weights and its parameter."""
        check_floating("weights", weights)
        params = family.from_neutral(weights, (), weights.shape[-1], value)
        return cls.unfitted(FamilyModel(family), family.from_init((weights, value), params))

    def data(self, *data: Any) -> Any:
        """Arrange what a method was given as the family's data."""
        return data[0] if len(data) == 1 else data

    @Capabilities(gradients=True, jit=True, batch=True, integers=True)
    def log_prob(self, *data: Array) -> Array:
        """Return the log-density of each row (for counts, its log-probability), ``(..., n)``; differentiable."""
        return self._each(type(self.model).log_prob, data)

    @Capabilities(gradients=True, jit=True, batch=True, integers=True)
    def responsibilities(self, *data: Array) -> Array:
        """Return the probability of each component given each row, ``(..., n, k)``."""
        return self._each(type(self.model).responsibilities, data)

    @Capabilities(jit=True, batch=True, integers=True)
    def predict(self, *data: Array) -> Array:
        """Return the most probable component of each row, integers ``(..., n)``."""
        return self._each(type(self.model).predict, data)

    @Capabilities(gradients=True, jit=True, batch=True, integers=True)
    def score(self, *data: Array, sample_weight: Array | None = None) -> Array:
        """Return the mean log-density per row, ``(...,)``, a weighted mean if weights are given."""
        total, weight = self._total(data, sample_weight)
        return total / weight

    @Capabilities(gradients=True, jit=True, batch=True, integers=True)
    def bic(self, *data: Array, sample_weight: Array | None = None) -> Array:
        """Return the Bayesian information criterion, −2 L + p ln n, where n is the sum of the weights. Lower is better.

        Weights count rows here. If they sum to 1, ln n is 0 and more components are always better: multiply them so
        that they sum to the number of rows.
        """
        total, weight = self._total(data, sample_weight)
        return -2 * total + self.n_parameters * backends.namespace(total).log(weight)

    @Capabilities(gradients=True, jit=True, batch=True, integers=True)
    def aic(self, *data: Array, sample_weight: Array | None = None) -> Array:
        """Return Akaike's information criterion, −2 L + 2 p. Lower is better."""
        total, _ = self._total(data, sample_weight)
        return -2 * total + 2 * self.n_parameters

    @Capabilities(gradients=True, jit=True, batch=True, integers=True)
    def icl(self, *data: Array, sample_weight: Array | None = None) -> Array:
        """Return the integrated completed likelihood (Biernacki et al. 2000), BIC − 2 sum_n log max_k r_nk."""
        unsure, _ = self._total(data, sample_weight, certainty)
        return self.bic(*data, sample_weight=sample_weight) - 2 * unsure

    def _rows(self, data: Any, sample_weight: Array | None = None) -> Rows:
        weight = real_weight(sample_weight, self.weights)
        rows = open_source(self.data(*data), weight, self.model.ranks).filled()
        if isinstance(rows, Stream):
            raise InputTypeError("got a source of chunks, expected arrays; call this for each chunk")
        backends.get(self.weights, *rows.arrays)
        self.model.check(self.params, rows)
        return rows

    def _each(self, method: Callable[..., Array], data: tuple[Array, ...]) -> Array:
        return self._each_row(each_row, method, self._rows(data))

    def _each_row(self, run: Callable[..., Array], method: Callable[..., Array], rows: Rows) -> Array:
        return run(method, self.model, self.params, rows, tuple(self.weights.shape[:-1]))

    def _total(
        self, data: tuple[Array, ...], sample_weight: Array | None, method: Callable[..., Array] | None = None
    ) -> tuple[Array, Array]:
        """Return the weighted sum over rows of a method of the model (`log_prob`), and the sum of the weights."""
        rows, method = self._rows(data, sample_weight), method or type(self.model).log_prob
        value = self._each_row(each_row_once, method, rows)
        check_weights("sample_weight", rows.weight, value)
        return once(backends.get(value), weighted)(value, rows.counted.weight)

    def _sample(self, n: int, rng: Any, *extra: Any) -> tuple[Array, Array]:
        """Draw labels and observations on the host, then carry them to the parameters' device."""
        n, rng = check_count("n", n), as_generator(rng)
        backend, params = backends.get(self.weights), map_leaves(backends.get(self.weights).to_numpy, self.params)
        cumulative = np.cumsum(params.weights.astype(np.float64), axis=-1)
        uniform = rng.random((*cumulative.shape[:-1], n, 1)) * cumulative[..., None, -1:]
        labels = np.minimum((uniform >= cumulative[..., None, :]).sum(axis=-1), self.n_components - 1)
        drawn = np.asarray(self._draw(rng, params, labels, *extra), dtype=np.float64)
        return backend.from_numpy(drawn, self.weights), backend.from_numpy(labels, self.weights)

    def _draw(self, rng: np.random.Generator, params: Any, labels: np.ndarray, *extra: Any) -> np.ndarray:
        return self.model.family.draw(rng, params, labels, *extra)

    @Capabilities(batch=True)
    def save(self, path: str | Path) -> None:
        """Write the mixture to ``.npz``, or ``.safetensors`` (needs that package); nothing is pickled.

        An existing file is replaced only once the new one is complete.

        Raises
        ------
        InputError
            If the suffix is neither of the two.
        """
        arrays = {f"params.{name}": value for name, value in named(self.params).items()}
        arrays |= {name: getattr(self, name) for name in ("log_likelihood", "trace", "n_iter", "status")}
        header = {"kind": type(self).__name__, "names": [*named(self.params)], **self.model.describe()}
        write(Path(path), json.dumps(header), {name: backends.get(x).to_numpy(x) for name, x in arrays.items()})

    @classmethod
    @Capabilities(batch=True)
    def load(cls, path: str | Path, *, like: Array | None = None) -> Self:
        """Read a mixture written by `save`.

        Parameters
        ----------
        path
            The file.
        like
            An array of the library and device to load into; NumPy by default. The dtype is that of the file.

        Warns
        -----
        FitWarning
            If the library does not have the file's dtype, as JAX has no float64 unless it is enabled.

        Raises
        ------
        InputError
            If the suffix is neither ``.npz`` nor ``.safetensors``, or the file does not hold a mixture of this class.
        """
        path = Path(path)
        check_suffix(path)
        try:
            header, host = read(path)
            description = json.loads(header)
            kind = Mixture.families[description.pop("kind")]
            params = [host[f"params.{name}"] for name in description.pop("names")]
            history = [host[name] for name in ("log_likelihood", "trace", "n_iter", "status")]
            model, make = kind.restored(**description)
            make(*params)
        except (KeyError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path.name} is not a mixture saved by emroute ({error})") from None
        if not issubclass(kind, cls):
            raise InputError(f"{path.name} holds a {kind.__name__}, expected a {cls.__name__}")
        params, history = loaded(params, like), loaded(history, like)
        return kind(model, make(*params), *history)  # type: ignore[return-value]

    @classmethod
    def restored(cls, **description: Any) -> tuple[Any, Callable[..., Any]]:
        """Return the model that a saved description names, and the function that makes its parameters."""
        fixed_weights = description.pop("fixed_weights")
        return FamilyModel(cls.family(**description), fixed_weights), cls.family.params
