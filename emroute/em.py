"""Expectation-maximization for any model whose statistics merge (Dempster, Laird & Rubin 1977).

    repeat   params     <- maximize(statistics, params)        M-step
             statistics <- expect(params, rows), merged        E-step
    until the objective of every problem stops changing

The loop knows nothing about mixtures. A model's E-step sees some rows at a time; because statistics of two sets of rows
merge into those of their union, the same model fits arrays, chunks, memory maps and streams.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emroute import backend as backends
from emroute._engine.history import told, trim
from emroute._engine.loop import climb
from emroute._engine.options import LoopOptions
from emroute._engine.protocol import Fit, Model, Status
from emroute.arrays.trees import leaves
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.data import open_source
from emroute.validate import check_floating

__all__ = ["Fit", "Model", "Status", "fit"]


@Capabilities(jit=True, batch=True, streams=True)
def fit(
    model: Model,
    data: Any,
    params: Any,
    *,
    sample_weight: Array | None = None,
    tol: float = 1e-6,
    max_iter: int = 1000,
    chunk_size: int | None = None,
    callback: Callable[[int, Fit], object] | None = None,
    progress: bool = False,
    accelerate: str | None = None,
) -> Fit:
    """Fit a model by EM from given parameters.

    Parameters
    ----------
    model
        The model, with the methods of `Model`.
    data
        An array ``(..., n, d)``, a tuple of arrays with `n` rows each, or a source of chunks that can be read
        repeatedly (a list of arrays, an object with ``__iter__``). Memory maps are read in chunks.
    params
        The starting parameters. Their arrays begin with the batch dimensions.
    sample_weight
        The weight of each row, ``(n,)`` or ``(..., n)``.
    tol
        A problem has converged when its objective changes by no more than this per unit of weight, or by less than the
        dtype resolves. 0 goes on until nothing changes.
    max_iter
        The largest number of M-steps.
    chunk_size
        Rows per block of the E-step. By default a block fits the cache, or a fair part of the device's memory.
    callback
        Called as ``callback(iteration, fit)`` after every iteration, with the `Fit` so far.
    progress
        Show a progress bar (needs tqdm).
    accelerate
        ``"squarem"`` extrapolates the steps of EM (Varadhan & Roland 2008), in cycles of three. The objective still
        never falls, and slow fits take a fraction of the iterations. Fits that converge in ten or twenty iterations
        gain nothing, and another optimum may be found. Each number of the parameters is extrapolated separately, and at
        most nine tenths of the way to 0. If parameters depend on each other, the model should have ``pack(params)``,
        which returns nested arrays that can be extrapolated freely, and ``unpack(nest, params)``, the inverse.
        ``Fit.trace`` then has an entry for each of the three steps.

    Returns
    -------
    Fit
        Its arrays have the library, dtype and device of the data.

    Raises
    ------
    InputError
        If shapes or options are invalid, or a source can be read only once.
    InputTypeError
        If arrays differ in library or device, or parameters are floating, but not float32 or float64.

    Notes
    -----
    Each problem of a batch stops on its own and then keeps its parameters. A step that leads to a non-finite objective
    is undone, and its problem ends with the status ``NON_FINITE``. On JAX the whole fit is one compiled loop, unless a
    callback, a progress bar or a stream needs Python between the steps.

    Examples
    --------
    A model that finds the mean of a normal sample:

    >>> import numpy as np
    >>> from typing import NamedTuple
    >>> class Params(NamedTuple):
    ...     mean: np.ndarray
    >>> class Sums(NamedTuple):
    ...     weight: np.ndarray
    ...     first: np.ndarray
    ...     second: np.ndarray
    >>> class Mean:
    ...     def expect(self, params, x, w):
    ...         r = x[:, 0] - params.mean
    ...         return Sums(w.sum(), (w * r).sum(), (w * r * r).sum())
    ...     def maximize(self, sums, params):
    ...         return Params(params.mean + sums.first / sums.weight)
    ...     def objective(self, sums, params):
    ...         return -sums.second / 2
    >>> result = fit(Mean(), np.asarray([[1.0], [2.0], [6.0]]), Params(np.asarray(0.0)))
    >>> float(result.params.mean), int(result.n_iter), Status(int(result.status)).name
    (3.0, 2, 'CONVERGED')
    """
    options = LoopOptions(tol, max_iter, chunk_size, callback, progress, accelerate)
    source = open_source(data, sample_weight, getattr(model, "ranks", None))
    for x in leaves(params):
        if backends.namespace(x).isdtype(x.dtype, "real floating"):
            check_floating("params", x)
    return told(trim(climb(model, source, params, options), max_iter))
