"""Estimators whose attributes are set by hand work as scikit-learn's do; masks are refused everywhere."""

import pickle

import numpy as np
import pytest
import scipy.sparse
import sklearn.mixture
import torch

from emroute import sklearn as es
from emroute.errors import InputTypeError
from tests.helpers import COVARIANCE_TYPES, clusters, given_start, rejected

X = clusters(40, 2, 2, seed=1)
COUNTS = np.random.default_rng(0).poisson([2.0, 9.0], (40, 2)).astype(float)


def set_by_hand(estimator, covariance_type, names, convert=np.asarray):
    weights, means, covariances = given_start(X, 2, covariance_type)
    covariances = covariances * np.asarray([1.0, 0.5]).reshape((2, *(1,) * (covariances.ndim - 1)))[:1]
    if covariance_type in ("full", "tied"):
        precisions = np.linalg.inv(covariances + 0.1)
        covariances, factor = covariances + 0.1, np.linalg.cholesky(precisions)
        factor = np.swapaxes(np.linalg.inv(np.linalg.cholesky(covariances)), -1, -2)
    else:
        factor = covariances**-0.5
    values = {"weights_": weights, "means_": means, "covariances_": covariances, "precisions_cholesky_": factor}
    for name in names:
        setattr(estimator, name, convert(values[name]))
    return estimator


EVERY = ("weights_", "means_", "covariances_", "precisions_cholesky_")


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("names", [EVERY, (*EVERY[:2], "precisions_cholesky_")], ids=["all", "without covariances"])
def test_gaussians_by_hand_are_scikit_learns(covariance_type, names):
    ours = set_by_hand(es.GaussianMixture(2, covariance_type=covariance_type, random_state=0), covariance_type, names)
    theirs = set_by_hand(sklearn.mixture.GaussianMixture(2, covariance_type=covariance_type), covariance_type, names)
    np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=1e-9)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-7)
    assert ours.sample(5)[0].shape == (5, 2)
    if "covariances_" in names:
        np.testing.assert_allclose(ours.bic(X), theirs.bic(X), rtol=1e-9)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("convert", [np.ndarray.tolist, torch.asarray], ids=["lists", "torch"])
def test_covariances_alone_will_do_of_any_kind(covariance_type, convert):
    ours = set_by_hand(es.GaussianMixture(2, covariance_type=covariance_type), covariance_type, EVERY[:3], convert)
    expected = set_by_hand(es.GaussianMixture(2, covariance_type=covariance_type), covariance_type, EVERY)
    x = torch.asarray(X) if convert is torch.asarray else X
    np.testing.assert_allclose(ours.score_samples(x), expected.score_samples(X), rtol=1e-9)


def test_a_change_after_the_fit_counts():
    ours = es.GaussianMixture(2, random_state=0).fit(X)
    theirs = sklearn.mixture.GaussianMixture(2)
    for name in EVERY:
        setattr(theirs, name, np.array(getattr(ours, name)))
    before = ours.score_samples(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(ours)).score_samples(X), before)
    ours.means_ = ours.means_ + 0.5
    theirs.means_ = theirs.means_ + 0.5
    np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=1e-9)
    ours.weights_, theirs.weights_ = np.asarray([0.9, 0.1]), np.asarray([0.9, 0.1])
    np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), rtol=1e-9)
    assert not np.allclose(ours.score_samples(X), before)


COUNTED = {
    "binomial": (es.BinomialMixture, "probs_", [0.2, 0.7]),
    "multinomial": (es.MultinomialMixture, "probs_", [[0.2, 0.8], [0.5, 0.5]]),
    "poisson": (es.PoissonMixture, "rates_", [[2.0, 9.0], [5.0, 1.0]]),
}


@pytest.mark.parametrize("family", COUNTED)
@pytest.mark.parametrize("convert", [np.asarray, list], ids=["arrays", "lists"])
def test_counts_by_hand(family, convert):
    kind, name, value = COUNTED[family]
    by_hand, fitted = kind(2), kind(2, random_state=0).fit(COUNTS)
    by_hand.weights_ = convert([0.4, 0.6])
    setattr(by_hand, name, convert(value))
    start = {f"{name}init": value, "weights_init": [0.4, 0.6]}
    expected = kind(2, max_iter=0, **start).fit(COUNTS)
    np.testing.assert_allclose(by_hand.score_samples(COUNTS), expected.score_samples(COUNTS), rtol=1e-9)
    np.testing.assert_array_equal(by_hand.predict(COUNTS), expected.predict(COUNTS))
    fitted.weights_ = np.asarray([0.4, 0.6])
    setattr(fitted, name, np.asarray(value))
    np.testing.assert_allclose(fitted.score_samples(COUNTS), expected.score_samples(COUNTS), rtol=1e-9)


@pytest.mark.parametrize("convert", [np.asarray, np.ndarray.tolist, torch.asarray], ids=["arrays", "lists", "torch"])
def test_centres_by_hand(convert):
    x = torch.asarray(X) if convert is torch.asarray else X
    by_hand, fitted = es.KMeans(2), es.KMeans(2, random_state=0).fit(x)
    distance = np.linalg.norm(X[:, None] - X[[3, 8]], axis=-1)
    for estimator in (by_hand, fitted):
        estimator.cluster_centers_ = convert(X[[3, 8]])
        np.testing.assert_array_equal(estimator.predict(x), distance.argmin(axis=1))
        np.testing.assert_allclose(estimator.transform(x), distance, atol=1e-9)


ESTIMATORS = [es.GaussianMixture, es.KMeans, es.BinomialMixture, es.MultinomialMixture, es.PoissonMixture]


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_estimators_refuse_masks(kind):
    masked, plain = np.ma.masked_greater(COUNTS, 9), kind(2).fit(COUNTS)
    calls = [
        lambda: kind(2).fit(masked),
        lambda: kind(2).fit(COUNTS, sample_weight=np.ma.ones(40)),
        lambda: plain.predict(masked),
        lambda: plain.score(masked),
        lambda: plain.score(COUNTS, sample_weight=np.ma.ones(40)),
    ]
    for call in calls:
        rejected(call, InputTypeError, "masked array", "sample_weight 0", "getmaskarray")


def test_masks_of_starts_are_refused():
    start = np.ma.masked_greater(X[:2], 1e9)
    for estimator in (es.GaussianMixture(2, means_init=start), es.KMeans(2, init=start)):
        rejected(lambda estimator=estimator: estimator.fit(X), InputTypeError, "masked array")


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_estimators_name_the_call_for_sparse_tensors(kind):
    sparse = torch.asarray(COUNTS).to_sparse()
    rejected(lambda: kind(2).fit(sparse), InputTypeError, "sparse", "`.to_dense()`")


def test_scipys_sparse_rows_still_fit():
    got = es.PoissonMixture(2, random_state=0).fit(scipy.sparse.csr_matrix(COUNTS)).rates_
    np.testing.assert_allclose(got, es.PoissonMixture(2, random_state=0).fit(COUNTS).rates_, rtol=1e-9)


@pytest.mark.parametrize(
    "convert", [lambda x: x, lambda x: x.astype(int), lambda x: x.astype(">f8"), np.ndarray.tolist]
)
def test_whole_numbers_and_other_byte_orders_by_hand_are_floats(convert):
    rows = np.asarray([[0.9, 0.9], [7.2, 7.4], [1.9, 0.2]])
    for dtype in (np.float64, np.float32):
        clusters = es.KMeans(2)
        clusters.cluster_centers_ = convert(np.asarray([[0.0, 0.0], [8.0, 8.0]]))
        np.testing.assert_allclose(
            clusters.transform(rows.astype(dtype))[:, 0], np.linalg.norm(rows, axis=1), rtol=1e-6
        )
        mixture = es.GaussianMixture(2, covariance_type="spherical")
        mixture.weights_, mixture.covariances_ = np.asarray([0.5, 0.5]), convert(np.ones(2))
        mixture.means_ = convert(np.asarray([[0.0, 0.0], [8.0, 8.0]]))
        assert mixture.predict(rows.astype(dtype)).tolist() == [0, 1, 0]


def test_masked_attributes_are_refused():
    clusters = es.KMeans(2)
    clusters.cluster_centers_ = np.ma.array(np.eye(2), mask=np.eye(2) > 0)
    rejected(lambda: clusters.predict(np.eye(2)), InputTypeError, "masked array")
