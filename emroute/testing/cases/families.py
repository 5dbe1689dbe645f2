"""Fits and fitted mixtures of the families on counts, and what is asked of every fitted mixture."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from emroute import binomial, categorical, multinomial, poisson, student_t, von_mises_fisher
from emroute.arrays.functions import safe_norm
from emroute.backend import Array, get, namespace
from emroute.mixture import Mixture
from emroute.testing.cases.case import Case, positive
from emroute.testing.cases.data import (
    draw_answers,
    draw_coins,
    draw_counts,
    draw_directions,
    draw_documents,
    draw_halves,
    draw_heavy_tails,
    draw_tosses,
)

__all__ = ["FAMILIES", "SHORT", "history", "sampled", "scored"]

# so few iterations, on data that overlap, that no rounding can bring a fit to rest
SHORT: dict[str, Any] = {"tol": 1e-12, "max_iter": 3}
"""A number of iterations that rounding cannot change."""


def history(mixture: Any) -> dict[str, Array]:
    """What every fitted mixture tells."""
    names = ("weights", "log_likelihood", "trace", "n_iter", "status", "converged")
    return {name: getattr(mixture, name) for name in names}


def scored(mixture: Mixture, *data: Array, weight: Array) -> dict[str, Array]:
    """Every method that scores data."""
    found = {name: getattr(mixture, name)(*data) for name in ("log_prob", "responsibilities", "predict")}
    totals = {name: getattr(mixture, name)(*data, sample_weight=weight) for name in ("score", "bic", "aic", "icl")}
    return found | totals


def sampled(kind: Any, *trials: int, **options: Any) -> Callable[..., Any]:
    """Five observations of the mixture of given parameters."""
    return lambda *parameters: kind.from_parameters(*parameters, **options).sample(5, *trials, rng=0)


def _count_parameters(kind: Any, *data: Any) -> Callable[..., Any]:
    """Parameters and what they say of counts; shares are scaled to one, so that they have derivatives."""

    def run(weights: Array, values: Array) -> Any:
        xp = namespace(weights)
        if kind is multinomial.MultinomialMixture:
            values = values / xp.sum(values, axis=-1, keepdims=True)
        mixture = kind.from_parameters(weights / xp.sum(weights, axis=-1, keepdims=True), values)
        return mixture.weights, mixture.log_prob(*(get(weights).from_numpy(np.asarray(x), weights) for x in data))

    return run


def _binomial(heads: Array, trials: Array, weight: Array, labels: Array, probs: Array) -> Any:
    fitted = binomial.fit(heads, trials, 2, sample_weight=weight, init=probs, **SHORT)
    return {**history(fitted), "probs": fitted.probs}


def _binomial_scores(heads: Array, trials: Array, weight: Array, labels: Array, probs: Array) -> Any:
    mixture = binomial.BinomialMixture.from_parameters(probs, probs)
    return scored(mixture, heads, trials, weight=weight), mixture.sample(5, 9, rng=0), mixture.probs


def _tossed(heads: Array, trials: Array, weight: Array, labels: Array, probs: Array) -> Any:
    known = binomial.fit_complete(heads, trials, labels, 2)
    return known.weights, known.probs


def _expected(heads: Array, trials: Array, probs: Array) -> Any:
    """Differentiable in the parameters."""
    weights = probs / namespace(probs).sum(probs, axis=-1, keepdims=True)
    mixture = binomial.BinomialMixture.from_parameters(weights, probs)
    return [binomial.expected_log_likelihood(mixture, heads, trials, constant=constant) for constant in (True, False)]


def _multinomial(x: Array, weight: Array, weights: Array, probs: Array) -> Any:
    fitted = multinomial.fit(x, 2, sample_weight=weight, weights=weights, init=probs, **SHORT)
    return {**history(fitted), "probs": fitted.probs}


def _multinomial_scores(x: Array, weight: Array, weights: Array, probs: Array) -> Any:
    mixture = multinomial.MultinomialMixture.from_parameters(weights, probs)
    return scored(mixture, x, weight=weight), mixture.sample(5, 9, rng=0)


def _poisson(x: Array, weight: Array, weights: Array, rates: Array) -> Any:
    fitted = poisson.fit(x, 2, sample_weight=weight, init=rates, **SHORT)
    return {**history(fitted), "rates": fitted.rates}


def _poisson_scores(x: Array, weight: Array, weights: Array, rates: Array) -> Any:
    mixture = poisson.PoissonMixture.from_parameters(weights, rates)
    return scored(mixture, x, weight=weight), mixture.sample(5, rng=0)


def _categorical(x: Array, weight: Array, weights: Array, *probs: Array) -> Any:
    categories = [item.shape[-1] for item in probs]
    fitted = categorical.fit(
        x, 2, n_categories=categories, smoothing=0.5, sample_weight=weight, init=(weights, [*probs]), **SHORT
    )
    return {**history(fitted), "probs": fitted.probs}


def _categorical_scores(x: Array, weight: Array, weights: Array, *probs: Array) -> Any:
    mixture = categorical.CategoricalMixture.from_parameters(weights, probs)
    family = mixture.model.family
    inside = family.start_coordinates(mixture.params, x), family.deviance(mixture.params, x)
    return scored(mixture, x, weight=weight), mixture.sample(5, rng=0), inside


def _answers(*parameters: Array) -> Any:
    """Parameters and what they say of answers; shares are scaled to one, so that they have derivatives."""
    xp = namespace(*parameters)
    weights, *probs = (part / xp.sum(part, axis=-1, keepdims=True) for part in parameters)
    mixture = categorical.CategoricalMixture.from_parameters(weights, probs)
    return mixture.probs, mixture.log_prob(get(weights).from_numpy(np.asarray([[1.0, 0.0], [0.0, -1.0]]), weights))


def _von_mises_fisher(x: Array, weight: Array, weights: Array, means: Array, concentrations: Array) -> Any:
    init = weights, means, concentrations
    fitted = von_mises_fisher.fit(x, 2, sample_weight=weight, init=init, **SHORT)
    return {**history(fitted), "means": fitted.means, "concentrations": fitted.concentrations}


def _von_mises_fisher_scores(x: Array, weight: Array, weights: Array, means: Array, concentrations: Array) -> Any:
    mixture = von_mises_fisher.VonMisesFisherMixture.from_parameters(weights, means, concentrations)
    return scored(mixture, x, weight=weight), mixture.sample(5, rng=0), mixture.model.points(mixture.params, x)


def _directions(weights: Array, means: Array, concentrations: Array) -> Any:
    """Parameters and what they say of directions; scaled as above."""
    xp = namespace(weights)
    weights = weights / xp.sum(weights, axis=-1, keepdims=True)
    means = means / safe_norm(means, keepdims=True)
    mixture = von_mises_fisher.VonMisesFisherMixture.from_parameters(weights, means, concentrations)
    x = get(weights).from_numpy(np.asarray([[1.0, 0.0, 0.0], [0.0, 0.6, 0.8]]), weights)
    return mixture.means, mixture.concentrations, mixture.log_prob(x)


def _student_t(x: Array, weight: Array, *parameters: Array, accelerate: str | None = None) -> Any:
    fitted = student_t.fit(
        x, 3, covariance_type="diag", sample_weight=weight, init=parameters, accelerate=accelerate, **SHORT
    )
    return {**history(fitted), **{name: getattr(fitted, name) for name in ("means", "covariances", "dofs", "floored")}}


def _student_t_scores(x: Array, weight: Array, *parameters: Array) -> Any:
    mixture = student_t.StudentTMixture.from_parameters(*parameters, covariance_type="diag")
    return scored(mixture, x, weight=weight), mixture.sample(5, rng=0)


def _heavy_tails(weights: Array, means: Array, covariances: Array, dofs: Array) -> Any:
    """Parameters and what they say of rows; weights are scaled to one, so that they have derivatives."""
    weights = weights / namespace(weights).sum(weights, axis=-1, keepdims=True)
    parameters = weights, means, covariances, dofs
    mixture = student_t.StudentTMixture.from_parameters(*parameters, covariance_type="diag")
    x = get(weights).from_numpy(np.asarray([[1.0, 0.0, 0.0], [9.0, 0.6, 0.8]]), weights)
    return mixture.means, mixture.covariances, mixture.log_prob(x)


FAMILIES = (
    Case("binomial.fit", _binomial, draw_coins),
    Case("binomial.fit_complete", _tossed, draw_coins),
    Case("binomial.expected_log_likelihood", _expected, draw_tosses),
    Case("binomial.BinomialMixture", _binomial_scores, draw_coins),
    Case(
        "binomial.BinomialMixture.from_parameters",
        _count_parameters(binomial.BinomialMixture, [3, 0, 9], [9, 9, 9]),
        positive((2,), (2,)),
    ),
    Case("binomial.BinomialMixture.sample", sampled(binomial.BinomialMixture, 9), draw_halves),
    Case("multinomial.fit", _multinomial, draw_documents),
    Case("multinomial.MultinomialMixture", _multinomial_scores, draw_documents),
    Case(
        "multinomial.MultinomialMixture.from_parameters",
        _count_parameters(multinomial.MultinomialMixture, [[3, 0], [1, 2]]),
        positive((2,), (2, 2)),
    ),
    Case(
        "multinomial.MultinomialMixture.sample",
        sampled(multinomial.MultinomialMixture, 9),
        lambda rng: draw_documents(rng)[2:],
    ),
    Case("poisson.fit", _poisson, draw_counts),
    Case("poisson.PoissonMixture", _poisson_scores, draw_counts),
    Case(
        "poisson.PoissonMixture.from_parameters",
        _count_parameters(poisson.PoissonMixture, [[3, 0], [1, 2]]),
        positive((2,), (2, 2)),
    ),
    Case("poisson.PoissonMixture.sample", sampled(poisson.PoissonMixture), lambda rng: draw_counts(rng)[2:]),
    Case("categorical.fit", _categorical, draw_answers),
    Case("categorical.CategoricalMixture", _categorical_scores, draw_answers),
    Case("categorical.CategoricalMixture.from_parameters", _answers, positive((2,), (2, 2), (2, 3))),
    Case(
        "categorical.CategoricalMixture.sample",
        lambda weights, *probs: categorical.CategoricalMixture.from_parameters(weights, probs).sample(5, rng=0),
        lambda rng: draw_answers(rng)[2:],
    ),
    Case("student_t.fit", _student_t, draw_heavy_tails),
    Case("student_t.fit", partial(_student_t, accelerate="squarem"), draw_heavy_tails, variant="squarem"),
    Case("student_t.StudentTMixture", _student_t_scores, draw_heavy_tails),
    Case("student_t.StudentTMixture.from_parameters", _heavy_tails, lambda rng: draw_heavy_tails(rng)[2:]),
    Case(
        "student_t.StudentTMixture.sample",
        sampled(student_t.StudentTMixture, covariance_type="diag"),
        lambda rng: draw_heavy_tails(rng)[2:],
    ),
    Case("von_mises_fisher.fit", _von_mises_fisher, draw_directions),
    Case("von_mises_fisher.VonMisesFisherMixture", _von_mises_fisher_scores, draw_directions),
    Case(
        "von_mises_fisher.VonMisesFisherMixture.from_parameters",
        _directions,
        lambda rng: draw_directions(rng)[2:],
    ),
    Case(
        "von_mises_fisher.VonMisesFisherMixture.sample",
        sampled(von_mises_fisher.VonMisesFisherMixture),
        lambda rng: draw_directions(rng)[2:],
    ),
)
"""What is there of each family: its `fit`, its mixture and the methods that this has for itself."""
