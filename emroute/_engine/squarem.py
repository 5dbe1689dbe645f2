"""EM that looks ahead: SQUAREM (Varadhan & Roland 2008, scheme S3).

Of an EM step F and parameters t, with q = F(t) - t and v = F(F(t)) - 2 F(t) + t,

    t' = t + 2 a q + a² v,   a = |q| / |v|

is where the steps would come to rest if each were the last times a number. A cycle is three steps:

    0   t1 = F(t), as EM alone does; at rest or not is decided here
    1   t' from t, t1 and F(t1)
    2   F(t') is taken if the objective is no less than at t1; else the next cycle begins at t1

So the objective never falls. At a = 1, t' is F(t1), and a cycle is three steps of EM. No `a` exceeds a bound, which is
1 at first; it grows fourfold when it has held and the cycle was taken, and falls as much when it was not.

Parameters are extrapolated entry by entry, none beyond a tenth of the way to 0: so weights, rates and variances stay
positive. A model may have better coordinates: ``pack(params)`` returns a nest of arrays, and ``unpack(nest, params)``
valid parameters from such a nest, by the side of `params`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from emroute._engine.nests import where_leading
from emroute.arrays.trees import leaves, map_leaves
from emroute.backend import Array, namespace

__all__ = ["CYCLE", "Lead", "begin", "judge", "propose"]

CYCLE = 3
_GROWTH = 4.0
_TOWARDS_0 = 0.1


class Lead(NamedTuple):
    """What a cycle remembers."""

    origin: Any
    """t."""
    probe: Any
    """t', and the statistics of its E-step."""
    statistics: Any
    length: Array
    """``(...,)``: a, and the most that it may be."""
    most: Array


def begin(params: Any, statistics: Any, objective: Array) -> Lead:
    """Return the memory of a start."""
    one = namespace(objective).ones_like(objective)
    return Lead(params, params, statistics, one, one)


def propose(model: Any, phase: Array | int, state: Any) -> tuple[Any, Lead]:
    """Return the parameters that a step of the cycle tries, and what it remembers."""
    lead, last = state.lead, phase == 2
    step = model.maximize(_pick(last, lead.statistics, state.statistics), _pick(last, lead.probe, state.params))
    lead = lead._replace(origin=_pick(phase == 0, state.params, lead.origin))
    if isinstance(phase, int) and phase != 1:
        return step, lead
    ahead, length = _extrapolated(model, (lead.origin, state.params, step), lead.most)
    return _pick(phase == 1, ahead, step), lead._replace(length=_pick(phase == 1, length, lead.length))


def judge(phase: Array | int, state: Any, taken: Any, found: tuple[Any, Any, Array], running: Array) -> Any:
    """Return the state after a step of the cycle.

    Parameters
    ----------
    phase
        Which step of the cycle it was.
    state
        The state before it, with what `propose` remembers.
    taken
        The state after it, if it was one of EM alone.
    found
        Parameters, statistics and objective of the step.
    running
        Which problems run.
    """
    params, statistics, objective = found
    xp, lead = namespace(objective), state.lead
    waited = state._replace(n_iter=xp.where(running, state.n_iter + 1, state.n_iter))
    better = running & (objective >= state.objective)  # no number is not better
    leapt = waited._replace(params=params, statistics=statistics, objective=objective)
    leapt = where_leading(better, leapt, waited)
    longer, shorter = lead.most * _GROWTH, xp.clip(lead.most / _GROWTH, 1.0, None)
    most = xp.where(lead.length < lead.most, lead.most, xp.where(better, longer, shorter))
    probed = waited._replace(lead=lead._replace(probe=params, statistics=statistics))
    leapt = leapt._replace(lead=lead._replace(most=most))
    return _pick(phase == 0, taken, _pick(phase == 1, probed, leapt))


def _extrapolated(model: Any, points: tuple[Any, Any, Any], most: Array) -> tuple[Any, Array]:
    """t' of t, F(t) and F(F(t)), and a."""
    xp, n_batch, packs = namespace(most), most.ndim, hasattr(model, "pack")
    first, second, third = map(model.pack, points) if packs else points
    moves = [
        (b - a, c - 2 * b + a) for a, b, c in zip(*map(leaves, (first, second, third)), strict=True) if _is_own(b, most)
    ]

    def squares(parts: list[Array]) -> Array:
        axes = [tuple(range(n_batch, x.ndim)) for x in parts]
        return sum(xp.sum(x * x, axis=axis) if axis else x * x for x, axis in zip(parts, axes, strict=True))

    q, v = squares([q for q, _ in moves]), squares([v for _, v in moves])
    ratio = xp.sqrt(q / xp.where(v > 0, v, 1.0))
    length = xp.minimum(xp.clip(xp.where(v > 0, ratio, 1.0), 1.0, None), most)

    def ahead(a: Array, b: Array, c: Array) -> Array:
        if not _is_own(b, most):
            return c
        by = xp.reshape(length, (*length.shape, *(1,) * (b.ndim - n_batch)))
        x = a + 2 * by * (b - a) + by**2 * (c - 2 * b + a)
        if packs:
            return x
        bound = _TOWARDS_0 * c
        return xp.where(c > 0, xp.maximum(x, bound), xp.where(c < 0, xp.minimum(x, bound), x))

    nest = map_leaves(ahead, first, second, third)
    found = model.unpack(nest, points[2]) if packs else nest
    return where_leading(length > 1, found, points[2]), length


def _is_own(x: Array, most: Array) -> bool:
    """Whether an array is of numbers that each problem has for itself."""
    return tuple(x.shape[: most.ndim]) == tuple(most.shape) and namespace(x).isdtype(x.dtype, "real floating")


def _pick(flag: Array | bool, new: Any, old: Any) -> Any:
    """`new` where a flag for all problems holds, else `old`."""
    if isinstance(flag, bool):
        return new if flag else old
    return map_leaves(lambda a, b: namespace(flag).where(flag, a, b), new, old)
