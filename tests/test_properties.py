"""What holds for every fit, whatever the data: monotone traces, symmetries, and many ways to the same answer."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emroute import binomial, gmm, kmeans, multinomial, poisson
from tests.helpers import COVARIANCE_TYPES, NUMPY, assert_monotone, clusters, for_all, given_start

pytestmark = pytest.mark.usefixtures("quick_compilation")

N, D, K = 24, 3, 3  # one shape for all, so that JAX compiles each fit once
SEEDS = st.integers(0, 2**32 - 1)
TOTALS = ("log_likelihood", "inertia", "trace")


def draw_weights(seed):
    return np.random.default_rng(seed).uniform(0.2, 3, N)


@dataclass(frozen=True)
class Case:
    """One fit: its data from a seed, its start, and the names of its results."""

    name: str
    fit: Callable
    data: Callable
    start: Callable
    results: tuple[str, ...]
    shared: tuple[int, ...] = ()  # parts of the start that all components share

    def __call__(self, lib, data, start, weight=None, *, dtype=None, **options):
        """Fit on one library; a start is a tuple of host arrays, results come back to the host."""
        weight = np.ones(data[0].shape[: data[0].ndim - self.rank]) if weight is None else weight
        settings = {"tol": 0, "max_iter": 4, "sample_weight": lib.asarray(weight, dtype), **options}
        start = tuple(lib.asarray(part, dtype) for part in start)
        init = start[0] if self.name == "kmeans" else start
        return self.fit(*(lib.asarray(x, dtype) for x in data), K, init=init, **settings)

    @property
    def rank(self):
        return 0 if self.name == "binomial" else 1

    def values(self, lib, result):
        return {name: lib.to_numpy(getattr(result, name)) for name in self.results}


def gaussian_case(covariance_type):
    return Case(
        covariance_type,
        lambda x, k, **options: gmm.fit(x, k, covariance_type=covariance_type, **options),
        lambda seed: (clusters(N, D, K, seed),),
        lambda x: given_start(x, K, covariance_type),
        ("weights", "means", "covariances", "log_likelihood", "trace"),
        shared=(2,) if covariance_type == "tied" else (),
    )


def coins(seed):
    rng = np.random.default_rng(seed)
    trials = rng.integers(5, 30, N)
    return rng.binomial(trials, rng.choice([0.2, 0.5, 0.9], N)).astype(float), trials.astype(float)


def documents(seed):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(D), K)
    return (rng.multinomial(20, shares[rng.integers(0, K, N)]).astype(float),)


def counts(seed):
    rng = np.random.default_rng(seed)
    return (rng.poisson(rng.uniform(1, 20, (K, D))[rng.integers(0, K, N)]).astype(float),)


EVEN = np.array([0.2, 0.3, 0.5])
CASES = {
    case.name: case
    for case in (
        *map(gaussian_case, COVARIANCE_TYPES),
        Case(
            "binomial",
            binomial.fit,
            coins,
            lambda heads, trials: (EVEN, np.array([0.3, 0.5, 0.8])),
            ("weights", "probs", "log_likelihood", "trace"),
        ),
        Case(
            "multinomial",
            multinomial.fit,
            documents,
            lambda x: (EVEN, np.array([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.3, 0.2, 0.5]])),
            ("weights", "probs", "log_likelihood", "trace"),
        ),
        Case(
            "poisson",
            poisson.fit,
            counts,
            lambda x: (EVEN, np.array([[2.0, 5, 9], [9, 2, 5], [5, 9, 2]])),
            ("weights", "rates", "log_likelihood", "trace"),
        ),
        Case(
            "kmeans",
            kmeans.fit,
            lambda seed: (clusters(N, D, K, seed),),
            lambda x: (x[:K].copy(),),
            ("centroids", "inertia", "trace"),
        ),
    )
}
MIXTURES = [name for name in CASES if name != "kmeans"]


every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def assert_same(got, expected, rtol=1e-9):
    """Assert that two fits agree; at rest one may stand still for an iteration more than the other."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        if name == "trace":
            length = min(len(value), len(got[name]))
            got[name], value = (np.append(trace[:length], trace[-1]) for trace in (got[name], value))
        scale = np.max(np.abs(value[np.isfinite(value)]), initial=1.0)
        np.testing.assert_allclose(got[name], value, rtol=rtol, atol=rtol * scale, err_msg=name)


# The trace


def rough_rows(n_batch=0):
    """Rows with ties, duplicates, constant features and far-out values."""
    values = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e3, 1e3, allow_subnormal=False, width=32))
    return hnp.arrays(np.float64, (*(2,) * n_batch, N, D), elements=values, fill=st.sampled_from([0.0, 1.0, -2.0]))


def rough_weights():
    return hnp.arrays(np.float64, N, elements=st.sampled_from([0.0, 1e-3, 1.0, 2.0, 50.0])).filter(
        lambda w: w.sum() > 0
    )


FLOORS = st.sampled_from([0.0, 1e-6, 1e-2, 0.5])
CHUNKS = st.sampled_from([None, 1, 5, 23])


ROUGH = 1e-9  # a component at a floor of 1e-6 costs six digits of a row's log-density


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@for_all(examples=25, x=rough_rows(), w=rough_weights(), floor=FLOORS, seed=SEEDS, chunk_size=CHUNKS)
def test_the_log_likelihood_of_gaussians_never_decreases(lib, covariance_type, x, w, floor, seed, chunk_size):
    fitted = gmm.fit(
        lib.asarray(x),
        K,
        covariance_type=covariance_type,
        sample_weight=lib.asarray(w),
        covariance_floor=floor,
        rng=seed,
        tol=0,
        max_iter=30,
        chunk_size=chunk_size if lib.name != "jax" else None,
    )
    assert_monotone(lib.to_numpy(fitted.trace), w.sum(), ROUGH)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@for_all(x=rough_rows(n_batch=1), floor=FLOORS, seed=SEEDS)
def test_no_log_likelihood_of_a_batch_of_gaussians_decreases(eager_lib, covariance_type, x, floor, seed):
    options = {"covariance_type": covariance_type, "covariance_floor": floor, "rng": seed, "tol": 0, "max_iter": 30}
    fitted = gmm.fit(eager_lib.asarray(x), K, **options)
    assert fitted.trace.shape[0] == 2
    assert_monotone(eager_lib.to_numpy(fitted.trace), N, ROUGH)


@pytest.mark.parametrize(("dtype", "rounding"), [("float64", 1e-12), ("float32", 2e-5)])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@for_all(seed=SEEDS, floor=FLOORS)
def test_the_log_likelihood_of_clear_clusters_never_decreases(eager_lib, covariance_type, dtype, rounding, seed, floor):
    x = eager_lib.asarray(clusters(N, D, K, seed), dtype)
    fitted = gmm.fit(x, K, covariance_type=covariance_type, covariance_floor=floor, rng=seed, tol=0, max_iter=30)
    assert_monotone(eager_lib.to_numpy(fitted.trace), N, rounding)


@for_all(examples=25, x=rough_rows(), w=rough_weights(), seed=SEEDS, chunk_size=CHUNKS)
def test_the_inertia_never_increases(lib, x, w, seed, chunk_size):
    chunk_size = chunk_size if lib.name != "jax" else None
    fitted = kmeans.fit(lib.asarray(x), K, sample_weight=lib.asarray(w), rng=seed, chunk_size=chunk_size)
    assert_monotone(lib.to_numpy(fitted.trace), float(w @ (x**2).sum(axis=1)))
    assert float(fitted.inertia) >= 0


@pytest.mark.parametrize("name", ["binomial", "multinomial", "poisson"])
@for_all(
    examples=20,
    x=hnp.arrays(np.int64, (N, D), elements=st.integers(0, 12)),
    w=rough_weights(),
    seed=SEEDS,
    chunk_size=CHUNKS,
    fixed=st.booleans(),
)
def test_the_log_likelihood_of_counts_never_decreases(lib, name, x, w, seed, chunk_size, fixed):
    data = (x[:, 0], x[:, 0] + x[:, 1]) if name == "binomial" else (x,)
    fitted = CASES[name].fit(
        *(lib.asarray(part.astype(float)) for part in data),
        K,
        sample_weight=lib.asarray(w),
        rng=seed,
        tol=0,
        max_iter=30,
        weights=EVEN.tolist() if fixed and lib.name != "jax" else None,
        chunk_size=chunk_size if lib.name != "jax" else None,
    )
    assert_monotone(lib.to_numpy(fitted.trace), w.sum())


# Many ways to the same answer


@every_case
@for_all(seed=SEEDS)
def test_an_integer_weight_equals_repeating_the_row(lib, case, seed):
    data = case.data(seed)
    once, twice = np.arange(N - 8), np.arange(8)
    repeated = tuple(np.concatenate([x[once], x[twice]]) for x in data)
    # weight 0 takes the last rows away, so both have one shape
    weight = np.concatenate([np.full(8, 2.0), np.ones(N - 16), np.zeros(8)])
    start = case.start(*data)
    got = case.values(lib, case(lib, data, start, weight))
    assert_same(got, case.values(lib, case(lib, repeated, start)), rtol=1e-10)


@every_case
@for_all(seed=SEEDS)
def test_the_order_of_rows_does_not_matter(lib, case, seed):
    data, weight = case.data(seed), draw_weights(seed)
    start, order = case.start(*data), np.random.default_rng(seed).permutation(N)
    got = case.values(lib, case(lib, tuple(x[order] for x in data), start, weight[order]))
    assert_same(got, case.values(lib, case(lib, data, start, weight)))


@every_case
@for_all(seed=SEEDS)
def test_components_keep_the_order_of_the_start(lib, case, seed):
    data, order = case.data(seed), np.array([2, 0, 1])
    start = case.start(*data)
    turned = tuple(x if place in case.shared else x[order] for place, x in enumerate(start))
    expected = case.values(lib, case(lib, data, start))
    for name, value in expected.items():
        if name not in TOTALS and not (name == "covariances" and case.shared):
            expected[name] = value[order]
    assert_same(case.values(lib, case(lib, data, turned)), expected)


@pytest.mark.parametrize("name", [name for name in CASES if name != "binomial"])
@for_all(seed=SEEDS)
def test_features_keep_the_order_of_the_data(lib, name, seed):
    case, order = CASES[name], np.array([1, 2, 0])
    (x,) = case.data(seed)

    def turn(value, rank):
        """Turn every axis of length D behind the components' of an array."""
        for axis in range(value.ndim - rank, value.ndim):
            value = np.take(value, order, axis=axis)
        return value

    ranks = {"means": 1, "covariances": {"full": 2, "tied": 2, "diag": 1}.get(name, 0), "weights": 0}
    start = case.start(x)
    parts = ["means"] if name == "kmeans" else ["weights", "means", "covariances"]
    turned = tuple(turn(part, ranks[kind]) for kind, part in zip(parts, start, strict=False))
    expected = case.values(lib, case(lib, (x,), start))
    for result, value in expected.items():
        rank = 0 if result in TOTALS else ranks.get(result, 1)
        expected[result] = turn(value, rank)
    assert_same(case.values(lib, case(lib, (x[:, order],), turned)), expected)


@pytest.mark.parametrize("name", [*COVARIANCE_TYPES, "kmeans"])
@for_all(seed=SEEDS, shift=st.tuples(*[st.floats(-100, 100)] * D))
def test_a_shift_of_the_data_shifts_the_fit(lib, name, seed, shift):
    case, shift = CASES[name], np.array(shift)
    (x,) = case.data(seed)
    start = case.start(x)
    moved = (start[0] + shift,) if name == "kmeans" else (start[0], start[1] + shift, start[2])
    expected = case.values(lib, case(lib, (x,), start))
    where = "centroids" if name == "kmeans" else "means"
    expected[where] = expected[where] + shift
    assert_same(case.values(lib, case(lib, (x + shift,), moved)), expected, rtol=1e-8)


POWERS = st.integers(-20, 20).map(lambda power: 2.0**power)


@pytest.mark.parametrize("name", COVARIANCE_TYPES)
@for_all(seed=SEEDS, scale=st.tuples(*[POWERS] * D))
def test_rescaling_any_feature_rescales_the_gaussians(lib, name, seed, scale):
    case = CASES[name]
    scale = np.full(D, scale[0]) if name == "spherical" else np.array(scale)
    (x,) = case.data(seed)
    weights, means, covariances = case.start(x)
    square = {
        "full": np.outer(scale, scale),
        "tied": np.outer(scale, scale),
        "diag": scale**2,
        "spherical": scale[0] ** 2,
    }
    start = weights, means * scale, covariances * square[name]
    got = case.values(lib, case(lib, (x * scale,), start))
    expected = case.values(lib, case(lib, (x,), (weights, means, covariances)))
    jacobian = N * np.log(scale).sum()
    for result in ("log_likelihood", "trace"):
        expected[result] = expected[result] - jacobian
    got["means"], got["covariances"] = got["means"] / scale, got["covariances"] / square[name]
    assert_same(got, expected)


@for_all(seed=SEEDS, scale=POWERS)
def test_rescaling_the_data_rescales_the_centroids(lib, seed, scale):
    case = CASES["kmeans"]
    (x,) = case.data(seed)
    got = case.values(lib, case(lib, (x * scale,), (x[:K] * scale,)))
    for result in got:
        got[result] = got[result] / (scale if result == "centroids" else scale**2)
    assert_same(got, case.values(lib, case(lib, (x,), (x[:K],))))


@pytest.mark.on_jax("full", "kmeans")
@every_case
@for_all(seed=SEEDS, chunk_size=CHUNKS)
def test_chunks_change_nothing(lib, case, seed, chunk_size):
    data, weight = case.data(seed), draw_weights(seed)
    start, chunk_size = case.start(*data), 7 if lib.name == "jax" else chunk_size
    got = case.values(lib, case(lib, data, start, weight, chunk_size=chunk_size))
    assert_same(got, case.values(lib, case(lib, data, start, weight)))


@pytest.mark.on_jax("full", "kmeans")
@every_case
@for_all(seed=SEEDS, shared=st.booleans())
def test_a_batch_equals_its_problems_one_by_one(lib, case, seed, shared):
    problems = [case.data((seed + i) % 2**32) for i in range(2)]
    starts = [case.start(*problems[0 if shared else i]) for i in range(2)]
    weights = [draw_weights(seed), draw_weights(seed + 1)]
    stacked = case(
        lib,
        tuple(map(np.stack, zip(*problems, strict=True))),
        tuple(map(np.stack, zip(*starts, strict=True))),
        np.stack(weights),
    )
    batch = case.values(lib, stacked)
    for i in range(2):
        one = case.values(lib, case(lib, problems[i], starts[i], weights[i]))
        own = {name: value[i] for name, value in batch.items()}
        own["trace"] = own["trace"][np.isfinite(own["trace"])]
        assert_same(own, one)


@pytest.mark.parametrize("name", MIXTURES)
@for_all(seed=SEEDS)
def test_responsibilities_are_probabilities(lib, name, seed):
    case = CASES[name]
    data = case.data(seed)
    fitted = case(lib, data, case.start(*data))
    shares = lib.to_numpy(fitted.responsibilities(*map(lib.asarray, data)))
    assert shares.shape == (N, K)
    assert np.all((shares >= 0) & (shares <= 1))
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-14)


# One seed, one fit


def drawn_fit(lib, name, dtype):
    """A fit with a drawn start on data of 300 rows."""
    rng = np.random.default_rng(5)
    options = {"n_init": 3, "rng": 11}
    if name == "binomial":
        trials = rng.integers(5, 30, 300)
        heads = rng.binomial(trials, rng.choice([0.2, 0.5, 0.9], 300))
        return binomial.fit(lib.asarray(heads, dtype), lib.asarray(trials, dtype), K, **options)
    if name in ("multinomial", "poisson"):
        x = lib.asarray(rng.poisson(rng.uniform(1, 20, (K, D))[rng.integers(0, K, 300)]), dtype)
        return (multinomial.fit if name == "multinomial" else poisson.fit)(x, K, **options)
    x = lib.asarray(clusters(300, D, K, seed=5, gap=4.0), dtype)
    return kmeans.fit(x, K, **options) if name == "kmeans" else gmm.fit(x, K, covariance_type=name, **options)


@pytest.mark.on_jax("full-float32", "kmeans-float32", "poisson-float64")  # test_figures has Gaussians in float64
@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-6), ("float32", 1e-3)], ids=["float64", "float32"])
@pytest.mark.parametrize("name", CASES)
def test_one_seed_gives_the_same_fit_on_every_library(lib, name, dtype, rtol):
    results = [name for name in CASES[name].results if name != "trace"]
    got, expected = drawn_fit(lib, name, dtype), drawn_fit(NUMPY, name, dtype)
    for result in results:
        value = lib.to_numpy(getattr(got, result))
        assert value.dtype == np.dtype(dtype)
        reference = getattr(expected, result)
        np.testing.assert_allclose(value, reference, rtol=rtol, atol=rtol * np.max(np.abs(reference)), err_msg=result)
