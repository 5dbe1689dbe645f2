"""The loop of `emroute.em.fit`: compiled as a whole if the library compiles, else step by step.

    repeat   params     <- maximize(statistics, params)
             statistics <- the E-step of all rows
             accept the step, or stop

A problem whose objective is no longer finite keeps the parameters before that step.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from emroute import backend as backends
from emroute._engine import squarem
from emroute._engine.nests import map_blocks, rejoin, take, unmoved, where_leading
from emroute._engine.options import LoopOptions
from emroute._engine.problems import Problems
from emroute._engine.protocol import Fit, Model, Status
from emroute._engine.reading import Seen, read
from emroute._engine.reduce import Cut, e_step, expect, problems_at_once, reduce
from emroute._progress import bar_of
from emroute.arrays.creation import set_at
from emroute.arrays.functions import eps
from emroute.arrays.tracing import at_hand
from emroute.arrays.trees import leaves, map_leaves
from emroute.backend import Array, compiled, compiles, is_array
from emroute.data import Block, Rows, Stream
from emroute.errors import InputError
from emroute.validate import visible

__all__ = ["climb"]

_RUNNING = -1
_ROOM = 128  # length of the shortest compiled trace, so that few limits need another one
_ULPS = 8  # a change of the objective of no more spacings counts as none
_STILL = 256  # a step of no more spacings of a problem's largest parameter counts as rounding


class State(NamedTuple):
    """The state of each problem."""

    params: Any
    statistics: Any
    """The statistics of the E-step at `params`; None once a problem has left."""
    objective: Array
    n_iter: Array
    status: Array
    """A `Status`, or -1 while the problem runs."""
    lead: squarem.Lead | None = None
    """What a cycle of accelerated EM remembers."""


class Limits(NamedTuple):
    """When to stop. Not static, so that other limits compile nothing."""

    tol: Array | float
    max_iter: Array | int


def climb(model: Model, source: Rows | Stream, params: Any, options: LoopOptions) -> Fit:
    """Run EM on opened data. The trace has its maximal length, or more."""
    backend = backends.get(*leaves(params), *source.arrays)
    params, source = map_leaves(backend.detach, params), source.detached()
    steps = Steps(model, source.batch, options.chunk_size, options.tol == 0, options.accelerate is not None)
    if compiles(backend) and isinstance(source, Rows) and not options.watched:
        room = max(_ROOM, 1 << int(options.max_iter).bit_length())
        limits = Limits(float(options.tol), int(options.max_iter))
        return compiled(backend, _whole, steps, room)(params, source.counted, limits)
    return _step_by_step(steps, params, source, options)


class Steps(NamedTuple):
    """The steps of a fit and all their static settings, by which compiled ones are cached."""

    model: Any
    data_batch: tuple[int, ...]
    size: int | None
    """Rows per block."""
    exact: bool
    """Whether to continue until nothing changes."""
    accelerated: bool
    """Whether steps go in cycles of `squarem`."""

    def objective_of_one_row(self, params: Any, block: Block) -> Array:
        """Return the objective for a first row, whose shape is that of the batch."""
        n_batch = len(self.data_batch)
        row = map_leaves(lambda x: x[(*(slice(None),) * n_batch, slice(0, 1), ...)], block)
        objective = self.model.objective(expect(self.model, params, row, n_batch), params)
        self._check(objective, params)
        return objective

    def _check(self, objective: Any, params: Any) -> None:
        """Raise `InputError` unless an objective is one number a problem, of the batch that parameters begin with."""
        name = f"{type(self.model).__qualname__}.objective"
        if not is_array(objective):
            raise InputError(
                f"{name} returned {objective!r:.40}, expected an array (...,), one number for each problem"
            )
        batch = tuple(objective.shape)
        for x in leaves(params):
            own = tuple(x.shape[: len(batch)])
            if len(own) < len(batch) or any(a not in (1, b) for a, b in zip(own, batch, strict=True)):
                raise InputError(
                    f"{name} returned shape {batch}, expected one number for each problem; parameters begin with the "
                    f"batch dimensions, and one has shape {tuple(x.shape)}"
                )

    def problems(self, objective: Array) -> Problems:
        """Return the batch dimensions of the fit."""
        return Problems(tuple(objective.shape), self.data_batch)

    def e_step(self, n_batch: int, params: Any, block: Block, index: Array | None = None) -> Any:
        """E-step over flattened problems."""
        return e_step(self.model, params, block, Cut(n_batch, self.size), index)

    def propose(self, phase: Array | int, state: State) -> tuple[Any, State]:
        """Return parameters to try next: those of the M-step, unless a cycle looks ahead."""
        if state.lead is None:
            return self.model.maximize(state.statistics, state.params), state
        params, lead = squarem.propose(self.model, phase, state)
        return params, state._replace(lead=lead)

    def begin(self, statistics: Any, params: Any) -> State:
        """Return the state of a start."""
        objective = self.model.objective(statistics, params)
        xp = backends.namespace(objective)
        zero = xp.zeros_like(objective, dtype=xp.int32)
        status = xp.where(xp.isfinite(objective), zero + _RUNNING, zero + int(Status.NON_FINITE))
        lead = squarem.begin(params, statistics, objective) if self.accelerated else None
        return State(params, statistics, objective, zero, status, lead)

    def judge(self, phase: Array | int, state: State, statistics: Any, params: Any, slack: Array | float) -> State:
        """Take what was tried, or not."""
        taken = self.accept_or_stop(state, statistics, params, slack)
        if state.lead is None:
            return taken
        found = params, statistics, self.model.objective(statistics, params)
        return squarem.judge(phase, state, taken, found, state.status == _RUNNING)

    def accept_or_stop(self, state: State, statistics: Any, params: Any, slack: Array | float) -> State:
        """Take the step if its objective is finite; end the problems that have converged or failed."""
        xp = backends.namespace(state.objective)
        objective = self.model.objective(statistics, params)
        running = state.status == _RUNNING
        accept = running & xp.isfinite(objective)
        change = xp.abs(objective - state.objective)
        still = change <= _ULPS * eps(objective) * xp.abs(objective)
        if not self.exact:
            still = still | (change <= slack)
        elif at_hand(xp.any(still)) is not False:
            still = still & unmoved(params, state.params, objective.ndim, _STILL * eps(objective))
        status = xp.where(accept, xp.where(still, int(Status.CONVERGED), state.status), int(Status.NON_FINITE))
        step = State(params, statistics, objective, state.n_iter + 1, status, state.lead)
        return where_leading(accept, step, state)._replace(status=xp.where(running, status, state.status))


def _whole(steps: Steps, room: int, params: Any, block: Block, limits: Limits) -> Fit:
    """Return a whole fit, as one function for libraries that compile, its trace of `room` entries.

    Problems that do not share data are solved in small groups, each to convergence, because a problem cannot leave a
    compiled loop early.
    """
    problems = steps.problems(steps.objective_of_one_row(params, block))
    params, block = problems.flatten_params(params), problems.flatten_rows(block)
    solve = partial(_solve, steps, room, limits, problems.row_dims)
    if not problems.own_rows:
        return _finish(*solve((params, block)), problems)
    few = problems_at_once(steps.model, params, block, problems.row_dims)
    state, trace = map_blocks(solve, (params, block), few)
    return _finish(state, trace, problems)


def _solve(steps: Steps, room: int, limits: Limits, n_batch: int, given: tuple[Any, Block]) -> tuple[State, Array]:
    """Run flattened problems, parameters and rows, to their end; the trace along its last axis.

    Iteration 0 computes the E-step of the start inside the loop, so that the E-step is traced only once. It ignores the
    dummy statistics that it is given, and keeps the parameters.
    """
    params, block = given
    slack = limits.tol * Rows(block, (1,) * n_batch).total_weight()
    dummy = map_leaves(backends.namespace(*leaves(block)[:1]).ones_like, steps.e_step(n_batch, params, block))
    state = steps.begin(dummy, params)
    xp = backends.namespace(state.objective)
    trace = xp.zeros((room, *state.objective.shape), dtype=state.objective.dtype)  # NaN would stop `jax_debug_nans`

    def unfinished(carry: tuple[Array, State, Array]) -> Array:
        iteration, state, _ = carry
        return (iteration == 0) | (iteration <= limits.max_iter) & xp.any(state.status == _RUNNING)

    def step(carry: tuple[Array, State, Array]) -> tuple[Array, State, Array]:
        iteration, before, trace = carry

        def unless_first(old: Array, new: Array) -> Array:
            return xp.where(iteration == 0, old, new)

        phase = (iteration + 2) % squarem.CYCLE
        params, before = steps.propose(phase, before)
        params = map_leaves(unless_first, before.params, params)
        statistics = steps.e_step(n_batch, params, block)
        after = steps.judge(phase, before, statistics, params, slack)
        after = map_leaves(unless_first, steps.begin(statistics, params), after)
        return iteration + 1, after, set_at(trace, iteration, after.objective)

    backend = backends.get(state.objective)
    _, state, trace = backend.loop(unfinished, step, (xp.zeros((), dtype=xp.int32), state, trace))
    return state._replace(statistics=None, lead=None), xp.moveaxis(trace, 0, -1)


def _step_by_step(steps: Steps, params: Any, source: Rows | Stream, options: LoopOptions) -> Fit:
    """Fit step by step. Problems that have ended leave the batch, unless a callback follows the fit."""
    backend = backends.get(source.arrays[0])
    probe = compiled(backend, Steps.objective_of_one_row, steps)
    problems = steps.problems(probe(params, source.first().block))
    params, source = problems.flatten_params(params), problems.flatten(source)
    run = compiled(backend, Steps.e_step, steps, problems.row_dims)

    statistics = reduce(steps.model, partial(run, params), source)
    state, roster = steps.begin(statistics, params), _Roster(problems)
    seen = read(visible(state.objective), state.status, state.n_iter)
    history = [seen.objective]

    def so_far() -> Fit:
        trace = backend.from_numpy(np.stack(history, axis=-1), state.objective)
        return _finish(roster.everyone(state), trace, problems)

    with bar_of(options) as bar:
        for iteration in range(1, options.max_iter + 1):
            if not (running := seen.status == _RUNNING).any():
                break
            if not options.watched:
                state = roster.dismiss(state, running)
            phase, before = (iteration - 1) % squarem.CYCLE if steps.accelerated else 0, state.n_iter
            params, state = compiled(backend, Steps.propose, steps, phase)(state)
            statistics = reduce(steps.model, partial(run, params, index=roster.index), source)
            slack = float(options.tol) * source.total_weight(roster.index)
            state = compiled(backend, Steps.judge, steps, phase)(state, statistics, params, slack)
            history.append(roster.places(seen := read(state.objective, state.status, state.n_iter - before)))
            if options.callback is not None:
                options.callback(iteration, so_far())
            bar(state.objective)
    return so_far()


class _Roster:
    """Which problems are still in the batch. Converged ones leave it, so that the steps of the others cost less."""

    def __init__(self, problems: Problems) -> None:
        self._own_rows = problems.own_rows
        self._here = np.arange(problems.n)
        self._gone: list[tuple[np.ndarray, State]] = []
        self.index: Array | None = None
        """Which problems of the rows are still here; None for all, or where problems share their rows."""

    def dismiss(self, state: State, running: np.ndarray) -> State:
        """Return the state of the problems that run, and keep that of the others."""
        if running.all():
            return state
        n_here = len(self._here)
        stays = running.reshape(n_here, -1).any(axis=1)
        if stays.all():
            return state
        backend = backends.get(state.objective)
        left, here = (backend.from_numpy(np.flatnonzero(who), state.objective) for who in (~stays, stays))
        gone = take(state._replace(statistics=None, lead=None), left, n_here)
        self._gone.append((self._here[~stays], gone))
        self._here = self._here[stays]
        if self._own_rows:
            self.index = backend.from_numpy(self._here, state.objective)
        return take(state, here, n_here)

    def everyone(self, state: State) -> State:
        """Return the state of all problems, in order."""
        if not self._gone:
            return state
        who = [*(who for who, _ in self._gone), self._here]
        states = [*(gone for _, gone in self._gone), state._replace(statistics=None, lead=None)]
        order = backends.get(state.objective).from_numpy(np.argsort(np.concatenate(who)), state.objective)
        return rejoin(states, [len(each) for each in who], order)

    def places(self, seen: Seen) -> np.ndarray:
        """Return the objectives of all problems, NaN for those that did not move."""
        here = np.where(seen.steps > 0, seen.objective, np.nan)
        if not self._gone:
            return here
        n_problems = len(self._here) + sum(len(who) for who, _ in self._gone)
        everyone = np.full((n_problems, *here.shape[1:]), np.nan, here.dtype)
        everyone[self._here] = here
        return everyone


def _finish(state: State, trace: Array, problems: Problems) -> Fit:
    """Restore the batch dimensions of every array, and mark running problems as MAX_ITER."""
    params, objective, n_iter, status = problems.restore((state.params, state.objective, state.n_iter, state.status))
    xp = backends.namespace(objective)
    status = xp.where(status == _RUNNING, int(Status.MAX_ITER), status)
    return Fit(params, objective, xp.reshape(trace, (*problems.shape, trace.shape[-1])), n_iter, status)
