"""The modified Bessel function of the first kind, in logarithm and ratio, at any order from 0 and any argument.

With I_v the function and v its order, two quantities have no singularity at 0 and no overflow anywhere:

    G_v(x) = log(I_v(x) / x^v),    s_v(x) = x I_{v+1}(x) / I_v(x).

Both come from a high order, where Debye's uniform expansion holds to the last digits, down by the recurrence

    G_{v-1} = G_v + log(2 v + s_v),    s_{v-1} = x^2 / (2 v + s_v),

which is stable in this direction. Source: NIST Digital Library of Mathematical Functions, 10.41(ii) and 10.29.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.polynomial import Polynomial

from emroute.backend import Array, namespace
from emroute.capability import Capabilities
from emroute.validate import check_floating

__all__ = ["log_bessel"]

_HIGH = 24.0  # the order from which on Debye's expansion is used
_STEPS = 8  # of the recurrence at least: they repair the ratio where the argument is small
_TERMS = 9


@cache
def _debye() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Coefficients of the polynomials U_k(t) and V_k(t), DLMF 10.41.9 to 10.41.11, lowest power first."""
    t = Polynomial([0.0, 1.0])
    u, v = [Polynomial([1.0])], [Polynomial([1.0])]
    for _ in range(_TERMS - 1):
        last = u[-1]
        u.append(0.5 * t**2 * (1 - t**2) * last.deriv() + ((1 - 5 * t**2) * last).integ() / 8)
        v.append(u[-1] - 0.5 * t * (1 - t**2) * last - t**2 * (1 - t**2) * last.deriv())
    return [p.coef for p in u], [p.coef for p in v]


def _series(polynomials: list[np.ndarray], t: Array, order: float) -> Array:
    """sum_k p_k(t) / order^k, as one polynomial in t."""
    total = np.zeros(max(map(len, polynomials)))
    for k, coefficients in enumerate(polynomials):
        total[: len(coefficients)] += coefficients / order**k
    value = 0 * t + float(total[-1])
    for coefficient in total[-2::-1].tolist():
        value = value * t + coefficient
    return value


def _at_zero(order: float) -> float:
    """Return the first series at an argument of 0, where t is 1."""
    return sum(float(coefficients.sum()) / order**k for k, coefficients in enumerate(_debye()[0]))


@Capabilities(gradients=True, jit=True, batch=True)
def log_bessel(order: float, square: Array) -> tuple[Array, Array]:
    """Return log(I_v(x) / x^v) and the ratio I_{v+1}(x) / (x I_v(x)), smooth in the square of x.

    Parameters
    ----------
    order
        v, at least 0.
    square
        x², not negative, of any shape, float32 or float64.

    Returns
    -------
    log_value, ratio : Array
        Of the shape of `square`. At 0 they are −v log 2 − log Γ(v + 1) and 1 / (2 v + 2).

    Examples
    --------
    >>> import numpy as np
    >>> log_value, ratio = log_bessel(0.5, np.asarray([0.0, 1.0]))
    >>> bool(np.allclose(np.exp(log_value[1]), np.sqrt(2 / np.pi) * np.sinh(1)))
    True
    """
    check_floating("the square", square)
    xp = namespace(square)
    steps = max(_STEPS, math.ceil(_HIGH - order))
    high = order + steps
    z = square / high**2
    root = xp.sqrt(1 + z)
    beyond = z / (1 + root)  # of root beyond 1, with all its digits
    u_sum, v_sum = (_series(polynomials, 1 / root, high) for polynomials in _debye())
    s = high * (root * v_sum / u_sum - 1)
    denominator = 2 * high + s
    # each term of the logarithm is what it has grown since 0, where all of it is known
    grown = high * (beyond - xp.log1p(beyond / 2)) - 0.5 * xp.log1p(beyond) + xp.log(u_sum / _at_zero(high))
    for twice in (2 * (high - step) for step in range(steps)):
        denominator = twice + s
        grown = grown + xp.log1p(s / twice)
        s = square / denominator
    log_value = grown - order * math.log(2) - math.lgamma(order + 1)
    return log_value, 1 / denominator
