"""JAX: fits under the caller's own transformations, compiled once, with and without 64 bits."""

import logging
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emroute import binomial, capsule, em, gmm, kmeans, poisson
from emroute.errors import InputError
from emroute.gmm.mixture import GaussianModel
from tests.helpers import clusters, given_start

N, D, K = 24, 3, 3
X = clusters(N, D, K, seed=4)
OTHER = clusters(N, D, K, seed=5)


quick = pytest.mark.usefixtures("quick_compilation")


def fit(x, **options):
    return gmm.fit(x, K, **{"init": x[:K], "max_iter": 6, "tol": 0, **options})


def parts(fitted):
    return fitted.weights, fitted.means, fitted.covariances, fitted.log_likelihood


@quick
def test_a_fit_inside_jit_is_the_fit_outside():
    @jax.jit
    def run(x):
        fitted = fit(x)
        return *parts(fitted), fitted.trace

    inside = run(X)
    outside = fit(jnp.asarray(X))
    for got, expected in zip(inside, parts(outside), strict=False):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)
    trace = np.asarray(inside[-1])
    assert trace.shape == (7,)
    np.testing.assert_allclose(trace[np.isfinite(trace)], outside.trace, rtol=1e-10)


@quick
def test_what_is_still_traced_is_shown_without_figures():
    seen = []

    @jax.jit
    def run(x):
        fitted = fit(x, max_iter=1), kmeans.fit(x, K, init=x[:K], max_iter=1)
        seen.extend(map(repr, fitted))
        return fitted[0].means

    run(X)
    assert seen == [f"GaussianMixture(n_components={K})", f"KMeans(n_clusters={K})"]


@quick
def test_a_fit_inside_vmap_is_a_fit_of_each():
    together = jax.vmap(lambda x: parts(fit(x, covariance_type="diag")))(jnp.stack([X, OTHER]))
    for i, x in enumerate((X, OTHER)):
        for got, expected in zip(together, parts(fit(jnp.asarray(x), covariance_type="diag")), strict=True):
            np.testing.assert_allclose(got[i], expected, rtol=1e-9, atol=1e-9)


@quick
def test_a_drawn_start_works_inside_jit():
    drawn = {"init": "k-means++", "n_init": 2, "rng": 0, "covariance_type": "diag"}
    inside = jax.jit(lambda x: parts(fit(x, **drawn)))(X)
    for got, expected in zip(inside, parts(fit(jnp.asarray(X), **drawn)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


@quick
def test_clusters_and_coins_fit_inside_jit():
    centroids, labels = jax.jit(lambda x: kmeans_parts(kmeans.fit(x, K, init=x[:K])))(X)
    expected = kmeans.fit(jnp.asarray(X), K, init=X[:K].tolist())
    np.testing.assert_allclose(centroids, expected.centroids, rtol=1e-10)
    np.testing.assert_array_equal(labels, expected.labels)
    heads = jnp.asarray([5.0, 9, 8, 4, 7])
    probs = jax.jit(lambda h: binomial.fit(h, 10, 2, init=[0.6, 0.5], weights=[0.5, 0.5], tol=0).probs)(heads)
    np.testing.assert_allclose(probs, [0.79678907, 0.51958312], atol=1e-7)


def kmeans_parts(fitted):
    return fitted.centroids, fitted.labels


@quick
def test_scores_work_inside_jit():
    x, fitted = jnp.asarray(X), fit(jnp.asarray(X))
    for method in (fitted.log_prob, fitted.responsibilities, fitted.predict, fitted.score, fitted.bic):
        np.testing.assert_allclose(jax.jit(method)(x), method(x), rtol=1e-9, atol=1e-12)


@quick
def test_counts_are_scored_inside_jit():
    heads, probs = jnp.asarray([5.0, 9.0, 8.0, 4.0, 7.0]), jnp.asarray([0.6, 0.5])

    def score(probs):
        return binomial.BinomialMixture.from_parameters(jnp.full(2, 0.5), probs).log_prob(heads, 10).sum()

    np.testing.assert_allclose(jax.jit(score)(probs), score(probs), rtol=1e-12)
    np.testing.assert_allclose(jax.jit(jax.grad(score))(probs), jax.grad(score)(probs), rtol=1e-12)


@quick
def test_the_loop_itself_works_inside_jit_and_vmap():
    """`em.fit` with parameters of the caller's, its trace as long as may be."""
    params = fit(jnp.asarray(X), covariance_type="diag").params

    def run(x):
        return em.fit(GaussianModel("diag"), x, params, max_iter=3, tol=0)

    outside = run(jnp.asarray(X))
    inside = jax.jit(run)(X)
    assert inside.trace.shape == (4,)
    np.testing.assert_allclose(inside.objective, outside.objective, rtol=1e-10)
    together = jax.vmap(run)(jnp.stack([X, OTHER]))
    assert together.trace.shape == (2, 4)
    np.testing.assert_allclose(together.objective[0], outside.objective, rtol=1e-10)
    np.testing.assert_allclose(together.params.means[0], outside.params.means, rtol=1e-9, atol=1e-9)


class Compilations(logging.Handler):
    """Names of what JAX compiles while this is in use."""

    def __enter__(self):
        self.names, self.logger = [], logging.getLogger("jax")
        self.propagate, self.logger.propagate = self.logger.propagate, False
        self.logger.addHandler(self)
        jax.config.update("jax_log_compiles", True)
        return self.names

    def __exit__(self, *_):
        jax.config.update("jax_log_compiles", False)
        self.logger.removeHandler(self)
        self.logger.propagate = self.propagate

    def emit(self, record):
        message = record.getMessage()
        if message.startswith("Compiling"):
            self.names.append(message.split()[1])


def starts(x):
    return tuple(map(jnp.asarray, given_start(x, K, "full")))


FITS = {
    "gmm from a drawn start": lambda x, seed: gmm.fit(x, K, rng=seed, n_init=2),
    "gmm from starting means": lambda x, seed: gmm.fit(x, K, init=x[:K]),
    "gmm from given parameters": lambda x, seed: gmm.fit(x, K, init=starts(np.asarray(x))),
    "k-means from a drawn start": lambda x, seed: kmeans.fit(x, K, rng=seed),
    "k-means from centroids": lambda x, seed: kmeans.fit(x, K, init=x[:K]),
    "binomial": lambda x, seed: binomial.fit(jnp.round(jnp.abs(x[:, 0])), 99, 2, rng=seed),
    "poisson": lambda x, seed: poisson.fit(jnp.round(jnp.abs(x)), 2, rng=seed),
    "log_prob": lambda x, seed: gmm.fit(x, K, init=x[:K]).log_prob(x),
    "k-means predict": lambda x, seed: kmeans.fit(x, K, init=x[:K]).predict(x),
}


@quick
@pytest.mark.parametrize("name", FITS)
def test_a_second_call_of_the_same_shape_compiles_nothing(name):
    FITS[name](jnp.asarray(X), 0)
    with Compilations() as names:
        FITS[name](jnp.asarray(OTHER), 1)
    assert names == []


def test_compilations_are_heard():
    with Compilations() as names:
        jax.jit(lambda x: x + 1)(jnp.ones(17))
    assert "jit(<lambda>)" in names


@quick
def test_another_tol_compiles_nothing():
    x = jnp.asarray(X)
    gmm.fit(x, K, init=x[:K], tol=1e-3)
    with Compilations() as names:
        gmm.fit(x, K, init=x[:K], tol=1e-5)
        gmm.fit(x, K, init=x[:K], covariance_floor=1e-3)
    assert names == []


WITHOUT_X64 = """
import warnings; warnings.simplefilter("error")
import jax; jax.config.update("jax_disable_most_optimizations", True)
import jax.numpy as jnp, numpy as np
import emroute
x = jnp.asarray(np.random.default_rng(0).normal(0, 1, (60, 2)) + np.repeat([[0], [6]], 30, axis=0))
assert x.dtype == jnp.float32
mixture = emroute.gmm.fit(x, 2, rng=0)
assert mixture.means.dtype == jnp.float32 and bool(mixture.converged)
assert abs(float(mixture.weights[0]) - 0.5) < 0.05
assert abs(float(mixture.score(x)) * 60 - float(mixture.log_likelihood)) < 1e-2
coins = emroute.binomial.fit(jnp.asarray([5, 9, 8, 4, 7]), 10, 2, init=[0.6, 0.5], weights=[0.5, 0.5], tol=0)
assert coins.probs.dtype == jnp.float32
assert np.allclose(coins.probs, [0.79678907, 0.51958312], atol=1e-3), coins.probs
print("sound")
"""


def test_float32_works_without_x64():
    done = subprocess.run([sys.executable, "-c", WITHOUT_X64], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "sound", done.stderr


def test_many_rows_are_summed_right():
    """JAX 0.10.2 gives wrong sums on CPU above 16,000 rows."""
    x = clusters(40_000, D, K, seed=4)
    options = {"init": x[:K].tolist(), "max_iter": 2, "tol": 0}
    got, expected = gmm.fit(jnp.asarray(x), K, **options), gmm.fit(x, K, **options)
    np.testing.assert_allclose(got.means, expected.means, rtol=1e-9)
    np.testing.assert_allclose(got.log_prob(jnp.asarray(x)), expected.log_prob(x), rtol=1e-9)


@quick
def test_a_callback_is_refused_inside_jit():
    with pytest.raises(InputError, match="jit"):
        jax.jit(lambda x: gmm.fit(x, K, init=x[:K], callback=print).means)(X)


def test_a_layer_of_the_published_size_compiles():
    """XLA of jaxlib 0.9.2 crashed on grids of 8 types of capsules, a row of zeros after each image."""
    rng = np.random.default_rng(0)
    poses, kernels = rng.normal(size=(8, 12, 12, 8, 4, 4)), rng.normal(size=(3, 3, 8, 16, 4, 4))
    arrays = [poses, np.full(poses.shape[:4], 0.5), kernels, np.zeros(16), np.zeros(16)]
    arrays = [x.astype(np.float32) for x in arrays]

    def route(*arrays):
        return capsule.conv_em_routing(*arrays, stride=2, n_iter=1)

    found = jax.jit(route)(*map(jnp.asarray, arrays))
    np.testing.assert_allclose(found.poses, route(*arrays).poses, rtol=1e-4, atol=1e-4)
