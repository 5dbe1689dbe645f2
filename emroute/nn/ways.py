"""The routings that layers of matrix capsules know by name: what each learns, and what it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from emroute import capsule
from emroute.errors import InputError
from emroute.validate import check_choice

__all__ = ["WAYS", "Way", "check_routing", "in_one_pass", "routings"]


class Way(NamedTuple):
    """A routing as a layer calls it; arguments go by name."""

    name: str
    """In the names of its functions."""
    learned: tuple[str, ...]
    """Beside the transforms."""
    options: tuple[str, ...]
    """Of a layer's options, those that it takes."""
    fixed: tuple[tuple[str, Any], ...] = ()
    """Further options."""
    activations: bool = True
    """Whether those of the children count."""
    without: tuple[str, ...] = ()
    """What the layer would tell other routings."""


_BETAS = ("beta_u", "beta_a")
_EM = ("n_iter", "cost", "inverse_temperature", "epsilon", "recompute")

WAYS = {
    "em": Way("em", _BETAS, _EM),
    "full": Way("em", _BETAS, _EM, fixed=(("covariance", "full"),)),
    "variational": Way("variational", _BETAS, ("n_iter", "recompute")),
    "attention": Way("attention", ("gain", "bias"), ("n_iter", "recompute"), activations=False),
    "self": Way("self", ("route_weights", "route_bias"), ("recompute",), without=("entries", "coordinates")),
}


def check_routing(routing: str, cost: str) -> str:
    """Return the name of a routing, or raise `InputError`."""
    check_choice("routing", routing, tuple(WAYS))
    if routing == "full" and cost != "hinton":
        raise InputError(f"got cost={cost!r} with routing='full', which has no cost an entry: expected 'hinton'")
    return routing


def routings(kind: str) -> Mapping[str, Callable[..., Any]]:
    """Return the functions of a kind, ``"conv"`` or ``"class"``, by their routings' names.

    >>> routings("conv")["em"].__name__
    'conv_em_routing'
    """
    return {way.name: getattr(capsule, f"{kind}_{way.name}_routing") for way in WAYS.values()}


def in_one_pass(route: Callable[..., Any]) -> Callable[..., Any]:
    """Let a routing without iterations return a path, of one."""

    def routed(*arrays: Any, return_path: bool, **options: Any) -> Any:
        found = route(*arrays, **options)
        return (found, (found,)) if return_path else found

    return routed
