"""Model choice: how many components, and which covariances, by an information criterion.

A grid of Gaussian mixtures is fitted, and the one with the least criterion is best:

    BIC = -2 L + p ln n        AIC = -2 L + 2 p        ICL = BIC - 2 sum_n w_n log max_k r_nk

with L the log-likelihood, p the number of free parameters and n the sum of the weights. BIC (Schwarz 1978) finds the
number of components as data grow, AIC (Akaike 1974) predicts best and takes more of them, ICL (Biernacki, Celeux and
Govaert 2000) counts clusters: overlapping components cost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from emroute import backend as backends
from emroute._criteria import CRITERIA, criteria_of
from emroute._foreign import obstacle
from emroute._keywords import knows_others
from emroute._progress import bar
from emroute.arrays.tracing import concrete
from emroute.backend import Array, is_array
from emroute.capability import Capabilities
from emroute.errors import InputError, InputTypeError, tell
from emroute.fitting import Options
from emroute.gmm import GaussianMixture
from emroute.gmm.covariance import CODES, COVARIANCES, NAMED
from emroute.gmm.fitting import fit_model
from emroute.gmm.model import MISSING, GaussianModel
from emroute.remarks import places
from emroute.validate import check_choice, check_count, check_number

__all__ = ["CRITERIA", "Choice", "Row", "mixtures"]


class Row(NamedTuple):
    """One fit of the grid, in numbers of the host."""

    n_components: int
    covariance_type: str
    log_likelihood: float
    n_parameters: int
    bic: float
    aic: float
    icl: float
    converged: bool


@dataclass(frozen=True, repr=False)
class Choice:
    """A grid of fits and the best of them; made by `mixtures`. Printed, it is its table.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.concatenate([np.random.default_rng(0).normal(m, 1, (100, 2)) for m in (0, 8)])
    >>> print(mixtures(x, range(1, 4), "spherical", rng=0))
    n_components  covariance_type  log_likelihood  n_parameters      bic      aic      icl  converged
               1        spherical        -1133.23             3  2282.36  2272.47  2282.36       True
               2        spherical         -688.76             7  1414.60  1391.51  1414.60       True  *
               3        spherical         -683.49            11  1425.25  1388.97  1428.58       True
    """

    criterion: str
    """``"bic"``, ``"aic"`` or ``"icl"``."""
    table: tuple[Row, ...]
    """A row a fit, the covariance types of each number of components together."""
    mixtures: tuple[GaussianMixture, ...]
    """The fits, in the order of `table`."""

    @property
    def index(self) -> int:
        """The row of the least criterion; the first of equals. A fit that is not finite is never best."""
        return min(range(len(self.table)), key=lambda place: _order(getattr(self.table[place], self.criterion)))

    @property
    def best(self) -> GaussianMixture:
        """The mixture of the least criterion."""
        return self.mixtures[self.index]

    def __repr__(self) -> str:
        row = self.table[self.index]
        value = getattr(row, self.criterion)
        fields = [f"{row.n_components} {row.covariance_type}, {self.criterion}={value:.6f}, of {len(self.table)}"]
        fields += [f"{name}={where}" for name, which in self.best.marked().items() if (where := places(which))]
        if not row.converged:
            fields.append("not converged")
        if _edge(self, [row.n_components for row in self.table]):
            fields.append("the largest tried")
        return f"Choice({', '.join(fields)})"

    def __str__(self) -> str:
        rows = [Row._fields, *([_text(value) for value in row] for row in self.table)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.rjust, row, widths)) for row in rows]
        lines[1 + self.index] += "  *"
        return "\n".join(lines)


def _order(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _text(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


@Capabilities()
@knows_others
def mixtures(
    x: Array,
    n_components: int | Iterable[int] = range(1, 7),
    covariance_type: str | Sequence[str] = NAMED,
    criterion: str = "bic",
    *,
    missing: str = "refuse",
    sample_weight: Array | None = None,
    init: str = "k-means++",
    n_init: int = 1,
    tol: float = 1e-6,
    max_iter: int = 1000,
    covariance_floor: float = 1e-6,
    rng: Any = None,
    chunk_size: int | None = None,
    progress: bool = False,
) -> Choice:
    """Fit Gaussian mixtures of several sizes and covariance types, and choose one.

    Parameters
    ----------
    x
        ``(n, d)`` in float32 or float64: one problem. For a batch, choose for each problem by itself.
    n_components
        How many components to try: one number or several.
    covariance_type
        One or several of those of `emroute.gmm.fit`, or ``"all"`` for the fourteen codes.
    criterion
        What the best has least of: ``"bic"``, ``"aic"`` or ``"icl"``.
    missing
        As in `emroute.gmm.fit`.
    sample_weight
        ``(n,)``; their sum stands for n in the criteria. Where it is far less than the number of rows, as that of
        weights which sum to 1, every parameter seems to cost nothing: multiply them.
    init
        ``"k-means++"`` or ``"random"``.
    n_init
        Restarts of each fit, run in one batch.
    tol, max_iter, chunk_size
        As in `emroute.gmm.fit`.
    covariance_floor
        As in `emroute.gmm.fit`. Among many fits, some component finds a few rows that agree in a feature to the
        digit, and its likelihood is then as high as the floor is low. So the criteria of a mixture with floored
        components are those of the mixture in which these have no variance below the features' widths, and constant
        features, on which every likelihood is as high as the floor is low, do not count in them.
    rng
        None, a seed or a `numpy.random.Generator`. With a seed, each fit is that of `emroute.gmm.fit` with this seed,
        whatever else is in the grid; a generator goes on from fit to fit.
    progress
        Show a progress bar of the fits (needs tqdm).

    Returns
    -------
    Choice
        The table of log-likelihoods and criteria, all fits and the best. `emroute.plot.criteria` draws it.

    Warns
    -----
    FitWarning
        Once: what `emroute.gmm.fit` would say of the best fit, if the best number of components is the largest, and
        if the weights sum to less than a tenth of the number of rows that have one.

    Raises
    ------
    InputError
        If `x` is a batch of problems or is being traced, there is nothing to try, or `emroute.gmm.fit` refuses an
        option; or if no fit ended with a finite criterion.
    InputTypeError
        If `x` is a source of chunks, or `emroute.gmm.fit` refuses a type.

    References
    ----------
    Schwarz, G. (1978). Estimating the dimension of a model. Annals of Statistics 6. Biernacki, C., Celeux, G. and
    Govaert, G. (2000). Assessing a mixture model for clustering with the integrated completed likelihood. IEEE
    Transactions on Pattern Analysis and Machine Intelligence 22.

    Examples
    --------
    >>> from emroute.datasets import iris
    >>> mixtures(iris().x, range(1, 5), n_init=4, rng=0)
    Choice(2 full, bic=574.0..., of 16)
    """
    check_choice("criterion", criterion, CRITERIA)
    check_choice("missing", missing, MISSING)
    sizes = _sizes(n_components)
    given = CODES if isinstance(covariance_type, str) and covariance_type == "all" else covariance_type
    types = [given] if isinstance(given, str | None) else list(given)
    for kind in types:
        check_choice("covariance_type", kind, tuple(COVARIANCES))
    if not sizes or not types:
        raise InputError("got nothing to try; expected at least one n_components and one covariance_type")
    if not isinstance(init, str):
        raise InputError("a start fits one number of components; expected init='k-means++' or 'random'")
    _check_data(x)
    x, sample_weight = (y if y is None else backends.get(y).detach(y) for y in (x, sample_weight))
    options = Options(tol, max_iter, chunk_size, sample_weight=sample_weight, init=init, n_init=n_init, rng=rng)
    check_number("covariance_floor", covariance_floor)
    fits, table = [], []
    with bar(progress, len(sizes) * len(types), "mixtures") as advance:
        for k, kind in product(sizes, types):
            mixture = fit_model(GaussianModel(kind, missing), x, k, covariance_floor, options)
            found = criteria_of(mixture, x, sample_weight=sample_weight)
            likelihood, converged = float(mixture.log_likelihood), bool(mixture.converged)
            table.append(Row(k, kind, likelihood, mixture.n_parameters, **found, converged=converged))
            fits.append(mixture)
            advance(f"{k} {kind}")
    choice = Choice(criterion, tuple(table), tuple(fits))
    tell(choice.best.remarks(max_iter) + _edge(choice, sizes) + _light(sample_weight))
    if not math.isfinite(getattr(table[choice.index], criterion)):
        raise InputError("no fit ended with a finite criterion; scale the data, or raise covariance_floor")
    return choice


def _edge(choice: Choice, sizes: list[int]) -> list[str]:
    """Return a remark where the best number of components is the largest of several."""
    largest = max(sizes)
    if min(sizes) == largest or choice.table[choice.index].n_components < largest:
        return []
    return [f"the best number of components, {largest}, is the largest tried: try more, or criterion='icl'"]


def _light(sample_weight: Array | None) -> list[str]:
    """Return a remark where weights sum to far less than there are rows with one."""
    if sample_weight is None:
        return []
    host = backends.get(sample_weight).to_numpy(sample_weight)
    total, n = float(np.sum(host, dtype=np.float64)), int(np.count_nonzero(host))
    if total >= n / 10:
        return []
    return [
        f"the weights sum to {total:.3g} over {n} rows, and the criteria take their sum for the number of rows, so "
        "that parameters cost too little or too much: multiply them so that they sum to the number of observations"
    ]


def _sizes(n_components: Any) -> list[int]:
    try:
        sizes = list(n_components)
    except TypeError:
        sizes = [n_components]
    return [check_count("n_components", k) for k in sizes]


def _check_data(x: Any) -> None:
    if reason := obstacle(x):
        raise InputTypeError(reason)
    if not is_array(x):
        raise InputTypeError(
            f"got x of type {type(x).__qualname__}, expected one array (n, d): streams cannot be scored"
        )
    if x.ndim != 2:
        raise InputError(f"got x of shape {tuple(x.shape)}, expected (n, d); of a batch, choose for each problem")
    if concrete(backends.namespace(x).all(x[:1, ...] == x[:1, ...])) is None:
        raise InputError("a choice cannot be made inside jit or vmap: it depends on values")
