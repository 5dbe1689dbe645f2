"""Routing of vectors in linear memory (Heinsen 2022), whose votes are never held.

    x^_i = x_i / sqrt(I),   f_i = sigmoid(w_a,i . x^_i + b_a,i),   V_ij = (x^_i * f1_j) F2 + b_f,j
    R_ij = 1 / J, later softmax_j log sigmoid(w_s,ij x_i . p_j + b_s,ij),   p_j = (LN(o_j) G1) * g2_j + b_g,j
    phi_ij = beta_use_ij f_i R_ij - beta_ignore_ij f_i (1 - R_ij),   o_j = sum_i phi_ij V_ij

Votes are linear, so o_j = ((sum_i phi_ij x^_i) * f1_j) F2 + (sum_i phi_ij) b_f,j: memory is O(I J + J d), not O(I J d).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from emroute import backend as backends
from emroute.arrays.creation import swap
from emroute.arrays.functions import log_sigmoid, softmax
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.capsule.attention import layer_norm
from emroute.capsule.checks import check_floats, for_statistics, widen
from emroute.errors import InputError
from emroute.validate import check_count, require

__all__ = ["Credited", "HeinsenParameters", "heinsen_routing"]


class HeinsenParameters(NamedTuple):
    """Of `heinsen_routing`, for I vectors of d entries below and J of h entries above.

    Where the number of vectors below varies, those that have I have 1 in its place: all vectors share them.
    """

    w_a: Array
    """``(I, d)``: with `b_a` ``(I,)``, how much each vector is there."""
    b_a: Array
    f1: Array
    """``(J, d)``: with `f2` ``(d, h)`` and `b_f` ``(J, h)``, the votes."""
    f2: Array
    b_f: Array
    g1: Array
    """``(h, d)``: with `g2` ``(J, d)`` and `b_g` ``(J, d)``, what each parent predicts of the vectors below."""
    g2: Array
    b_g: Array
    w_s: Array
    """``(I, J)``: with `b_s` ``(I, J)``, how a prediction's scalar product with a vector becomes a logit."""
    b_s: Array
    beta_use: Array
    """``(I, J)``: what it brings a parent to use a vector; `beta_ignore` ``(I, J)``, what it costs not to."""
    beta_ignore: Array


class Credited(NamedTuple):
    """Result of `heinsen_routing`."""

    poses: Array
    """``(..., J, h)``."""
    credit: Array
    """phi ``(..., I, J)``: what each vector adds to each parent. Those of stacked routings multiply as matrices."""


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def heinsen_routing(x: Array, parameters: HeinsenParameters, *, n_iter: int = 2) -> Credited:
    """Route vectors by how well parents predict them, in memory that is linear in what goes in and comes out.

    Parameters
    ----------
    x
        ``(..., I, d)``, floating.
    parameters
        Learned, as `HeinsenParameters` has them.
    n_iter
        How many times parents are updated.

    Returns
    -------
    Credited
        Poses are standardized along their entries, unless there is only one.

    Raises
    ------
    InputError
        If shapes do not fit, or inputs hold NaN or infinity.
    InputTypeError
        If a dtype is not floating, or arrays differ in library or device.

    References
    ----------
    Heinsen, F. A. (2022). An algorithm for routing vectors in sequences. arXiv:2211.11754. Algorithm 2.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> shapes = (4, 3), (4,), (2, 3), (3, 5), (2, 5), (5, 3), (2, 3), (2, 3), (4, 2), (4, 2), (4, 2), (4, 2)
    >>> found = heinsen_routing(rng.normal(size=(7, 4, 3)), HeinsenParameters(*map(rng.normal, map(np.zeros, shapes))))
    >>> found.poses.shape, found.credit.shape
    ((7, 2, 5), (7, 4, 2))
    """
    n_iter, given = check_count("n_iter", n_iter), _checked(x, parameters)
    xp, i, (j, h) = backends.namespace(x), x.shape[-2], given.b_f.shape
    (wide,) = for_statistics(x, x)
    scaled = wide / math.sqrt(i)
    f = xp.exp(log_sigmoid(xp.sum(scaled * given.w_a, axis=-1) + given.b_a))[..., None]
    shares, poses, credit = xp.full_like(wide[..., :1], 1 / j), wide, wide
    for iteration in range(n_iter):
        if iteration:
            predicted = xp.matmul(poses, given.g1) * given.g2 + given.b_g
            logits = xp.matmul(wide, swap(predicted)) * given.w_s + given.b_s
            shares = softmax(log_sigmoid(logits))
        credit = given.beta_use * (f * shares) - given.beta_ignore * (f - f * shares)
        summed = xp.matmul(swap(credit), scaled)
        out = xp.matmul(summed * given.f1, given.f2) + xp.sum(credit, axis=-2)[..., None] * given.b_f
        poses = layer_norm(out) if h > 1 else out
    for array in (poses, credit):
        require(xp.all(xp.isfinite(array)), lambda: "results are not finite: x or parameters hold NaN or infinity")
    return Credited(*(xp.astype(array, x.dtype, copy=False) for array in (poses, credit)))


def _checked(x: Array, parameters: HeinsenParameters) -> HeinsenParameters:
    """Return parameters in the dtype of statistics, or raise an error where shapes do not fit."""
    if not isinstance(parameters, HeinsenParameters):
        raise InputError(f"got parameters of type {type(parameters).__name__}, expected HeinsenParameters")
    for name, array in (("x", x), *parameters._asdict().items()):
        check_floats(name, x, array)
    if x.ndim < 2 or 0 in x.shape:
        raise InputError(f"x has shape {tuple(x.shape)}, expected (..., I, d), no axis of length 0")
    if parameters.b_f.ndim != 2 or 0 in parameters.b_f.shape:
        raise InputError(f"b_f has shape {tuple(parameters.b_f.shape)}, expected (J, h), no axis of length 0")
    (i, d), (j, h) = x.shape[-2:], parameters.b_f.shape
    shapes = (i, d), (i,), (j, d), (d, h), (j, h), (h, d), (j, d), (j, d), (i, j), (i, j), (i, j), (i, j)
    wide = zip(parameters._asdict().items(), shapes, strict=True)
    return HeinsenParameters(*for_statistics(x, *(widen(name, array, shape) for (name, array), shape in wide)))
