"""Activations of at least float32, whatever the dtype of poses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from emroute.backend import Array, namespace
from emroute.capsule import Routing
from emroute.capsule.checks import for_statistics

__all__ = ["keep_activations"]


def keep_activations(route: Callable[..., Any], x: Array, *rest: Array, return_path: bool, **options: Any) -> Any:
    """Route `x`, votes or poses, and return poses and assignments in its dtype, activations in float32 at least.

    float16 and bfloat16 have so few numbers near 1 that classes would tie in every fifth to tenth image.
    """
    (wide,) = for_statistics(x, x)
    found = route(wide, *rest, return_path=return_path, **options)
    if wide is x:
        return found
    astype = namespace(x).astype

    def narrow(routing: Routing) -> Routing:
        return Routing(astype(routing.poses, x.dtype), routing.activations, astype(routing.assignments, x.dtype))

    if not return_path:
        return narrow(found)
    path = tuple(map(narrow, found[1]))
    return path[-1], path
