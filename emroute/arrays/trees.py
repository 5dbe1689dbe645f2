"""Nested tuples of arrays, which JAX calls pytrees. Named tuples keep their type; None stands for no array."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from emroute.backend import Array
from emroute.capability import Capabilities

__all__ = ["leaves", "map_leaves", "rebuild"]


@Capabilities(gradients=True, jit=True, half=True)
def leaves(tree: Any) -> list[Array]:
    """Return the arrays of nested tuples, in order. None is ignored.

    >>> leaves((1, (2, None), 3))
    [1, 2, 3]
    """
    if not isinstance(tree, tuple):
        return [] if tree is None else [tree]
    found = []
    for branch in tree:  # one call for each tuple, not for each array
        found += leaves(branch) if branch is None or isinstance(branch, tuple) else [branch]
    return found


@Capabilities(gradients=True, jit=True, half=True)
def rebuild(tree: Any, arrays: Iterable[Array]) -> Any:
    """Return nested tuples with the same structure and other arrays, in the order of `leaves`.

    >>> rebuild((1, (2,)), [10, 20])
    (10, (20,))
    """
    following = iter(arrays)
    return map_leaves(lambda _: next(following), tree)


@Capabilities(gradients=True, jit=True, half=True)
def map_leaves(function: Callable[..., Array], tree: Any, *rest: Any) -> Any:
    """Apply a function to the matching arrays of nested tuples; named ones keep their type.

    >>> map_leaves(lambda a, b: a + b, (1, (2,)), (10, (20,)))
    (11, (22,))
    """
    if isinstance(tree, tuple):
        branches = [map_leaves(function, *group) for group in zip(tree, *rest, strict=True)]
        return type(tree)(*branches) if hasattr(tree, "_fields") else tuple(branches)
    return None if tree is None else function(tree, *rest)
