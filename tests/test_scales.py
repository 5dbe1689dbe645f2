"""float32 fits are those of float64 on the same rows, whatever the scales, offsets, weights and gaps between groups.

Rows are rounded to float32 before both fits. What is left is the rounding of sums and differences: of a mean, a few
spacings of float32 at the largest row (k-means takes shifts of up to 16 for none); of a variance, the same as a share
of the group's width. Products about the common centre are taken where they err by about 1e-3 of a variance.
"""

import warnings

import numpy as np
import pytest
from hypothesis import strategies as st

from emroute import gmm, kmeans
from emroute.errors import FitWarning
from tests.helpers import for_all

pytestmark = pytest.mark.filterwarnings("ignore::emroute.errors.FitWarning")

N, K, D = 120, 2, 2
EPS = float(np.finfo(np.float32).eps)
STEPS = {"max_iter": 3, "tol": 0.0}

powers = {
    "seed": st.integers(0, 2**16),
    "scale": st.tuples(*[st.floats(-20, 20)] * D),
    "offset": st.floats(0, 4),
    "gap": st.floats(1.3, 6),
    "weight": st.floats(-30, 30),
}


def _problem(seed, scale, offset, gap, weight):
    """Rows of two groups, in float32, their true labels, and weights; all but the seed are powers of ten."""
    rng = np.random.default_rng(seed)
    labels = np.arange(N) % K
    z = rng.normal(size=(N, D)) + 10.0**gap * labels[:, None] + 10.0**offset
    x = (z * np.asarray([10.0**power for power in scale])).astype("float32")
    return x, labels, (rng.uniform(0.5, 2, N) * 10.0**weight).astype("float32")


def _start(x, labels):
    return np.stack([x[labels == k].astype(np.float64).mean(axis=0) for k in range(K)]).astype("float32")


def _allowed(x, labels):
    """Widths of the groups' features, and how many spacings of float32 at the largest rows are in them."""
    x = x.astype(np.float64)
    width = np.stack([x[labels == k].std(axis=0) for k in range(K)])
    return width, EPS * np.abs(x).max(axis=0) / width


@for_all(examples=12, **powers)
def test_means_and_covariances_agree(lib, seed, scale, offset, gap, weight):
    scale = [min(power, 15 - max(gap, offset)) for power in scale]  # a sum of squares that overflows is refused
    x, labels, weights = _problem(seed, scale, offset, gap, weight)
    start, (width, spacings) = _start(x, labels), _allowed(x, labels)
    for kind in ("diag", "full"):
        with np.errstate(under="ignore"):
            exact = gmm.fit(
                x.astype(float), K, covariance_type=kind, init=start, sample_weight=weights.astype(float), **STEPS
            )
            found = gmm.fit(
                lib.asarray(x),
                K,
                covariance_type=kind,
                init=lib.asarray(start),
                sample_weight=lib.asarray(weights),
                **STEPS,
            )
        means, covariances = (lib.to_numpy(y).astype(np.float64) for y in (found.means, found.covariances))
        np.testing.assert_allclose(lib.to_numpy(found.weights), exact.weights, rtol=1e-4)
        assert np.all(np.abs(means - exact.means) <= width * (1e-4 + 2 * spacings))
        size = width if kind == "diag" else width[:, None, :]
        square = width * width if kind == "diag" else width[:, :, None] * size
        slack = spacings if kind == "diag" else spacings[:, :, None] + spacings[:, None, :]
        held = square > 1e-34  # smaller ones have lost digits to the end of float32's range
        error = np.abs(covariances - exact.covariances)
        assert np.all((error <= square * (3e-3 + 4 * slack)) | ~held)


@for_all(examples=12, **{**powers, "scale": st.floats(-30, 25)})
def test_centroids_agree(lib, seed, scale, offset, gap, weight):
    x, labels, weights = _problem(seed, (scale,) * D, offset, gap, weight)
    start, (width, spacings) = _start(x, labels), _allowed(x, labels)
    found = kmeans.fit(lib.asarray(x), K, init=lib.asarray(start), sample_weight=lib.asarray(weights))
    exact = kmeans.fit(x.astype(float), K, init=start.astype(float), sample_weight=weights.astype(float))
    np.testing.assert_array_equal(lib.to_numpy(found.labels), exact.labels)
    assert np.all(np.abs(lib.to_numpy(found.centroids) - exact.centroids) <= width * (1e-4 + 16 * spacings))
    inertia = float(exact.inertia)
    if 1e-36 < inertia < 1e38:
        np.testing.assert_allclose(float(found.inertia), inertia, rtol=1e-3 + 4 * float(spacings.max()))


@pytest.mark.parametrize("name", ["k-means++", "random"])
def test_one_seed_draws_one_start_everywhere(lib, name):
    x, _, weights = _problem(3, (-12, 7), 2, 2, -20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        host = kmeans.fit(x, 4, init=name, rng=5, sample_weight=weights, max_iter=0)
        here = kmeans.fit(lib.asarray(x), 4, init=name, rng=5, sample_weight=lib.asarray(weights), max_iter=0)
    np.testing.assert_allclose(lib.to_numpy(here.centroids), host.centroids, rtol=8 * EPS)
