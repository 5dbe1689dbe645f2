"""The one loop: expectation-maximization of any model whose statistics merge (Dempster, Laird & Rubin 1977).

    repeat   params     <- maximize(statistics, params)        M-step
             statistics <- expect(params, rows), merged        E-step
    until the objective of every problem stands still

The loop knows nothing of mixtures. A model's E-step sees some rows at a time; because statistics of two sets of
rows merge into those of their union, the same model fits arrays, chunks, memory maps and streams.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

import numpy as np

from emroute import backend as backends
from emroute._progress import bar_of
from emroute.array import eps, leaves, map_leaves, rebuild, set_at
from emroute.backend import Array, Backend, compiled
from emroute.batch import Batch, rejoin, select, take, unmoved
from emroute.blocks import Cascade, at_once, expect_rows, expectation
from emroute.capability import Capabilities
from emroute.data import Layout, Rows, Stream, open_source
from emroute.history import told, trim
from emroute.validate import check_floating, check_loop, visible

__all__ = ["Fit", "Model", "Status", "climb", "fit", "trim"]

_RUNNING = -1
_ROOM = 128  # entries of the shortest trace that is compiled, so that few limits ask for another one
_ULPS = 8  # spacings of the objective within which two values are the same
_STILL = 256  # spacings of a problem's largest parameter within which rounding may move it for ever


class Status(IntEnum):
    """How a fit ended."""

    CONVERGED = 0
    MAX_ITER = 1
    NON_FINITE = 2


class Model(Protocol):
    """What can be fitted: hashable, static settings only; arrays live in `params`.

    `Params` and `Statistics` are (nests of) NamedTuples of arrays. Every array in them begins with the problem's
    batch dimensions; one that all problems share may have 1 there. Three more members are optional:

    - ``merge(a, b)``: the statistics of two sets of rows; without it, every field is added;
    - ``ranks``: the rank of one row of each data array, e.g. ``(1, 0)`` for ``(x, y)``;
    - ``bytes_per_row(params)``: working memory of the E-step, from which chunks are sized.
    """

    def expect(self, params: Any, data: Any, sample_weight: Array, /) -> Any:
        """E-step: the statistics of some rows under `params`."""
        ...

    def maximize(self, statistics: Any, params: Any, /) -> Any:
        """M-step: better parameters."""
        ...

    def objective(self, statistics: Any, params: Any, /) -> Array:
        """Return what never decreases, one number a problem, at the `params` that gave `statistics`."""
        ...


class Fit(NamedTuple):
    """The end of a fit. A NamedTuple, so JAX can return it from compiled functions."""

    params: Any
    objective: Array
    """``(...,)``, at `params`: the total over observations."""
    trace: Array
    """``(..., t)``: the objective at the start and after each M-step, NaN where a problem had ended."""
    n_iter: Array
    """``(...,)``: M-steps that led to `params`."""
    status: Array
    """``(...,)``: a `Status` each."""

    @property
    def converged(self) -> Array:
        """Whether each problem's objective came to rest."""
        return self.status == int(Status.CONVERGED)


class _State(NamedTuple):
    params: Any
    statistics: Any
    objective: Array
    n_iter: Array
    status: Array


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
) -> Fit:
    """Fit a model by EM from given parameters.

    Parameters
    ----------
    model
        Any `Model`.
    data
        An array ``(..., n, d)``, a tuple of arrays with `n` rows each, or a source of chunks that can be read
        again and again (a list of arrays, an object with ``__iter__``). Memory maps are read in chunks.
    params
        Where to start; its arrays begin with the batch dimensions.
    sample_weight
        ``(n,)`` or ``(..., n)``, a weight a row.
    tol
        A problem has converged when its objective changes by no more than this per unit of weight; never asked
        below what the dtype resolves. 0 runs on until nothing changes.
    max_iter
        The most M-steps.
    chunk_size
        Rows an E-step holds at once; by default what fits the cache.
    callback
        Called as ``callback(iteration, fit_so_far)`` after every iteration.
    progress
        Show a progress bar (needs tqdm).

    Returns
    -------
    Fit
        Arrays of the data's library, dtype and device.

    Raises
    ------
    InputError
        If shapes or options cannot be used, or a source can be read only once.
    InputTypeError
        If arrays differ in library or device, or parameters are floating, but not float32 or float64.

    Notes
    -----
    Each problem of a batch stops for itself and then keeps its parameters. A step that meets a non-finite
    objective is undone and its problem ends as ``NON_FINITE``. On JAX the whole fit is one compiled loop, unless
    a callback, a progress bar or a stream needs Python between the steps.

    Examples
    --------
    The mean of a normal sample, as a model of its own:

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
    check_loop(tol, max_iter, chunk_size)
    source = open_source(data, sample_weight, getattr(model, "ranks", None))
    for x in leaves(params):
        if backends.namespace(x).isdtype(x.dtype, "real floating"):
            check_floating("params", x)
    return told(trim(climb(model, source, params, tol, max_iter, chunk_size, callback, progress), max_iter))


def climb(
    model: Model,
    source: Rows | Stream,
    params: Any,
    tol: float,
    max_iter: int,
    chunk_size: int | None,
    callback: Callable[[int, Fit], object] | None,
    progress: bool,
) -> Fit:
    """Return `fit` of data already opened, its trace still as long as it may be or longer."""
    backend = backends.get(*leaves(params), *source.arrays)
    params = map_leaves(backend.detach, params)
    source = source.detached()
    steps = _Steps(model, backend, source.layout, chunk_size, tol == 0)
    if isinstance(source, Rows) and callback is None and not progress and backend.compile(fit) is not fit:
        whole = compiled(backend, _whole, steps, max(_ROOM, 1 << int(max_iter).bit_length()))
        return whole(params, source.arrays, source.weight, float(tol), int(max_iter))
    return _from_python(steps, params, source, float(tol), int(max_iter), callback, progress)


class _Steps(NamedTuple):
    """The steps of a fit and all that is static about them: the key under which compiled ones are kept."""

    model: Any
    backend: Backend
    layout: Layout
    chunk_size: int | None
    exact: bool

    def batch(self, params: Any, source: Rows | Stream) -> Batch:
        """Learn the batch dimensions from the objective of one row."""
        first = source.first()
        objective = compiled(self.backend, _Steps.probe, self)(params, first.arrays, first.weight)
        return Batch.of(tuple(objective.shape), source.batch)

    def probe(self, params: Any, arrays: tuple[Array, ...], weight: Array | None) -> Array:
        return self.model.objective(expect_rows(self.model, params, Rows(arrays, weight, self.layout)), params)

    def maximize(self, statistics: Any, params: Any) -> Any:
        return self.model.maximize(statistics, params)

    def expect(self, params: Any, arrays: tuple[Array, ...], weight: Array | None, index: Array | None = None) -> Any:
        rows = Rows(arrays, weight, self.layout)
        return expectation(self.model, self.backend, params, rows, self.chunk_size, index)

    def begin(self, params: Any, statistics: Any) -> _State:
        objective = self.model.objective(statistics, params)
        xp = self.backend.namespace(objective)
        zero = xp.zeros_like(objective, dtype=xp.int32)
        status = xp.where(xp.isfinite(objective), zero + _RUNNING, zero + int(Status.NON_FINITE))
        return _State(params, statistics, objective, zero, status)

    def judge(self, state: _State, params: Any, statistics: Any, total: Array | float, tol: Array | float) -> _State:
        """Accept the step where its objective is finite; end the problems that stand still or went astray."""
        xp = self.backend.namespace(state.objective)
        objective = self.model.objective(statistics, params)
        running = state.status == _RUNNING
        accept = running & xp.isfinite(objective)
        change = xp.abs(objective - state.objective)
        resolution = _ULPS * eps(objective) * xp.abs(objective)
        if self.exact:
            still = (change <= resolution) & unmoved(params, state.params, objective.ndim, _STILL * eps(objective))
        else:
            still = change <= xp.maximum(resolution, xp.zeros_like(objective) + tol * total)
        status = xp.where(still, xp.full_like(state.status, int(Status.CONVERGED)), state.status)
        status = xp.where(accept, status, xp.full_like(status, int(Status.NON_FINITE)))
        return _State(
            select(accept, params, state.params),
            select(accept, statistics, state.statistics),
            xp.where(accept, objective, state.objective),
            xp.where(accept, state.n_iter + 1, state.n_iter),
            xp.where(running, status, state.status),
        )


def _whole(
    steps: _Steps, room: int, params: Any, arrays: Any, weight: Array | None, tol: Array, max_iter: Array
) -> Fit:
    """Return a whole fit, as one function for libraries that compile, its trace of `room` entries.

    Problems with data of their own run a few at a time, each few to their end: inside a compiled loop none can leave.
    """
    source = Rows(arrays, weight, steps.layout)
    batch = steps.batch(params, source)
    params, rows = batch.flatten_params(params), batch.flatten_rows(source)
    if not batch.by_problem:
        return _finish(*_loop(steps, room, params, rows, tol, max_iter), batch)
    xp, n_params, kind = steps.backend.namespace(source.arrays[0]), len(leaves(params)), []

    def some_problems(*block: Array) -> tuple[Array, ...]:
        own = rebuild(params, block[:n_params])
        state, trace = _loop(steps, room, own, rows.like(list(block[n_params:])), tol, max_iter)
        kind[:] = [found := (state._replace(statistics=None), xp.moveaxis(trace, 0, -1))]
        return tuple(leaves(found))

    few = at_once(steps.model, steps.backend, params, rows, batch.n_problems)
    parts = steps.backend.map_blocks(some_problems, [*leaves(params), *rows.held], few)
    state, trace = rebuild(kind[0], parts)
    return _finish(state, xp.moveaxis(trace, -1, 0), batch)


def _loop(steps: _Steps, room: int, params: Any, rows: Rows, tol: Array, max_iter: Array) -> tuple[_State, Array]:
    """Run flattened problems to their end, the trace along its first axis.

    The statistics of the start come from the loop too, in a turn that keeps the parameters: so each step is compiled
    once. That turn needs a state of the right shapes; what is in it is replaced.
    """
    xp, total = steps.backend.namespace(rows.arrays[0]), rows.total_weight()
    state = steps.begin(params, map_leaves(xp.ones_like, steps.expect(params, rows.arrays, rows.weight)))
    trace = xp.zeros((room, *state.objective.shape), dtype=state.objective.dtype)  # NaN would stop `jax_debug_nans`

    def unfinished(carry: tuple[Array, _State, Array]) -> Array:
        iteration, state, _ = carry
        return (iteration == 0) | (iteration <= max_iter) & xp.any(state.status == _RUNNING)

    def step(carry: tuple[Array, _State, Array]) -> tuple[Array, _State, Array]:
        iteration, before, trace = carry
        first = iteration == 0
        params = steps.maximize(before.statistics, before.params)
        params = map_leaves(lambda old, new: xp.where(first, old, new), before.params, params)
        statistics = steps.expect(params, rows.arrays, rows.weight)
        begun, after = steps.begin(params, statistics), steps.judge(before, params, statistics, total, tol)
        after = map_leaves(lambda old, new: xp.where(first, old, new), begun, after)
        return iteration + 1, after, set_at(trace, iteration, after.objective)

    return steps.backend.loop(unfinished, step, (xp.zeros((), dtype=xp.int32), state, trace))[1:]


def _from_python(
    steps: _Steps,
    params: Any,
    source: Rows | Stream,
    tol: float,
    max_iter: int,
    callback: Callable[[int, Fit], object] | None,
    progress: bool,
) -> Fit:
    """Fit a step at a time. Problems that have ended leave the batch, unless someone is watching."""
    backend = steps.backend
    batch = steps.batch(params, source)
    params, source = batch.flatten_params(params), batch.flatten(source)
    each = _Steps.expect, _Steps.maximize, _Steps.judge
    expect, maximize, judge = (compiled(backend, step, steps) for step in each)
    watched = callback is not None or progress

    def e_step(params: Any, index: Array | None) -> tuple[Any, Array | float]:
        if isinstance(source, Rows):
            return expect(params, source.arrays, source.weight, index), source.total_weight(index)
        merged, total = Cascade(steps.model), 0.0
        for rows in source:
            merged.add(expect(params, rows.arrays, rows.weight))
            total = rows.total_weight() + total
        return merged.total(), total

    state = steps.begin(params, e_step(params, None)[0])
    history, alive = [backend.to_numpy(visible(state.objective))], np.arange(batch.n_problems)
    gone: list[tuple[np.ndarray, _State]] = []
    index = None

    def so_far() -> Fit:
        whole = state
        if gone:
            parts = [*gone, (alive, state)]
            order = backend.from_numpy(np.argsort(np.concatenate([who for who, _ in parts])), state.objective)
            states = [part._replace(statistics=None) for _, part in parts]
            whole = rejoin(states, [len(who) for who, _ in parts], order)
        return _finish(whole, backend.from_numpy(np.stack(history), state.objective), batch)

    bar = bar_of(max_iter) if progress else None
    for iteration in range(1, max_iter + 1):
        running = backend.to_numpy(state.status) == _RUNNING
        if not running.any():
            break
        stay = running.reshape(len(alive), -1).any(axis=1)
        if not (watched or stay.all()):
            left, here = (backend.from_numpy(np.flatnonzero(who), state.objective) for who in (~stay, stay))
            gone.append((alive[~stay], take(state, left, len(alive))))
            state, alive = take(state, here, len(alive)), alive[stay]
            index = backend.from_numpy(alive, state.objective) if batch.by_problem else None
        params = maximize(state.statistics, state.params)
        statistics, total = e_step(params, index)
        after = judge(state, params, statistics, total, tol)
        moved = backend.to_numpy(after.n_iter > state.n_iter)
        state, reached = after, np.full_like(history[0], np.nan)
        reached[alive if reached.ndim else ...] = np.where(moved, backend.to_numpy(state.objective), np.nan)
        history.append(reached)
        if callback is not None:
            callback(iteration, so_far())
        if bar is not None:
            bar.set_postfix_str(f"objective {np.mean(backend.to_numpy(state.objective)):.6g}", refresh=False)
            bar.update()
    if bar is not None:
        bar.total = bar.n  # it may have converged long before max_iter
        bar.close()
    return so_far()


def _finish(state: _State, trace: Array, batch: Batch) -> Fit:
    """Give every array its batch dimensions back, and call what still runs cut short."""
    params, objective, n_iter, status = batch.restore((state.params, state.objective, state.n_iter, state.status))
    xp = backends.namespace(objective)
    status = xp.where(status == _RUNNING, xp.full_like(status, int(Status.MAX_ITER)), status)
    trace = xp.moveaxis(xp.reshape(trace, (trace.shape[0], *batch.shape)), 0, -1)
    return Fit(params, objective, trace, n_iter, status)
