"""What the routings share: their result, the loop, and how it runs over blocks of samples.

    repeat   poses, activations, logits <- step(votes, assignments)
             assignments                <- softmax over parents of the logits

Inside a block, votes are *views* ``(b, J, H, I)``: children last, so that sums over children and over pose entries are
matrix products. In memory they are ``(b, J, I, H)``: the entries of a vote are next to each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from emroute import backend as backends
from emroute.arrays.creation import broadcast, swap
from emroute.arrays.functions import log_softmax
from emroute.arrays.tracing import concrete, traced
from emroute.arrays.trees import leaves, map_leaves
from emroute.backend import Array, compiled
from emroute.errors import InputError
from emroute.validate import require

__all__ = [
    "Children",
    "History",
    "Options",
    "Plan",
    "Routing",
    "Rule",
    "SoftmaxRule",
    "Step",
    "as_views",
    "check_finite",
    "finish",
    "follow",
    "in_blocks",
    "run",
]


class Routing(NamedTuple):
    """The result of a routing. With `return_path` there is one after each iteration, beginning with equal assignments.

    The poses and activations of a step come from the assignments of that step.
    """

    poses: Array
    """The poses of the parents, ``(..., J, H)``."""
    activations: Array
    """Whether each parent is there, ``(..., J)``."""
    assignments: Array
    """The share of each child that belongs to each parent, as used in the last update of the poses, ``(..., I, J)``."""


History = tuple[Routing, ...]


class Children(NamedTuple):
    """The children of some samples or windows, and the inputs that belong to their parents."""

    views: Array
    """Votes ``(b, J, H, I)``."""
    activations: Any
    """Activations ``(b, I)``; None if they are not used."""
    of_parents: tuple[Array, ...]
    """For example costs ``(b, J)``, or a bias ``(b, J, H)``."""


class Step(NamedTuple):
    """The results of one iteration."""

    poses: Array
    """The poses of the parents, ``(b, J, H)``."""
    activations: Array
    """The activations of the parents, ``(b, J)``."""
    logits: Array | None
    """How well each parent explains each vote, ``(b, J, I)``; None in the last iteration."""


class Rule(Protocol):
    """What differs between routings. Rules are hashable and hold static settings only."""

    def children(self, samples: tuple[Array, ...], shared: Any) -> Children:
        """Prepare the children of a block of samples."""
        ...

    def start(self, children: Children) -> tuple[Array, Array]:
        """Return assignments and logits before the first iteration, ``(b, J, I)``, or with one J for all."""
        ...

    def assign(self, logits: Array) -> Array:
        """Return assignments, or their logarithms, as `step` takes them."""
        ...

    def from_logarithms(self, log_assignments: Array) -> Array:
        """Return the result of `assign`, from the logarithms of assignments."""
        ...

    def shares(self, assigned: Array) -> Array:
        """Return assignments from the result of `assign`."""
        ...

    def step(self, children: Children, assigned: Array, logits: Array, temperature: float, last: bool) -> Step:
        """Update the parents from the assignments, and the logits from the parents."""
        ...

    def route(self, options: Options, samples: tuple[Array, ...], shared: Any) -> Routing:
        """Do the same as `in_blocks`, and return only the last routing."""
        ...


class SoftmaxRule:
    """Children choose among all parents, from equal assignments. `step` takes the logarithms of assignments."""

    n_more = 0  # further choices, which are no parent
    fused_windows = False  # whether `route_windows`, for convolutions, has a fused form of this rule

    def start(self, children: Children) -> tuple[Array, Array]:
        """Return equal assignments, and logits of 0; one J stands for all."""
        first = children.views[..., :1, 0, :]
        xp, n_choices = backends.namespace(first), children.views.shape[-3] + self.n_more
        return self.from_logarithms(xp.full_like(first, -math.log(n_choices))), xp.zeros_like(first)

    def assign(self, logits: Array) -> Array:
        """Logarithm of the softmax over parents."""
        return log_softmax(logits, axis=-2)

    def from_logarithms(self, log_assignments: Array) -> Array:
        """The logarithms themselves."""
        return log_assignments

    def shares(self, assigned: Array) -> Array:
        """Exponentials of the logarithms."""
        return backends.namespace(assigned).exp(assigned)

    def route(self, options: Options, samples: tuple[Array, ...], shared: Any) -> Routing:
        """Route with the loop."""
        return in_blocks(options, samples, shared)[-1]

    def from_poses(self) -> Any:
        """Return the rule for votes that `children` casts from poses: itself, where that casts either."""
        return self


class Options(NamedTuple):
    """The options of a routing."""

    rule: Any
    schedule: tuple[float, ...]
    """The inverse temperature of each iteration."""
    recompute: bool
    """Whether the backward pass computes blocks again instead of keeping them."""
    return_path: bool
    """Whether to keep the routing after each iteration, or only the last."""
    size: int = 1
    """The number of samples in a block."""


class Plan(NamedTuple):
    """How samples are divided into blocks."""

    batch: tuple[int, ...]
    """The dimensions of the samples."""
    n_children: int
    bytes_per_child: int
    """The working memory per child of a sample."""


def as_views(votes: Array) -> Array:
    """Return votes ``(..., I, J, H)`` as ``(..., J, H, I)``, in memory ``(..., J, I, H)``."""
    xp, last = backends.namespace(votes), votes.ndim - 1
    views = xp.permute_dims(votes, (*range(last - 2), last - 1, last - 2, last))
    return swap(xp.reshape(xp.reshape(views, (*views.shape[:-3], -1)), views.shape))


class Iteration(Protocol):
    """One iteration of the loop, over whatever state it needs."""

    def update(self, state: Any, temperature: float, last: bool) -> tuple[Array, Array, Any]:
        """Return poses, activations and the next state."""
        ...

    def assignments(self, state: Any) -> Array:
        """Return the assignments of a state, ``(b, J, I)``."""
        ...


def follow(iteration: Iteration, state: Any, schedule: Sequence[float], every: bool) -> History:
    """Iterate. Keep the routing after every iteration, or after the last."""
    history: History = ()
    for number, temperature in enumerate(schedule, 1):
        last = number == len(schedule)
        poses, activations, after = iteration.update(state, temperature, last)
        if every or last:
            history += (Routing(poses, activations, iteration.assignments(state)),)
        state = after
    return history


@dataclass(frozen=True)
class _OverSamples:
    """An iteration over samples whose children vote for all their parents."""

    rule: Rule
    children: Children

    def update(self, state: tuple[Array, Array], temperature: float, last: bool) -> tuple[Array, Array, Any]:
        poses, activations, logits = self.rule.step(self.children, *state, temperature, last)
        return poses, activations, None if logits is None else (self.rule.assign(logits), logits)

    def assignments(self, state: tuple[Array, Array]) -> Array:
        shares = self.rule.shares(state[0])
        *batch, n_parents, i = shares.shape
        n_parents = max(n_parents, self.children.views.shape[-3])  # one may stand for all
        return broadcast(shares, (*batch, n_parents, i))


def run(options: Options, plan: Plan, samples: tuple[Array, ...], shared: Any = None) -> History:
    """Route samples block by block, compiled if the library compiles.

    Parameters
    ----------
    options
        The rule, and how often to apply it.
    plan
        The dimensions of the samples, and the memory they need.
    samples
        Arrays that begin with the dimensions of the samples.
    shared
        Nested tuples of arrays that all samples share.

    Returns
    -------
    tuple of Routing
        The routing, with assignments as views ``(..., J, I)``.
    """
    backend = backends.get(*samples)
    xp, n = backend.namespace(samples[0]), math.prod(plan.batch)
    size = max(1, backend.chunk_size(plan.bytes_per_child) // plan.n_children)
    flat = tuple(xp.reshape(x, (n, *x.shape[len(plan.batch) :])) for x in samples)
    static = options._replace(schedule=(), size=size)  # so that other temperatures compile nothing
    history = compiled(backend, _route, static)(flat, shared, options.schedule)
    return map_leaves(lambda x: xp.reshape(x, (*plan.batch, *x.shape[1:])), history)


def _route(static: Options, samples: tuple[Array, ...], shared: Any, schedule: Any) -> History:
    options = static._replace(schedule=schedule)
    if options.return_path:
        return in_blocks(options, samples, shared)
    return (options.rule.route(options, samples, shared),)


def in_blocks(options: Options, samples: tuple[Array, ...], shared: Any) -> History:
    """Route samples block by block; assignments are views, ``(b, J, I)``."""
    rule = options.rule

    def block(*some: Array) -> tuple[Array, ...]:
        children = rule.children(some, shared)
        start = rule.start(children)
        return tuple(leaves(follow(_OverSamples(rule, children), start, options.schedule, options.return_path)))

    parts = backends.get(*samples).map_blocks(block, list(samples), options.size, options.recompute)
    return tuple(Routing(*parts[start : start + 3]) for start in range(0, len(parts), 3))


def finish(
    history: History,
    like: Array,
    return_path: bool,
    arrange: Callable[[Routing], Routing] = lambda routing: routing,
) -> Any:
    """Return the last routing, and all if requested, in the dtype of `like`, children before parents, arranged."""
    xp = backends.namespace(like)

    def seen(routing: Routing) -> Routing:
        turned = arrange(routing._replace(assignments=swap(routing.assignments)))
        return Routing(*(x if x.dtype == like.dtype else xp.astype(x, like.dtype) for x in turned))

    history = tuple(seen(routing) for routing in history)
    return (history[-1], history) if return_path else history[-1]


def check_finite(history: History, **inputs: Array) -> None:
    """Raise `InputError` if a result is not finite, and name the input that is not. Inputs are inspected only then."""
    backend = backends.get(history[-1].poses)
    if not traced(history[-1].poses) and concrete(compiled(backend, _is_finite)(history[-1])) is False:
        xp = backends.namespace(history[-1].poses)
        for name, x in inputs.items():
            require(xp.all(xp.isfinite(x)), lambda name=name: f"{name} hold NaN or infinity")
        raise InputError("the routing of finite inputs is not finite: scale them down, or raise epsilon")


def _is_finite(routing: Routing) -> Array:
    """Return whether all fields are finite. Parents without weight have finite poses even for NaN votes."""
    xp = backends.namespace(routing.poses)
    ends = [end(x) for x in routing for end in (xp.min, xp.max)]
    return xp.all(xp.isfinite(xp.stack(ends)))
