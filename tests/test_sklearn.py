"""The estimators: scikit-learn's checks and its fits, arrays and frames of every kind, what surrounds an estimator."""

import inspect
import os
import pickle
import re
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from scipy.sparse import csr_array, csr_matrix, random_array
from sklearn import cluster, datasets, mixture
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from emroute import gmm, kmeans
from emroute import sklearn as estimators
from emroute.datasets import faithful
from emroute.errors import InputError, InputTypeError
from emroute.sklearn import BinomialMixture, GaussianMixture, KMeans, MultinomialMixture, PoissonMixture
from tests.helpers import COVARIANCE_TYPES, clusters, rejected

pytestmark = pytest.mark.usefixtures("quick_compilation")

ESTIMATORS = [getattr(estimators, name) for name in estimators.__all__]
COUNTS = [BinomialMixture, MultinomialMixture, PoissonMixture]

NOT_COUNTS = "the check's rows are not whole numbers, whatever the tags say"
SHUFFLED = "the check shuffles the weighted rows, and starts depend on the order of rows, as in scikit-learn"
EXPECTED = {
    KMeans: {f"check_sample_weight_equivalence_on_{kind}_data": SHUFFLED for kind in ("dense", "sparse")},
    BinomialMixture: {"check_sample_weight_equivalence_on_dense_data": NOT_COUNTS},
    MultinomialMixture: dict.fromkeys(
        [
            "check_sample_weight_equivalence_on_dense_data",
            "check_sample_weight_equivalence_on_sparse_data",
            "check_estimator_sparse_array",
            "check_estimator_sparse_matrix",
        ],
        NOT_COUNTS,
    ),
}
EXPECTED[PoissonMixture] = EXPECTED[MultinomialMixture]


def rows(kind, n=60):
    """Rows that an estimator can fit: counts, or real numbers."""
    x = clusters(n, 3, 3, seed=1)
    return np.round(np.exp(x / 3)) if kind in COUNTS else x


def fixed(kind):
    """A small estimator with a seed."""
    return kind(3, random_state=0)


def parameters(estimator):
    """The fitted arrays that a user sees."""
    names = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_", "probs_", "rates_")
    found = {name: getattr(estimator, name) for name in (*names, "cluster_centers_") if hasattr(estimator, name)}
    assert found
    return found


def checks():
    """scikit-learn's checks of every estimator; those of array libraries need a process of their own."""
    for kind in ESTIMATORS:
        for estimator, check in estimator_checks_generator(kind()):
            name = check.func.__name__
            if "array_api" not in name:
                why = EXPECTED.get(kind, {}).get(name)
                marks = pytest.mark.xfail(reason=why, strict=True) if why else ()
                yield pytest.param(estimator, check, id=f"{kind.__name__}-{name}", marks=marks)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("estimator", "check"), [*checks()])
def test_check_of_scikit_learn(estimator, check):
    check(estimator)


def test_checks_of_array_libraries():
    """They run where SciPy was loaded with this variable set."""
    program = """
import warnings
from sklearn.utils.estimator_checks import check_array_api_input
import emroute.sklearn
warnings.simplefilter("ignore")
for name in emroute.sklearn.__all__:
    for library, device, dtype in [("array_api_strict", "device1", "float32"), ("torch", "cpu", "float64")]:
        check_array_api_input(name, getattr(emroute.sklearn, name)(), library, device, dtype)
"""
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


# Arrays and frames of every kind


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_results_are_of_the_library_of_the_data_and_the_same_on_all(lib, kind):
    x, weight = rows(kind), np.random.default_rng(0).uniform(0.5, 2, 60)
    own, own_weight = lib.asarray(x), lib.asarray(weight)
    expected, fitted = fixed(kind).fit(x, sample_weight=weight.tolist()), fixed(kind).fit(own, sample_weight=own_weight)
    for name, value in parameters(expected).items():
        np.testing.assert_allclose(lib.to_numpy(getattr(fitted, name)), value, rtol=1e-6, atol=1e-9, err_msg=name)
    for name in ("predict", "predict_proba", "score_samples", "transform"):
        if hasattr(expected, name):
            got = lib.to_numpy(getattr(fitted, name)(own))
            np.testing.assert_allclose(got, getattr(expected, name)(x), rtol=1e-6, atol=1e-9, err_msg=name)
    for name in ("score", "aic", "bic"):
        if hasattr(expected, name):
            got = getattr(fitted, name)(own)
            assert isinstance(got, float)
            assert got == pytest.approx(getattr(expected, name)(x), rel=1e-9)
    weighted = expected.score(x, sample_weight=weight)
    assert fitted.score(own, sample_weight=own_weight) == pytest.approx(weighted, rel=1e-9)
    assert weighted != expected.score(x)
    assert fitted.n_iter_ == expected.n_iter_
    if hasattr(expected, "sample"):
        drawn, labels = fitted.sample(5)
        np.testing.assert_allclose(lib.to_numpy(drawn), expected.sample(5)[0], rtol=1e-6, atol=1e-9)
        assert lib.to_numpy(labels).shape == (5,)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_arrays_of_two_libraries_are_refused(kind):
    import torch

    x = rows(kind)
    fitted = fixed(kind).fit(torch.asarray(x))
    rejected(lambda: fitted.predict(x), InputTypeError, "torch", "numpy")
    rejected(lambda: fixed(kind).fit(torch.asarray(x), sample_weight=np.ones(60)), InputTypeError, "torch", "numpy")
    rejected(lambda: fixed(kind).fit(torch.asarray(x[0])), InputError, "Expected 2D array")
    with pytest.raises(ValueError, match="expecting 3 features"):
        fitted.predict(torch.asarray(x[:, :2]))


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
@pytest.mark.parametrize("kind", ESTIMATORS)
def test_frames_name_the_features(kind, frame):
    x, names = rows(kind), ["a", "b", "c"]
    table = frame(dict(zip(names, x.T, strict=True)))
    fitted = fixed(kind).fit(table)
    assert fitted.feature_names_in_.tolist() == names
    np.testing.assert_array_equal(fitted.predict(table), fixed(kind).fit(x).predict(x))
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame(dict(zip("xyz", x.T, strict=True))))


def test_distances_are_put_into_the_frame_that_is_asked_for():
    x = rows(KMeans)
    for container, kind in (("pandas", pd.DataFrame), ("polars", pl.DataFrame)):
        table = fixed(KMeans).set_output(transform=container).fit_transform(x)
        assert isinstance(table, kind)
        assert list(table.columns) == ["kmeans0", "kmeans1", "kmeans2"]


@pytest.mark.parametrize("kind", [KMeans, MultinomialMixture, PoissonMixture])
def test_sparse_rows_give_what_dense_ones_give(kind, monkeypatch):
    monkeypatch.setattr("emroute.sklearn.base._BLOCK", 24 * 7)  # seven rows at once
    x, weight = np.abs(np.round(rows(kind))), np.arange(60.0)
    dense, sparse = (fixed(kind).fit(data, sample_weight=weight) for data in (x, csr_array(x)))
    for name, value in parameters(dense).items():
        np.testing.assert_allclose(getattr(sparse, name), value, rtol=1e-9, err_msg=name)
    np.testing.assert_array_equal(sparse.predict(csr_array(x)), dense.predict(x))
    assert sparse.score(csr_array(x)) == pytest.approx(dense.score(x), rel=1e-12)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_new_rows_take_the_dtype_of_the_fit(kind):
    """Lists and frames come in float64, whatever was fitted."""
    x = rows(kind)
    for own, other in ((np.float32, np.float64), (np.float64, np.float32)):
        fitted = fixed(kind).fit(x.astype(own))
        for name in ("predict", "score_samples", "transform"):
            if hasattr(fitted, name):
                expected, got = (getattr(fitted, name)(x.astype(dtype)) for dtype in (own, other))
                assert got.dtype == expected.dtype
                np.testing.assert_allclose(got, expected, rtol=1e-4)
        assert fitted.score(x.tolist(), sample_weight=np.ones(60)) == pytest.approx(fitted.score(x.astype(other)))


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_tensors_that_require_gradients_are_fitted_without(kind):
    import torch

    x = torch.asarray(rows(kind))
    fitted = fixed(kind).fit(x.clone().requires_grad_(), sample_weight=torch.ones(60, dtype=x.dtype).requires_grad_())
    for name, value in parameters(fixed(kind).fit(x)).items():
        assert not getattr(fitted, name).requires_grad
        np.testing.assert_allclose(getattr(fitted, name), value, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_bad_tensors_are_refused(kind):
    import torch

    x = torch.asarray(rows(kind))
    for bad in (x + 1j, x.half()) if kind in COUNTS else (x > 3, x.long(), x + 1j, x.half()):
        rejected(lambda bad=bad: fixed(kind).fit(bad), InputTypeError, "dtype")
    with pytest.raises(InputError, match="feature"):
        fixed(kind).fit(x[:, :0])


# The same fits as scikit-learn's


def tables():
    """Classic data, and every 25th pixel of the photographs, with a number of groups."""
    china, flower = (image.reshape(-1, 3)[::25] / 255 for image in datasets.load_sample_images().images)
    return {
        "iris": (datasets.load_iris().data, 3),
        "wine": (datasets.load_wine().data, 3),
        "breast cancer": (datasets.load_breast_cancer().data, 2),
        "digits": (datasets.load_digits().data, 10),
        "Old Faithful": (faithful().x, 2),
        "china": (china, 4),
        "flower": (flower, 4),
    }


TABLES = tables()


def start_of(x, k):
    """Rows moved a little: of rows on a grid, as pixels are, many would be as far from two centres but for rounding."""
    rng = np.random.default_rng(0)
    return x[rng.choice(len(x), k, replace=False)] + 0.01 * x.std(axis=0) * rng.standard_normal((k, x.shape[1]))


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("name", TABLES)
def test_likelihood_is_that_of_scikit_learn_from_the_same_start(name, covariance_type):
    x, k = TABLES[name]
    if name == "digits":
        x = x[:600]
    precision = 1 / (x.var(axis=0) + 1e-3)
    precisions = {
        "full": np.stack([np.diag(precision)] * k),
        "tied": np.diag(precision),
        "diag": np.stack([precision] * k),
        "spherical": np.full(k, precision.mean()),
    }[covariance_type]
    start = {"weights_init": np.full(k, 1 / k), "means_init": start_of(x, k), "precisions_init": precisions}
    theirs = mixture.GaussianMixture(k, covariance_type=covariance_type, **start).fit(x)
    ours = GaussianMixture(k, covariance_type=covariance_type, **start).fit(x)
    assert ours.score(x) >= theirs.score(x) - 1e-6
    assert (ours.n_iter_, ours.converged_) == (theirs.n_iter_, theirs.converged_)
    np.testing.assert_allclose(ours.means_, theirs.means_, rtol=1e-6, atol=1e-6)
    assert ours.n_iter_ == len(ours.lower_bounds_)
    assert ours.lower_bound_ == pytest.approx(ours.score(x), rel=1e-9)


@pytest.mark.parametrize("tol", [1e-4, 1e-2, 0])
@pytest.mark.parametrize("name", TABLES)
def test_inertia_is_that_of_scikit_learn_from_the_same_start(name, tol):
    x, k = TABLES[name]
    theirs = cluster.KMeans(k, init=start_of(x, k), n_init=1, tol=tol).fit(x)
    ours = KMeans(k, init=start_of(x, k), n_init=1, tol=tol).fit(x)
    assert ours.inertia_ <= theirs.inertia_ * (1 + 1e-6)
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_precisions_are_those_of_scikit_learn(covariance_type):
    x = clusters(90, 3, 3, seed=2).astype(np.float64) * [1, 100, 1e-3]
    theirs = mixture.GaussianMixture(3, covariance_type=covariance_type, random_state=0, reg_covar=1e-9).fit(x)
    start = {"weights_init": theirs.weights_, "means_init": theirs.means_, "precisions_init": theirs.precisions_}
    ours = GaussianMixture(3, covariance_type=covariance_type, **start, max_iter=0).fit(x)
    np.testing.assert_allclose(ours.precisions_, theirs.precisions_, rtol=1e-6)
    np.testing.assert_allclose(ours.precisions_cholesky_, theirs.precisions_cholesky_, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-9)
    assert (ours.aic(x), ours.bic(x)) == pytest.approx((theirs.aic(x), theirs.bic(x)), rel=1e-9)


def test_signatures_are_those_of_scikit_learn():
    for ours, theirs in ((GaussianMixture, mixture.GaussianMixture), (KMeans, cluster.KMeans)):
        assert ours().get_params() == theirs().get_params()
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)


def test_parts_of_scikit_learns_own_suite():
    """All of it takes two minutes: ``python -m tests.sklearn_suite``."""
    some = "test_warm_start or test_regularisation or test_kmeans_results or relocated"
    command = [sys.executable, "-m", "tests.sklearn_suite", "-k", some]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr
    assert "19 of 25 tests of public behaviour pass" in done.stdout


# Starts


@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random", "random_from_data"])
@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_every_start_climbs(init_params, covariance_type):
    x = clusters(90, 3, 3)
    options = {"covariance_type": covariance_type, "init_params": init_params, "reg_covar": 0, "random_state": 0}
    fitted = GaussianMixture(3, n_init=3, tol=1e-6, max_iter=500, **options).fit(x)
    assert fitted.converged_
    assert np.all(np.diff(fitted.lower_bounds_) > -1e-12)
    one = GaussianMixture(3, n_init=1, tol=1e-6, max_iter=500, **options).fit(x)
    assert fitted.lower_bound_ >= one.lower_bound_ - 1e-9


def test_a_seed_is_that_of_the_functions():
    x = clusters(90, 3, 3)
    expected = kmeans.fit(x, 3, rng=7)
    np.testing.assert_allclose(KMeans(3, random_state=7, tol=0).fit(x).cluster_centers_, expected.centroids)


def test_random_states_are_drawn_from():
    x, state = clusters(90, 3, 6, gap=1), np.random.RandomState(0)
    estimator = KMeans(6, init="random", n_init=1, max_iter=1, random_state=state)
    first, second = (estimator.fit(x).cluster_centers_ for _ in range(2))
    assert not np.allclose(first, second)
    again = clone(estimator).set_params(random_state=np.random.RandomState(0)).fit(x).cluster_centers_
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(("init", "calls"), [("auto", 10), (3, 3)])
def test_a_function_is_asked_for_as_many_starts_as_there_are_restarts(init, calls):
    x, asked = clusters(60, 3, 3), []

    def centres(X, n_clusters, random_state):
        asked.append((X.shape, n_clusters))
        return X[random_state.choice(len(X), n_clusters, replace=False)]

    best = KMeans(3, init=centres, n_init=init, random_state=0).fit(x)
    assert asked == [((60, 3), 3)] * calls
    assert best.inertia_ <= KMeans(3, init=centres, n_init=1, random_state=0).fit(x).inertia_


@pytest.mark.parametrize("kind", [GaussianMixture, *COUNTS])
def test_warm_start_goes_on(kind):
    x = rows(kind)
    whole = kind(3, random_state=0, max_iter=6, tol=0)
    parts = kind(3, random_state=0, max_iter=2, tol=0, warm_start=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        whole.fit(x)
        for _ in range(3):
            parts.fit(x)
    for name, value in parameters(whole).items():
        np.testing.assert_allclose(getattr(parts, name), value, rtol=1e-6, atol=1e-9, err_msg=name)


def test_starts_of_counts_can_be_given():
    heads = np.asarray([5, 9, 8, 4, 7])
    x = np.stack([heads, 10 - heads], axis=1)
    fitted = BinomialMixture(2, weights_init=[0.5, 0.5], probs_init=[0.6, 0.5], max_iter=1000, tol=1e-12).fit(x)
    coins = sorted(fitted.probs_)
    np.testing.assert_allclose(coins, [0.513, 0.793], atol=5e-3)
    rejected(lambda: BinomialMixture(2, probs_init=[0.5]).fit(x), InputError, "'probs'", "(2,)", "(1,)")
    rejected(lambda: PoissonMixture(2, rates_init=[1.0]).fit(x), InputError, "'rates'", "(2, 2)", "(1,)")


# What surrounds an estimator


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_pickles_and_clones(kind, lib):
    x = rows(kind)
    fitted = fixed(kind).fit(lib.asarray(x))
    if lib.name != "array_api_strict":  # whose arrays cannot be pickled
        back = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(
            lib.to_numpy(back.predict(lib.asarray(x))), lib.to_numpy(fitted.predict(lib.asarray(x)))
        )
    with pytest.raises(NotFittedError):
        clone(fitted).predict(lib.asarray(x))


def test_grid_search_in_a_pipeline_finds_the_number_of_components():
    x = clusters(240, 2, 3, seed=3, gap=6)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), GaussianMixture(random_state=0, n_init=3)),
        {"gaussianmixture__n_components": [1, 2, 3], "gaussianmixture__covariance_type": ["full", "spherical"]},
    ).fit(x)
    assert search.best_params_["gaussianmixture__n_components"] == 3
    best = make_pipeline(KMeans(3, random_state=0), GaussianMixture(3, random_state=0)).fit(x)
    assert best.predict(x).shape == (240,)


def test_metadata_routing_brings_weights():
    x, weight = clusters(60, 3, 3), np.random.default_rng(0).uniform(0, 2, 60)
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = GaussianMixture(3, random_state=0).set_fit_request(sample_weight=True)
        pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), estimator)
        routed = pipeline.fit(x, sample_weight=weight)[-1]
    scaled = StandardScaler().fit_transform(x)
    direct = GaussianMixture(3, random_state=0).fit(scaled, sample_weight=weight)
    np.testing.assert_array_equal(routed.means_, direct.means_)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_whole_weights_repeat_rows(kind):
    x, weight = rows(kind), np.random.default_rng(0).integers(0, 4, 60)
    weighted = fixed(kind).fit(x, sample_weight=weight)
    repeated = fixed(kind).fit(np.repeat(x, weight, axis=0))
    for name, value in parameters(repeated).items():
        np.testing.assert_allclose(getattr(weighted, name), value, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_progress_is_printed(kind, capsys):
    options = {} if kind is KMeans else {"verbose_interval": 1}
    kind(2, random_state=0, verbose=1, **options).fit(rows(kind))
    assert "Iteration 1" in capsys.readouterr().out


def test_the_fitted_mixture_is_there_with_all_it_can_do():
    fitted = fixed(GaussianMixture).fit(rows(GaussianMixture))
    assert isinstance(fitted.mixture_, gmm.GaussianMixture)
    np.testing.assert_array_equal(fitted.mixture_.means, fitted.means_)
    drawn, labels = fixed(MultinomialMixture).fit(rows(MultinomialMixture)).sample(7, trials=9)
    np.testing.assert_array_equal(drawn.sum(axis=1), 9)
    assert labels.shape == (7,)
    drawn, _ = fixed(BinomialMixture).fit(rows(BinomialMixture)).sample(7, trials=9)
    np.testing.assert_array_equal(drawn.sum(axis=1), 9)


def test_scikit_learn_is_loaded_only_when_asked_for():
    program = "import emroute, sys; assert 'sklearn' not in sys.modules; emroute.sklearn.KMeans; emroute.nothing"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith("AttributeError: module 'emroute' has no attribute 'nothing'")


# Bad input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_components": 0}, ("n_components=0",)),
        ({"covariance_type": "round"}, ("covariance_type='round'", "'spherical'")),
        ({"tol": -1.0}, ("tol=-1.0",)),
        ({"reg_covar": -1.0}, ("reg_covar=-1.0",)),
        ({"max_iter": -1}, ("max_iter=-1",)),
        ({"n_init": 0}, ("n_init=0",)),
        ({"init_params": "best"}, ("init_params='best'", "'random_from_data'")),
        ({"n_components": 61}, ("60 rows", "n_components=61")),
        ({"verbose": 1, "verbose_interval": 0}, ("verbose_interval=0",)),
        ({"random_state": -1}, ("random_state=-1", "RandomState")),
        ({"random_state": "one"}, ("random_state='one'", "RandomState")),
        ({"means_init": "zero"}, ("means cannot be read as numbers",)),
        ({"weights_init": [0.5, 0.6, 0.1]}, ("should be normalized", "1.2")),
        ({"weights_init": [1.5, -0.5, 0.0]}, ("range [0, 1]", "-0.5")),
        ({"means_init": np.zeros((2, 3))}, ("'means'", "(3, 3)", "(2, 3)")),
        ({"precisions_init": -np.ones((3, 3, 3))}, ("'full precision'", "symmetric, positive-definite")),
        ({"precisions_init": np.zeros((3, 3)), "covariance_type": "diag"}, ("'diag precision'", "positive")),
    ],
)
def test_bad_parameters_of_gaussians_are_named(options, words):
    estimator = GaussianMixture(**{"n_components": 3, **options})
    rejected(lambda: estimator.fit(rows(GaussianMixture)), InputError, *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_clusters": 0}, ("n_clusters=0",)),
        ({"n_clusters": 61}, ("n_samples=60 should be >= n_clusters=61",)),
        ({"init": "best"}, ("init='best'",)),
        ({"init": np.zeros((2, 3))}, ("(2, 3)", "number of clusters 3")),
        ({"init": np.zeros((3, 2))}, ("(3, 2)", "number of features of the data 3")),
        ({"init": np.zeros(3)}, ("(3,)", "number of features of the data 3")),
        ({"n_init": "all"}, ("n_init='all'", "'auto'")),
        ({"algorithm": "fast"}, ("algorithm='fast'", "'elkan'")),
        ({"tol": -1}, ("tol=-1",)),
        ({"random_state": -1}, ("random_state=-1", "RandomState")),
    ],
)
def test_bad_parameters_of_k_means_are_named(options, words):
    estimator = KMeans(**{"n_clusters": 3, **options})
    rejected(lambda: estimator.fit(rows(KMeans)), InputError, *words)


@pytest.mark.parametrize("kind", COUNTS)
def test_what_is_no_count_is_refused(kind):
    x = rows(kind)
    rejected(lambda: fixed(kind).fit(x + 0.5), InputError, "whole numbers", "row 0")
    with pytest.raises(ValueError, match="Negative values"):
        fixed(kind).fit(-1 - x)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_weights_are_read_as_scikit_learn_reads_them(kind):
    x = rows(kind)
    once = fixed(kind).fit(x, sample_weight=2.0)
    for name, value in parameters(fixed(kind).fit(x)).items():
        np.testing.assert_allclose(getattr(once, name), value, rtol=1e-9, err_msg=name)
    assert once.score(x, sample_weight=2.0) == pytest.approx(once.score(x) * (2 if kind is KMeans else 1))
    for weight, words in [
        (np.ones(5), "sample_weight.shape == (5,), expected (60,)"),
        (np.ones((60, 2)), "1D array"),
        (np.ones(60) + 1j, "Complex data"),
        (np.full(60, np.nan), "NaN"),
        (["a"] * 60, "could not convert"),
    ]:
        with pytest.raises(ValueError, match=re.escape(words)):
            fixed(kind).fit(x, sample_weight=weight)


def test_a_fit_that_fails_changes_nothing():
    x = rows(GaussianMixture)
    estimator = GaussianMixture(61)
    with pytest.raises(InputError):
        estimator.fit(x)
    with pytest.raises(NotFittedError):
        estimator.predict(x)
    fitted = GaussianMixture(2, reg_covar=0, random_state=0).fit(x)
    before = parameters(fitted)
    start = {"weights_init": [0.5, 0.5], "means_init": [[0, 0, 0], [1, 1, 1]], "precisions_init": [np.eye(3)] * 2}
    with pytest.raises(InputError, match="ill-defined"):
        fitted.set_params(**start).fit(np.repeat(np.eye(2, 3), 9, axis=0))
    for name, value in before.items():
        assert getattr(fitted, name) is value
    np.testing.assert_array_equal(fitted.mixture_.means, fitted.means_)


def test_no_data_at_all_is_told_as_by_scikit_learn():
    with pytest.raises(ValueError, match="Expected 2D array"):
        KMeans(2).fit(None)


def test_bad_data_and_weights_are_refused():
    x = rows(GaussianMixture)
    rejected(lambda: GaussianMixture(3).fit(x, sample_weight=np.full(60, -1.0)), InputError, "sample_weight")
    rejected(lambda: BinomialMixture(1).fit(np.ones((9, 1))), InputError, "1 feature(s)", "heads and tails")
    rejected(lambda: GaussianMixture(3).fit(x).sample(0), InputError, "n_samples")
    same = np.zeros((9, 2))
    rejected(lambda: GaussianMixture(2, reg_covar=0).fit(same), InputError, "ill-defined", "reg_covar")
    np.testing.assert_allclose(GaussianMixture(1).fit(same).covariances_[0], 1e-6 * np.eye(2), rtol=1e-9)


def test_wide_sparse_rows_are_never_dense_at_once():
    x = random_array((300, 50_000), density=4e-4, format="csr", rng=0)
    tracemalloc.start()
    KMeans(2, random_state=0, max_iter=1).fit(x).predict(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e8  # a sample of 167 rows, a few times over; all 20,000 such rows would be 8e9


def test_sparse_rows_of_a_mixture_are_refused_with_the_remedies():
    x = csr_matrix((20_000, 50_000))
    with pytest.raises(InputTypeError, match=r"7.5 GiB.*covariance_type='diag'.*TruncatedSVD"):
        GaussianMixture(2).fit(x)
