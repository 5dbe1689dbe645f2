"""Close centroids of far groups: products lose the digits that tell them apart, differences keep them."""

import numpy as np
import pytest

import emroute
from emroute.family import nearest

FAR = [("float32", 1e5), ("float64", 1e8)]
FINE = [("float32", 1e7, 0.1), ("float32", 1e6, 0.01), ("float64", 1e9, 1e-9)]


@pytest.mark.parametrize(("dtype", "far"), FAR)
def test_each_row_is_its_own_centroid(lib, dtype, far):
    x = lib.asarray(np.asarray([[0.0], [1.0], [far], [far + 1]], dtype))
    fit = emroute.kmeans.fit(x, 4, init=x, max_iter=10)
    assert lib.to_numpy(fit.labels).tolist() == [0, 1, 2, 3]
    assert float(fit.inertia) == 0
    assert bool(fit.converged)
    assert lib.to_numpy(fit.predict(x)).tolist() == [0, 1, 2, 3]
    assert lib.to_numpy(emroute.kmeans.fit(x, 4, rng=0, max_iter=10).inertia) == 0


@pytest.mark.parametrize("many", [1, 20])
@pytest.mark.parametrize(
    ("dtype", "far", "fine"), [("float32", 1e7, 0.1), ("float32", 1e6, 0.01), ("float64", 1e9, 1e-9)]
)
def test_rows_near_0_keep_digits_that_far_ones_have_not(lib, dtype, far, fine, many):
    x = np.asarray([[0.0], [fine], *[[far], [far + 1]] * many], dtype)
    fit = emroute.kmeans.fit(lib.asarray(x), 4, init=lib.asarray(x[:4]), max_iter=10)
    assert lib.to_numpy(fit.labels).tolist() == [0, 1, *[2, 3] * many]
    np.testing.assert_array_equal(lib.to_numpy(fit.centroids), x[:4])
    assert float(fit.inertia) == 0
    between = lib.to_numpy(fit.transform(lib.asarray(x[:2])))[:, :2]
    np.testing.assert_array_equal(between, x[1, 0] * (1 - np.eye(2)))


@pytest.mark.parametrize(("dtype", "far"), FAR)
def test_batched_problems_tell_close_centroids_apart(lib, dtype, far):
    x = np.asarray([[[0.0], [1.0], [far], [far + 1]], [[0.0], [2.0], [4.0], [6.0]]], dtype)
    assert lib.to_numpy(nearest(lib.asarray(x), lib.asarray(x))).tolist() == [[0, 1, 2, 3]] * 2


def test_distances_keep_their_digits(lib):
    x = lib.asarray(np.asarray([[0.0], [0.1], [1000.0], [1000.1]], "float32"))
    fit = emroute.kmeans.fit(x, 2, init=lib.asarray(np.asarray([[0.05], [1000.05]], "float32")), max_iter=0)
    own = lib.to_numpy(fit.transform(x)).min(axis=-1)
    np.testing.assert_allclose(own, [0.05] * 4, rtol=1e-3)
    np.testing.assert_allclose(own**2, lib.to_numpy(fit.assign(x)[1]), rtol=1e-5)


def test_distances_of_wide_rows_keep_their_digits(eager_lib):
    x = (1e6 + np.random.default_rng(0).normal(size=(50, 3)) * [[1e-1]] + np.repeat([[0], [1e6]], 25, 0)).astype(
        "float64"
    )
    x[0] = x[1]
    fit = emroute.kmeans.fit(eager_lib.asarray(x), 2, init=eager_lib.asarray(x[[0, 30]]), max_iter=0)
    expected = np.linalg.norm(x[:, None] - x[None, [0, 30]], axis=-1)
    np.testing.assert_allclose(eager_lib.to_numpy(fit.transform(eager_lib.asarray(x))), expected, rtol=1e-8, atol=1e-9)
