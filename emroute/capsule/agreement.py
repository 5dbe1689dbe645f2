"""What the routings share: their result, how they run over blocks of samples, and their checks.

Inside a block, votes are *views* ``(b, J, H, I)``: children last, so that sums over children and over pose entries
are matrix products, as for a Gaussian mixture's points (parents are its components, children its observations).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from emroute import backend as backends
from emroute.arrays.creation import broadcast, swap
from emroute.arrays.tracing import concrete, traced
from emroute.arrays.trees import leaves, map_leaves
from emroute.backend import Array, Backend, compiled
from emroute.errors import InputError, InputTypeError
from emroute.validate import check_count, require, require_values

__all__ = [
    "Routing",
    "as_views",
    "check_activations",
    "check_finite",
    "check_floats",
    "check_grid",
    "check_pairs",
    "check_transforms",
    "check_votes",
    "finish",
    "for_statistics",
    "over_samples",
    "widen",
]


class Routing(NamedTuple):
    """What a routing finds: the last iteration, and in a path each of them, from equal assignments on.

    A step's poses and activations come from the step's own assignments.
    """

    poses: Array
    """``(..., J, H)``: of the parents."""
    activations: Array
    """``(..., J)``: how much each parent is there."""
    assignments: Array
    """``(..., I, J)``: to which parents each child belongs, as the last update of the poses used it."""


Path = tuple[Routing, ...]


def as_views(votes: Array) -> Array:
    """Votes ``(..., I, J, H)`` as ``(..., J, H, I)``, in that order in memory too."""
    xp = backends.namespace(votes)
    last = votes.ndim - 1
    views = xp.permute_dims(votes, (*range(last - 2), last - 1, last, last - 2))
    return xp.reshape(xp.reshape(views, (*views.shape[:-3], -1)), views.shape)


def for_statistics(like: Array, *arrays: Array) -> list[Array]:
    """Arrays in the dtype in which statistics of `like` are computed: its own, but float32 at least."""
    xp = backends.namespace(like)
    dtype = xp.float32 if xp.finfo(like.dtype).bits < 32 else like.dtype
    return [x if x.dtype == dtype else xp.astype(x, dtype) for x in arrays]


def over_samples(
    route: Callable[..., tuple[Routing, ...]],
    static: tuple[Any, ...],
    batch: tuple[int, ...],
    arrays: Sequence[Array],
    shared: Any,
    bytes_per_child: int,
    n_children: int,
    recompute: bool,
    return_path: bool,
) -> Path:
    """Run ``route(*static, shared, *block)`` over blocks of samples, compiled where the library compiles.

    Parameters
    ----------
    route
        From arrays of some samples, the routing after each iteration; assignments as views, ``(b, J, I)``.
    static
        Its hashable settings.
    batch
        Leading dimensions that all arrays have.
    arrays
        ``(*batch, ...)``.
    shared
        A nest of tuples of arrays and numbers that all samples share.
    bytes_per_child
        Working memory that a child of a sample takes.
    n_children
        How many children a sample has.
    recompute
        Whether the backward pass runs blocks again instead of keeping what they computed.
    return_path
        Whether to keep the routing after each iteration, or that after the last alone.
    """
    backend = backends.get(*arrays)
    xp, n = backend.namespace(arrays[0]), math.prod(batch)
    size = max(1, backend.chunk_size(bytes_per_child) // n_children)
    flat = tuple(xp.reshape(x, (n, *x.shape[len(batch) :])) for x in arrays)
    path = compiled(backend, _over_samples, backend, route, static, size, recompute, return_path)(flat, shared)
    return map_leaves(lambda x: xp.reshape(x, (*batch, *x.shape[1:])), path)


def _over_samples(
    backend: Backend,
    route: Callable[..., Any],
    static: tuple[Any, ...],
    size: int,
    recompute: bool,
    return_path: bool,
    arrays: tuple[Array, ...],
    shared: Any,
) -> Path:
    def block(*some: Array) -> tuple[Array, ...]:
        path = route(*static, shared, *some)
        return tuple(leaves(path if return_path else path[-1:]))

    parts = backend.map_blocks(block, list(arrays), size, recompute)
    return tuple(Routing(*parts[start : start + 3]) for start in range(0, len(parts), 3))


def finish(
    path: Path, like: Array, return_path: bool, arrange: Callable[[Routing], Routing] = lambda routing: routing
) -> Any:
    """Return the last routing, and all if asked, in the dtype of `like`, children before parents, then arranged."""
    xp = backends.namespace(like)

    def seen(routing: Routing) -> Routing:
        turned = arrange(routing._replace(assignments=swap(routing.assignments)))
        return Routing(*(x if x.dtype == like.dtype else xp.astype(x, like.dtype) for x in turned))

    path = tuple(seen(routing) for routing in path)
    return (path[-1], path) if return_path else path[-1]


def check_floats(name: str, *arrays: Array) -> None:
    """Raise `InputTypeError` unless arrays are of one library and device, and of real floating dtypes."""
    xp = backends.namespace(*arrays)
    for x in arrays:
        if not xp.isdtype(x.dtype, "real floating"):
            raise InputTypeError(f"{name} has dtype {x.dtype}, expected a real floating one; convert it first")


def check_votes(votes: Array, n_iter: int) -> int:
    """Return the number of iterations; raise an error unless votes are ``(..., I, J, H)``, nothing of it 0."""
    check_floats("votes", votes)
    if votes.ndim < 3 or 0 in votes.shape:
        raise InputError(f"votes have shape {tuple(votes.shape)}, expected (..., I, J, H), no axis of length 0")
    return check_count("n_iter", n_iter)


def check_pairs(poses: Array, transforms: Array) -> None:
    """Raise an error unless poses ``(..., I, P, P)`` and transforms ``(I, J, P, P)`` fit each other."""
    check_floats("poses", poses)
    if poses.ndim < 3 or poses.shape[-1] != poses.shape[-2] or 0 in poses.shape:
        raise InputError(
            f"poses have shape {tuple(poses.shape)}, expected (..., I, P, P): square matrices, no axis of length 0; "
            "those that a routing returned in one axis must be reshaped"
        )
    check_transforms(poses, transforms)


def check_transforms(poses: Array, transforms: Array) -> None:
    """Raise an error unless transforms are ``(I, J, P, P)`` for poses ``(..., I, P, P)``."""
    check_floats("transforms", poses, transforms)
    (i, p), shape = poses.shape[-3:-1], tuple(transforms.shape)
    if len(shape) != 4 or (shape[0], *shape[2:]) != (i, p, p) or not shape[1]:
        raise InputError(f"transforms have shape {shape}, expected (I, J, P, P) with I = {i} and P = {p}")


def check_grid(poses: Array) -> None:
    """Raise an error unless poses are ``(..., h, w, I, P, P)``, nothing of it 0."""
    check_floats("poses", poses)
    if poses.ndim < 5 or poses.shape[-1] != poses.shape[-2] or 0 in poses.shape:
        raise InputError(
            f"poses have shape {tuple(poses.shape)}, expected (..., h, w, I, P, P), square, no axis of length 0"
        )


def check_activations(
    activations: Array, batch: tuple[int, ...], n: int, like: Array, name: str = "activations", axis: str = "I"
) -> Array:
    """Return activations ``(*batch, I)``; raise an error unless they are of n children and lie in [0, 1]."""
    check_floats(name, like, activations)
    if not activations.ndim or activations.shape[-1] != n:
        raise InputError(f"{name} have shape {tuple(activations.shape)}, expected (..., {axis}) with {axis} = {n}")
    wide = widen(name, activations, (*batch, n))
    inside = compiled(backends.get(activations), _are_shares)
    require_values(inside, activations, lambda: f"{name} along {axis} must lie in [0, 1] and not be NaN")
    return wide


def _are_shares(x: Array) -> Array:
    xp = backends.namespace(x)
    return (xp.min(x) >= 0) & (xp.max(x) <= 1)


def widen(name: str, x: Array, shape: tuple[int, ...], what: str = "") -> Array:
    """Broadcast an array to a shape, or raise `InputError`."""
    fits = x.ndim <= len(shape) and all(a in (1, b) for a, b in zip(x.shape[::-1], shape[::-1], strict=False))
    if not fits:
        raise InputError(f"{name} has shape {tuple(x.shape)}, which does not broadcast to {shape}{what}")
    return broadcast(x, shape)


def check_finite(path: Path, **inputs: Array) -> None:
    """Raise `InputError` where a result is not finite, naming the input that is not: good data cost no look."""
    backend = backends.get(path[-1].poses)
    if not traced(path[-1].poses) and concrete(compiled(backend, _is_finite)(path[-1])) is False:
        xp = backends.namespace(path[-1].poses)
        for name, x in inputs.items():
            require(xp.all(xp.isfinite(x)), lambda name=name: f"{name} hold NaN or infinity")
        raise InputError("finite inputs make a routing that is not: scale them down, or raise epsilon")


def _is_finite(routing: Routing) -> Array:
    """Whether all of a routing is: poses alone do not tell, for parents that nothing counts for keep theirs."""
    xp = backends.namespace(routing.poses)
    ends = [end(x) for x in routing for end in (xp.min, xp.max)]
    return xp.all(xp.isfinite(xp.stack(ends)))
