"""Where fits start: the same rows on every library, all kinds of rows, heavy ones included; and what that holds."""

import tracemalloc

import numpy as np
import pytest

import emroute
from tests.helpers import NUMPY

WIDE = np.random.default_rng(0).normal(size=(60_000, 8)) + 8 * np.random.default_rng(1).integers(0, 3, (60_000, 1))


def started(lib, x, k, fit=emroute.kmeans.fit, **options):
    """Return what a fit starts from."""
    return fit(lib.asarray(x), k, max_iter=0, **options)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_float32_starts_at_the_same_rows_on_every_library(lib, init, seed):
    x = WIDE.astype(np.float32)
    want = started(NUMPY, x, 20, init=init, rng=seed)
    got = started(lib, x, 20, init=init, rng=seed)
    np.testing.assert_allclose(lib.to_numpy(got.centroids), want.centroids, rtol=1e-5, atol=1e-5)


def test_one_seed_is_one_fit_in_float32(lib):
    """Of clusters that are groups; where many clusterings are as good, the rounding of rows on borders decides."""
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(60_000, 8)) + 6 * rng.normal(size=(8, 8))[rng.integers(0, 8, 60_000)]).astype("f")
    want = emroute.kmeans.fit(x.astype(np.float64), 8, rng=1)
    got = emroute.kmeans.fit(lib.asarray(x), 8, rng=1)
    assert float(got.inertia) == pytest.approx(float(want.inertia), rel=1e-6)
    np.testing.assert_allclose(lib.to_numpy(got.centroids), want.centroids, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
def test_random_rows_differ(eager_lib, scale):
    x = np.repeat([0.0, 1.0, 5.0], [400, 300, 300])[:, None] * scale
    for seed in range(30):
        found = started(eager_lib, x, 3, init="random", rng=seed)
        assert sorted(eager_lib.to_numpy(found.centroids)[:, 0] / scale) == pytest.approx([0, 1, 5])


def test_random_rows_of_weight_0_are_never_drawn(eager_lib):
    x, weight = np.arange(6.0)[:, None], np.asarray([1.0, 0, 1, 0, 1, 0])
    for seed in range(10):
        found = started(eager_lib, x, 3, init="random", rng=seed, sample_weight=eager_lib.asarray(weight))
        assert sorted(eager_lib.to_numpy(found.centroids)[:, 0]) == [0, 2, 4]


def test_fewer_kinds_of_rows_than_starts_are_drawn_twice(eager_lib):
    found = started(eager_lib, np.asarray([[0.0], [1.0]] * 5), 3, init="random", rng=0)
    assert set(eager_lib.to_numpy(found.centroids)[:, 0]) == {0.0, 1.0}


def heavy():
    light = np.random.default_rng(0).uniform(size=(200_000, 1))
    x = np.r_[light, [[100.0], [200.0], [300.0]]]
    return x, np.r_[np.full(200_000, 1e-9), np.full(3, 1e6)]


@pytest.mark.parametrize("seed", range(4))
def test_heavy_rows_are_among_those_that_stand_for_many(eager_lib, seed):
    x, weight = heavy()
    found = emroute.kmeans.fit(eager_lib.asarray(x), 4, rng=seed, sample_weight=eager_lib.asarray(weight))
    assert float(found.inertia) == pytest.approx(1e-9 * np.sum((x[:-3] - x[:-3].mean()) ** 2), rel=1e-6)


def test_heavy_rows_of_a_stream_and_of_a_mixture():
    x, weight = heavy()
    chunks = [x[:100_000], x[100_000:]]
    found = emroute.kmeans.fit(chunks, 4, rng=0, sample_weight=weight)
    assert float(found.inertia) < 2e-5
    mixture = emroute.gmm.fit(x, 4, rng=0, sample_weight=weight, covariance_type="spherical", max_iter=5)
    means = np.sort(mixture.means[:, 0])
    np.testing.assert_allclose(means, [0.5, 100, 200, 300], atol=0.01)


def test_the_sample_counts_each_row_by_its_weight():
    """Of 150,000 light rows and 50,000 of ten times the weight, both kinds carry the share that is theirs."""
    from emroute._engine.starts import _representatives
    from emroute.data import open_source

    weight = np.repeat([1.0, 10.0], [150_000, 50_000])
    source = open_source(np.arange(200_000.0)[:, None], weight, (1,))
    rows = _representatives(source, 2**16, np.random.default_rng(0))
    assert rows.n == pytest.approx(2**16, rel=0.01)
    light = rows.arrays[0][:, 0] < 150_000
    np.testing.assert_allclose([rows.weight[light].sum(), rows.weight[~light].sum()], [150_000, 500_000], rtol=0.01)


def peak(call):
    tracemalloc.start()
    call()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def test_restarts_share_the_rows():
    x = np.random.default_rng(0).normal(size=(65_536, 2))
    assert peak(lambda: emroute.kmeans.fit(x, 8, n_init=40, max_iter=0, rng=0)) < 100 * 2**20
    wide = np.random.default_rng(0).normal(size=(50_000, 50))
    assert peak(lambda: started(NUMPY, wide, 4, n_init=16, rng=0)) < 5 * wide.nbytes


def test_the_start_of_a_memory_map_holds_a_sample(tmp_path):
    few, many = 300_000, 900_000

    def held(n):
        np.save(tmp_path / f"{n}.npy", np.random.default_rng(0).normal(size=(n, 16)).astype(np.float32))
        rows = np.load(tmp_path / f"{n}.npy", mmap_mode="r")
        return peak(lambda: emroute.kmeans.fit(rows, 4, max_iter=0, rng=0))

    of_each_row = (held(many) - held(few)) / (many - few)
    assert of_each_row < 40  # bytes: a label, a distance and a lot drawn, where the row itself has 64


def test_random_rows_are_distinct_in_every_column(eager_lib):
    x = np.repeat([[1.0, 2.0], [1.0, 3.0], [1.0, 4.0]], [500, 4, 3], axis=0).astype(np.float32)
    for seed in range(10):
        fit = emroute.kmeans.fit(eager_lib.asarray(x), 3, init="random", rng=seed, max_iter=0)
        assert len(np.unique(eager_lib.to_numpy(fit.centroids), axis=0)) == 3


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


@pytest.mark.parametrize("exponent", [-25, 12])
def test_a_start_does_not_depend_on_the_unit(exponent):
    x = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    unit = np.float32(2.0 ** (3 * exponent))
    fit = emroute.kmeans.fit(x, 3, rng=0, max_iter=0)
    scaled = emroute.kmeans.fit(x * unit, 3, rng=0, max_iter=0)
    np.testing.assert_allclose(scaled.centroids, fit.centroids * unit, rtol=1e-6)
