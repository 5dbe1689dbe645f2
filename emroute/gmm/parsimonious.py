"""Covariances that components share in part: the parsimonious models of Celeux & Govaert (1995).

    S_k = lam_k D_k A_k D_k',   |A_k| = 1

has a volume lam_k, a shape A_k and an orientation D_k. Each letter of a code says of one of them, in this order,
whether it is equal in all components (E), varies (V) or is the identity (I). With C_k, the covariance that component k
has by itself, and w_k, its weight, the M-step minimizes

    sum_k w_k (log |S_k| + tr S_k^-1 C_k).

Given the axes D_k, only the variances of C_k along them matter, c_kj = (D_k' C_k D_k)_jj, and those of S_k are

    EE   sum_k w_k c_k
    EV   lam A_k,   A_k = c_k / gm(c_k),   lam = sum_k w_k gm(c_k)           gm: the geometric mean over j
    VE   lam_k A,   A = M / gm(M),   M = sum_k w_k c_k / lam_k,   lam_k = mean_j(c_kj / A_j), in turn
    VV   c_k

Axes that vary are the eigenvectors of C_k. A matrix that is equal but for its volume (VEE) has those of the weighted
sum of C_k / lam_k. Axes that alone are equal (EVE, VVE) are found by majorization (Browne & McNicholas 2014): with the
rows of E as axes, b_k = lam_k A_k, and the polar factor U of a matrix,

    E <- -U(sum_k w_k b_k^-1 E (C_k - max eig C_k)),    E <- -U(sum_k w_k (b_k^-1 - max_j 1 / b_kj) E C_k),

in which every half step lowers the sum above. So a few steps from the last axes make an EM step that never lowers the
likelihood.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from emroute import backend as backends
from emroute.arrays.creation import swap
from emroute.arrays.functions import eps
from emroute.backend import Array

__all__ = ["matrices", "variances"]

_STEPS = 200  # the slowest of Celeux and Govaert's rules has converged after some twenty
_COLD, _WARM = 500, 5  # sweeps of majorization, without axes to start from and with
_TURN = 4e-9  # a sweep that turns axes by no more ends them: variances then err by the square


def variances(code: str, own: Array, weights: Array, floor: Array) -> Array:
    """Variances ``(..., k, d)`` of components along axes on which they have `own` ones by themselves.

    None is less than `floor` ``(...,)`` by itself, which keeps means and quotients finite.
    """
    if code[:2] == "EE":
        return _above(backends.namespace(own).zeros_like(own) + _mean(own, weights), floor)
    own = _above(own, floor)
    if code[:2] == "EV":
        size = _geometric_mean(own)
        return own / size * _mean(size, weights)
    if code[:2] == "VE":
        return _of_one_shape(lambda volumes: own, own, weights)
    return own


def matrices(code: str, own: Array, weights: Array, floor: Array, axes: Array | None) -> tuple[Array, Array | None]:
    """Covariances ``(..., k, d, d)``, and the axes ``(..., d, d)``, a row each, of EVE and VVE.

    `axes` are the last ones, or 0 where none are known yet; of other models None.
    """
    if code[2] == "V":
        values, vectors = backends.get(own).eigh(own)
        return _composed(swap(vectors), variances(code, values, weights, floor)), None
    if axes is None:
        return _of_one_matrix(own, weights, floor), None
    rule = partial(variances, code, weights=weights, floor=floor)
    found = _common_axes(rule, own, weights, axes)
    return _composed(found[..., None, :, :], rule(_along(found, own))), found


def _of_one_shape(along: Callable[[Array], Array], start: Array, weights: Array) -> Array:
    """Variances lam_k A, given those of each component along the axes that go with volumes ``(..., k, 1)``."""
    xp = backends.namespace(start)

    def shaped(volumes: Array) -> tuple[Array, Array]:
        own = along(volumes)
        total = _mean(own / volumes, weights)
        shape = total / _geometric_mean(total)
        return xp.mean(own / shape, axis=-1, keepdims=True), shape

    volumes = _until_still(
        lambda log_volumes: xp.log(shaped(xp.exp(log_volumes))[0]),
        xp.log(xp.mean(start, axis=-1, keepdims=True)),
        8 * eps(start),
        _STEPS,
    )
    size, shape = shaped(xp.exp(volumes))
    return size * shape


def _of_one_matrix(own: Array, weights: Array, floor: Array) -> Array:
    """VEE: covariances lam_k C."""
    xp, backend = backends.namespace(own), backends.get(own)

    def axes(volumes: Array) -> Array:
        return swap(backend.eigh(xp.sum((weights[..., None] / volumes)[..., None] * own, axis=-3))[1])

    def along(volumes: Array) -> Array:
        return _above(_along(axes(volumes), own), floor)

    found = _of_one_shape(along, _above(xp.linalg.diagonal(own), floor), weights)
    return _composed(axes(_geometric_mean(found))[..., None, :, :], found)


def _common_axes(rule: Callable[[Array], Array], own: Array, weights: Array, axes: Array) -> Array:
    """Axes ``(..., d, d)`` of EVE and VVE; `rule` makes the components' variances of their own ones."""
    xp, backend = backends.namespace(own), backends.get(own)
    known = xp.any(axes != 0, axis=(-2, -1), keepdims=True)
    pooled = swap(backend.eigh(xp.sum(weights[..., None, None] * own, axis=-3))[1])
    largest = backend.eigh(own)[0][..., -1:]

    def turned(axes: Array, factors: Array, less: Array) -> Array:
        """One half step; `factors` ``(..., k, d)`` are of the axes, `less` ``(..., k, 1)`` of the covariances."""
        factors = weights[..., None] * factors
        turn = xp.sum(factors[..., None] * xp.matmul(axes[..., None, :, :], own), axis=-3)
        found = -_polar(turn - xp.sum(factors * less, axis=-2)[..., None] * axes)
        back = xp.sum(found * axes, axis=-1, keepdims=True) < 0  # an axis of factor 0 comes with any sign
        return xp.where(back, -found, found)

    def sweep(axes: Array) -> Array:
        axes = turned(axes, 1 / rule(_along(axes, own)), largest)
        precisions = 1 / rule(_along(axes, own))
        return turned(axes, precisions - xp.max(precisions, axis=-1, keepdims=True), xp.zeros_like(largest))

    cold = xp.astype(~xp.all(known), xp.int32)
    tol = max(64 * eps(own), _TURN)
    return _until_still(sweep, xp.where(known, axes, pooled), tol, _WARM + cold * (_COLD - _WARM))


def _until_still(step: Callable[[Array], Array], x: Array, tol: float, most: Array | int) -> Array:
    """Repeat a step until no entry moves by more than `tol`."""
    backend, xp = backends.get(x), backends.namespace(x)

    def again(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        count, x, _ = state
        new = step(x)
        return count + 1, new, xp.max(xp.abs(new - x))

    start = xp.zeros_like(xp.max(x), dtype=xp.int32), x, xp.max(xp.zeros_like(x)) + 2 * tol
    return backend.loop(lambda state: (state[2] > tol) & (state[0] < most), again, start)[1]


def _polar(x: Array) -> Array:
    """Return the orthogonal polar factors of matrices; the identity for one that is not finite."""
    xp = backends.namespace(x)
    finite = xp.all(xp.isfinite(x), axis=(-2, -1), keepdims=True)
    left, _, right = xp.linalg.svd(xp.where(finite, x, xp.zeros_like(x)))
    return xp.matmul(left, right)


def _along(axes: Array, own: Array) -> Array:
    """Variances ``(..., k, d)`` of covariances along common axes."""
    xp, axes = backends.namespace(own), axes[..., None, :, :]
    return xp.sum(xp.matmul(axes, own) * axes, axis=-1)


def _composed(axes: Array, variances: Array) -> Array:
    """Matrices of these variances along axes, which are rows."""
    half = swap(axes) * variances[..., None, :] ** 0.5
    return backends.namespace(axes).matmul(half, swap(half))


def _above(variances: Array, floor: Array) -> Array:
    xp = backends.namespace(variances)
    return xp.maximum(variances, xp.zeros_like(variances) + floor[..., None, None])


def _mean(x: Array, weights: Array) -> Array:
    """Weighted mean over components, ``(..., 1, d)``."""
    return backends.namespace(x).sum(weights[..., None] * x, axis=-2, keepdims=True)


def _geometric_mean(x: Array) -> Array:
    xp = backends.namespace(x)
    return xp.exp(xp.mean(xp.log(x), axis=-1, keepdims=True))
