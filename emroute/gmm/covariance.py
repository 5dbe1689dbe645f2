"""Covariance types: what each makes of the moments, one class a type.

All works in standard coordinates z = (x - centre) / scale, in which the floor's D is the identity. With the
precision P = Sigma^-1 a component's log-density is linear in the monomials of z,

    log N(z | m, Sigma) = -d/2 log 2 pi + 1/2 log det P - 1/2 m'P m  +  (P m)'z  -  1/2 z'P z,

so an E-step is one matrix product with the monomials' coefficients, and the products of the responsibilities with
the monomials are the moments. About the components' own means the same is done with differences. That holds where
components are narrow beside their distance from the centre, and costs more, but for full covariances of wide rows: the
monomials of those are d²/2 products a row.
"""

from __future__ import annotations

from emroute.gmm.kind import Covariance
from emroute.gmm.matrices import Full, Tied
from emroute.gmm.variances import Diagonal, Spherical

__all__ = ["CODES", "COVARIANCES", "NAMED", "Covariance"]

COVARIANCES: dict[str, Covariance] = {
    "full": Full(),
    "tied": Tied(),
    "diag": Diagonal(),
    "spherical": Spherical(),
}
"""The covariance types by name."""

NAMED = tuple(COVARIANCES)
"""The types that have names of their own."""

COVARIANCES |= {
    **{code: Spherical(code) for code in ("EII", "VII")},
    **{code: Diagonal(code) for code in ("EEI", "VEI", "EVI", "VVI")},
    "EEE": Tied(),
    **{code: Full(code) for code in ("VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV")},
}

CODES = tuple(COVARIANCES)[len(NAMED) :]
"""The fourteen parsimonious models: VVV is "full", EEE "tied", VVI "diag" and VII "spherical"."""
