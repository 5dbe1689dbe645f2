"""Variational and attention routing between grids of capsules, and from a grid to class capsules.

Between grids, children are those of a window; a class capsule sees the whole grid. Arguments and results are those of
`conv_em_routing` and `class_em_routing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emroute import backend as backends
from emroute.arrays.creation import full
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.capsule.attention import Attention
from emroute.capsule.checks import check_grid
from emroute.capsule.classes import route_classes
from emroute.capsule.grids import route_grid
from emroute.capsule.posteriors import Prior
from emroute.capsule.routing import Options
from emroute.capsule.variational import variational_options
from emroute.validate import check_count

__all__ = [
    "class_attention_routing",
    "class_variational_routing",
    "conv_attention_routing",
    "conv_variational_routing",
]


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def conv_variational_routing(
    poses: Array,
    activations: Array,
    transforms: Array,
    beta_u: Array,
    beta_a: Array,
    *,
    stride: int = 1,
    padding: int = 0,
    n_iter: int = 3,
    normalize_over: str = "parents",
    covariance: str = "diagonal",
    prior: Prior | None = None,
    recompute: bool = True,
    return_path: bool = False,
) -> Any:
    """Route a grid of capsules to a smaller one by variational Bayes.

    Parameters
    ----------
    poses, activations, transforms, beta_u, beta_a, stride, padding, n_iter, normalize_over, recompute, return_path
        As in `conv_em_routing`.
    covariance
        As in `variational_routing`.
    prior
        Its other options; None is their defaults.

    Returns
    -------
    Routing
        As of `conv_em_routing`.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> poses, transforms = rng.normal(size=(1, 5, 5, 2, 4, 4)), rng.normal(size=(3, 3, 2, 4, 4, 4))
    >>> conv_variational_routing(poses, np.ones((1, 5, 5, 2)), transforms, np.zeros(4), np.zeros(4)).poses.shape
    (1, 3, 3, 4, 4, 4)
    """
    options = _variational(poses, covariance, prior, n_iter, {"recompute": recompute, "return_path": return_path})
    betas, geometry = {"beta_u": beta_u, "beta_a": beta_a}, (stride, padding, normalize_over)
    return route_grid((poses, activations), transforms, betas, geometry, options)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def class_variational_routing(
    poses: Array,
    activations: Array,
    transforms: Array,
    beta_u: Array,
    beta_a: Array,
    *,
    entries: Sequence[int] | None = (0, 1),
    coordinates: Any = None,
    n_iter: int = 3,
    covariance: str = "diagonal",
    prior: Prior | None = None,
    recompute: bool = True,
    return_path: bool = False,
) -> Any:
    """Route a whole grid to class capsules by variational Bayes.

    Parameters
    ----------
    poses, activations, transforms, beta_u, beta_a, entries, coordinates, n_iter, recompute, return_path
        As in `class_em_routing`.
    covariance, prior
        As in `conv_variational_routing`.

    Returns
    -------
    Routing
        As of `class_em_routing`.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> poses, transforms = rng.normal(size=(1, 5, 5, 2, 4, 4)), rng.normal(size=(2, 10, 4, 4))
    >>> class_variational_routing(poses, np.ones((1, 5, 5, 2)), transforms, np.zeros(10), np.zeros(10)).poses.shape
    (1, 10, 16)
    """
    options = _variational(poses, covariance, prior, n_iter, {"recompute": recompute, "return_path": return_path})
    betas = {"beta_u": beta_u, "beta_a": beta_a}
    return route_classes((poses, activations), transforms, betas, options, (entries, coordinates))


def _variational(poses: Array, covariance: str, prior: Prior | None, n_iter: int, how: dict[str, bool]) -> Options:
    check_grid(poses)
    return variational_options(covariance, prior or Prior(), poses.shape[-1] ** 2, n_iter, **how)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def conv_attention_routing(
    poses: Array,
    transforms: Array,
    *,
    gain: Array | None = None,
    bias: Array | None = None,
    stride: int = 1,
    padding: int = 0,
    n_iter: int = 2,
    normalize_over: str = "window",
    recompute: bool = True,
    return_path: bool = False,
) -> Any:
    """Route a grid of capsules to a smaller one by inverted dot-product attention.

    Parameters
    ----------
    poses, transforms, stride, padding, recompute, return_path
        As in `conv_em_routing`.
    gain, bias, n_iter
        As in `attention_routing`; the first two have ``(P * P,)`` entries.
    normalize_over
        As in `conv_em_routing`; the paper's is ``"window"``.

    Returns
    -------
    Routing
        As of `conv_em_routing`, with activations of 1.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> found = conv_attention_routing(rng.normal(size=(1, 5, 5, 2, 4, 4)), rng.normal(size=(3, 3, 2, 4, 4, 4)))
    >>> found.poses.shape
    (1, 3, 3, 4, 4, 4)
    """
    options = _attention(n_iter, recompute, return_path)
    own, geometry = _gain_and_bias(poses, gain, bias), (stride, padding, normalize_over)
    return route_grid((poses, None), transforms, own, geometry, options, by_entry=True)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def class_attention_routing(
    poses: Array,
    transforms: Array,
    *,
    gain: Array | None = None,
    bias: Array | None = None,
    entries: Sequence[int] | None = (0, 1),
    coordinates: Any = None,
    n_iter: int = 2,
    recompute: bool = True,
    return_path: bool = False,
) -> Any:
    """Route a whole grid to class capsules by inverted dot-product attention.

    Parameters
    ----------
    poses, transforms, entries, coordinates, recompute, return_path
        As in `class_em_routing`.
    gain, bias, n_iter
        As in `conv_attention_routing`.

    Returns
    -------
    Routing
        As of `class_em_routing`, with activations of 1.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> class_attention_routing(rng.normal(size=(1, 5, 5, 2, 4, 4)), rng.normal(size=(2, 10, 4, 4))).poses.shape
    (1, 10, 16)
    """
    options, own = _attention(n_iter, recompute, return_path), _gain_and_bias(poses, gain, bias)
    capsules = poses, backends.namespace(poses).ones_like(poses[..., 0, 0])
    return route_classes(capsules, transforms, own, options, (entries, coordinates), by_entry=True)


def _attention(n_iter: int, recompute: bool, return_path: bool) -> Options:
    return Options(Attention(), (1.0,) * check_count("n_iter", n_iter), bool(recompute), bool(return_path))


def _gain_and_bias(poses: Array, gain: Array | None, bias: Array | None) -> dict[str, Array]:
    check_grid(poses)
    one = full((1,), 1.0, like=poses)
    return {"gain": one if gain is None else gain, "bias": 0 * one if bias is None else bias}
