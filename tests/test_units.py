"""Fits do not depend on the units of data and weights, however small or large."""

import warnings

import jax
import numpy as np
import pytest

from emroute import binomial, gmm, kmeans, multinomial, poisson, select
from emroute.errors import FitWarning, InputError
from tests.helpers import COVARIANCE_TYPES

N = 600
WEIGHTS = [
    ("float64", 1e-300),
    ("float64", 5e-324),
    ("float64", 1e300),
    ("float32", 1e-36),
    ("float32", 1e-44),
    ("float32", 1e32),
]


def _rows(dtype: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(size=(N // 2, 1)), 10 + rng.normal(size=(N // 2, 1))]).astype(dtype)


def _counts() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.poisson(1.0, N // 2), rng.poisson(12.0, N // 2)])


def _fits(lib, dtype, **weights):
    """A fit of each family, and k-means, from given starts."""
    x = lib.asarray(_rows(dtype))
    counts = lib.asarray(_counts().astype(dtype))
    table = lib.asarray(np.stack([_counts(), 30 - _counts()], axis=-1).astype(dtype))
    for kind in COVARIANCE_TYPES if lib.name == "numpy" else ("full",):
        yield kind, "means", gmm.fit(x, 2, covariance_type=kind, init=[[1.0], [8.0]], **weights)
    yield "kmeans", "centroids", kmeans.fit(x, 2, init=[[1.0], [8.0]], **weights)
    yield "poisson", "rates", poisson.fit(counts, 2, init=[2.0, 8.0], **weights)
    yield "binomial", "probs", binomial.fit(counts, 30, 2, init=[0.1, 0.3], **weights)
    yield "multinomial", "probs", multinomial.fit(table, 2, init=[[0.1, 0.9], [0.3, 0.7]], **weights)


@pytest.mark.parametrize(("dtype", "weight"), WEIGHTS)
def test_weights_count_relative_to_each_other(lib, dtype, weight):
    weights = lib.asarray(np.full(N, weight, dtype))
    rtol = 1e-9 if dtype == "float64" else 1e-4
    held = float(np.full(1, weight, dtype)[0])
    for (name, part, plain), (_, _, fit) in zip(
        _fits(lib, dtype), _fits(lib, dtype, sample_weight=weights), strict=True
    ):
        ours, theirs = (lib.to_numpy(getattr(y, part)) for y in (fit, plain))
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol, err_msg=name)
        if name != "kmeans":
            np.testing.assert_allclose(lib.to_numpy(fit.weights).sum(), 1, rtol=1e-6)
        trace, expected = (lib.to_numpy(y.trace).astype(np.float64)[-1] for y in (fit, plain))
        if np.finfo(dtype).tiny < weight:
            assert trace / held == pytest.approx(expected, rel=rtol), name


def test_weights_of_a_stream_and_of_a_batch(lib):
    x, weight = _rows("float32"), np.full(N, 1e-36, "float32")
    chunks = [lib.asarray(x[:250]), lib.asarray(x[250:])]
    plain = gmm.fit(lib.asarray(x), 2, init=[[1.0], [8.0]])
    streamed = gmm.fit(chunks, 2, init=[[1.0], [8.0]], sample_weight=lib.asarray(weight))
    units = np.stack([weight, np.ones_like(weight)])
    both = gmm.fit(lib.asarray(np.stack([x, x])), 2, init=[[1.0], [8.0]], sample_weight=lib.asarray(units))
    np.testing.assert_allclose(lib.to_numpy(streamed.means), lib.to_numpy(plain.means), rtol=1e-4, atol=1e-4)
    for place in (0, 1):
        np.testing.assert_allclose(lib.to_numpy(both.means)[place], lib.to_numpy(plain.means), rtol=1e-4, atol=1e-4)
        expected = float(plain.log_likelihood) * float(units[place, 0])
        assert float(both.log_likelihood[place]) == pytest.approx(expected, rel=1e-4)


def test_a_callback_sees_the_objective_in_the_unit_of_the_weights(eager_lib):
    seen, weight = [], np.full(N, 1e-300)
    fit = gmm.fit(
        eager_lib.asarray(_rows("float64")),
        2,
        n_init=2,
        rng=0,
        sample_weight=eager_lib.asarray(weight),
        callback=lambda _, fit: seen.append(max(float(fit.objective[0]), float(fit.objective[1]))),
    )
    assert seen[-1] == pytest.approx(float(fit.log_likelihood), rel=1e-12, abs=0)


def test_all_say_that_a_sum_of_weights_overflows(eager_lib):
    weight, counts = eager_lib.asarray(np.full(6, 1e308)), eager_lib.asarray(np.arange(6.0))
    for call in (
        lambda: poisson.fit(counts, 2, sample_weight=weight),
        lambda: binomial.fit(counts, 9, 2, sample_weight=weight),
        lambda: kmeans.fit(counts[:, None], 2, sample_weight=weight),
        lambda: gmm.fit(counts[:, None], 2, sample_weight=weight),
        lambda: multinomial.fit(counts[:, None] + eager_lib.asarray(np.ones((6, 2))), 2, sample_weight=weight),
    ):
        with pytest.raises(InputError, match="sum of sample_weight overflows"):
            call()


LENGTHS = [("float32", 1e-25), ("float32", 1e-30), ("float32", 1e25), ("float64", 1e-170), ("float64", 1e200)]


@pytest.mark.parametrize(("dtype", "unit"), LENGTHS)
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_clusters_do_not_depend_on_the_unit_of_length(lib, dtype, unit, offset):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(m, 1, (100, 2)) for m in (0, 10, -10)]) + offset
    x = (x * unit).astype(dtype)
    plain = x.astype(np.float64) / unit
    start = plain[[0, 100, 200]]
    expected = kmeans.fit(plain, 3, init=start)
    with pytest.warns(FitWarning, match="inertia is outside the range"):
        found = kmeans.fit(lib.asarray(x), 3, init=lib.asarray((start * unit).astype(dtype)))
    rtol = 1e-10 if dtype == "float64" else 1e-5
    assert bool(found.converged)
    np.testing.assert_array_equal(lib.to_numpy(found.labels), expected.labels)
    np.testing.assert_array_equal(lib.to_numpy(found.predict(lib.asarray(x))), expected.labels)
    scale = rtol * (1 + offset)
    np.testing.assert_allclose(lib.to_numpy(found.centroids) / unit, expected.centroids, atol=scale)
    distances = lib.to_numpy(found.transform(lib.asarray(x))).astype(np.float64) / unit
    np.testing.assert_allclose(distances, expected.transform(plain), rtol=rtol, atol=scale)


def test_squares_beyond_the_dtype_spoil_no_centroid_where_a_compiler_sees_no_unit():
    x = np.asarray([[1.0], [2.0], [10.0], [11.0]], "float32") * np.float32(1e20)
    centroids = jax.jit(lambda x: kmeans.fit(x, 2, init=x[::2], tol=1e-3).centroids)(x)
    assert np.isfinite(centroids).all()


@pytest.mark.parametrize("named", ["k-means++", "random"])
def test_drawn_starts_of_tiny_rows(lib, named):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(m, 1, (100, 2)) for m in (0, 10, -10)]).astype("float32")
    exact = x * np.float32(2.0**-84)
    expected = kmeans.fit(lib.asarray(x), 3, init=named, n_init=2, rng=0)
    with pytest.warns(FitWarning, match="inertia"):
        found = kmeans.fit(lib.asarray(exact), 3, init=named, n_init=2, rng=0)
    np.testing.assert_array_equal(lib.to_numpy(found.labels), lib.to_numpy(expected.labels))
    np.testing.assert_allclose(lib.to_numpy(found.centroids), lib.to_numpy(expected.centroids) * 2.0**-84, rtol=1e-5)


def test_an_inertia_that_the_dtype_holds_is_exact(lib):
    """Squares of rows near 1e-18 keep some digits of float32; the sum in a unit of its own keeps all."""
    x = np.asarray([[0.0], [1.0], [10.0], [11.0]], "float32") * np.float32(2.0**-62)
    found = kmeans.fit(lib.asarray(x), 2, init=lib.asarray(x[[0, 3]]), tol=1e-45)
    assert float(found.inertia) == 2.0**-124
    assert float(found.trace[-1]) == -(2.0**-124)
    np.testing.assert_array_equal(lib.to_numpy(found.assign(lib.asarray(x))[1]), np.full(4, 2.0**-126, "float32"))


def test_a_batch_and_a_stream_of_tiny_rows(lib):
    x = np.asarray([[0.0], [1.0], [10.0], [12.0]], "float32")
    tiny = x * np.float32(2.0**-84)
    start = np.stack([tiny, x])[:, [0, 3]]
    with pytest.warns(FitWarning, match="inertia"):
        both = kmeans.fit(lib.asarray(np.stack([tiny, x])), 2, init=lib.asarray(start))
    np.testing.assert_array_equal(lib.to_numpy(both.centroids)[0] * 2.0**84, [[0.5], [11.0]])
    np.testing.assert_array_equal(lib.to_numpy(both.centroids)[1], [[0.5], [11.0]])
    assert float(both.inertia[1]) == 2.5
    with pytest.warns(FitWarning, match="inertia"):
        found = kmeans.fit([lib.asarray(tiny[:1]), lib.asarray(tiny[1:])], 2, init=lib.asarray(start[0]))
    np.testing.assert_array_equal(lib.to_numpy(found.centroids) * 2.0**84, [[0.5], [11.0]])
    assert lib.to_numpy(found.labels).tolist() == [0, 0, 1, 1]


def test_rows_that_are_all_zero_need_no_unit(lib):
    found = kmeans.fit(lib.asarray(np.zeros((4, 2), "float32")), 1, rng=0)
    assert float(found.inertia) == 0


def test_a_choice_by_weights_that_sum_to_one_is_told(eager_lib):
    x, weight = eager_lib.asarray(_rows("float64")), np.full(N, 1 / N)
    weight[:10] = 0
    with pytest.warns(FitWarning, match=r"weights sum to 0.983 over 590 rows.*multiply them"):
        select.mixtures(x, range(1, 4), "diag", rng=0, sample_weight=eager_lib.asarray(weight))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choice = select.mixtures(x, range(1, 4), "diag", rng=0, sample_weight=eager_lib.asarray(N * weight))
    assert choice.best.n_components == 2
