"""Keywords of other libraries, and what is called so here."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from emroute.errors import InputTypeError

__all__ = ["knows_others"]

F = TypeVar("F", bound=Callable[..., Any])

# of scikit-learn, tgmm and mclust; in brackets, how ours differs
_OURS = {
    "G": "n_components",
    "init_params": "init",
    "initialCentroids": "init",
    "k": "n_components",
    "means_init": "init",
    "modelNames": "covariance_type",
    "n_clusters": "n_components",
    "n_components": "n_clusters",
    "random_state": "rng",
    "reg_covar": "covariance_floor",
    "seed": "rng",
    "verbose": "progress",
    "weights_init": "init",
}
_DIFFERS = {
    "covariance_floor": ", the least variance in units of each feature's squared width; nothing is added to variances",
    "init": ", starting means, or a tuple of weights, means and covariances",
}


def knows_others(function: F) -> F:
    """Let a function say what it calls a keyword that it does not have, if another library has it.

    >>> @knows_others
    ... def fit(x, *, rng=None): ...
    >>> fit(1, random_state=0)
    Traceback (most recent call last):
        ...
    emroute.errors.InputTypeError: got random_state=0, which is called rng here
    """
    own = inspect.signature(function).parameters
    others = {theirs: ours for theirs, ours in _OURS.items() if theirs not in own}
    others = {theirs: ours if ours in own else "n_clusters" for theirs, ours in others.items()}
    others = {theirs: ours for theirs, ours in others.items() if ours in own}

    @wraps(function)
    def checked(*args: Any, **options: Any) -> Any:
        for theirs in options.keys() & others.keys():
            ours = others[theirs]
            value = f"{options[theirs]!r:.40}"
            raise InputTypeError(f"got {theirs}={value}, which is called {ours} here{_DIFFERS.get(ours, '')}")
        return function(*args, **options)

    return cast(F, checked)
