"""Memory is O(chunk): peak bytes at growing n, counted by tracemalloc, which sees every NumPy array."""

import tracemalloc

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import emroute
from emroute import capsule
from emroute.arrays.kernels import fused
from emroute.backend import named
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


# Blocks are cut from what rows and children are said to take; the figures are round ones


def assert_about(found, said):
    assert said / 2.5 < found < said * 2.5


def per_row(function):
    return (peak(function, 2000)[0] - peak(function, 1000)[0]) / 1000


@pytest.mark.parametrize(("restarts", "k", "d"), [((), 12, 4), ((), 3, 20), ((), 40, 7), ((5,), 12, 4)])
@pytest.mark.parametrize("kind", [*COVARIANCE_TYPES, "k-means"])
def test_a_row_takes_what_its_model_says(kind, restarts, k, d):
    x, weight = np.random.default_rng(0).normal(size=(2000, d)), np.random.default_rng(1).uniform(size=2000)
    init = np.random.default_rng(2).normal(size=(*restarts, k, d))
    if kind == "k-means":
        fitted = emroute.kmeans.fit(x, k, init=init, max_iter=1)
        params, score = fitted.params, "assign"
    else:
        fitted = emroute.gmm.fit(x, k, covariance_type=kind, init=init, max_iter=1)
        params, score = fitted.params._replace(narrow=np.zeros(restarts)), "log_prob"
    model = fitted.model
    with fused(False):
        assert_about(per_row(lambda n: model.expect(params, x[:n], weight[:n])), model.bytes_per_row(params))
        assert_about(per_row(lambda n: getattr(model, score)(params, x[:n])), model.bytes_per_scored_row(params))


B, N, J, P = 4, 50, 7, 4
RNG = np.random.default_rng(0)
ACTIVE, BETAS = RNG.uniform(size=(B, N)), (np.zeros(J), np.zeros(J))
VOTES, POSES = RNG.normal(size=(B, N, J, P * P)), RNG.normal(size=(B, N, P, P))
START = RNG.normal(size=(J, P * P)), np.ones((J, P * P)), np.full(J, 1 / J)
TRANSFORMS, KERNELS = RNG.normal(size=(N, J, P, P)), RNG.normal(size=(3, 3, 6, J, P, P))
GRID = RNG.normal(size=(B, 5, 5, 6, P, P)), RNG.uniform(size=(B, 5, 5, 6))
ROUTINGS = {  # children of a sample or window, windows of a sample
    "dynamic": (N, 1, lambda n: capsule.dynamic_routing(VOTES[:n])),
    "EM": (N, 1, lambda n: capsule.em_routing(VOTES[:n], ACTIVE[:n], *BETAS)),
    "EM from poses": (N, 1, lambda n: capsule.em_routing_from_poses(POSES[:n], TRANSFORMS, ACTIVE[:n], *BETAS)),
    "ladder": (N, 1, lambda n: capsule.gmm_routing(POSES[:n].reshape(n, N, P * P), START, activations=ACTIVE[:n])),
    "convolutional EM": (54, 9, lambda n: capsule.conv_em_routing(*(x[:n] for x in GRID), KERNELS, *BETAS)),
    "convolutional dynamic": (54, 9, lambda n: capsule.conv_dynamic_routing(GRID[0][:n], KERNELS)),
}
every_routing = pytest.mark.parametrize(("n_children", "n_windows", "route"), ROUTINGS.values(), ids=ROUTINGS)


@every_routing
def test_a_child_takes_what_its_routing_says(monkeypatch, n_children, n_windows, route):
    said = []
    monkeypatch.setattr(named("numpy"), "chunk_size", lambda size: said.append(size) or 10**9)  # all samples at once
    with fused(False):
        found = (peak(route, B)[0] - peak(route, B // 2)[0]) / (B - B // 2)
    assert_about(found / (n_children * n_windows), said[0])


@every_routing
def test_a_block_holds_the_children_that_fit_and_at_least_one_sample(monkeypatch, n_children, n_windows, route):
    backend, sizes = named("numpy"), []
    whole = backend.map_blocks
    monkeypatch.setattr(backend, "map_blocks", lambda f, x, size, *rest: sizes.append(size) or whole(f, x, size, *rest))
    for fits, samples in ((3 * n_children + 1, 3), (2 * n_children, 2), (n_children - 1, 1)):
        monkeypatch.setattr(backend, "chunk_size", lambda size, fits=fits: fits)
        with fused(False):
            route(B)
        assert sizes.pop() == samples
