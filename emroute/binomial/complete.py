"""Binomials with known components: fits to complete data, and the expected complete-data log-likelihood of EM."""

from __future__ import annotations

from emroute import backend as backends
from emroute.arrays.creation import one_hot, swap
from emroute.backend import Array
from emroute.binomial.mixture import Binomial, BinomialMixture, as_pair
from emroute.capability import Capabilities
from emroute.em import Status
from emroute.errors import InputError
from emroute.fitting import Options, fit_counts
from emroute.validate import check_count, require

__all__ = ["expected_log_likelihood", "fit_complete"]


@Capabilities(jit=True, batch=True, integers=True)
def fit_complete(heads: Array, trials: Array | int, labels: Array, n_components: int) -> BinomialMixture:
    """Fit by counting, when the component of every observation is known.

    Parameters
    ----------
    heads, trials
        Successes and trials, each ``(..., n)``; trials may be one number for all.
    labels
        The component of each observation, integers from 0 to ``n_components - 1``, ``(..., n)``.
    n_components
        The number of components, k.

    Returns
    -------
    BinomialMixture
        Its `weights` are the label frequencies. Its `log_likelihood` is that of the heads given their coins.

    Raises
    ------
    InputError
        If counts are invalid, or a label is out of range or does not occur.

    Examples
    --------
    >>> import numpy as np
    >>> coins = fit_complete(np.asarray([7, 9, 2, 6, 0]), 10, np.asarray([0, 0, 1, 0, 1]), 2)
    >>> coins.probs.round(6).tolist(), float(coins.log_likelihood.round(9))
    ([0.733333, 0.1], -7.655267754)
    """
    k = check_count("n_components", n_components)
    heads, trials = as_pair(heads, trials)
    xp = backends.namespace(heads, trials, labels)
    if not xp.isdtype(labels.dtype, "integral"):
        raise InputError(f"labels have dtype {labels.dtype}, expected integers")
    if tuple(labels.shape) != tuple(heads.shape):
        raise InputError(f"labels have shape {tuple(labels.shape)}, expected that of heads, {tuple(heads.shape)}")
    require(xp.all((labels >= 0) & (labels < k)), lambda: f"labels must lie from 0 to {k - 1}")
    family = Binomial()
    start = fit_counts(BinomialMixture, family, (heads, trials), k, Options(init=[0.5] * k, max_iter=0))
    coins = one_hot(labels, k, like=start.params.weights)
    heads, trials = (backends.get(x).detach(x) for x in (heads, trials))
    sums = xp.matmul(coins, swap(family.sufficient_statistics(start.params, (heads, trials))))
    require(xp.all(sums[..., 0] > 0), lambda: "every component needs at least one observation; a label does not occur")
    params = family.from_sums(sums, start.params._replace(weights=sums[..., 0] / labels.shape[-1]))
    each = xp.where(coins > 0, start.model.log_prob_of(params, (heads, trials)), 0.0)
    log_likelihood = xp.sum(each, axis=(-2, -1)) + params.constant
    converged = xp.full_like(start.status, int(Status.CONVERGED))
    return BinomialMixture(start.model, params, log_likelihood, log_likelihood[..., None], start.n_iter, converged)


@Capabilities(gradients=True, jit=True, batch=True, integers=True)
def expected_log_likelihood(
    mixture: BinomialMixture, heads: Array, trials: Array | int, constant: bool = True
) -> Array:
    """Return the expected complete-data log-likelihood, sum_nk r_nk log p(h_n | k), without mixing weights.

    Parameters
    ----------
    mixture
        The mixture that gives both the responsibilities r and the probabilities.
    heads, trials
        Successes and trials, each ``(..., n)``; trials may be one number for all.
    constant
        Whether to include the binomial coefficients. The tutorials print both sums.

    Returns
    -------
    Array
        The sum, ``(...,)``.

    Examples
    --------
    >>> import numpy as np
    >>> from emroute.binomial import fit
    >>> heads = np.asarray([5, 9, 8, 4, 7])
    >>> start = fit(heads, 10, 2, init=[0.6, 0.5], weights=[0.5, 0.5], max_iter=0)
    >>> [round(float(expected_log_likelihood(start, heads, 10, constant=c)), 4) for c in (True, False)]
    [-10.9139, -32.6872]
    """
    data, params = mixture.data(heads, trials), mixture.params
    xp, model = backends.namespace(*data), mixture.model.suited(params, data)
    shares, log_prob = mixture.responsibilities(*data), swap(model.log_prob_of(params, data))
    possible = shares > 0  # 0 times −inf is 0
    total = xp.sum(shares * xp.where(possible, log_prob, 0.0), axis=(-2, -1))
    each = model.constant_of(params, data)
    return total + xp.sum(each if constant else each - model.family.log_base_measure(params, data), axis=-1)
