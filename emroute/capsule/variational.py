"""Variational Bayes routing, and the bound that it raises; the algorithm is in `emroute.capsule.posteriors`."""

from __future__ import annotations

import math
from typing import Any

from emroute import backend as backends
from emroute.arrays.creation import itemsize, swap
from emroute.backend import Array
from emroute.capability import Capabilities
from emroute.capsule.checks import check_activations, check_votes, for_statistics
from emroute.capsule.gaussians import widen_betas
from emroute.capsule.posteriors import Prior, VariationalGaussians
from emroute.capsule.routing import Options, Plan, as_views, check_finite, finish, run
from emroute.capsule.spreads import SPREADS
from emroute.errors import InputError
from emroute.validate import check_choice, check_count, check_number

__all__ = ["variational_bound", "variational_options", "variational_routing"]


def variational_options(
    covariance: str, prior: Prior, h: int, n_iter: int, *, recompute: bool, return_path: bool
) -> Options:
    """Return the options of variational routing of poses of `h` entries, or raise `InputError`."""
    check_choice("covariance", covariance, tuple(SPREADS))
    values = {name: check_number(name, value) for name, value in prior._asdict().items() if name not in ("m0", "nu0")}
    for name, value in values.items():
        if not value:
            raise InputError(f"got {name}={getattr(prior, name)!r}, expected a positive number")
    if not isinstance(prior.m0, int | float) or not math.isfinite(prior.m0):
        raise InputError(f"got m0={prior.m0!r}, expected a finite number")
    nu0 = None if prior.nu0 is None else check_number("nu0", prior.nu0)
    if nu0 is not None and nu0 <= h - 1:
        raise InputError(f"got nu0={prior.nu0!r} for poses of {h} entries, expected more than {h - 1}")
    rule = VariationalGaussians(covariance, Prior(m0=float(prior.m0), nu0=nu0, **values))
    return Options(rule, (1.0,) * check_count("n_iter", n_iter), bool(recompute), bool(return_path))


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def variational_routing(
    votes: Array,
    activations: Array,
    beta_u: Array,
    beta_a: Array,
    *,
    covariance: str = "diagonal",
    alpha0: float = 1.0,
    m0: float = 0.0,
    kappa0: float = 1.0,
    scale0: float = 1.0,
    nu0: float | None = None,
    n_iter: int = 3,
    recompute: bool = True,
    return_path: bool = False,
) -> Any:
    """Route votes to parents by variational Bayes.

    Parents have a prior, so that one with few children neither collapses onto a vote nor divides by nothing.

    Parameters
    ----------
    votes, activations
        As in `em_routing`.
    beta_u, beta_a
        ``(J,)`` or broadcastable to ``(..., J)``: what a parent costs beside its entropy, and the cost at which it is
        as likely there as not.
    covariance
        ``"diagonal"`` or ``"full"``. With full ones no iteration lowers `variational_bound`; if `m0` is 0 as well,
        rotated votes give rotated poses, and nothing else changes.
    alpha0
        Of the Dirichlet prior of the mixing weights: small values let parents go unused.
    m0, kappa0
        The prior's mean of each entry, and how many votes it is worth.
    scale0, nu0
        Of the Wishart prior of the precisions: the scale matrix is `scale0` times the identity. Degrees of freedom are
        more than H - 1, None being H + 1.
    n_iter
        How many M-steps.
    recompute, return_path
        As in `em_routing`.

    Returns
    -------
    Routing
        Poses are the posterior means; assignments sum to 1 over parents.

    Raises
    ------
    InputError
        If shapes or options cannot be used, activations are outside [0, 1], or votes hold NaN or infinity.
    InputTypeError
        If a dtype is not floating, or arrays differ in library or device.

    References
    ----------
    Ribeiro, F. D. S., Leontidis, G. and Kollias, S. (2020). Capsule routing via variational Bayes. AAAI. Algorithm 1.
    The paper's batch normalization of the activations' logits is left out.

    Examples
    --------
    >>> import numpy as np
    >>> votes = np.random.default_rng(0).normal(size=(6, 2, 4))
    >>> votes[:3, 0] = votes[3:, 1] = 1.0  # three children agree about each parent
    >>> found = variational_routing(votes, np.ones(6), np.zeros(2), np.zeros(2), n_iter=5)
    >>> found.assignments.argmax(axis=-1).tolist()
    [0, 0, 0, 1, 1, 1]
    """
    check_votes(votes, n_iter)
    *batch, i, j, h = votes.shape
    prior = Prior(alpha0, m0, kappa0, scale0, nu0)
    options = variational_options(covariance, prior, h, n_iter, recompute=recompute, return_path=return_path)
    activations = check_activations(activations, tuple(batch), i, votes)
    betas = widen_betas(beta_u, beta_a, (*batch, j), votes)
    plan = Plan(tuple(batch), i, 3 * itemsize(betas[0]) * j * h)
    history = run(options, plan, (votes, activations, *betas))
    check_finite(history, votes=votes, beta_u=betas[0], beta_a=betas[1])
    return finish(history, votes, return_path)


@Capabilities(gradients=True, jit=True, batch=True, half=True)
def variational_bound(
    votes: Array,
    activations: Array,
    assignments: Array,
    *,
    alpha0: float = 1.0,
    m0: float = 0.0,
    kappa0: float = 1.0,
    scale0: float = 1.0,
    nu0: float | None = None,
) -> Array:
    """Lower bound of the log-evidence after the M-step of given assignments, for full covariances.

    An iteration of `variational_routing` with ``covariance="full"`` never lowers it.

    Parameters
    ----------
    votes, activations
        As in `variational_routing`.
    assignments
        ``(..., I, J)``, that sum to 1 over parents, such as a `Routing` has.
    alpha0, m0, kappa0, scale0, nu0
        As in `variational_routing`.

    Returns
    -------
    Array
        ``(...,)``.

    Raises
    ------
    InputError, InputTypeError
        As in `variational_routing`.

    References
    ----------
    Bishop, C. M. (2006). Pattern recognition and machine learning. Section 10.2.2, with children weighted.

    Examples
    --------
    >>> import numpy as np
    >>> votes = np.random.default_rng(0).normal(size=(6, 2, 4))
    >>> _, path = variational_routing(
    ...     votes, np.ones(6), np.zeros(2), np.zeros(2), covariance="full", return_path=True
    ... )
    >>> bounds = [float(variational_bound(votes, np.ones(6), step.assignments)) for step in path]
    >>> bounds == sorted(bounds)
    True
    """
    check_votes(votes, 1)
    *batch, i, j, h = votes.shape
    prior = Prior(alpha0, m0, kappa0, scale0, nu0)
    rule = variational_options("full", prior, h, 1, recompute=True, return_path=False).rule
    active = check_activations(activations, tuple(batch), i, votes)
    shares = swap(check_activations(swap(assignments), (*batch, j), i, votes, "assignments"))
    wide = for_statistics(votes, as_views(votes), swap(shares), active)
    return backends.namespace(votes).astype(rule.bound(*wide), votes.dtype, copy=False)
