"""Sources of chunks: lists, objects that iterate again, memory maps; each gives what the rows in memory do."""

import numpy as np
import pytest

from emroute import binomial, gmm, kmeans, poisson
from tests.helpers import COVARIANCE_TYPES, clusters, given_start

pytestmark = pytest.mark.usefixtures("quick_compilation")

N, D, K = 24, 3, 3
X = clusters(N, D, K, seed=4)
WEIGHT = np.random.default_rng(9).uniform(0.2, 3, N)


class Reader:
    """Chunks made anew in every pass, as from a file; it counts the passes and what is alive at once."""

    def __init__(self, lib, arrays, bounds):
        self.lib, self.arrays, self.bounds, self.passes = lib, arrays, bounds, 0

    def __iter__(self):
        self.passes += 1
        for start, stop in zip(self.bounds[:-1], self.bounds[1:], strict=True):
            chunk = tuple(self.lib.asarray(x[start:stop]) for x in self.arrays)
            yield chunk if len(chunk) > 1 else chunk[0]


EQUAL, RAGGED = (0, 8, 16, 24), (0, 5, 5, 18, 24)


def assert_equal_fits(lib, got, expected, names):
    for name in names:
        pair = [lib.to_numpy(getattr(fitted, name)) for fitted in (got, expected)]
        np.testing.assert_allclose(*pair, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.on_jax("full")
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_a_list_of_chunks_fits_as_the_rows_do(lib, covariance_type):
    init = tuple(map(lib.asarray, given_start(X, K, covariance_type)))
    options = {"covariance_type": covariance_type, "init": init, "tol": 0, "max_iter": 4}
    options["sample_weight"] = lib.asarray(WEIGHT)
    chunks = [lib.asarray(X[start : start + 8]) for start in (0, 8, 16)]
    got, expected = (gmm.fit(source, K, **options) for source in (chunks, lib.asarray(X)))
    assert_equal_fits(lib, got, expected, ("weights", "means", "covariances", "log_likelihood", "trace"))


@pytest.mark.parametrize("bounds", [EQUAL, RAGGED], ids=["equal", "ragged, one empty"])
def test_an_object_that_iterates_again_fits_as_the_rows_do(eager_lib, bounds):
    lib, source = eager_lib, Reader(eager_lib, (X,), bounds)
    got, expected = (gmm.fit(data, K, rng=0, max_iter=6) for data in (source, lib.asarray(X)))
    assert_equal_fits(lib, got, expected, ("weights", "means", "covariances", "log_likelihood", "trace"))
    assert source.passes > 6


@pytest.mark.on_jax("one start")
@pytest.mark.parametrize("n_init", [1, 3], ids=["one start", "restarts"])
def test_streamed_clusters_are_those_of_the_rows(lib, n_init):
    source = Reader(lib, (X,), EQUAL)
    got, expected = (kmeans.fit(data, K, rng=0, n_init=n_init) for data in (source, lib.asarray(X)))
    assert_equal_fits(lib, got, expected, ("centroids", "inertia"))
    np.testing.assert_array_equal(lib.to_numpy(got.labels), lib.to_numpy(expected.labels))


def test_streamed_restarts_are_those_of_the_rows(eager_lib):
    lib, source = eager_lib, Reader(eager_lib, (X,), RAGGED)
    got, expected = (gmm.fit(data, K, rng=0, n_init=4, max_iter=20) for data in (source, lib.asarray(X)))
    assert_equal_fits(lib, got, expected, ("weights", "means", "log_likelihood"))


def test_streamed_coins_are_pairs(lib):
    rng = np.random.default_rng(0)
    trials = rng.integers(5, 30, N).astype(float)
    heads = rng.binomial(trials.astype(int), rng.choice([0.2, 0.8], N)).astype(float)
    options = {"init": lib.asarray([0.3, 0.6]), "sample_weight": lib.asarray(WEIGHT)}
    got = binomial.fit(Reader(lib, (heads, trials), EQUAL), None, 2, **options)
    expected = binomial.fit(lib.asarray(heads), lib.asarray(trials), 2, **options)
    assert_equal_fits(lib, got, expected, ("weights", "probs", "log_likelihood"))


def test_streamed_counts_fit_as_the_rows_do(eager_lib):
    lib, x = eager_lib, np.random.default_rng(0).poisson([2.0, 5, 9], (N, D))
    got, expected = (poisson.fit(data, 2, rng=0) for data in (Reader(lib, (x,), RAGGED), lib.asarray(x)))
    assert_equal_fits(lib, got, expected, ("weights", "rates", "log_likelihood"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_memory_map_fits_as_the_rows_do(tmp_path, dtype):
    rows = clusters(5000, D, K, seed=4).astype(dtype)
    rows.tofile(tmp_path / "rows")
    mapped = np.memmap(tmp_path / "rows", dtype=dtype, mode="r", shape=(5000, D))
    got, expected = (gmm.fit(x, K, rng=0) for x in (mapped, rows))
    np.testing.assert_allclose(got.means, expected.means, rtol=1e-12)
    assert float(got.log_likelihood) == float(expected.log_likelihood)
    assert type(got.means) is np.ndarray
    got, expected = (kmeans.fit(x, K, rng=0) for x in (mapped, rows))
    np.testing.assert_array_equal(got.labels, expected.labels)
    np.testing.assert_allclose(got.centroids, expected.centroids, rtol=1e-12)


def test_a_list_of_memory_maps_fits_as_the_rows_do(tmp_path):
    X.tofile(tmp_path / "rows")
    halves = [np.memmap(tmp_path / "rows", mode="r", shape=(12, D), offset=i * 12 * D * 8, dtype=float) for i in (0, 1)]
    got, expected = (gmm.fit(source, K, rng=0, max_iter=5) for source in (halves, X))
    np.testing.assert_allclose(got.means, expected.means, rtol=1e-9)


@pytest.mark.parametrize("n", [70_000])
def test_starts_of_many_rows_are_drawn_from_the_same_sample(n):
    """Above 65,536 rows a sample stands for all; streams and arrays take the same one."""
    x = clusters(n, 2, K, seed=4)
    got, expected = (kmeans.fit(source, K, rng=0, max_iter=1) for source in ([x[:40_000], x[40_000:]], x))
    np.testing.assert_allclose(got.centroids, expected.centroids, rtol=1e-9)
