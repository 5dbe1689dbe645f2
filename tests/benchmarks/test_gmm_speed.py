"""Gaussian mixtures from given starts, for a fixed number of iterations, against peers; see docs/benchmarks.md."""

from functools import partial

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

import emroute
from tests.benchmarks.inputs import blobs, library, size, start_of, title
from tests.benchmarks.page import Row
from tests.benchmarks.sections import DIAGONAL, FULL, LIBRARIES, OTHERS, WIDE


def ours(x, k, covariance_type, n_iter=10, to=np.asarray):
    start = tuple(map(to, start_of(x, k, covariance_type)))
    fit = partial(emroute.gmm.fit, to(x), k, covariance_type=covariance_type, init=start, tol=0, max_iter=n_iter)
    return lambda: float(fit().log_likelihood)  # waits until JAX is done


def sklearn(x, k, covariance_type, n_iter=10):
    weights, means, covariances = start_of(x, k, covariance_type)
    precisions = np.linalg.inv(covariances) if covariance_type == "full" else 1 / covariances
    start = {"weights_init": weights, "means_init": means, "precisions_init": precisions}
    return partial(GaussianMixture(k, covariance_type=covariance_type, tol=0, max_iter=n_iter, **start).fit, x)


@pytest.mark.parametrize(
    ("n", "d", "k", "n_iter", "name"),
    [(5000, 128, 64, 5, "numpy"), (5000, 128, 64, 5, "torch"), (5000, 128, 256, 10, "torch")],
)
def test_diagonal_fits_in_float32(bench, n, d, k, n_iter, name):
    x = blobs(n, d, k, dtype=np.float32)
    peers = {"scikit-learn": sklearn(x, k, "diag", n_iter)}
    cells = (size(n, d, k), "float32", title(name), f"{n_iter} iterations")
    bench.compare(DIAGONAL, cells, ours(x, k, "diag", n_iter, library(name)), peers)


@pytest.mark.parametrize(
    ("n", "d", "k", "covariance_type"),
    [
        (20_000, 16, 16, "diag"),
        (4000, 64, 16, "full"),
        (20_000, 16, 16, "full"),
        (40_000, 2, 5, "full"),
        (10_000, 32, 16, "full"),
    ],
)
def test_an_iteration_in_float64(bench, n, d, k, covariance_type):
    """What ten iterations take more than two, so that the start and the end do not count."""
    x = blobs(n, d, k)
    fits = [fit(x, k, covariance_type, n_iter) for fit in (ours, sklearn) for n_iter in (10, 2)]
    long, short, their_long, their_short = bench.medians(*fits)
    section, arrays = (DIAGONAL, ("NumPy",)) if covariance_type == "diag" else (FULL, ())
    cells = (size(n, d, k), "float64", *arrays, "an iteration")
    bench.add(Row(section, cells, (long - short) / 8, "scikit-learn", (their_long - their_short) / 8))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_full_fits_of_many_rows(bench, dtype):
    n, d, k = 100_000, 16, 16
    x = blobs(n, d, k, dtype=dtype)
    peers = {"scikit-learn": sklearn(x, k, "full")}
    bench.compare(FULL, (size(n, d, k), dtype, "10 iterations"), ours(x, k, "full"), peers)


@pytest.mark.parametrize(("n", "d", "k"), [(4000, 1000, 1), (5000, 600, 2)])
def test_a_step_on_wide_rows(bench, n, d, k):
    x = np.random.default_rng(0).normal(size=(n, d))
    peer = GaussianMixture(k, init_params="random_from_data", random_state=0, max_iter=1)
    mine = partial(emroute.gmm.fit, x, k, init="random", rng=0, max_iter=1)
    bench.compare(WIDE, (size(n, d, k),), mine, {"scikit-learn": partial(peer.fit, x)})


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
@pytest.mark.parametrize(("n", "d", "k"), [(100_000, 16, 16), (200_000, 2, 5)])
def test_other_arrays(bench, n, d, k, covariance_type):
    x = blobs(n, d, k)
    peers = {f"emroute on {title(name)}": ours(x, k, covariance_type, to=library(name)) for name in ("torch", "jax")}
    bench.compare(LIBRARIES, (size(n, d, k), covariance_type), ours(x, k, covariance_type), peers)


def test_tgmm(bench):
    tgmm = pytest.importorskip("tgmm")
    n, d, k = 100_000, 16, 16
    x = blobs(n, d, k, dtype=np.float32)
    tensor = library("torch")(x)

    def peer():
        model = tgmm.GaussianMixture(n_features=d, n_components=k, max_iter=10, tol=1e-30, init_means=tensor[:k])
        return model.fit(tensor)

    bench.compare(OTHERS, (size(n, d, k), "Torch"), ours(x, k, "full", to=library("torch")), {"tgmm": peer})


def test_gmmx(bench):
    gmmx, jax = pytest.importorskip("gmmx"), pytest.importorskip("jax")
    n, d, k = 100_000, 16, 16
    x = blobs(n, d, k, dtype=np.float32)
    asarray = library("jax")
    with jax.enable_x64(False):  # gmmx takes nothing else
        weights, means, covariances = map(asarray, start_of(x, k, "full"))
        model = gmmx.GaussianMixtureModelJax.from_squeezed(means=means, covariances=covariances, weights=weights)
        array = asarray(x)

        def peer():
            return float(gmmx.EMFitter(tol=0.0, max_iter=10).fit(x=array, gmm=model).log_likelihood)

        bench.compare(OTHERS, (size(n, d, k), "JAX"), ours(x, k, "full", to=asarray), {"gmmx": peer})
