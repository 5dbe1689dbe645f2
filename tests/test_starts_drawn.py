"""Starts drawn from the data: one seed, one start on every library; no equal rows; weights count in a sample too."""

import numpy as np
import pytest

import emroute
from emroute.backend import namespace


def test_random_rows_are_distinct(lib):
    x = np.repeat([[0.0], [1.0], [5.0]], [400, 300, 300], axis=0)
    for seed in range(50 if lib.name != "jax" else 5):
        fit = emroute.kmeans.fit(lib.asarray(x), 3, init="random", rng=seed, max_iter=0)
        assert sorted(lib.to_numpy(fit.centroids)[:, 0].tolist()) == [0.0, 1.0, 5.0]


def test_random_rows_are_distinct_in_every_column(eager_lib):
    x = np.repeat([[1.0, 2.0], [1.0, 3.0], [1.0, 4.0]], [500, 4, 3], axis=0).astype(np.float32)
    for seed in range(10):
        fit = emroute.kmeans.fit(eager_lib.asarray(x), 3, init="random", rng=seed, max_iter=0)
        assert len(np.unique(eager_lib.to_numpy(fit.centroids), axis=0)) == 3


def test_fewer_distinct_rows_than_clusters_are_all_drawn(eager_lib):
    x = np.repeat([[0.0], [7.0]], 10, axis=0)
    fit = emroute.kmeans.fit(eager_lib.asarray(x), 3, init="random", rng=0, max_iter=0)
    assert float(fit.inertia) == 0


def test_components_start_at_distinct_rows():
    x = np.repeat([[0.0], [1.0], [5.0]], [400, 300, 300], axis=0)
    for seed in range(10):
        fit = emroute.gmm.fit(x, 3, init="random", rng=seed, covariance_type="diag", max_iter=0)
        np.testing.assert_allclose(np.sort(fit.means[:, 0]), [0, 1, 5], atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("far", [1e5, 1e8])
def test_the_start_tells_close_rows_of_far_groups_apart(eager_lib, dtype, far):
    if dtype == "float32" and far > 1e6:
        far = 1e6
    x = np.asarray([[0.0], [1.0], [far], [far + 1]] * 5, dtype)
    for seed in range(5):
        fit = emroute.kmeans.fit(eager_lib.asarray(x), 4, rng=seed, max_iter=0)
        assert sorted(eager_lib.to_numpy(fit.centroids)[:, 0].tolist()) == [0.0, 1.0, far, far + 1]


def _heavy():
    x = np.r_[np.random.default_rng(0).uniform(size=200_000), 100.0, 200.0, 300.0][:, None]
    return x, np.r_[np.full(200_000, 1e-9), np.full(3, 1e6)]


def test_a_sample_for_the_start_holds_the_heavy_rows(lib):
    x, weight = _heavy()
    for seed in range(10 if lib.name == "numpy" else 2):
        fit = emroute.kmeans.fit(lib.asarray(x), 4, sample_weight=lib.asarray(weight), rng=seed)
        assert float(fit.inertia) == pytest.approx(1.7e-5, rel=0.05)


def test_a_sample_of_chunks_holds_the_heavy_rows():
    x, weight = _heavy()
    fit = emroute.kmeans.fit(np.array_split(x, 7), 4, sample_weight=weight, rng=1)
    assert float(fit.inertia) == pytest.approx(1.7e-5, rel=0.05)


def test_a_mixture_starts_from_the_heavy_rows():
    x, weight = _heavy()
    fit = emroute.gmm.fit(x, 3, sample_weight=weight, rng=0, covariance_type="spherical", max_iter=3)
    np.testing.assert_allclose(np.sort(fit.means[:, 0]), [100, 200, 300], atol=1)


def test_one_seed_gives_one_fit_in_float32(lib):
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(60_000, 8)) + 3 * rng.integers(0, 3, size=(60_000, 1))).astype(np.float32)
    fit, expected = (emroute.kmeans.fit(rows, 3, rng=1) for rows in (lib.asarray(x), x))
    np.testing.assert_allclose(lib.to_numpy(fit.centroids), expected.centroids, atol=1e-4)
    assert float(fit.inertia) == pytest.approx(float(expected.inertia), rel=1e-6)
    assert namespace(fit.centroids).float32 == fit.centroids.dtype


@pytest.mark.parametrize("exponent", [-25, 12])
def test_a_start_does_not_depend_on_the_unit(exponent):
    x = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    unit = np.float32(2.0 ** (3 * exponent))
    fit = emroute.kmeans.fit(x, 3, rng=0, max_iter=0)
    scaled = emroute.kmeans.fit(x * unit, 3, rng=0, max_iter=0)
    np.testing.assert_allclose(scaled.centroids, fit.centroids * unit, rtol=1e-6)
