"""Few shapes on JAX: filled rows and spare components share programs, and change no result."""

import jax
import numpy as np
import pytest

from emroute import binomial, gmm, kmeans, poisson
from emroute.data import Chunks
from emroute.errors import InputError
from tests.helpers import clusters
from tests.test_jax import OTHER, Compilations, D, K, N, X, kmeans_parts, parts, quick


def whole(x):
    """Counts from rows, on the host, where nothing is compiled."""
    return np.round(np.abs(x)).astype(np.int64)


FILLED = {  # of rows and weights on the host, and what carries them to a library
    "gmm": lambda x, w, to: parts(gmm.fit(to(x), K, rng=0, sample_weight=to(w))),
    "gmm in restarts": lambda x, w, to: parts(gmm.fit(to(x), K, covariance_type="tied", rng=0, n_init=2)),
    "k-means": lambda x, w, to: kmeans_parts(kmeans.fit(to(x), K, rng=0, sample_weight=to(w))),
    "k-means of a batch": lambda x, w, to: kmeans_parts(kmeans.fit(to(np.stack([x, 2 * x])), K, rng=0)),
    "k-means of chunks": lambda x, w, to: kmeans_parts(
        kmeans.fit(Chunks([to(x[:9]), to(x[9:])]), K, init=x[:K].tolist())
    ),
    "binomial": lambda x, w, to: (binomial.fit(to(whole(x[:, 0])), 99, 2, rng=0, sample_weight=to(w)).probs,),
    "poisson": lambda x, w, to: (poisson.fit(to(whole(x)), 2, rng=0, sample_weight=to(w)).rates,),
    "scores": lambda x, w, to: scores(gmm.fit(to(x), K, init=x[:K].tolist()), to(x), to(w)),
}


def scores(fitted, x, w):
    return fitted.log_prob(x), fitted.predict(x), fitted.bic(x), fitted.icl(x), fitted.score(x, sample_weight=w)


@quick
@pytest.mark.parametrize("name", FILLED)
def test_another_number_of_rows_in_a_bucket_compiles_nothing(name):
    weight = np.random.default_rng(0).uniform(0.5, 1, N)
    FILLED[name](X, weight, jax.device_put)
    with Compilations() as names:
        FILLED[name](OTHER[:-1], weight[:-1], jax.device_put)
    assert names == []


@quick
@pytest.mark.parametrize("n", [31, 32, 33])
@pytest.mark.parametrize("name", FILLED)
def test_rows_that_fill_a_bucket_change_no_result(name, n):
    x, weight = clusters(n, D, K, seed=6), np.random.default_rng(1).uniform(0.5, 1, n)
    x[-1] += 9  # the row that is copied is an extreme one
    got, expected = FILLED[name](x, weight, jax.device_put), FILLED[name](x, weight, np.asarray)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


@quick
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_eight_numbers_of_components_share_a_program(covariance_type):
    x, options = jax.device_put(X), {"covariance_type": covariance_type, "rng": 0, "max_iter": 5, "tol": 0}
    gmm.fit(x, 2, **options)
    with Compilations() as names:
        fitted = gmm.fit(x, K, **options)
    assert "jit(_whole)" not in names
    for got, expected in zip(parts(fitted), parts(gmm.fit(X, K, **options)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-9)


def test_a_bad_row_is_named_though_rows_are_filled():
    x = jax.device_put(np.where(np.arange(N)[:, None] == N - 1, np.nan, X))
    with pytest.raises(InputError, match=f"first in row {N - 1}$"):
        gmm.fit(x, K)
