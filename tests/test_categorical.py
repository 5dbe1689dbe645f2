"""Latent class models: published values, the equations written out, gaps, smoothing, and input that is refused."""

import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from emroute import categorical
from emroute.errors import FitWarning, InputError, InputTypeError
from tests.helpers import NUMPY, rejected

pytestmark = pytest.mark.usefixtures("quick_compilation")

# four items of Stouffer and Toby (1951): the 16 patterns, and how many of 216 people gave each
PATTERNS = np.asarray([[i >> j & 1 for j in (3, 2, 1, 0)] for i in range(16)], dtype=float)
COUNTS = np.asarray([20.0, 2, 9, 2, 6, 1, 4, 1, 38, 7, 24, 6, 25, 6, 23, 42])
EXACT = {"tol": 0.0, "max_iter": 5000}


def estimate(x, shares, categories, smoothing=0.0):
    """The M-step, counted one entry at a time."""
    probs = []
    for j, c in enumerate(categories):
        counts = np.full((shares.shape[1], c), smoothing)
        for row, share in zip(x[:, j], shares, strict=True):
            if row >= 0:
                counts[:, int(row)] += share
        probs.append(counts / counts.sum(axis=1, keepdims=True))
    return shares.sum(axis=0) / shares.sum(), probs


def joint(x, weights, probs):
    """log w_k p(x | k), one entry at a time."""
    table = np.tile(np.log(weights), (len(x), 1))
    for j, item in enumerate(probs):
        for i, row in enumerate(x[:, j]):
            if row >= 0:
                table[i] += np.log(item[:, int(row)])
    return table


def given_start(lib):
    """The start of the published figures: .9 for class 0 where the answers add to 2 or more, else .1."""
    shares = np.where(PATTERNS.sum(axis=1) >= 2, 0.9, 0.1)
    shares = np.stack([shares, 1 - shares], axis=1) * COUNTS[:, None]
    weights, probs = estimate(PATTERNS, shares, (2,) * 4)
    return lib.asarray(weights), [lib.asarray(item) for item in probs]


def test_the_published_figures_of_stouffer_and_toby(lib):
    """Of poLCA; the log-likelihood after the start to ten digits."""
    x, counts = lib.asarray(PATTERNS), lib.asarray(COUNTS)
    fitted = categorical.fit(x, 2, sample_weight=counts, init=given_start(lib), **EXACT)
    assert float(fitted.trace[0]) == pytest.approx(-515.52330275, abs=1e-8)
    assert float(fitted.log_likelihood) == pytest.approx(-504.46767012, abs=1e-8)
    assert float(fitted.bic(x, sample_weight=counts)) == pytest.approx(1057.313, abs=5e-4)
    np.testing.assert_allclose(lib.to_numpy(fitted.weights), [0.27924646, 0.72075354], atol=1e-6)
    ones = [lib.to_numpy(item)[0, 1] for item in fitted.probs]
    np.testing.assert_allclose(ones, [0.99319323, 0.93976415, 0.92653061, 0.76913165], atol=1e-6)


def test_other_numbers_of_classes_of_stouffer_and_toby():
    one = categorical.fit(PATTERNS, 1, sample_weight=COUNTS)
    three = categorical.fit(PATTERNS, 3, sample_weight=COUNTS, n_init=2, rng=1, tol=1e-9, max_iter=10000)
    assert float(one.log_likelihood) == pytest.approx(-543.649825, abs=1e-6)
    assert float(three.log_likelihood) == pytest.approx(-503.301, abs=1e-3)


CATEGORIES = (2, 3, 4)
RNG = np.random.default_rng(4)
ANSWERS = np.stack([RNG.integers(0, c, 40) for c in CATEGORIES], axis=-1).astype(float)
ANSWERS[RNG.random(ANSWERS.shape) < 0.2] = -1
START = (np.asarray([0.4, 0.6]), [RNG.dirichlet(np.ones(c), 2) for c in CATEGORIES])


@pytest.mark.parametrize("smoothing", [0.0, 0.7])
def test_iterations_follow_the_equations_and_skip_gaps(lib, smoothing):
    (weights, probs), trace = START, []
    for _ in range(4):
        table = joint(ANSWERS, weights, probs)
        prior = smoothing * sum(np.log(item).sum() for item in probs)
        trace.append(logsumexp(table, axis=1).sum() + prior)
        shares = np.exp(table - logsumexp(table, axis=1, keepdims=True))
        weights, probs = estimate(ANSWERS, shares, CATEGORIES, smoothing)
    init = (lib.asarray(START[0]), [lib.asarray(item) for item in START[1]])
    fitted = categorical.fit(
        lib.asarray(ANSWERS), 2, n_categories=CATEGORIES, smoothing=smoothing, init=init, tol=0, max_iter=4
    )
    np.testing.assert_allclose(lib.to_numpy(fitted.trace)[:4], trace, rtol=1e-12)
    np.testing.assert_allclose(lib.to_numpy(fitted.weights), weights, rtol=1e-10)
    for ours, theirs in zip(fitted.probs, probs, strict=True):
        np.testing.assert_allclose(lib.to_numpy(ours), theirs, rtol=1e-10)
    table = joint(ANSWERS, weights, probs)
    np.testing.assert_allclose(lib.to_numpy(fitted.log_prob(lib.asarray(ANSWERS))), logsumexp(table, axis=1), rtol=1e-9)
    assert float(fitted.log_likelihood) == pytest.approx(logsumexp(table, axis=1).sum(), rel=1e-12)


@settings(max_examples=15)
@given(st.integers(0, 2**31), st.sampled_from([0.0, 0.3, 2.0]), st.booleans())
def test_the_objective_never_falls(seed, smoothing, weighted):
    rng = np.random.default_rng(seed)
    x = np.stack([rng.integers(-1, c, 30) for c in (2, 5, 3)], axis=-1)
    weight = rng.uniform(0, 5, 30) if weighted else None
    fitted = categorical.fit(x, 3, smoothing=smoothing, sample_weight=weight, rng=0, tol=1e-12, max_iter=200)
    steps = np.diff(fitted.trace[np.isfinite(fitted.trace)])
    assert steps.min(initial=0) > -1e-10 * abs(float(fitted.trace[0]))


def test_gaps_may_be_not_a_number_and_say_nothing():
    gaps = np.where(ANSWERS < 0, np.nan, ANSWERS)
    ours, theirs = (categorical.fit(x, 2, rng=0, n_init=2).probs for x in (gaps, ANSWERS))
    np.testing.assert_array_equal(ours[2], theirs[2])
    mixture = categorical.CategoricalMixture.from_parameters(*START)
    assert float(mixture.log_prob(np.full((1, 3), -1.0))[0]) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "float32"])
def test_any_real_dtype_is_taken(eager_lib, dtype):
    lib = eager_lib
    fitted = categorical.fit(lib.asarray(PATTERNS, dtype), 2, rng=0)
    expected = categorical.fit(PATTERNS, 2, rng=0)
    np.testing.assert_allclose(lib.to_numpy(fitted.probs[1]), expected.probs[1], atol=1e-3)


def test_streams_batches_and_files(tmp_path):
    whole = categorical.fit(ANSWERS, 2, rng=0)
    chunks = categorical.fit([ANSWERS[:13], ANSWERS[13:]], 2, rng=0, init=(whole.weights, [*whole.probs]))
    assert float(chunks.trace[0]) == pytest.approx(float(whole.log_likelihood), rel=1e-12)
    both = categorical.fit(np.stack([ANSWERS, ANSWERS[::-1]]), 2, rng=0)
    assert [item.shape for item in both.probs] == [(2, 2, c) for c in CATEGORIES]
    whole.save(tmp_path / "classes.npz")
    again = categorical.CategoricalMixture.load(tmp_path / "classes.npz")
    np.testing.assert_array_equal(again.log_prob(ANSWERS), whole.log_prob(ANSWERS))
    assert again.n_parameters == 1 + 2 * (1 + 2 + 3)


def test_a_sample_has_the_mixtures_shares():
    mixture = categorical.CategoricalMixture.from_parameters(*START)
    x, labels = mixture.sample(20000, rng=0)
    for j, item in enumerate(mixture.probs):
        for k in range(2):
            shares = np.bincount(x[labels == k, j].astype(int), minlength=item.shape[1]) / (labels == k).sum()
            np.testing.assert_allclose(shares, item[k], atol=0.02)


def test_what_cannot_be_fitted_is_refused():
    fit, x = categorical.fit, ANSWERS
    rejected(lambda: fit(x + 0.5, 2), InputError, "whole numbers", "first in row 0")
    rejected(lambda: fit(x, 2, n_categories=(2, 2, 2)), InputError, "out of its range")
    rejected(lambda: fit(x - 1, 2), InputError, "first in row")
    rejected(lambda: fit(x[:, 0], 2), InputError, "expected (..., n, d)")
    rejected(lambda: fit(x.astype(str), 2), InputTypeError, "dtype")
    rejected(lambda: fit(x, 2, n_categories=0), InputError, "n_categories=0")
    rejected(lambda: fit(x, 2, smoothing=-1), InputError, "smoothing=-1")
    rejected(lambda: fit(x, 2, n_categories=CATEGORIES, init=START[1][:2]), InputError, "2 items", "expected 3")
    zero = [np.asarray([[1.0, 0.0], [0.5, 0.5]]), *START[1][1:]]
    rejected(
        lambda: fit(x, 2, n_categories=CATEGORIES, init=zero, smoothing=1), InputError, "probs[0] must be positive"
    )
    rejected(
        lambda: categorical.CategoricalMixture.from_parameters(*START).log_prob(x[:, :2]), InputError, "2 features"
    )


def test_data_numbered_from_one_are_told_of():
    with pytest.warns(FitWarning, match=r"category 0 of items \[0, 1, 2, 3\]; subtract 1"):
        categorical.fit(PATTERNS + 1, 2, sample_weight=COUNTS, rng=0)


def test_chunks_are_not_kept_to_count_categories():
    made = []

    class Chunks:
        def __iter__(self):
            for _ in range(20):
                chunk = PATTERNS.copy()
                made.append(weakref.ref(chunk))
                assert sum(chunk() is not None for chunk in made) <= 5
                yield chunk

    categorical.fit(Chunks(), 2, rng=0, max_iter=2, tol=1)


def test_a_category_that_no_class_has_is_impossible(lib):
    probs = [lib.asarray([[1.0, 0.0], [1.0, 0.0]]), lib.asarray([[1.0, 0.0], [0.5, 0.5]])]
    mixture = categorical.CategoricalMixture.from_parameters(lib.asarray([0.5, 0.5]), probs)
    found = lib.to_numpy(mixture.log_prob(lib.asarray([[1.0, 0], [0, 1], [0, 0]])))
    np.testing.assert_allclose(found, [-np.inf, np.log(0.25), np.log(0.75)], rtol=1e-12)


def test_inside_jit_the_categories_must_be_given():
    jax = pytest.importorskip("jax")
    x = jax.numpy.asarray(ANSWERS)
    rejected(lambda: jax.jit(lambda x: categorical.fit(x, 2, rng=0).weights)(x), InputError, "give n_categories")
    found = jax.jit(lambda x: categorical.fit(x, 2, n_categories=CATEGORIES, rng=0, max_iter=5).log_likelihood)(x)
    expected = categorical.fit(ANSWERS, 2, rng=0, max_iter=5, tol=0).log_likelihood
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    assert NUMPY.owns(expected)


def test_counts_of_categories_that_cannot_be_are_refused():
    x = ANSWERS
    rejected(lambda: categorical.fit(np.full((9, 1), 2_000_000_000), 2), InputError, "identifier")
    rejected(lambda: categorical.fit(x, 2, n_categories=[3, 3]), InputError, "2 entries", "3 items")
    rejected(lambda: categorical.fit([x[:9], x[9:, :2]], 2), InputError, "[2, 3] items")
    rejected(lambda: categorical.fit(x[:, :0], 2), InputError, "at least one item")
    rejected(lambda: categorical.fit(x, 2, init=None), InputError, "init=None")
    rejected(lambda: categorical.fit(None, 2), InputTypeError, "NoneType")
    assert categorical.fit(x, 2, n_categories=np.int64(4), rng=0).probs[0].shape == (2, 4)
