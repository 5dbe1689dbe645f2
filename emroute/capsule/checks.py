"""The checks that routings share, and the dtype in which they compute."""

from __future__ import annotations

from emroute import backend as backends
from emroute.arrays.creation import broadcast
from emroute.backend import Array, compiled
from emroute.errors import InputError, InputTypeError
from emroute.validate import check_count, require_values

__all__ = [
    "check_activations",
    "check_floats",
    "check_grid",
    "check_pairs",
    "check_transforms",
    "check_votes",
    "for_statistics",
    "widen",
]


def for_statistics(like: Array, *arrays: Array) -> list[Array]:
    """Return arrays in the dtype in which statistics of `like` are computed: its own, but at least float32."""
    xp = backends.namespace(like)
    dtype = xp.float32 if xp.finfo(like.dtype).bits < 32 else like.dtype
    return [x if x.dtype == dtype else xp.astype(x, dtype) for x in arrays]


def check_floats(name: str, *arrays: Array) -> None:
    """Raise `InputTypeError` unless arrays have one library and device, and real floating dtypes."""
    xp = backends.namespace(*arrays)
    for x in arrays:
        if not xp.isdtype(x.dtype, "real floating"):
            raise InputTypeError(f"{name} has dtype {x.dtype}, expected a real floating one; convert it first")


def check_votes(votes: Array, n_iter: int) -> int:
    """Return the number of iterations, or raise unless votes are ``(..., I, J, H)`` without an axis of length 0."""
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
            "reshape the poses that a routing returned in one axis"
        )
    check_transforms(poses, transforms)


def check_transforms(poses: Array, transforms: Array) -> None:
    """Raise an error unless transforms are ``(I, J, P, P)`` for poses ``(..., I, P, P)``."""
    check_floats("transforms", poses, transforms)
    (i, p), shape = poses.shape[-3:-1], tuple(transforms.shape)
    if len(shape) != 4 or (shape[0], *shape[2:]) != (i, p, p) or not shape[1]:
        raise InputError(f"transforms have shape {shape}, expected (I, J, P, P) with I = {i} and P = {p}")


def check_grid(poses: Array) -> None:
    """Raise an error unless poses are ``(..., h, w, I, P, P)``, no axis of length 0."""
    check_floats("poses", poses)
    if poses.ndim < 5 or poses.shape[-1] != poses.shape[-2] or 0 in poses.shape:
        raise InputError(
            f"poses have shape {tuple(poses.shape)}, expected (..., h, w, I, P, P), square, no axis of length 0"
        )


def check_activations(
    activations: Array, batch: tuple[int, ...], n: int, like: Array, name: str = "activations", axis: str = "I"
) -> Array:
    """Return activations ``(*batch, I)``. Raise an error unless there are n of them and they are in [0, 1]."""
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
        raise InputError(f"{name}: shape {tuple(x.shape)} does not broadcast to {shape}{what}")
    return broadcast(x, shape)
