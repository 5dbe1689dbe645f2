"""k-means: Lloyd's iterations written out, scikit-learn's clusters, and what a result can do."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from sklearn.cluster import KMeans as Reference
from sklearn.datasets import load_iris

from emroute import kmeans
from tests.helpers import clusters, compiling, lloyd

pytestmark = pytest.mark.usefixtures("quick_compilation")

N, D, K = 60, 3, 3


def rows(seed=0):
    return clusters(N, D, K, seed)


def test_iterations_are_those_of_lloyd(lib):
    x = rows()
    fitted = kmeans.fit(lib.asarray(x), K, init=lib.asarray(x[:K]), max_iter=3)
    centroids, trace = lloyd(x, x[:K], 3)
    np.testing.assert_allclose(lib.to_numpy(fitted.centroids), centroids, rtol=1e-10)
    np.testing.assert_allclose(lib.to_numpy(fitted.trace), trace, rtol=1e-10)


def test_clusters_are_those_of_scikit_learn(lib):
    x = load_iris().data
    reference = Reference(K, init=x[:K], n_init=1, tol=0).fit(x)
    fitted = kmeans.fit(lib.asarray(x), K, init=lib.asarray(x[:K]))
    np.testing.assert_allclose(lib.to_numpy(fitted.centroids), reference.cluster_centers_, rtol=1e-10)
    np.testing.assert_array_equal(lib.to_numpy(fitted.labels), reference.labels_)
    assert float(fitted.inertia) == pytest.approx(reference.inertia_, rel=1e-10)
    assert bool(fitted.converged)


def test_labels_inertia_predict_and_transform_agree(lib):
    x = rows()
    fitted = kmeans.fit(lib.asarray(x), K, init=lib.asarray(x[:K]), max_iter=3)
    distances = np.linalg.norm(x[:, None] - lib.to_numpy(fitted.centroids), axis=-1)
    np.testing.assert_allclose(lib.to_numpy(fitted.transform(lib.asarray(x))), distances, rtol=1e-9)
    np.testing.assert_array_equal(lib.to_numpy(fitted.labels), distances.argmin(axis=1))
    np.testing.assert_array_equal(lib.to_numpy(fitted.predict(lib.asarray(x))), distances.argmin(axis=1))
    assert float(fitted.inertia) == pytest.approx((distances.min(axis=1) ** 2).sum(), rel=1e-12)
    assert float(fitted.inertia) == pytest.approx(-float(fitted.trace[-1]), rel=1e-10)


def test_inertia_is_weighted(lib):
    x, weight = rows(), np.random.default_rng(0).uniform(0, 2, N)
    fitted = kmeans.fit(lib.asarray(x), K, sample_weight=lib.asarray(weight), init=lib.asarray(x[:K]))
    square = ((x[:, None] - lib.to_numpy(fitted.centroids)) ** 2).sum(axis=-1).min(axis=1)
    assert float(fitted.inertia) == pytest.approx(weight @ square, rel=1e-12)
    for k in range(K):
        own = lib.to_numpy(fitted.labels) == k
        mean = weight[own] @ x[own] / weight[own].sum()
        np.testing.assert_allclose(lib.to_numpy(fitted.centroids)[k], mean, rtol=1e-10)


@pytest.mark.parametrize(("dtype", "width"), [("float32", 1e-6), ("float64", 1e-10)])
def test_the_trace_of_tight_clusters_keeps_its_digits(lib, dtype, width):
    """Products alone would err by a rounding of the squared distances between the clusters."""
    corners = np.repeat([[-0.01, 0.0], [0.01, 0.0], [0.0, 0.02]], 20, axis=0)
    x = lib.asarray(corners + width * np.random.default_rng(0).normal(size=corners.shape), dtype)
    fitted = kmeans.fit(x, K, init=x[::20, ...])
    assert int(fitted.n_iter) > 0
    assert -float(fitted.trace[-1]) == pytest.approx(float(fitted.inertia), rel=1e-4)


def test_convergence_is_strict_by_default(lib):
    x = rows(5)
    fitted = kmeans.fit(lib.asarray(x), K, init=lib.asarray(x[:K]))
    again = kmeans.fit(lib.asarray(x), K, init=fitted.centroids)
    assert bool(fitted.converged)
    np.testing.assert_allclose(lib.to_numpy(again.centroids), lib.to_numpy(fitted.centroids), rtol=1e-12)


@pytest.mark.parametrize("seed", range(30))
def test_a_fit_at_rest_ends(eager_lib, seed):
    """Rows many times over, whose sums round differently from one pass to the next."""
    x = np.repeat(np.random.default_rng(seed).standard_normal((4, D)), 6, axis=0)
    fitted = kmeans.fit(eager_lib.asarray(x), K, rng=0)
    assert bool(fitted.converged)


def test_restarts_keep_the_least_inertia(eager_lib):
    lib, x = eager_lib, load_iris().data
    best = kmeans.fit(lib.asarray(x), 4, init="random", n_init=8, rng=1)
    first = kmeans.fit(lib.asarray(x), 4, init="random", n_init=1, rng=1)
    assert float(best.inertia) <= float(first.inertia) * (1 + 1e-12)
    assert float(best.inertia) == pytest.approx(57.2284732, rel=1e-4)


@pytest.mark.parametrize("k", [2, K])
def test_a_batch_has_its_own_labels_and_inertia(lib, k):
    x = np.stack([rows(1), rows(2)])
    fitted = kmeans.fit(lib.asarray(x), k, n_init=2, rng=0)
    assert fitted.labels.shape == (2, N)
    square = ((x[:, :, None] - lib.to_numpy(fitted.centroids)[:, None]) ** 2).sum(axis=-1)
    np.testing.assert_array_equal(lib.to_numpy(fitted.labels), square.argmin(axis=-1))
    np.testing.assert_array_equal(lib.to_numpy(fitted.predict(lib.asarray(x))), square.argmin(axis=-1))
    np.testing.assert_allclose(lib.to_numpy(fitted.inertia), square.min(axis=-1).sum(axis=-1), rtol=1e-10)
    assert fitted.transform(lib.asarray(x)).shape == (2, N, k)


def test_a_batch_of_one_is_the_problem_itself(lib):
    x = rows()
    for n_init, init in ((1, x[:K].tolist()), (3, "k-means++")):
        alone, batch = (kmeans.fit(lib.asarray(y), K, init=init, n_init=n_init, rng=0) for y in (x, x[None]))
        for name in ("centroids", "labels", "inertia", "trace", "n_iter", "status"):
            one, many = (lib.to_numpy(getattr(fitted, name)) for fitted in (alone, batch))
            np.testing.assert_allclose(many, one[None], rtol=1e-10, err_msg=name)


def test_an_empty_cluster_stays_where_no_row_is_off_its_centroid(lib):
    x, start = np.repeat([[0.0, 0.0], [1.0, 0.0]], 5, axis=0), np.array([[0.0, 0.0], [1.0, 0.0], [9.0, 9.0]])
    fitted = kmeans.fit(lib.asarray(x), 3, init=lib.asarray(start))
    np.testing.assert_allclose(lib.to_numpy(fitted.centroids), start, atol=1e-12)


def test_results_have_the_type_of_the_data(lib):
    for dtype in ("float32", "float64"):
        x = lib.asarray(rows(), dtype)
        fitted = kmeans.fit(x, K, init=x[:K, :], max_iter=3)
        for value in (fitted.centroids, fitted.inertia, fitted.trace, fitted.transform(x)):
            assert lib.to_numpy(value).dtype == np.dtype(dtype)
        assert lib.to_numpy(fitted.labels).dtype.kind == "i"


def test_a_fit_may_be_compiled_whole():
    expected = kmeans.fit(rows(), K, n_init=3, rng=0)
    with compiling():
        fitted = kmeans.fit(rows(), K, n_init=3, rng=0)
    np.testing.assert_allclose(fitted.centroids, expected.centroids, rtol=1e-12)
    np.testing.assert_allclose(fitted.trace, expected.trace, rtol=1e-12)


def test_a_clustering_is_frozen_equal_to_itself_alone_and_says_what_it_found():
    fitted, again = (kmeans.fit(rows(), K, rng=0) for _ in range(2))
    assert len({fitted, again}) == 2
    with pytest.raises(FrozenInstanceError):
        fitted.labels = again.labels
    found = f"inertia={float(fitted.inertia):.6f}, n_iter={int(fitted.n_iter)}, converged"
    assert repr(fitted) == f"KMeans(n_clusters={K}, {found})"
    both = kmeans.fit(np.stack([rows(1), rows(2)]), K, rng=0)
    assert repr(both) == f"KMeans(n_clusters={K}, batch=(2,), 2 of 2 converged)"
