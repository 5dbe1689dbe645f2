"""Fits that are over in milliseconds, alone and in a batch; see docs/benchmarks.md."""

from functools import partial

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_wine
from sklearn.mixture import GaussianMixture

import emroute
from tests.benchmarks.inputs import library, title
from tests.benchmarks.page import Row
from tests.benchmarks.sections import BATCH, SMALL

REPEATS = 20


@pytest.mark.parametrize("which", ["full", "diag", "k-means"])
def test_wine_against_scikit_learn(bench, which):
    """As anyone writes it: with the defaults of each library."""
    x = load_wine().data
    if which == "k-means":
        name, peer = which, KMeans(3, n_init=1, random_state=0)
        ours = partial(emroute.kmeans.fit, x, 3, rng=0)
    else:
        name, peer = f"Gaussian mixture, {which}", GaussianMixture(3, covariance_type=which, random_state=0)
        ours = partial(emroute.gmm.fit, x, 3, covariance_type=which, rng=0)
    functions = [lambda: [ours() for _ in range(REPEATS)], lambda: [peer.fit(x) for _ in range(REPEATS)]]
    mine, theirs = (seconds / REPEATS for seconds in bench.medians(*functions))
    bench.add(Row(SMALL, (name, f"{int(ours().n_iter)}, {peer.n_iter_}"), mine, "scikit-learn", theirs))


@pytest.mark.parametrize(("stop", "options"), [("10 iterations", {"tol": 0, "max_iter": 10}), ("default tol", {})])
@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
def test_many_problems_in_one_call(bench, name, stop, options):
    asarray = library(name)
    rng = np.random.default_rng(0)
    host = rng.normal(size=(64, 500, 4)) + 4 * rng.normal(size=(64, 3, 4))[:, np.arange(500) % 3]
    x, means = asarray(host), asarray(host[:, :3].copy())

    def together():
        return np.asarray(emroute.gmm.fit(x, 3, init=means, **options).log_likelihood)

    def one_by_one():
        return [float(emroute.gmm.fit(a, 3, init=m, **options).log_likelihood) for a, m in zip(x, means, strict=True)]

    np.testing.assert_allclose(together(), one_by_one(), rtol=1e-9)
    bench.compare(BATCH, (title(name), stop), together, {"64 calls": one_by_one})
