"""Gaussian mixtures: the equations written out, SciPy's densities, scikit-learn's fits, and what a result can do."""

import warnings
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference

from emroute import gmm
from emroute.backend import named
from emroute.gmm.model import GaussianModel
from emroute.gmm.start import begin
from tests.helpers import COVARIANCE_TYPES, NUMPY, clusters, compiling, dense, gaussian_em, given_start

pytestmark = pytest.mark.usefixtures("quick_compilation")

N, D, K = 24, 3, 3
WEIGHT = np.random.default_rng(9).uniform(0.2, 3, N)

every_type = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)


def four_steps(lib, covariance_type, **options):
    """Four iterations from a given start on one small data set: one compilation a covariance type."""
    x = clusters(N, D, K, seed=4)
    init = tuple(map(lib.asarray, given_start(x, K, covariance_type)))
    settings = {"sample_weight": lib.asarray(WEIGHT), "tol": 0, "max_iter": 4, **options}
    return x, gmm.fit(lib.asarray(x), K, covariance_type=covariance_type, init=init, **settings)


@every_type
def test_a_component_of_weight_0_changes_no_other(lib, covariance_type):
    x = clusters(N, D, K, seed=4)
    _, means, covariances = (part.tolist() for part in given_start(x, K, covariance_type))
    two = covariances if covariance_type == "tied" else covariances[:2]
    options = {"covariance_type": covariance_type, "max_iter": 3, "tol": 0}
    three = gmm.fit(lib.asarray(x), 3, init=([0.5, 0.5, 0.0], means, covariances), **options)
    alone = gmm.fit(lib.asarray(x), 2, init=([0.5, 0.5], means[:2], two), **options)
    np.testing.assert_allclose(lib.to_numpy(three.trace), lib.to_numpy(alone.trace), rtol=1e-12)
    np.testing.assert_allclose(lib.to_numpy(three.means)[:2], lib.to_numpy(alone.means), rtol=1e-9)


def log_densities(fitted, x):
    """log w_k N(x_n | m_k, S_k) by SciPy, from a NumPy mixture or the host copies of one."""
    weights, means, covariances = fitted
    return np.stack(
        [
            np.log(w) + multivariate_normal(mean, matrix).logpdf(x)
            for w, mean, matrix in zip(weights, means, covariances, strict=True)
        ],
        axis=1,
    )


def host(lib, fitted):
    """Weights, means and covariance matrices on the host."""
    covariances = dense(lib.to_numpy(fitted.covariances), fitted.covariance_type, K, D)
    return lib.to_numpy(fitted.weights), lib.to_numpy(fitted.means), covariances


@every_type
def test_iterations_follow_the_equations(lib, covariance_type):
    x, fitted = four_steps(lib, covariance_type)
    weights, means, covariances, trace = gaussian_em(x, given_start(x, K, covariance_type), covariance_type, 4, WEIGHT)
    np.testing.assert_allclose(lib.to_numpy(fitted.weights), weights, rtol=1e-10)
    np.testing.assert_allclose(lib.to_numpy(fitted.means), means, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(lib.to_numpy(fitted.covariances), covariances, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(lib.to_numpy(fitted.trace), trace, rtol=1e-11)
    assert float(fitted.log_likelihood) == pytest.approx(trace[-1], rel=1e-11)


@every_type
def test_densities_and_responsibilities_are_those_of_scipy(lib, covariance_type):
    x, fitted = four_steps(lib, covariance_type)
    joint = log_densities(host(lib, fitted), x)
    expected = logsumexp(joint, axis=1)
    np.testing.assert_allclose(lib.to_numpy(fitted.log_prob(lib.asarray(x))), expected, rtol=1e-10)
    shares = lib.to_numpy(fitted.responsibilities(lib.asarray(x)))
    np.testing.assert_allclose(shares, np.exp(joint - expected[:, None]), atol=1e-10)
    np.testing.assert_array_equal(lib.to_numpy(fitted.predict(lib.asarray(x))), joint.argmax(axis=1))


@every_type
def test_iterations_are_those_of_scikit_learn(eager_lib, covariance_type):
    lib = eager_lib
    x = load_iris().data
    weights, means, covariances = given_start(x, K, covariance_type)
    precisions = 1 / covariances if covariance_type in ("diag", "spherical") else np.linalg.inv(covariances)
    start = {"weights_init": weights, "means_init": means, "precisions_init": precisions}
    reference = Reference(K, covariance_type=covariance_type, tol=0, reg_covar=0, max_iter=10, **start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        reference.fit(x)
    init = tuple(map(lib.asarray, (weights, means, covariances)))
    fitted = gmm.fit(lib.asarray(x), K, covariance_type=covariance_type, init=init, tol=0, max_iter=10)
    np.testing.assert_allclose(lib.to_numpy(fitted.weights), reference.weights_, rtol=1e-7)
    np.testing.assert_allclose(lib.to_numpy(fitted.means), reference.means_, rtol=1e-7)
    np.testing.assert_allclose(lib.to_numpy(fitted.covariances), reference.covariances_, rtol=1e-6, atol=1e-8)
    assert float(fitted.score(lib.asarray(x))) == pytest.approx(reference.score(x), rel=1e-9)
    assert float(fitted.bic(lib.asarray(x))) == pytest.approx(reference.bic(x), rel=1e-9)
    assert float(fitted.aic(lib.asarray(x))) == pytest.approx(reference.aic(x), rel=1e-9)


def narrowest_intervals(x):
    """The narrowest interval of each feature from a quantile to the one a twentieth on, in steps of a hundredth."""
    ranks = (np.arange(101) + 0.5) / 101
    marks = np.quantile(x, ranks, axis=0, method="inverted_cdf")
    gaps = marks[5:] - marks[:-5]
    return np.where(gaps > 0, gaps, np.inf).min(axis=0)


def test_the_floor_truncates_the_eigenvalues_of_the_scaled_covariances(eager_lib):
    lib, floor = eager_lib, 1e4
    x = clusters(N, D, K, seed=4) * [1, 10, 100]
    start = given_start(x, K, "full")
    scale = narrowest_intervals(x)
    start[2][:] = np.diag(floor * scale**2)
    init = tuple(map(lib.asarray, start))
    fitted = gmm.fit(lib.asarray(x), K, init=init, covariance_floor=floor, max_iter=1)
    _, _, free, _ = gaussian_em(x, start, "full", 1, None)
    expected = []
    for matrix in free:
        values, vectors = np.linalg.eigh(matrix / np.outer(scale, scale))
        expected.append((vectors * np.maximum(values, floor)) @ vectors.T * np.outer(scale, scale))
    assert not np.allclose(expected, free)
    np.testing.assert_allclose(lib.to_numpy(fitted.covariances), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("covariance_type", ["diag", "spherical"])
def test_the_floor_is_the_least_variance(eager_lib, covariance_type):
    lib, x = eager_lib, clusters(N, D, K, seed=4) * [1, 10, 100]
    start = given_start(x, K, covariance_type)
    _, _, free, _ = gaussian_em(x, start, covariance_type, 1, None)
    variance = narrowest_intervals(x) ** 2
    variance = variance if covariance_type == "diag" else variance.mean()
    floor = float(np.quantile(free / variance, 0.4))  # it holds for some variances and not for others
    start = *start[:2], np.maximum(start[2], floor * variance)
    _, _, free, _ = gaussian_em(x, start, covariance_type, 1, None)
    init = tuple(map(lib.asarray, start))
    options = {"covariance_type": covariance_type, "covariance_floor": floor, "max_iter": 1}
    fitted = gmm.fit(lib.asarray(x), K, init=init, **options)
    expected = free <= floor * variance
    assert lib.to_numpy(fitted.floored).tolist() == (expected.any(-1) if expected.ndim > 1 else expected).tolist()
    np.testing.assert_allclose(lib.to_numpy(fitted.covariances), np.maximum(free, floor * variance), rtol=1e-9)


def test_starting_means_take_their_nearest_rows(eager_lib):
    lib, x = eager_lib, clusters(N, D, K, seed=4) * [1, 10, 100]
    fitted = gmm.fit(lib.asarray(x), K, init=lib.asarray(x[:K]), max_iter=0)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    labels = ((z[:, None] - z[:K]) ** 2).sum(axis=-1).argmin(axis=1)
    for k in range(K):
        rows = x[labels == k]
        assert float(fitted.weights[k]) == pytest.approx(len(rows) / N)
        np.testing.assert_allclose(lib.to_numpy(fitted.means)[k], rows.mean(axis=0), rtol=1e-9)


@every_type
def test_a_fit_may_be_compiled_whole(covariance_type):
    _, expected = four_steps(NUMPY, covariance_type)
    with compiling():
        _, fitted = four_steps(NUMPY, covariance_type)
    np.testing.assert_allclose(fitted.means, expected.means, rtol=1e-12)
    np.testing.assert_allclose(fitted.covariances, expected.covariances, rtol=1e-12)
    np.testing.assert_allclose(fitted.trace, expected.trace, rtol=1e-12)


def test_components_before_any_data_are_one_gaussian(eager_lib):
    lib = eager_lib
    centre, scale, x = np.array([1.0, -2.0]), np.array([0.5, 3.0]), np.random.default_rng(0).normal(size=(7, 2))
    for covariance_type in COVARIANCE_TYPES:
        model = GaussianModel(covariance_type)
        params = begin(model, K, lib.asarray(centre), lib.asarray(scale), lib.asarray(0.0), lib.asarray(np.ones(2)))
        got = gmm.GaussianMixture.unfitted(model, params).log_prob(lib.asarray(x))
        expected = multivariate_normal(centre, np.diag(scale**2)).logpdf(x)
        np.testing.assert_allclose(lib.to_numpy(got), expected, rtol=1e-12)


@every_type
def test_covariances_come_with_their_inverse_roots_and_widths(eager_lib, covariance_type):
    mixture = four_steps(eager_lib, covariance_type)[1]
    spread = [eager_lib.to_numpy(part) for part in mixture.params.spread]
    matrices, roots = (dense(part, covariance_type, K, D) for part in spread[:2])
    np.testing.assert_allclose(roots.swapaxes(-1, -2) @ roots, np.linalg.inv(matrices), rtol=1e-9, atol=1e-9)
    unit = np.sqrt(np.broadcast_to(spread[3], (K, D)))
    values = np.linalg.eigvalsh(matrices / unit[:, :, None] / unit[:, None, :])
    log_det = -np.linalg.slogdet(matrices)[1]
    for got, expected in zip(spread[2:3] + spread[4:], (log_det, values[:, 0], values.sum(-1), 0), strict=True):
        np.testing.assert_allclose(got * np.ones(K), expected * np.ones(K), rtol=1e-9)


@every_type
@pytest.mark.parametrize(("dtype", "width"), [("float64", 1e-5), ("float32", 1e-2)])
def test_only_components_narrow_beside_their_distance_need_care(eager_lib, covariance_type, dtype, width):
    """About the common centre, products of float32 resolve variances down to some 1e-4 of the squared distance."""
    means = np.array([[-1.0, 0.0], [1.0, 0.0]])
    shape = {
        "full": np.eye(2) * np.ones((2, 1, 1)),
        "tied": np.eye(2),
        "diag": np.ones((2, 2)),
        "spherical": np.ones(2),
    }
    for variance, narrow in ((1.0, 0), (width**2, 1)):
        parts = np.full(2, 0.5), means, variance * shape[covariance_type]
        parts = (eager_lib.asarray(part, dtype) for part in parts)
        mixture = gmm.GaussianMixture.from_parameters(*parts, covariance_type=covariance_type)
        assert float(mixture.params.narrow) == narrow


# Results


def test_a_mixture_is_frozen_and_equal_to_itself_alone():
    _, fitted = four_steps(NUMPY, "full")
    _, again = four_steps(NUMPY, "full")
    assert len({fitted, again}) == 2
    with pytest.raises(FrozenInstanceError):
        fitted.status = again.status


def test_score_and_criteria_count_weights_as_rows(lib):
    x, fitted = four_steps(lib, "full")
    rows, weight = lib.asarray(x), lib.asarray(WEIGHT)
    log_prob = lib.to_numpy(fitted.log_prob(rows))
    total, n, p = WEIGHT @ log_prob, WEIGHT.sum(), K - 1 + K * D + K * D * (D + 1) // 2
    assert float(fitted.log_likelihood) == pytest.approx(total, rel=1e-10)
    assert float(fitted.score(rows)) == pytest.approx(log_prob.mean(), rel=1e-12)
    assert float(fitted.score(rows, sample_weight=weight)) == pytest.approx(total / n, rel=1e-12)
    assert float(fitted.bic(rows, sample_weight=weight)) == pytest.approx(-2 * total + p * np.log(n), rel=1e-12)
    assert float(fitted.aic(rows, sample_weight=weight)) == pytest.approx(-2 * total + 2 * p, rel=1e-12)
    unsure = np.log(lib.to_numpy(fitted.responsibilities(rows)).max(axis=1))
    expected = -2 * log_prob.sum() + p * np.log(N) - 2 * unsure.sum()
    assert float(fitted.icl(rows)) == pytest.approx(expected, rel=1e-12)


@every_type
def test_a_sample_has_the_mixtures_moments(lib, covariance_type):
    _, fitted = four_steps(lib, covariance_type)
    rows, labels = (lib.to_numpy(part) for part in fitted.sample(20000, rng=3))
    assert rows.shape == (20000, D)
    assert rows.dtype == np.float64
    for k, (weight, mean, matrix) in enumerate(zip(*host(lib, fitted), strict=True)):
        own = rows[labels == k]
        assert len(own) / len(rows) == pytest.approx(weight, abs=0.02)
        np.testing.assert_allclose(own.mean(axis=0), mean, atol=6 * np.sqrt(np.trace(matrix) / len(own)))
        np.testing.assert_allclose(np.cov(own.T), matrix, atol=0.1 * np.trace(matrix))


def test_one_seed_gives_one_sample_on_every_library(lib):
    drawn = [four_steps(library, "full")[1].sample(50, rng=3) for library in (lib, NUMPY)]
    np.testing.assert_allclose(lib.to_numpy(drawn[0][0]), drawn[1][0], rtol=1e-8, atol=1e-8)
    np.testing.assert_array_equal(lib.to_numpy(drawn[0][1]), drawn[1][1])


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@every_type
def test_a_mixture_comes_back_from_a_file_in_any_library(lib, covariance_type, suffix, tmp_path):
    x, fitted = four_steps(NUMPY, covariance_type)
    fitted.save(tmp_path / f"mixture{suffix}")
    loaded = gmm.GaussianMixture.load(tmp_path / f"mixture{suffix}", like=lib.asarray([0.0]))
    assert loaded.covariance_type == covariance_type
    for name in ("weights", "means", "covariances", "trace", "n_iter", "status"):
        np.testing.assert_array_equal(lib.to_numpy(getattr(loaded, name)), getattr(fitted, name), err_msg=name)
    np.testing.assert_allclose(lib.to_numpy(loaded.log_prob(lib.asarray(x))), fitted.log_prob(x), rtol=1e-12)


def test_a_mixture_of_any_library_is_written(lib, tmp_path):
    x, fitted = four_steps(lib, "full")
    fitted.save(tmp_path / "mixture.npz")
    loaded = gmm.GaussianMixture.load(tmp_path / "mixture.npz")
    np.testing.assert_allclose(loaded.log_prob(x), lib.to_numpy(fitted.log_prob(lib.asarray(x))), rtol=1e-12)
    assert loaded.means.dtype == np.float64


@every_type
def test_a_mixture_of_its_own_parameters_scores_the_same(lib, covariance_type):
    x, fitted = four_steps(lib, covariance_type)
    parts = fitted.weights, fitted.means, fitted.covariances
    again = gmm.GaussianMixture.from_parameters(*parts, covariance_type=covariance_type)
    rows = lib.asarray(x)
    np.testing.assert_allclose(lib.to_numpy(again.log_prob(rows)), lib.to_numpy(fitted.log_prob(rows)), rtol=1e-9)


def test_results_have_the_type_of_the_data(lib):
    for dtype in ("float32", "float64"):
        x = clusters(N, D, K, seed=4)
        init = tuple(lib.asarray(part, dtype) for part in given_start(x, K, "full"))
        rows = lib.asarray(x, dtype)
        weight = lib.asarray(WEIGHT, dtype)
        fitted = gmm.fit(rows, K, init=init, max_iter=4, tol=0, sample_weight=weight)
        results = (fitted.weights, fitted.means, fitted.covariances, fitted.log_likelihood, fitted.trace)
        for value in (*results, fitted.log_prob(rows), fitted.responsibilities(rows), fitted.score(rows)):
            assert lib.to_numpy(value).dtype == np.dtype(dtype)
        assert lib.to_numpy(fitted.predict(rows)).dtype.kind == "i"


def test_a_batch_of_mixtures_scores_each_problem_by_its_own(eager_lib):
    lib = eager_lib
    x = np.stack([clusters(N, D, K, seed) for seed in (1, 2)])
    starts = [given_start(rows, K, "full") for rows in x]
    init = tuple(lib.asarray(np.stack(parts)) for parts in zip(*starts, strict=True))
    weight = lib.asarray(np.stack([WEIGHT, WEIGHT[::-1]]))
    options = {"init": init, "max_iter": 4, "tol": 0, "sample_weight": weight}
    fitted = gmm.fit(lib.asarray(x), K, **options)
    blocks = gmm.fit(lib.asarray(x), K, chunk_size=7, **options)  # a problem is more than one holds
    np.testing.assert_allclose(lib.to_numpy(blocks.trace), lib.to_numpy(fitted.trace), rtol=1e-12)
    assert fitted.weights.shape == (2, K)
    assert repr(fitted) == f"GaussianMixture(n_components={K}, batch=(2,), 0 of 2 converged)"
    assert fitted.log_likelihood.shape == (2,)
    scores = lib.to_numpy(fitted.log_prob(lib.asarray(x)))
    np.testing.assert_allclose(lib.to_numpy(fitted.score(lib.asarray(x))), scores.mean(axis=-1), rtol=1e-12)
    parts = [lib.to_numpy(part) for part in (fitted.weights, fitted.means, fitted.covariances)]
    for i in range(2):
        joint = log_densities([part[i] for part in parts], x[i])
        np.testing.assert_allclose(scores[i], logsumexp(joint, axis=1), rtol=1e-9)


@every_type
def test_a_batch_fits_as_its_problems_do(eager_lib, covariance_type):
    """Of another number of components than of features."""
    x, k = np.stack([clusters(N, D, K, seed) for seed in (1, 2)]), 2
    options = {"covariance_type": covariance_type, "max_iter": 4, "tol": 0}
    batch = gmm.fit(eager_lib.asarray(x), k, init=eager_lib.asarray(x[:, :k]), **options)
    for i in range(2):
        alone = gmm.fit(eager_lib.asarray(x[i]), k, init=eager_lib.asarray(x[i, :k]), **options)
        for name in ("weights", "means", "covariances", "log_likelihood", "trace"):
            got, expected = (eager_lib.to_numpy(getattr(fitted, name)) for fitted in (batch, alone))
            np.testing.assert_allclose(got[i], expected, rtol=1e-9, atol=1e-12, err_msg=name)


@every_type
def test_a_batch_of_one_is_the_problem_itself(eager_lib, covariance_type):
    x, options = clusters(N, D, K, seed=4), {"covariance_type": covariance_type, "max_iter": 4}
    for n_init, init in ((1, x[:K].tolist()), (3, "k-means++")):
        alone, batch = (
            gmm.fit(eager_lib.asarray(rows), K, init=init, n_init=n_init, rng=0, **options) for rows in (x, x[None])
        )
        for name in ("weights", "means", "covariances", "log_likelihood", "trace", "n_iter", "status"):
            one, many = (eager_lib.to_numpy(getattr(fitted, name)) for fitted in (alone, batch))
            np.testing.assert_allclose(many, one[None], rtol=1e-10, err_msg=name)
        for method in ("log_prob", "responsibilities", "predict"):
            one, many = (
                eager_lib.to_numpy(getattr(fitted, method)(eager_lib.asarray(rows)))
                for fitted, rows in ((alone, x), (batch, x[None]))
            )
            np.testing.assert_allclose(many, one[None], rtol=1e-9, atol=1e-12)


def test_scores_do_not_depend_on_blocks(monkeypatch):
    x = np.stack([clusters(N, D, K, seed) for seed in (1, 2)])
    fitted = gmm.fit(x, K, rng=0, max_iter=4)
    whole = fitted.log_prob(x), fitted.responsibilities(x), fitted.predict(x)
    for rows in (5, 2 * N):  # fewer than a problem has, and two problems
        monkeypatch.setattr(named("numpy"), "chunk_size", lambda size, rows=rows: rows)
        for got, expected in zip(
            (fitted.log_prob(x), fitted.responsibilities(x), fitted.predict(x)), whole, strict=True
        ):
            np.testing.assert_allclose(got, expected, rtol=1e-12)
