"""How sparsely capsules are used: within an example by few, over all examples by each (Kosiorek et al. 2019).

l2       within = mean_b (sum_k a_bk - c)²,   between = mean_k (sum_b a_bk - B / C)²
entropy  within = mean_b H(p_b),   between = H(sum_b a_b / sum_bk a),   p_b = a_b / sum_k a_bk
kl       the same with log (K p) in place of log p
"""

from __future__ import annotations

import math
from typing import NamedTuple

from emroute import backend as backends
from emroute.arrays.functions import ratio, safe_log
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.capsule.checks import check_floats, for_statistics
from emroute.errors import InputError
from emroute.validate import check_choice, check_count, check_number

__all__ = ["Sparsity", "sparsity"]

_KINDS = ("l2", "entropy", "kl")


class Sparsity(NamedTuple):
    """Both are scalars; a loss takes them with weights, the entropy between examples with a negative one."""

    within: Array
    between: Array


@Capabilities(gradients=True, jit=True, half=True)
def sparsity(presence: Array, kind: str = "l2", *, n_classes: int = 1, active: float | None = None) -> Sparsity:
    """Measure how few capsules each example uses, and how evenly all examples use them.

    Parameters
    ----------
    presence
        Of each capsule in each example, ``(B, K)``, not negative.
    kind
        ``"l2"``, ``"entropy"`` or ``"kl"``, as above.
    n_classes
        C, how many classes examples are thought to have; for ``"l2"``.
    active
        c, how many capsules an example should use; None is K / C. For ``"l2"``.

    Returns
    -------
    Sparsity
        Within examples and between them.

    Raises
    ------
    InputError
        If presence has no two axes, or an option cannot be used.
    InputTypeError
        If presence is not floating.

    References
    ----------
    Kosiorek, A. R., Sabour, S., Teh, Y. W. and Hinton, G. E. (2019). Stacked capsule autoencoders. NeurIPS. Section
    2.4.

    Examples
    --------
    >>> import numpy as np
    >>> one_each = sparsity(np.eye(3), "entropy")
    >>> float(one_each.within.round(6)), float(one_each.between.round(6))
    (0.0, 1.098612)
    """
    check_floats("presence", presence)
    if presence.ndim != 2 or 0 in presence.shape:
        raise InputError(f"presence has shape {tuple(presence.shape)}, expected (B, K), no axis of length 0")
    check_choice("kind", kind, _KINDS)
    classes = check_count("n_classes", n_classes)
    xp, (b, k), (a,) = backends.namespace(presence), presence.shape, for_statistics(presence, presence)
    if kind == "l2":
        wanted = k / classes if active is None else check_number("active", active)
        found = (xp.mean((xp.sum(a, axis=1) - wanted) ** 2), xp.mean((xp.sum(a, axis=0) - b / classes) ** 2))
    else:
        shift = math.log(k) if kind == "kl" else 0.0
        found = (xp.mean(_entropy(a, shift)), _entropy(xp.sum(a, axis=0), shift))
    return Sparsity(*(xp.astype(x, presence.dtype, copy=False) for x in found))


def _entropy(a: Array, shift: float) -> Array:
    """Minus sum p (log p + shift) along the last axis, p being proportional to `a`; 0 where all are 0."""
    xp = backends.namespace(a)
    p = ratio(a, xp.sum(a, axis=-1, keepdims=True), xp.zeros_like(a))
    logs = safe_log(p)
    return -xp.sum(p * (xp.where(xp.isfinite(logs), logs, xp.zeros_like(logs)) + shift), axis=-1)
