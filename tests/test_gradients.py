"""Densities differentiate, fits do not: gradients on Torch and JAX."""

import jax
import numpy as np
import pytest
import torch

from emroute import binomial, gmm, kmeans
from tests.helpers import COVARIANCE_TYPES, clusters, given_start, library

pytestmark = pytest.mark.usefixtures("quick_compilation")

N, D, K = 24, 3, 3
X = clusters(N, D, K, seed=4)


def mixture(lib, covariance_type="full"):
    parts = map(lib.asarray, given_start(X, K, covariance_type))
    return gmm.GaussianMixture.from_parameters(*parts, covariance_type=covariance_type)


def gradient(name, function, x):
    """Gradient of a total with respect to rows, on the host."""
    if name == "jax":
        return np.asarray(jax.grad(lambda rows: function(rows).sum())(library("jax").asarray(x)))
    rows = torch.tensor(x, requires_grad=True)
    function(rows).sum().backward()
    return rows.grad.numpy()


def differences(name, function, x, step=1e-6):
    """The same by central differences."""
    lib, result = library(name), np.empty_like(x)
    for place in np.ndindex(x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        high, low = (float(function(lib.asarray(rows)).sum()) for rows in moved)
        result[place] = (high - low) / (2 * step)
    return result


libraries = pytest.mark.parametrize("name", ["torch", "jax"])


@libraries
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_log_prob_differentiates_with_respect_to_rows(name, covariance_type):
    fitted = mixture(library(name), covariance_type)
    got = gradient(name, fitted.log_prob, X)
    expected = differences(name, fitted.log_prob, X[:4])
    assert np.all(np.isfinite(got))
    np.testing.assert_allclose(got[:4], expected, rtol=1e-5, atol=1e-7)


@libraries
def test_a_fitted_mixture_differentiates(name):
    lib = library(name)
    fitted = gmm.fit(lib.asarray(X), K, rng=0, max_iter=4)
    got = gradient(name, fitted.log_prob, X[:4])
    np.testing.assert_allclose(got, differences(name, fitted.log_prob, X[:4]), rtol=1e-5, atol=1e-6)


@libraries
def test_responsibilities_and_score_differentiate(name):
    fitted = mixture(library(name))
    for function in (fitted.score, lambda x: fitted.responsibilities(x)[..., 0]):
        expected = differences(name, function, X[:4])
        np.testing.assert_allclose(gradient(name, function, X[:4]), expected, rtol=1e-5, atol=1e-7)


@libraries
@pytest.mark.parametrize("where", ["at the means", "far away", "on equal rows"])
def test_gradients_are_finite_where_it_is_hard(name, where):
    rows = {"at the means": given_start(X, K, "full")[1], "far away": X[:3] * 1e6, "on equal rows": np.ones((3, D))}
    for covariance_type in COVARIANCE_TYPES:
        assert np.all(np.isfinite(gradient(name, mixture(library(name), covariance_type).log_prob, rows[where])))


@libraries
def test_distances_have_a_finite_gradient_at_a_centroid(name):
    lib = library(name)
    fitted = kmeans.fit(lib.asarray(X[:K]), K, init=lib.asarray(X[:K]))
    assert np.all(np.isfinite(gradient(name, fitted.transform, X[:K])))


@libraries
def test_parameters_differentiate(name):
    start = given_start(X, K, "full")
    weights, covariances, rows = map(library(name).asarray, (start[0], start[2], X))

    def total(means):
        return gmm.GaussianMixture.from_parameters(weights, means, covariances).log_prob(rows)

    got, expected = (way(name, total, start[1]) for way in (gradient, differences))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_fits_of_arrays_that_require_grad_detach():
    x = torch.tensor(X, requires_grad=True)
    start = [torch.tensor(part, requires_grad=True) for part in given_start(X, K, "full")]
    weight = torch.ones(N, dtype=torch.float64, requires_grad=True)
    for init in (tuple(start), start[1], "k-means++"):
        fitted = gmm.fit(x, K, init=init, rng=0, max_iter=4, sample_weight=weight)
        for value in (fitted.weights, fitted.means, fitted.covariances, fitted.log_likelihood, fitted.trace):
            assert not value.requires_grad
    clusters = kmeans.fit(x, K, init=start[1])
    assert not clusters.centroids.requires_grad
    heads = torch.tensor([3.0, 7, 2, 9, 1], dtype=torch.float64, requires_grad=True)
    coins = binomial.fit(heads, 10, 2, init=torch.tensor([0.3, 0.8], dtype=torch.float64, requires_grad=True))
    assert not coins.probs.requires_grad
    assert not coins.log_likelihood.requires_grad


def test_a_fit_inside_a_gradient_is_a_constant():
    def score(x):
        return gmm.fit(x, K, init=x[:K], max_iter=4).log_prob(x).sum()

    x = library("jax").asarray(X)
    fitted = gmm.fit(x, K, init=x[:K], max_iter=4)
    expected = jax.grad(lambda rows: fitted.log_prob(rows).sum())(x)
    np.testing.assert_allclose(np.asarray(jax.grad(score)(x)), np.asarray(expected), rtol=1e-8, atol=1e-10)
