"""k-means from the first k rows, for a fixed number of iterations, against peers; see docs/benchmarks.md."""

from functools import partial

import numpy as np
import pytest
from sklearn.cluster import KMeans

import emroute
from tests.benchmarks.inputs import blobs, library, size
from tests.benchmarks.sections import KMEANS, KMEANS_OTHERS

SIZES = [(100_000, 16, 16, 10), (100_000, 64, 64, 10), (50_000, 128, 256, 10), (60_000, 784, 10, 3)]


def rows(n, d, k):
    return blobs(n, d, k, 1.0, np.float32)


def ours(x, k, n_iter=10):
    return partial(emroute.kmeans.fit, x, k, init=x[:k, ...], max_iter=n_iter)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("n", "d", "k", "n_iter"), SIZES)
def test_scikit_learn(bench, n, d, k, n_iter, threads):
    x = rows(n, d, k)
    peer = KMeans(k, init=x[:k], n_init=1, max_iter=n_iter, tol=0, algorithm="lloyd")
    bench.compare(KMEANS, (size(n, d, k),), ours(x, k, n_iter), {"scikit-learn": partial(peer.fit, x)}, threads)


def faiss(x, k):
    peer = pytest.importorskip("faiss")
    peer.omp_set_num_threads(1)
    model = peer.Kmeans(x.shape[1], k, niter=10, max_points_per_centroid=len(x))
    return partial(model.train, x, init_centroids=x[:k].copy())


def superkmeans(x, k):
    peer = pytest.importorskip("superkmeans")
    exact = {"hierarchical": False, "sampling_fraction": 1.0, "max_points_per_cluster": len(x)}
    to_the_end = {"iters": 10, "tol": 0.0, "early_termination": False}
    return lambda: peer.SuperKMeans(k, x.shape[1], n_threads=1, **exact, **to_the_end).train(x)


def fastkmeans(x, k):
    peer = pytest.importorskip("fastkmeans")
    return lambda: peer.FastKMeans(x.shape[1], k, niter=10, tol=0.0, gpu=False).train(x)


@pytest.mark.parametrize(
    ("name", "peer"), [("faiss-cpu", faiss), ("superkmeans", superkmeans), ("fastkmeans", fastkmeans)]
)
@pytest.mark.parametrize(("n", "d", "k", "n_iter"), SIZES[1:3])
def test_libraries_of_vectors(bench, n, d, k, n_iter, name, peer):
    x = rows(n, d, k)
    bench.compare(KMEANS_OTHERS, (size(n, d, k), "NumPy"), ours(x, k), {name: peer(x, k)})


def test_torch_kmeans(bench):
    peers = pytest.importorskip("torch_kmeans")
    n, d, k = 100_000, 16, 16
    x = library("torch")(rows(n, d, k))
    model = peers.KMeans(n_clusters=k, max_iter=10, tol=0.0, num_init=1, verbose=False)
    peer = partial(model, x[None], centers=x[None, None, :k])
    bench.compare(KMEANS_OTHERS, (size(n, d, k), "Torch"), ours(x, k), {"torch-kmeans": peer})
