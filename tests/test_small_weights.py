"""Weights of any size count relative to each other."""

import numpy as np
import pytest

import emroute


@pytest.mark.parametrize(
    ("dtype", "weight"), [("float64", 1e-300), ("float64", 1e300), ("float32", 1e-36), ("float32", 1e32)]
)
def test_centroids_do_not_depend_on_the_unit_of_weight(lib, dtype, weight):
    rng = np.random.default_rng(0)
    x = np.r_[rng.normal(size=(300, 1)), 10 + rng.normal(size=(300, 1))].astype(dtype)
    start = lib.asarray(x[[0, -1]])
    plain = emroute.kmeans.fit(lib.asarray(x), 2, init=start)
    fit = emroute.kmeans.fit(lib.asarray(x), 2, init=start, sample_weight=lib.asarray(np.full(600, weight, dtype)))
    np.testing.assert_allclose(lib.to_numpy(fit.centroids), lib.to_numpy(plain.centroids), rtol=1e-5)
    assert float(fit.inertia) == pytest.approx(weight * float(plain.inertia), rel=1e-4)
    assert float(fit.trace[-1]) == pytest.approx(-weight * float(plain.inertia), rel=1e-4)


def test_a_sum_of_weights_that_overflows_is_said(eager_lib):
    x = eager_lib.asarray(np.arange(6.0)[:, None])
    for fit in (emroute.kmeans.fit, emroute.gmm.fit):
        with pytest.raises(emroute.errors.InputError, match="sum of sample_weight overflows"):
            fit(x, 2, sample_weight=eager_lib.asarray(np.full(6, 1e308)))
