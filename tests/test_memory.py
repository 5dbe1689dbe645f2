"""Memory is O(chunk): peak bytes at growing n, counted by tracemalloc, which sees every NumPy array."""

import tracemalloc

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import emroute
from tests.helpers import COVARIANCE_TYPES

D, K, FEW, MANY = 4, 12, 240_000, 720_000  # a third: blocks are nearly of one size in both
GROWN = MANY - FEW


@pytest.fixture(autouse=True)
def one_thread():
    """How many blocks are held at once must not depend on how threads happen to run."""
    with threadpool_limits(1):
        yield


def peak(function, *args):
    """Most bytes held at once above what was held before; the first call fills caches."""
    function(*args)
    tracemalloc.start()
    try:
        held = tracemalloc.get_traced_memory()[0]
        result = function(*args)
        return tracemalloc.get_traced_memory()[1] - held, result
    finally:
        tracemalloc.stop()


def growth(function, dtype=np.float64):
    x = np.random.default_rng(0).normal(size=(MANY, D)).astype(dtype)
    return peak(function, x)[0] - peak(function, x[:FEW])[0]


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_a_fit_holds_nothing_that_grows_with_n(covariance_type):
    def fit(x):
        return emroute.gmm.fit(x, K, covariance_type=covariance_type, init=x[:K], max_iter=2)

    assert growth(fit) < 4 * GROWN  # four bytes a row; one array of n numbers would be eight


def test_a_weighted_fit_holds_nothing_that_grows_with_n():
    def fit(x):
        return emroute.gmm.fit(x, K, init=x[:K], max_iter=2, sample_weight=weight[: len(x)])

    weight = np.random.default_rng(1).uniform(size=MANY)
    assert growth(fit) < 4 * GROWN


def test_narrow_components_cost_no_more_memory():
    def fit(x):
        return emroute.gmm.fit(np.asarray(x), K, init=x[:K], max_iter=2, covariance_floor=0.0)

    assert growth(fit, np.float32) < 2 * GROWN


def test_counts_hold_nothing_that_grows_with_n():
    def fit(x):
        return emroute.poisson.fit(x, K, init=np.arange(1.0, K + 1)[:, None] + np.zeros(D), max_iter=2)

    def grown(x):
        return peak(fit, x)[0]

    x = np.random.default_rng(0).poisson(5, size=(MANY, D))
    assert grown(x) - grown(x[:FEW]) < GROWN


def test_kmeans_holds_its_labels_and_little_else():
    def fit(x):
        return emroute.kmeans.fit(x, K, init=x[:K], max_iter=2)

    assert growth(fit) < 4 * 8 * GROWN  # labels and distances; n k numbers would be twelve


@pytest.mark.parametrize(("name", "numbers"), [("responsibilities", K), ("log_prob", 1), ("predict", 1)])
def test_scoring_holds_its_result_once(name, numbers):
    mixture = emroute.gmm.fit(np.random.default_rng(0).normal(size=(FEW, D)), K, rng=0, max_iter=2)
    grown = growth(getattr(mixture, name))
    assert 0.9 * 8 * numbers * GROWN < grown < 1.1 * 8 * numbers * GROWN + GROWN


def test_a_stream_holds_a_chunk():
    class Chunks:
        def __init__(self, count):
            self.count = count

        def __iter__(self):
            rng = np.random.default_rng(0)
            return (rng.normal(size=(5_000, D)) for _ in range(self.count))

    start = np.random.default_rng(1).normal(size=(K, D))

    def fit(count):
        return emroute.gmm.fit(Chunks(count), K, init=start, max_iter=2)

    assert peak(fit, 24)[0] - peak(fit, 8)[0] < 5_000 * 16
