"""The votes of a block of samples as views, whether they are given or cast there from poses."""

from __future__ import annotations

from typing import Any

from emroute.backend import Array
from emroute.capsule.checks import for_statistics
from emroute.capsule.routing import Children, as_views
from emroute.capsule.votes import vote_views

__all__ = ["cast_children"]


def cast_children(samples: tuple[Array, ...], shared: Any) -> Children:
    """Prepare the children of a block.

    Parameters
    ----------
    samples
        Votes ``(b, I, J, H)`` or poses ``(b, I, P, P)``, activations ``(b, I)``, and what parents bring themselves.
    shared
        None for votes; for poses, wide transforms ``(I, J, P, P)``, and what is added to votes, ``(H, I)`` or None.
    """
    like = samples[0]
    if shared is None:
        views, activations, *of_parents = for_statistics(like, as_views(like), *samples[1:])
        return Children(views, activations, tuple(of_parents))
    transforms, shift = shared
    poses, activations, *of_parents = for_statistics(like, *samples)
    views = vote_views(poses, transforms)
    if shift is not None:
        views = views + for_statistics(like, shift)[0]
    return Children(views, activations, tuple(of_parents))
