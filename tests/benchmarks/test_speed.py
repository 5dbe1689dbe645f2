"""Speed against peers; see docs/benchmarks.md. Never part of the default run."""

import importlib.util
import warnings
from functools import partial

import numpy as np
import pytest

import emroute
from tests.benchmarks.memory import PeakMemory

SIZES = [(100_000, 8, 8), (100_000, 16, 16), (50_000, 32, 16), (200_000, 2, 5), (20_000, 64, 16)]
GMM = "Gaussian mixtures, ten iterations: size, covariance, emroute, peer, seconds, peer's seconds, ratio"
WIDE = "Wide rows, a start and one step: size, emroute, peer, seconds, peer's seconds, ratio"
KMEANS = "k-means in float32, ten iterations: size, emroute, peer, seconds, peer's seconds, ratio"
SMALL = "A small fit, wine (178, 13), k = 3: fit, peer, milliseconds, peer's milliseconds, ratio, iterations, peer's"
BATCH = "64 problems of (500, 4), k = 3: arrays, stop, one call, 64 calls, ratio"
MEMORY = "Memory: case, peak"


def blobs(n, d, k, spread=3.0, dtype=np.float64):
    rng = np.random.default_rng(0)
    return (rng.normal(size=(n, d)) + rng.normal(size=(k, d))[rng.integers(k, size=n)] * spread).astype(dtype)


def start_of(x, k, covariance_type):
    """Weights, means and covariances: the same for everyone."""
    cov = np.cov(x.T) if covariance_type == "full" else x.var(axis=0)
    return np.full(k, 1 / k, x.dtype), x[:k].copy(), np.stack([cov] * k).astype(x.dtype)


def library(name):
    """Return what turns NumPy arrays into those of a library, or skip."""
    if name == "numpy":
        return np.asarray
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    if name == "torch":
        import torch

        torch.set_num_threads(2)
        return torch.asarray
    import jax

    jax.config.update("jax_enable_x64", True)
    return jax.numpy.asarray


def fit(asarray, x, k, covariance_type):
    start = tuple(map(asarray, start_of(x, k, covariance_type)))
    x = asarray(x)

    def run():
        mixture = emroute.gmm.fit(x, k, covariance_type=covariance_type, init=start, tol=0, max_iter=10)
        return float(mixture.log_likelihood)

    return run


def sklearn_fit(x, k, covariance_type):
    from sklearn.mixture import GaussianMixture

    weights, means, covariances = start_of(x, k, covariance_type)
    precisions = np.linalg.inv(covariances) if covariance_type == "full" else 1 / covariances

    def run():
        mixture = GaussianMixture(
            k,
            covariance_type=covariance_type,
            tol=0,
            max_iter=10,
            weights_init=weights,
            means_init=means,
            precisions_init=precisions,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return mixture.fit(x)

    return run


def show(row, section, cells, mine, theirs):
    row(section, *cells, f"{mine:.3f}", f"{theirs:.3f}", f"{theirs / mine:.2f}")


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("size", "covariance_type"), [(size, "full") for size in SIZES] + [((100_000, 16, 16), "diag")]
)
def test_gmm_against_scikit_learn(versus, row, size, covariance_type, dtype):
    n, d, k = size
    x = blobs(n, d, k)
    ours = fit(np.asarray, x.astype(dtype), k, covariance_type)
    mine, theirs = versus(ours, sklearn_fit(x, k, covariance_type))
    name = np.dtype(dtype).name
    show(row, GMM, [str(size), covariance_type, f"NumPy {name}", "scikit-learn float64"], mine, theirs)


@pytest.mark.parametrize("name", ["torch", "jax"])
@pytest.mark.parametrize("size", SIZES)
def test_gmm_on_other_arrays(versus, row, size, name):
    n, d, k = size
    x = blobs(n, d, k)
    mine, theirs = versus(fit(library(name), x, k, "full"), fit(np.asarray, x, k, "full"))
    show(row, GMM, [str(size), "full", f"{name} float64", "emroute on NumPy"], mine, theirs)


def test_gmm_against_tgmm(versus, row):
    tgmm = pytest.importorskip("tgmm")
    n, d, k = size = (100_000, 16, 16)
    x = blobs(n, d, k, dtype=np.float32)
    asarray = library("torch")
    tensor = asarray(x)

    def peer():
        warnings.simplefilter("ignore")
        model = tgmm.GaussianMixture(n_features=d, n_components=k, max_iter=10, tol=1e-30, init_means=tensor[:k])
        return model.fit(tensor)

    mine, theirs = versus(fit(asarray, x, k, "full"), peer)
    show(row, GMM, [str(size), "full", "torch float32", "tgmm"], mine, theirs)


def test_gmm_against_gmmx(versus, row):
    gmmx, jax = pytest.importorskip("gmmx"), pytest.importorskip("jax")
    n, d, k = size = (100_000, 16, 16)
    x = blobs(n, d, k, dtype=np.float32)
    asarray = library("jax")
    with jax.enable_x64(False):  # gmmx takes nothing else
        weights, means, covariances = map(asarray, start_of(x, k, "full"))
        model = gmmx.GaussianMixtureModelJax.from_squeezed(means=means, covariances=covariances, weights=weights)
        array = asarray(x)

        def peer():
            return float(gmmx.EMFitter(tol=0.0, max_iter=10).fit(x=array, gmm=model).log_likelihood)

        mine, theirs = versus(fit(asarray, x, k, "full"), peer)
    show(row, GMM, [str(size), "full", "jax float32", "gmmx"], mine, theirs)


@pytest.mark.parametrize("size", [(4000, 1000, 1), (5000, 600, 2)])
def test_one_step_on_wide_rows(versus, row, size):
    from sklearn.mixture import GaussianMixture

    n, d, k = size
    x = np.random.default_rng(0).normal(size=(n, d))

    def ours():
        return emroute.gmm.fit(x, k, init="random", rng=0, max_iter=1)

    def peer():
        return GaussianMixture(k, init_params="random_from_data", random_state=0, max_iter=1).fit(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mine, theirs = versus(ours, peer)
        with PeakMemory() as memory:
            ours()
    show(row, WIDE, [str(size), "NumPy", "scikit-learn"], mine, theirs)
    row(MEMORY, f"one step on {(n, d)}, k = {k}, full", f"{memory.above / 1e6:.0f} MB")


KMEANS_SIZES = [(100_000, 16, 16), (100_000, 64, 64), (50_000, 128, 256), (60_000, 784, 10)]


def kmeans(x, k):
    return lambda: emroute.kmeans.fit(x, k, init=x[:k, ...], max_iter=10)


@pytest.mark.parametrize("size", KMEANS_SIZES)
def test_kmeans_against_scikit_learn(versus, row, size):
    from sklearn.cluster import KMeans

    n, d, k = size
    x = blobs(n, d, k, 1.0, np.float32)

    def peer():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return KMeans(k, init=x[:k], n_init=1, max_iter=10, tol=0, algorithm="lloyd").fit(x)

    mine, theirs = versus(kmeans(x, k), peer)
    show(row, KMEANS, [str(size), "NumPy", "scikit-learn (Lloyd)"], mine, theirs)


@pytest.mark.parametrize("size", KMEANS_SIZES[:2])
def test_kmeans_against_faiss(versus, row, size):
    faiss = pytest.importorskip("faiss")
    n, d, k = size
    x = blobs(n, d, k, 1.0, np.float32)
    faiss.omp_set_num_threads(2)

    def peer():
        model = faiss.Kmeans(d, k, niter=10, max_points_per_centroid=n)
        return model.train(x, init_centroids=x[:k].copy())

    mine, theirs = versus(kmeans(x, k), peer)
    show(row, KMEANS, [str(size), "NumPy", "faiss-cpu"], mine, theirs)


def test_kmeans_against_torch_kmeans(versus, row):
    peers = pytest.importorskip("torch_kmeans")
    n, d, k = size = (100_000, 16, 16)
    x = library("torch")(blobs(n, d, k, 1.0, np.float32))

    def peer():
        model = peers.KMeans(n_clusters=k, max_iter=10, tol=0.0, num_init=1, verbose=False)
        return model(x[None], centers=x[None, None, :k])

    mine, theirs = versus(kmeans(x, k), peer)
    show(row, KMEANS, [str(size), "torch", "torch_kmeans"], mine, theirs)


def small_fits():
    """Fits of wine as anyone writes them: ours, and scikit-learn's."""
    from sklearn.cluster import KMeans
    from sklearn.datasets import load_wine
    from sklearn.mixture import GaussianMixture

    x = load_wine().data
    for kind in ("full", "diag"):
        peer = GaussianMixture(3, covariance_type=kind, random_state=0)
        yield f"Gaussian mixture, {kind}", partial(emroute.gmm.fit, x, 3, covariance_type=kind, rng=0), peer, x
    yield "k-means", partial(emroute.kmeans.fit, x, 3, rng=0), KMeans(3, n_init=1, random_state=0), x


@pytest.mark.parametrize("which", range(3))
def test_small_fits_against_scikit_learn(versus, row, which):
    name, ours, peer, x = [*small_fits()][which]
    mine, theirs = versus(lambda: [ours() for _ in range(50)], lambda: [peer.fit(x) for _ in range(50)], rounds=5)
    times = [f"{seconds / 50 * 1e3:.2f}" for seconds in (mine, theirs)]
    row(SMALL, name, "scikit-learn", *times, f"{theirs / mine:.2f}", str(int(ours().n_iter)), str(peer.n_iter_))


@pytest.mark.parametrize(("tol", "stop"), [(0, "ten iterations"), (1e-6, "default tol")])
@pytest.mark.parametrize("name", ["numpy", "torch", "jax"])
def test_many_problems_in_one_call(versus, row, name, tol, stop):
    asarray = library(name)
    rng = np.random.default_rng(0)
    host = rng.normal(size=(64, 500, 4)) + 4 * rng.normal(size=(64, 3, 4))[:, np.arange(500) % 3]
    x, means = asarray(host), asarray(host[:, :3].copy())
    options = {"tol": tol, "max_iter": 10} if not tol else {}

    def together():
        return np.asarray(emroute.gmm.fit(x, 3, init=means, **options).log_likelihood)

    def one_by_one():
        return [float(emroute.gmm.fit(a, 3, init=m, **options).log_likelihood) for a, m in zip(x, means, strict=True)]

    np.testing.assert_allclose(together(), one_by_one(), rtol=1e-9)
    mine, theirs = versus(together, one_by_one)
    row(BATCH, name, stop, f"{mine:.3f}", f"{theirs:.3f}", f"{theirs / mine:.1f}")


def test_memory_of_a_file_of_four_gigabytes(tmp_path, row):
    """Full covariances, k = 16, two iterations from given starts over a float32 memory map."""
    n, d, k = 62_500_000, 16, 16
    file = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (n, d))
    block = blobs(500_000, d, k, dtype=np.float32)
    for start in range(0, n, len(block)):
        file[start : start + len(block)] = block
    file.flush()
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    with PeakMemory() as memory:
        emroute.gmm.fit(x, k, init=start_of(block, k, "full"), tol=0, max_iter=2)
    row(MEMORY, f"float32 memmap {(n, d)} of {x.nbytes / 1e9:.0f} GB, k = {k}", f"{memory.above / 1e6:.0f} MB")
    assert memory.above < 600e6
