"""Bad input: one of our errors, saying what was got, what was expected and what to do."""

import numpy as np
import pytest

from emroute import binomial, gmm, kmeans, multinomial, poisson
from emroute.errors import BackendError, EmrouteError, InputError, InputTypeError
from tests.helpers import NUMPY, library, rejected

pytestmark = pytest.mark.usefixtures("quick_compilation")

X = np.arange(12.0).reshape(6, 2) ** 1.5
HEADS = np.array([5, 9, 8, 4, 7])
COUNTS = np.array([[3, 1], [0, 4], [2, 2], [5, 0]])


def with_entry(value, row, *, at=X):
    changed = at.astype(np.float64)
    changed[(row, *(0,) * (at.ndim - 1))] = value
    return changed


def elsewhere(lib):
    """A library that is not `lib`."""
    return library("torch") if lib.name == "numpy" else NUMPY


IDENTITY = ((1, 0), (0, 1))


def starts(weights=(0.5, 0.5), means=((0, 0), (9, 9)), covariances=(IDENTITY, IDENTITY)):
    return tuple(np.asarray(part, dtype=np.float64) for part in (weights, means, covariances))


def given_mixture(lib):
    return gmm.GaussianMixture.from_parameters(*map(lib.asarray, starts()))


BAD_VALUES = {
    "NaN in the second row": (with_entry(np.nan, 1), ("NaN or infinity", "first in row 1")),
    "infinity in the last row": (with_entry(np.inf, 5), ("NaN or infinity", "first in row 5")),
    "minus infinity": (with_entry(-np.inf, 0), ("NaN or infinity", "first in row 0")),
    "no leading axis": (X[:, 0], ("got shapes [(6,)]", "expected (..., n, d)", "x[:, None]")),
    "a scalar": (np.float64(3.0), ("got shapes [()]", "expected (..., n, d)")),
    "no rows": (X[:0], ("no rows", "expected at least one")),
    "no features": (X[:, :0], ("(6, 0)", "at least one feature")),
    "fewer rows than components": (X[:2], ("got 2 rows", "=3", "at least as many rows")),
}


@pytest.mark.parametrize("name", BAD_VALUES)
@pytest.mark.parametrize("fit", [gmm.fit, kmeans.fit], ids=["gmm", "kmeans"])
def test_unusable_rows_are_refused(lib, fit, name):
    x, words = BAD_VALUES[name]
    rejected(lambda: fit(lib.asarray(x), 3, rng=0), InputError, *words)


@pytest.mark.parametrize("fit", [gmm.fit, kmeans.fit], ids=["gmm", "kmeans"])
def test_a_bad_row_of_a_batch_is_named_with_its_problem(lib, fit):
    x = np.stack([X, with_entry(np.nan, 4)])
    rejected(lambda: fit(lib.asarray(x), 2, rng=0), InputError, "NaN", "row 4", "problem (1,)")


@pytest.mark.parametrize("fit", [gmm.fit, kmeans.fit], ids=["gmm", "kmeans"])
def test_a_bad_row_of_a_stream_is_named_by_its_place_in_the_whole(lib, fit):
    chunks = [lib.asarray(X), lib.asarray(with_entry(np.nan, 2))]
    rejected(lambda: fit(chunks, 2, rng=0), InputError, "NaN", "row 8")


@pytest.mark.parametrize("fit", [gmm.fit, kmeans.fit], ids=["gmm", "kmeans"])
@pytest.mark.parametrize("dtype", ["int64", "int32", "bool", "complex128", "float16"])
def test_other_dtypes_than_float32_and_float64_are_refused(lib, fit, dtype):
    if (lib.name, dtype) == ("array_api_strict", "float16"):
        pytest.skip("array_api_strict has no float16")
    rejected(lambda: fit(lib.asarray(X, dtype), 2), InputTypeError, dtype, "float32 or float64", "convert")


@pytest.mark.parametrize("fit", [gmm.fit, kmeans.fit], ids=["gmm", "kmeans"])
@pytest.mark.parametrize("data", [X.tolist(), None, "iris.csv", 3], ids=["list", "None", "text", "number"])
def test_what_is_no_array_is_refused(fit, data):
    rejected(lambda: fit(data, 2), InputTypeError, "expected an array")


@pytest.mark.parametrize("fit", [gmm.fit, kmeans.fit, poisson.fit], ids=["gmm", "kmeans", "poisson"])
@pytest.mark.parametrize("frames", ["pandas", "polars"])
def test_frames_are_refused_with_the_remedy(fit, frames):
    frame = pytest.importorskip(frames).DataFrame({"a": [1.0, 2.0, 3.0], "b": [2.0, 4.0, 1.0]})
    rejected(lambda: fit(frame, 2), InputTypeError, "DataFrame", "expected an array", ".to_numpy()")
    rejected(lambda: fit(X, 2, sample_weight=frame["a"]), InputTypeError, "Series", ".to_numpy()")


@pytest.mark.parametrize("fit", [gmm.fit, kmeans.fit, poisson.fit], ids=["gmm", "kmeans", "poisson"])
def test_masks_are_not_passed_over(fit):
    rejected(lambda: fit(np.ma.masked_greater(X, 0.5), 2), InputTypeError, "masked array", "sample_weight 0")


def test_a_list_of_rows_is_no_source_of_chunks(lib):
    rows = [lib.asarray(row) for row in X]
    rejected(lambda: gmm.fit(rows, 2), InputError, f"shapes [({X.shape[1]},)]", "expected (n, d)", "stack")


def test_too_few_rows_of_many_problems_are_told_as_such(lib):
    rejected(lambda: gmm.fit(lib.asarray(X[:, None, :]), 2), InputError, "got 1 row in each of 6 problems")


def test_complex_counts_are_refused(lib):
    rejected(lambda: binomial.fit(lib.asarray(HEADS, "complex128"), 10, 2), InputTypeError, "complex128", "expected")
    rejected(lambda: poisson.fit(lib.asarray(COUNTS, "complex128"), 2), InputTypeError, "complex128", "expected")
    rejected(lambda: multinomial.fit(lib.asarray(COUNTS, "complex128"), 2), InputTypeError, "complex128", "expected")


IMPOSSIBLE_COINS = {
    "more heads than trials": (with_entry(11, 2, at=HEADS), 10, 2),
    "negative heads": (with_entry(-1, 1, at=HEADS), 10, 1),
    "heads not whole": (with_entry(2.5, 3, at=HEADS), 10, 3),
    "heads NaN": (with_entry(np.nan, 4, at=HEADS), 10, 4),
    "heads infinite": (with_entry(np.inf, 0, at=HEADS), 10, 0),
    "negative trials": (with_entry(0, 1, at=HEADS), np.array([10, -1, 10, 10, 10.0]), 1),
    "trials not whole": (HEADS.astype(float), np.array([10, 10, 10.5, 10, 10]), 2),
}


@pytest.mark.parametrize("name", IMPOSSIBLE_COINS)
def test_impossible_coins_are_refused_by_row(lib, name):
    heads, trials, row = IMPOSSIBLE_COINS[name]
    trials = trials if isinstance(trials, int) else lib.asarray(trials)
    words = ("whole numbers with 0 <= heads <= trials", f"first in row {row}")
    rejected(lambda: binomial.fit(lib.asarray(heads), trials, 2, rng=0), InputError, *words)


def test_impossible_integer_coins_are_refused_by_row(lib):
    trials = lib.asarray(np.array([10, 10, 7, 10, 10]))
    rejected(lambda: binomial.fit(lib.asarray(HEADS), trials, 2, rng=0), InputError, "first in row 2")


@pytest.mark.parametrize("fit", [multinomial.fit, poisson.fit], ids=["multinomial", "poisson"])
@pytest.mark.parametrize("value", [-1, 0.5, np.nan, np.inf])
def test_impossible_counts_are_refused_by_row(lib, fit, value):
    x = lib.asarray(with_entry(value, 2, at=COUNTS))
    rejected(lambda: fit(x, 2, rng=0), InputError, "whole numbers that are not negative", "first in row 2")


@pytest.mark.parametrize("k", [0, -1, 1.5, "two", None, True])
def test_a_number_of_components_that_counts_nothing_is_refused(k):
    for fit in (gmm.fit, multinomial.fit, poisson.fit):
        rejected(lambda fit=fit: fit(COUNTS * 1.0, k), InputError, f"n_components={k!r}", "integer of at least 1")
    rejected(lambda: binomial.fit(HEADS, 10, k), InputError, f"n_components={k!r}", "integer of at least 1")
    rejected(lambda: kmeans.fit(X, k), InputError, f"n_clusters={k!r}", "integer of at least 1")


FITS = {
    "gmm": lambda lib, **options: gmm.fit(lib.asarray(X), 2, **options),
    "kmeans": lambda lib, **options: kmeans.fit(lib.asarray(X), 2, **options),
    "binomial": lambda lib, **options: binomial.fit(lib.asarray(np.arange(6.0)), 10, 2, **options),
    "multinomial": lambda lib, **options: multinomial.fit(lib.asarray(np.floor(X)), 2, **options),
    "poisson": lambda lib, **options: poisson.fit(lib.asarray(np.floor(X)), 2, **options),
}

BAD_WEIGHTS = {
    "negative": (np.array([1, 1, -1, 1, 1, 1.0]), InputError, ("negative or non-finite", ">= 0")),
    "NaN": (np.array([1, 1, np.nan, 1, 1, 1.0]), InputError, ("negative or non-finite",)),
    "infinite": (np.array([1, 1, np.inf, 1, 1, 1.0]), InputError, ("negative or non-finite",)),
    "all zero": (np.zeros(6), InputError, ("zero everywhere", "positive")),
    "too few": (np.ones(5), InputError, ("6", "5", "expected equal numbers")),
    "too many": (np.ones(7), InputError, ("6", "7", "expected equal numbers")),
    "scalar": (np.ones(()), InputError, ("scalar sample_weight", "one weight per row")),
    "complex": (np.ones(6, np.complex128), InputTypeError, ("sample_weight has dtype", "complex128", "float64")),
    "another precision": (np.ones(6, np.float32), InputTypeError, ("sample_weight has dtype", "float32", "float64")),
}


@pytest.mark.parametrize("name", BAD_WEIGHTS)
@pytest.mark.parametrize("family", FITS)
def test_unusable_weights_are_refused(lib, family, name):
    weight, kind, words = BAD_WEIGHTS[name]
    rejected(lambda: FITS[family](lib, sample_weight=lib.asarray(weight)), kind, *words)


@pytest.mark.parametrize("family", FITS)
def test_weights_of_another_library_are_refused(lib, family):
    other = elsewhere(lib)
    call = lambda: FITS[family](lib, sample_weight=other.asarray(np.ones(6)))  # noqa: E731
    rejected(call, InputTypeError, other.name, lib.name.partition("-")[0], "convert")


@pytest.mark.parametrize("family", FITS)
def test_weights_in_a_list_are_refused(lib, family):
    rejected(lambda: FITS[family](lib, sample_weight=[1.0] * 6), InputTypeError, "list", "expected an array", "convert")


def test_heads_and_trials_of_two_libraries_are_refused(lib):
    other = elsewhere(lib)
    call = lambda: binomial.fit(lib.asarray(HEADS), other.asarray(0 * HEADS + 10), 2)  # noqa: E731
    rejected(call, InputTypeError, other.name, lib.name.partition("-")[0], "convert")


def test_a_start_of_another_library_is_refused(lib):
    init = elsewhere(lib).asarray(X[:2])
    rejected(lambda: gmm.fit(lib.asarray(X), 2, init=init), InputTypeError, "two libraries", "convert")
    rejected(lambda: kmeans.fit(lib.asarray(X), 2, init=init), InputTypeError, "two libraries", "convert")


def test_scoring_data_of_another_library_is_refused(lib):
    mixture, clusters = given_mixture(lib), FITS["kmeans"](lib, init=X[:2].tolist())
    other = elsewhere(lib)
    for method in (mixture.log_prob, mixture.predict, mixture.score, clusters.predict, clusters.transform):
        rejected(lambda method=method: method(other.asarray(X)), InputTypeError, other.name, "libraries", "convert")


@pytest.mark.parametrize("family", ["gmm", "kmeans"])
def test_arrays_on_two_devices_are_refused(family):
    for name, device in (("torch", "meta"), ("array_api_strict", "device1")):
        lib = library(name)
        if name == "array_api_strict":
            device = lib.module.Device(device)
        weight = lib.module.ones(6, dtype=lib.module.float64, device=device)
        call = lambda lib=lib, weight=weight: FITS[family](lib, sample_weight=weight)  # noqa: E731
        rejected(call, InputTypeError, "two devices", "move one")


BAD_OPTIONS = {
    "an unknown start": ({"init": "kmeans"}, ("init='kmeans'", "'k-means++'", "'random'")),
    "no restarts": ({"n_init": 0}, ("n_init=0", "at least 1")),
    "half a restart": ({"n_init": 1.5}, ("n_init=1.5", "integer")),
    "negative tol": ({"tol": -1e-3}, ("tol=-0.001", "at least 0")),
    "tol not a number": ({"tol": float("nan")}, ("tol=nan", "at least 0")),
    "negative max_iter": ({"max_iter": -1}, ("max_iter=-1", "at least 0")),
    "max_iter not whole": ({"max_iter": 2.5}, ("max_iter=2.5", "integer")),
    "no chunk": ({"chunk_size": 0}, ("chunk_size=0", "at least 1")),
    "negative chunk": ({"chunk_size": -5}, ("chunk_size=-5", "at least 1")),
    "rng of no kind": ({"rng": "dice"}, ("rng='dice'", "seed")),
    "negative seed": ({"rng": -1}, ("rng=-1", "seed")),
    "max_iter in words": ({"max_iter": "ten"}, ("max_iter='ten'", "integer")),
    "tol in words": ({"tol": "small"}, ("tol='small'", "at least 0")),
    "chunk in words": ({"chunk_size": "big"}, ("chunk_size='big'", "at least 1")),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
@pytest.mark.parametrize("family", FITS)
def test_unknown_option_values_are_refused(lib, family, name):
    options, words = BAD_OPTIONS[name]
    rejected(lambda: FITS[family](lib, **options), InputError, *words)


def test_an_unknown_covariance_type_is_refused(lib):
    words = ("covariance_type='diagonal'", "'full'", "'tied'", "'diag'", "'spherical'")
    rejected(lambda: FITS["gmm"](lib, covariance_type="diagonal"), InputError, *words)


@pytest.mark.parametrize("floor", [-1e-6, float("nan"), float("inf"), "low"])
def test_a_floor_that_is_no_share_is_refused(lib, floor):
    rejected(lambda: FITS["gmm"](lib, covariance_floor=floor), InputError, f"covariance_floor={floor!r}", "at least 0")


def test_restarts_of_a_given_start_are_refused(lib):
    for family in ("gmm", "kmeans"):
        call = lambda family=family: FITS[family](lib, init=X[:2].tolist(), n_init=4)  # noqa: E731
        rejected(call, InputError, "n_init=4", "every restart would be the same")


BAD_GAUSSIAN_STARTS = {
    "means too few": (X[:1], ("starting means", "(1, 2)", "(..., 2, 2)")),
    "means too wide": (np.zeros((2, 3)), ("starting means", "(2, 3)", "(..., 2, 2)")),
    "means NaN": (with_entry(np.nan, 0, at=X[:2]), ("starting means", "NaN", "finite")),
    "means in words": ([["a", "b"], ["c", "d"]], ("starting means", "numbers")),
    "two parts": (starts()[:2], ("2 parts", "(weights, means, covariances)")),
    "weights of another length": (starts(weights=(0.2, 0.3, 0.5)), ("weights", "(3,)", "(..., 2)")),
    "negative weight": (starts(weights=(-0.5, 1.5)), ("weights", "not be negative")),
    "weights that do not sum to 1": (starts(weights=(0.5, 0.6)), ("weights", "sum to 1")),
    "covariances of another shape": (starts(covariances=np.ones((2, 2))), ("covariances", "(2, 2)", "(..., 2, 2, 2)")),
    "a covariance with a negative eigenvalue": (
        starts(covariances=(IDENTITY, [[1, 2], [2, 1]])),
        ("positive definite", "identity"),
    ),
    "a singular covariance": (starts(covariances=(IDENTITY, np.zeros((2, 2)))), ("positive definite", "identity")),
    "a skew covariance": (starts(covariances=(IDENTITY, [[1, 0.5], [0, 1]])), ("symmetric",)),
    "a covariance NaN": (starts(covariances=(IDENTITY, [[np.nan, 0], [0, 1]])), ("covariances", "NaN", "finite")),
}


@pytest.mark.parametrize("name", BAD_GAUSSIAN_STARTS)
def test_unusable_gaussian_starts_are_refused(lib, name):
    init, words = BAD_GAUSSIAN_STARTS[name]
    if isinstance(init, tuple):
        init = tuple(map(lib.asarray, init))
    elif isinstance(init, np.ndarray):
        init = lib.asarray(init)
    rejected(lambda: FITS["gmm"](lib, init=init), InputError, *words)


@pytest.mark.parametrize(
    ("covariance_type", "covariances"),
    [("tied", [[1, 2], [2, 1]]), ("diag", [[1, 1], [1, -1]]), ("spherical", [1, 0])],
)
def test_starting_covariances_of_every_type_must_be_positive_definite(lib, covariance_type, covariances):
    init = tuple(map(lib.asarray, starts(covariances=covariances)))
    call = lambda: FITS["gmm"](lib, init=init, covariance_type=covariance_type)  # noqa: E731
    rejected(call, InputError, "positive definite", "add")


BAD_STARTS = {
    "centroids too few": ("kmeans", X[:1], ("starting centroids", "(1, 2)", "(..., 2, 2)")),
    "centroids infinite": ("kmeans", with_entry(np.inf, 0, at=X[:2]), ("starting centroids", "NaN or infinity")),
    "coins too many": ("binomial", np.array([0.1, 0.2, 0.3]), ("probs", "(3,)", "(..., 2)")),
    "coins above 1": ("binomial", np.array([0.5, 1.5]), ("probs", "between 0 and 1")),
    "coins NaN": ("binomial", np.array([0.5, np.nan]), ("probs", "NaN")),
    "three parts": ("binomial", (np.ones(2) / 2, np.ones(2) / 2, np.ones(2)), ("3 parts", "(weights, probs)")),
    "categories too few": ("multinomial", np.ones((2, 1)), ("probs", "(2, 1)", "(..., 2, 2)")),
    "negative shares": ("multinomial", np.array([[1.5, -0.5], [0.5, 0.5]]), ("probs", "not be negative")),
    "shares that do not sum to 1": ("multinomial", np.full((2, 2), 0.6), ("probs", "sum to 1")),
    "rates of another shape": ("poisson", np.ones((2, 3)), ("rates", "(2, 3)", "(..., 2, 2)")),
    "negative rates": ("poisson", -np.ones((2, 2)), ("rates", "not be negative")),
}


@pytest.mark.parametrize("name", BAD_STARTS)
def test_unusable_starts_are_refused(lib, name):
    family, init, words = BAD_STARTS[name]
    init = tuple(map(lib.asarray, init)) if isinstance(init, tuple) else lib.asarray(init)
    rejected(lambda: FITS[family](lib, init=init), InputError, *words)


@pytest.mark.parametrize("family", ["binomial", "multinomial", "poisson"])
@pytest.mark.parametrize(
    ("weights", "words"),
    [([0.5, 0.6], ("sum to 1",)), ([1.5, -0.5], ("negative",)), ([1.0], ("(1,)", "(..., 2)"))],
    ids=["sum", "sign", "length"],
)
def test_unusable_fixed_weights_are_refused(lib, family, weights, words):
    rejected(lambda: FITS[family](lib, weights=weights), InputError, "weights", *words)


def test_labels_that_cannot_be_counted_are_refused(lib):
    heads = lib.asarray(HEADS)

    def count(labels, k=2):
        return lambda: binomial.fit_complete(heads, 10, lib.asarray(labels), k)

    rejected(count([0, 0, 1, 0, 2]), InputError, "labels", "0 to 1")
    rejected(count([0, 0, -1, 0, 1]), InputError, "labels", "0 to 1")
    rejected(count([0, 0, 1, 0]), InputError, "labels", "(4,)", "(5,)")
    rejected(count([0.0, 0, 1, 0, 1]), InputError, "labels", "float64", "integers")
    rejected(count([0, 0, 0, 0, 0]), InputError, "every component needs at least one observation")


# Sources of chunks


@pytest.mark.parametrize("family", ["gmm", "kmeans"])
def test_a_source_that_can_be_read_only_once_is_refused(lib, family):
    chunks = [lib.asarray(X)]
    fit = {"gmm": gmm.fit, "kmeans": kmeans.fit}[family]
    for source in ((chunk for chunk in chunks), iter(chunks), reversed(chunks)):
        rejected(lambda source=source: fit(source, 2), InputError, "read only once", "list of chunks")


def test_coins_that_can_be_read_only_once_are_refused(lib):
    heads = lib.asarray(HEADS)
    rejected(lambda: binomial.fit(((h, h) for h in [heads]), None, 2), InputError, "read only once", "list of chunks")


BAD_CHUNKS = {
    "none": ([], ("empty", "at least one chunk")),
    "another width": ([X, np.ones((4, 3))], ("chunk 1", "alike")),
    "another dtype": ([X, X.astype(np.float32)], ("chunk 1", "alike")),
    "another rank": ([X, X[:, 0]], ("chunk 1", "alike")),
    "rows without features": ([X[:, 0]], ("expected (n, d)",)),
    "fewer rows than components": ([X[:1], X[:1]], ("got 2 rows", "at least as many rows")),
}


@pytest.mark.parametrize("name", BAD_CHUNKS)
@pytest.mark.parametrize("fit", [gmm.fit, kmeans.fit], ids=["gmm", "kmeans"])
def test_chunks_that_cannot_be_used_are_refused(lib, fit, name):
    chunks, words = BAD_CHUNKS[name]
    rejected(lambda: fit([lib.asarray(chunk) for chunk in chunks], 3), InputError, *words)


@pytest.mark.parametrize("fit", [gmm.fit, kmeans.fit], ids=["gmm", "kmeans"])
def test_chunks_of_two_libraries_are_refused(lib, fit):
    chunks = [lib.asarray(X), elsewhere(lib).asarray(X)]
    rejected(lambda: fit(chunks, 2, rng=0), EmrouteError)


@pytest.mark.parametrize("n_weights", [6, 11, 13])
@pytest.mark.parametrize("fit", [gmm.fit, kmeans.fit], ids=["gmm", "kmeans"])
def test_weights_of_another_length_than_the_stream_are_refused(lib, fit, n_weights):
    chunks, weight = [lib.asarray(X), lib.asarray(X)], lib.asarray(np.ones(n_weights))
    rejected(lambda: fit(chunks, 2, sample_weight=weight), InputError, "sample_weight", str(n_weights), "12")


class RunsDry:
    """A source that gives its rows in the first passes only."""

    def __init__(self, chunk, passes):
        self.chunk, self.passes = chunk, passes

    def __iter__(self):
        self.passes -= 1
        return iter([self.chunk] if self.passes >= 0 else [])


@pytest.mark.parametrize("passes", range(1, 6))
def test_a_source_that_runs_dry_is_refused(lib, passes):
    source = RunsDry(lib.asarray(X), passes)
    rejected(lambda: gmm.fit(source, 2, init=X[:2].tolist(), max_iter=9, tol=0), InputError, "row")


# Scoring and files


def test_scoring_rows_that_do_not_fit_the_mixture_are_refused(lib):
    mixture, clusters = given_mixture(lib), FITS["kmeans"](lib, init=X[:2].tolist())
    for method in (mixture.log_prob, mixture.responsibilities, mixture.predict, mixture.bic, clusters.predict):
        call = lambda x, method=method: lambda: method(lib.asarray(x))  # noqa: E731
        rejected(call(np.ones((4, 3))), InputError, "3 features", "2")
        rejected(call(np.ones(4)), InputError, "(4,)", "(..., n, d)")
        rejected(call(X.astype(np.float32)), InputTypeError, "float64", "float32")
        rejected(call(np.ones((4, 2), np.int64)), InputTypeError, "int64", "float32 or float64")
    rejected(lambda: mixture.score([lib.asarray(X)]), InputTypeError, "source of chunks", "each chunk")
    short = lib.asarray(np.ones(3))
    rejected(lambda: mixture.bic(lib.asarray(X), sample_weight=short), InputError, "[6, 3] rows")


def test_scoring_impossible_counts_is_refused(lib):
    coins = FITS["binomial"](lib, init=lib.asarray([0.2, 0.6]))
    rejected(lambda: coins.log_prob(lib.asarray([3.0, 12.0]), 10), InputError, "heads <= trials", "row 1")
    rates = FITS["poisson"](lib, init=lib.asarray([[1.0, 2.0], [3.0, 4.0]]))
    rejected(lambda: rates.log_prob(lib.asarray([[1.0, 2.0], [1.0, -2.0]])), InputError, "not negative", "row 1")


def test_a_sample_of_no_rows_is_refused(lib):
    rejected(lambda: given_mixture(lib).sample(0), InputError, "n=0", "at least 1")


def test_files_that_hold_no_mixture_are_refused(tmp_path):
    mixture = FITS["gmm"](NUMPY, init=X[:2].tolist())
    rejected(lambda: mixture.save(tmp_path / "m.pkl"), InputError, "'.pkl'", "'.npz'", "'.safetensors'")
    mixture.save(tmp_path / "m.npz")
    words = ("m.npz", "GaussianMixture", "expected a PoissonMixture")
    rejected(lambda: poisson.PoissonMixture.load(tmp_path / "m.npz"), InputError, *words)
    np.savez(tmp_path / "other.npz", x=X)
    rejected(lambda: gmm.GaussianMixture.load(tmp_path / "other.npz"), InputError, "other.npz", "not a mixture")
    for name in ("text.npz", "text.safetensors"):
        (tmp_path / name).write_text("nothing of the kind")
        rejected(lambda name=name: gmm.GaussianMixture.load(tmp_path / name), InputError, name, "not a mixture")


def test_a_pickle_is_never_opened(tmp_path):
    np.savez(tmp_path / "evil.npz", emroute=np.array([{"kind": "GaussianMixture"}], dtype=object))
    rejected(lambda: gmm.GaussianMixture.load(tmp_path / "evil.npz"), InputError, "evil.npz", "not a mixture")


def test_an_array_without_backend_is_refused():
    class Foreign:
        shape, dtype, ndim = (6, 2), "float64", 2

    rejected(lambda: gmm.fit(Foreign(), 2), BackendError, "no backend", "Foreign", "plug-in")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_to_be_scored_must_be_finite(lib, value):
    x = lib.asarray(with_entry(value, 2))
    for method in (
        given_mixture(lib).predict,
        given_mixture(lib).log_prob,
        kmeans.fit(lib.asarray(X), 2, rng=0).transform,
    ):
        rejected(lambda method=method: method(x), InputError, "NaN or infinity", "first in row 2")


def test_clusters_take_rows_not_chunks(lib):
    clusters = FITS["kmeans"](lib, init=X[:2].tolist())
    rejected(lambda: clusters.predict([lib.asarray(X)]), InputTypeError, "source of chunks", "each chunk")


def test_batches_that_do_not_fit_each_other_are_refused(lib):
    two, three = lib.asarray(np.stack([X, X])), np.stack([X[:2]] * 3)
    weight = lib.asarray(np.ones((3, 6)))
    for fit in (gmm.fit, kmeans.fit):
        rejected(lambda fit=fit: fit(two, 2, init=lib.asarray(three)), InputError, "(3,)", "(2,)", "do not broadcast")
        rejected(lambda fit=fit: fit(two, 2, sample_weight=weight), InputError, "(2,)", "(3,)", "do not broadcast")
    for part in range(3):
        init = [lib.asarray(x) for x in starts()]
        init[part] = lib.asarray(np.stack([starts()[part]] * 3))
        rejected(lambda init=init: gmm.fit(two, 2, init=tuple(init)), InputError, "(3,)", "(2,)", "do not broadcast")
    fitted = gmm.fit(two, 2, init=X[:2].tolist(), max_iter=1)
    rejected(lambda: fitted.log_prob(lib.asarray(np.stack([X] * 3))), InputError, "(2,)", "(3,)", "batch")


def test_rows_whose_variance_overflows_are_refused(lib):
    huge = lib.asarray(np.array([[-1e200], [0.0], [1e200]]))
    rejected(lambda: gmm.fit(huge, 2), InputError, "variance", "overflows", "scale")


def test_chunks_of_heads_and_trials_must_be_of_one_length(lib):
    heads, trials = lib.asarray(HEADS), lib.asarray(0 * HEADS + 10)
    source = [(heads, trials), (heads, trials[:3])]
    rejected(lambda: binomial.fit(source, None, 2, init=[0.2, 0.8]), InputError, "chunk 1", "[5, 3]", "equal")


def test_no_array_at_all_is_refused():
    rejected(lambda: gmm.fit((), 2), InputError, "empty tuple", "at least one array")


def test_starts_and_scored_weights_of_other_kinds_are_refused(lib):
    start = lib.asarray(X[:2], "complex128")
    rejected(lambda: gmm.fit(lib.asarray(X), 2, init=start), InputTypeError, "complex128", "real numbers")
    scored = given_mixture(lib)
    rejected(lambda: scored.bic(lib.asarray(X), sample_weight=lib.asarray(-np.ones(6))), InputError, "negative")


def test_binomial_methods_take_heads_and_trials():
    fitted = binomial.fit(HEADS, 10, 2, rng=0)
    rejected(lambda: fitted.predict(HEADS), InputTypeError, "got 1", "heads and trials")
    rejected(lambda: binomial.fit(HEADS, None, 2), InputTypeError, "trials=None")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"not a file of arrays"])
def test_a_damaged_file_is_no_mixture(tmp_path, content):
    (tmp_path / "mixture.npz").write_bytes(content)
    rejected(lambda: gmm.GaussianMixture.load(tmp_path / "mixture.npz"), InputError, "not a mixture")
