"""Rows whose components are known, and parts of a mixture that stay: recomputed figures, and equations."""

import numpy as np
import pytest
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from emroute import gmm
from emroute.datasets import iris
from emroute.errors import InputError
from emroute.gmm import GaussianMixture
from tests.helpers import COVARIANCE_TYPES, NUMPY, assert_monotone, for_all

IRIS, SPECIES = np.asarray(iris().x), np.repeat(np.arange(3), 50)
LABELS = np.where(np.arange(150) % 10 == 0, SPECIES, -1)
SHARES = np.where(LABELS[:, None] < 0, 1.0, np.eye(3)[LABELS])
GAPPY = np.where((7 * np.arange(150)[:, None] + 3 * np.arange(4)) % 11 == 0, np.nan, IRIS)


def from_labelled_rows():
    """One covariance of the labelled rows about their species' means."""
    groups = [IRIS[label == LABELS] for label in range(3)]
    means = np.stack([group.mean(axis=0) for group in groups])
    scatter = sum((group - mean).T @ (group - mean) for group, mean in zip(groups, means, strict=True))
    return np.ones(3) / 3, means, np.stack([scatter / 15] * 3)


def from_start(lib, labels, **options):
    init = tuple(map(lib.asarray, from_labelled_rows()))
    return gmm.fit(lib.asarray(IRIS), 3, labels=None if labels is None else lib.asarray(labels), init=init, **options)


@pytest.mark.parametrize("labels", [LABELS, SHARES], ids=["labels", "probabilities"])
def test_iris_of_which_every_tenth_is_labelled(lib, labels):
    fitted = from_start(lib, labels, tol=1e-13)
    assert float(fitted.trace[0]) == pytest.approx(-393.96320195, abs=1e-8)
    assert float(fitted.log_likelihood) == pytest.approx(-182.18001360, abs=1e-8)
    np.testing.assert_allclose(lib.to_numpy(fitted.weights), [0.33333333, 0.31097952, 0.35568714], atol=1e-6)
    assert_monotone(lib.to_numpy(fitted.trace), 150)


@pytest.mark.filterwarnings("ignore::emroute.FitWarning")
def test_the_objective_is_that_of_rows_and_labels():
    shares = np.random.default_rng(0).uniform(0.1, 1, (150, 3))
    weights, means, covariances = from_labelled_rows()
    joint = np.stack(
        [
            np.log(w) + multivariate_normal(m, c).logpdf(IRIS)
            for w, m, c in zip(weights, means, covariances, strict=True)
        ],
        axis=1,
    )
    for labels, known in ((shares, np.log(shares)), (SPECIES, np.where(np.eye(3)[SPECIES] > 0, 0, -np.inf))):
        fitted = from_start(NUMPY, labels, max_iter=1)
        assert fitted.trace[0] == pytest.approx(logsumexp(joint + known, axis=1).sum())
        responsibilities = np.exp(joint + known - logsumexp(joint + known, axis=1, keepdims=True))
        np.testing.assert_allclose(fitted.weights, responsibilities.mean(axis=0))
        np.testing.assert_allclose(fitted.means, (responsibilities.T @ IRIS) / responsibilities.sum(axis=0)[:, None])


def test_labels_name_the_components_of_a_drawn_start():
    for options in ({}, {"n_init": 3}, {"missing": "marginalize"}, {"covariance_type": "VEV"}):
        x = GAPPY if "missing" in options else IRIS
        fitted = gmm.fit(x, 3, labels=LABELS, rng=0, **options)
        assert np.mean(fitted.predict(IRIS if "missing" not in options else GAPPY) == SPECIES) > 0.9
    few = np.where(SPECIES == 2, -1, LABELS)
    assert np.mean(gmm.fit(IRIS, 3, labels=few, rng=0).predict(IRIS) == SPECIES) > 0.9


def test_a_batch_shares_its_labels_or_has_its_own():
    both = gmm.fit(np.stack([IRIS, IRIS[::-1]]), 3, labels=np.stack([LABELS, LABELS[::-1]]), rng=0)
    np.testing.assert_allclose(both.log_likelihood, [-182.18001360] * 2, atol=1e-3)
    again = gmm.fit(np.stack([IRIS, IRIS]), 3, labels=LABELS, rng=0, accelerate="squarem")
    np.testing.assert_allclose(again.log_likelihood, [-182.18001360] * 2, atol=1e-3)


@for_all(
    kind=st.sampled_from(COVARIANCE_TYPES),
    seed=st.integers(0, 1000),
    fixed=st.sets(st.sampled_from(["weights", "means", "covariances"])),
    examples=15,
)
def test_the_likelihood_never_falls_and_what_is_fixed_stays(eager_lib, kind, seed, fixed):
    lib, rng = eager_lib, np.random.default_rng(seed)
    x, weight = lib.asarray(rng.normal(size=(40, 2))), lib.asarray(rng.uniform(0.1, 3, 40))
    labels = lib.asarray(np.where(rng.random(40) < 0.3, rng.integers(0, 3, 40), -1))
    start = gmm.fit(x, 3, covariance_type=kind, rng=seed, max_iter=0)
    init = start.weights, start.means, start.covariances
    options = {"covariance_type": kind, "sample_weight": weight, "init": init, "max_iter": 30}
    fitted = gmm.fit(x, 3, labels=labels, fixed=sorted(fixed), **options)
    assert_monotone(lib.to_numpy(fitted.trace), 120)
    for name in fixed:
        same, old = (lib.to_numpy(getattr(mixture, name)) for mixture in (fitted, start))
        np.testing.assert_allclose(same, old, rtol=1e-9, atol=1e-12)
    assert fitted.n_parameters == start.n_parameters - sum(
        {"weights": 2, "means": 6, "covariances": start.model.covariance.n_parameters(3, 2)}[name] for name in fixed
    )


@pytest.mark.filterwarnings("ignore::emroute.FitWarning")
def test_covariances_are_about_means_that_stay():
    init = from_labelled_rows()
    fitted = gmm.fit(IRIS, 3, init=init, fixed="means", max_iter=1)
    shares = GaussianMixture.from_parameters(*init).responsibilities(IRIS)
    gaps = IRIS[:, None] - init[1]
    expected = np.einsum("nk,nki,nkj->kij", shares, gaps, gaps) / shares.sum(axis=0)[:, None, None]
    np.testing.assert_allclose(fitted.covariances, expected, rtol=1e-9)


def test_equal_weights_need_no_start(tmp_path):
    fitted = gmm.fit(IRIS, 3, fixed=["weights"], rng=0)
    np.testing.assert_allclose(fitted.weights, [1 / 3] * 3)
    fitted.save(tmp_path / "mixture.npz")
    assert GaussianMixture.load(tmp_path / "mixture.npz").n_parameters == 42


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": LABELS[1:]}, "labels have shape"),
        ({"labels": LABELS + 3}, "0 to 2"),
        ({"labels": SHARES - 1}, "not negative"),
        ({"labels": 0 * SHARES}, "not all 0"),
        ({"labels": np.asarray(["a"] * 150)}, "probabilities|labels"),
        ({"fixed": "means"}, "needs values to hold"),
        ({"fixed": ["covariances"], "init": IRIS[:3]}, "needs values to hold"),
        ({"fixed": "scales"}, "fixed='scales'"),
    ],
)
def test_what_cannot_be_kept_or_known_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        gmm.fit(IRIS, 3, **options)


def test_a_stream_has_no_labels():
    with pytest.raises(InputError, match="rows in memory"):
        gmm.fit([IRIS[:70], IRIS[70:]], 3, labels=LABELS)


def test_labelled_rows_start_in_their_own_components():
    """However far the nearest point is: rounded rows, a start that misses a component, probabilities on both sides."""
    rng = np.random.default_rng(4)
    x, labels = np.round(rng.normal(size=(60, 1))), rng.integers(0, 3, 60)
    fitted = gmm.fit(x, 3, labels=labels)
    assert bool(fitted.converged)
    np.testing.assert_allclose(fitted.means[:, 0], [x[labels == k].mean() for k in range(3)], rtol=1e-9)
    missed = gmm.fit(x, 2, labels=np.minimum(labels, 1), init=[[0.0], [50.0]])
    np.testing.assert_allclose(missed.weights, [(labels == 0).mean(), (labels > 0).mean()], rtol=1e-9)
    tied = np.asarray([[-1.0], [1], [-1], [1], [3], [-3]] * 3)
    doubt = np.asarray([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.5, 0.5], [0.5, 0.5]] * 3)
    assert float(gmm.fit(tied, 2, labels=doubt, rng=0).log_likelihood) == pytest.approx(-49.711, abs=1e-3)
