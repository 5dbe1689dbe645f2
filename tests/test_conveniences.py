"""Single problems, order, files and reprs of results; words for the habits of other libraries."""

import re
from typing import NamedTuple

import numpy as np
import pytest
import scipy.sparse
from array_api_compat import array_namespace

from emroute import binomial, datasets, em, gmm, kmeans, multinomial, poisson, select
from emroute.em import Status
from emroute.errors import FitWarning, InputError, InputIndexError, InputTypeError
from emroute.kmeans import KMeans
from emroute.mixture import Mixture
from tests.helpers import library

X = datasets.faithful().x
BATCH = np.stack([X[:40], X[40:80], X[80:120]])
COUNTS = np.random.default_rng(0).poisson(6, size=(3, 30, 2)).astype(float)

FITS = {
    **{kind: lambda x, kind=kind: gmm.fit(x, 2, covariance_type=kind, rng=0, max_iter=4)
       for kind in ("full", "tied", "diag", "spherical")},
    "poisson": lambda x: poisson.fit(x // 1, 2, rng=0, max_iter=4),
    "multinomial": lambda x: multinomial.fit(x // 1, 2, rng=0, max_iter=4),
    "kmeans": lambda x: kmeans.fit(x, 2, rng=0),
}  # fmt: skip


def scores(result, x):
    return result.transform(x) if isinstance(result, KMeans) else result.log_prob(x)


# one problem of a batch


@pytest.mark.parametrize("name", FITS)
def test_a_problem_of_a_batch_is_the_problem(name):
    batch = FITS[name](BATCH)
    one = batch[1]
    for part in ("trace", "n_iter", "status", "converged"):
        np.testing.assert_array_equal(getattr(one, part), getattr(batch, part)[1])
    rows = BATCH[1] // 1 if name in ("poisson", "multinomial") else BATCH[1]
    many = BATCH // 1 if name in ("poisson", "multinomial") else BATCH
    np.testing.assert_allclose(scores(one, rows), scores(batch, many)[1], rtol=1e-12)
    assert scores(batch[1:], many[1:]).shape == scores(batch, many)[1:].shape
    assert len(list(batch)) == 3  # a batch is iterated over, and ends


def test_batches_of_several_dimensions_and_given_parameters(lib):
    weights = lib.asarray(np.full((2, 3, 2), 0.5))
    mixture = poisson.PoissonMixture.from_parameters(weights, lib.asarray(np.arange(1.0, 13).reshape(2, 3, 2)))
    np.testing.assert_allclose(lib.to_numpy(mixture[1, 2].rates), [11, 12])
    np.testing.assert_allclose(lib.to_numpy(mixture[0].rates), [[1, 2], [3, 4], [5, 6]])
    np.testing.assert_allclose(lib.to_numpy(mixture[:, 1].rates), [[3, 4], [9, 10]])


@pytest.mark.parametrize("index", [3, -4, "a", (0, 0), (0, slice(None)), 1.0])
def test_problems_that_are_not_there(lib, index):
    mixture = poisson.PoissonMixture.from_parameters(lib.asarray(np.full((3, 2), 0.5)), lib.asarray(np.ones((3, 2))))
    with pytest.raises(InputIndexError, match="expected"):
        mixture[index]
    with pytest.raises(InputIndexError, match="one problem, not a batch"):
        mixture[0][0]


# order


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical", "VVE", "EEV"])
def test_sorted_components_are_the_same_mixture(kind):
    mixture = gmm.fit(BATCH, 3, covariance_type=kind, rng=0, max_iter=5)
    for by in ("weights", "means", -mixture.means[..., 1]):
        other = mixture.sorted(by)
        np.testing.assert_allclose(other.log_prob(BATCH), mixture.log_prob(BATCH), rtol=1e-12)
        keys = {"weights": -other.weights, "means": other.means[..., 0]}.get(by) if isinstance(by, str) else None
        keys = -other.means[..., 1] if keys is None else keys
        assert (np.diff(keys, axis=-1) >= 0).all()
        shares = np.sort(mixture.responsibilities(BATCH), axis=-1)
        np.testing.assert_allclose(np.sort(other.responsibilities(BATCH), axis=-1), shares, atol=1e-12)
        assert other.floored.shape == mixture.floored.shape
    np.testing.assert_array_equal(mixture.sorted().log_likelihood, mixture.log_likelihood)


def test_counts_are_sorted_too(lib):
    fitted = binomial.fit(lib.asarray(np.asarray([5.0, 9, 8, 4, 7])), 10, 2, init=[0.6, 0.5], max_iter=3)
    probs = lib.to_numpy(fitted.sorted(by="probs").probs)
    np.testing.assert_allclose(probs, np.sort(lib.to_numpy(fitted.probs)))


@pytest.mark.parametrize("by", ["size", "log_prob", np.ones(3), None])
def test_what_cannot_be_sorted_by(by):
    with pytest.raises(InputError, match="expected 'weights', a parameter"):
        poisson.fit(COUNTS[0], 2, rng=0, max_iter=2).sorted(by)


# files


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize("scale", [1.0, 1e-150])  # in the second, squares underflow
def test_clusterings_are_kept(lib, tmp_path, suffix, scale):
    x = lib.asarray(BATCH * scale)
    clusters = kmeans.fit(x, 2, rng=0)
    path = tmp_path / f"clusters.{suffix}"
    clusters.save(path)
    loaded = KMeans.load(path, like=x)
    for part in ("centroids", "labels", "inertia", "trace", "n_iter", "status"):
        np.testing.assert_array_equal(lib.to_numpy(getattr(loaded, part)), lib.to_numpy(getattr(clusters, part)))
    np.testing.assert_array_equal(lib.to_numpy(loaded.predict(x)), lib.to_numpy(clusters.labels))
    assert type(loaded.centroids) is type(x)


def test_given_centroids_are_a_clustering(lib):
    clusters = KMeans.from_centroids(lib.asarray([[0.0, 0.0], [3.0, 4.0]]))
    x = lib.asarray([[0.0, 1.0], [3.0, 3.0]])
    assert lib.to_numpy(clusters.predict(x)).tolist() == [0, 1]
    np.testing.assert_allclose(lib.to_numpy(clusters.transform(x))[0], [1, 18**0.5])
    assert repr(clusters) == "KMeans(n_clusters=2, parameters given)"
    for wrong in ([0.0, 1.0], [[np.nan]]):
        with pytest.raises(InputError, match="centroids"):
            KMeans.from_centroids(lib.asarray(wrong))


def test_what_is_no_clustering_is_not_loaded(tmp_path):
    poisson.fit(COUNTS[0], 2, rng=0, max_iter=2).save(tmp_path / "mixture.npz")
    with pytest.raises(InputError, match=r"mixture.npz is not a clustering saved by emroute"):
        KMeans.load(tmp_path / "mixture.npz")
    KMeans.from_centroids(np.eye(2)).save(tmp_path / "clusters.npz")
    with pytest.raises(InputError, match=r"clusters.npz is not a mixture saved by emroute"):
        Mixture.load(tmp_path / "clusters.npz")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("other", ["float32", "float64"])
def test_files_keep_their_dtype(lib, tmp_path, dtype, other):
    x = lib.asarray(X[:30], dtype)
    mixture, clusters = gmm.fit(x, 2, rng=0, max_iter=3), kmeans.fit(x, 2, rng=0)
    mixture.save(tmp_path / "mixture.npz")
    clusters.save(tmp_path / "clusters.npz")
    like = lib.asarray([0.0], other)
    for loaded in (Mixture.load(tmp_path / "mixture.npz", like=like).means,
                   KMeans.load(tmp_path / "clusters.npz", like=like).centroids):  # fmt: skip
        assert loaded.dtype == x.dtype
        assert array_namespace(loaded) is array_namespace(x)


def test_a_dtype_that_is_not_enabled_is_told(tmp_path):
    import jax

    gmm.fit(X[:30], 2, rng=0, max_iter=3).save(tmp_path / "mixture.npz")
    with jax.enable_x64(False), pytest.warns(FitWarning, match="it is loaded in float32"):
        loaded = Mixture.load(tmp_path / "mixture.npz", like=library("jax").asarray([0.0], "float32"))
    assert loaded.means.dtype == np.float32


# reprs


def test_a_batch_counts_what_converged():
    mixture = poisson.fit(COUNTS, 2, rng=0, max_iter=60, tol=1e-3)
    done = int(mixture.converged.sum())
    assert repr(mixture) == f"PoissonMixture(n_components=2, batch=(3,), {done} of 3 converged)"
    clusters = kmeans.fit(BATCH, 2, rng=0)
    assert repr(clusters) == "KMeans(n_clusters=2, batch=(3,), 3 of 3 converged)"


def test_given_parameters_say_so():
    given = gmm.GaussianMixture.from_parameters(np.ones(1), np.zeros((1, 2)), np.eye(2)[None])
    assert repr(given) == "GaussianMixture(n_components=1, parameters given)"
    assert repr(gmm.fit(X, 1, max_iter=0)).startswith("GaussianMixture(n_components=1, log_likelihood=-")


def test_large_numbers_are_short():
    fitted = gmm.fit(X, 1, sample_weight=np.full(len(X), 1e30))
    assert re.search(r"log_likelihood=-[\d.]{1,11}e\+33, n_iter", repr(fitted))


# models of one's own


class Params(NamedTuple):
    """A mean."""

    mean: np.ndarray


class Sums(NamedTuple):
    """Of a weighted mean."""

    weight: np.ndarray
    first: np.ndarray
    rows: np.ndarray


class Mean:
    """The mean of numbers, with an objective of any shape."""

    def __init__(self, objective):
        self.found = objective

    def expect(self, params, x, w):
        return Sums(w.sum(), (w * (x[:, 0] - params.mean)).sum(), x[:, 0])

    def merge(self, a, b):
        return Sums(a.weight + b.weight, a.first + b.first, np.concatenate([a.rows, b.rows]))

    def maximize(self, sums, params):
        return Params(params.mean + sums.first / sums.weight)

    def objective(self, sums, params):
        return self.found(sums, params)


def test_the_objective_is_blamed_for_its_shape():
    start = Params(np.asarray(0.0))
    for wrong, words in ((lambda sums, _: sums.rows, r"returned shape \(1,\)"), (lambda *_: 3.0, "returned 3.0"),
                         (lambda *_: None, "returned None")):  # fmt: skip
        with pytest.raises(InputError, match=rf"Mean.objective {words}, expected .*one number for each problem"):
            em.fit(Mean(wrong), X, start)


def test_the_end_of_a_fit_is_short():
    fit = em.fit(Mean(lambda sums, params: -(sums.first**2)), X, Params(np.asarray(0.0)))
    assert re.fullmatch(r"Fit\(objective=-\d\.\d{6}, n_iter=\d, converged\)", repr(fit))
    assert fit.status == Status.CONVERGED


# habits of other libraries


FITTERS = {
    "gmm": lambda **options: gmm.fit(X, 2, **options),
    "kmeans": lambda **options: kmeans.fit(X, 2, **options),
    "poisson": lambda **options: poisson.fit(COUNTS[0], 2, **options),
    "multinomial": lambda **options: multinomial.fit(COUNTS[0], 2, **options),
    "binomial": lambda **options: binomial.fit(np.asarray([1, 2]), 3, 2, **options),
    "select": lambda **options: select.mixtures(X, 2, **options),
}


@pytest.mark.parametrize("fit", FITTERS)
def test_keywords_of_others_name_ours(fit):
    with pytest.raises(InputTypeError, match="got random_state=0, which is called rng here"):
        FITTERS[fit](random_state=0)
    with pytest.raises(TypeError, match="nonsense"):
        FITTERS[fit](nonsense=0)


@pytest.mark.parametrize(
    ("fit", "options", "words"),
    [
        (gmm.fit, {"n_clusters": 2}, "which is called n_components here"),
        (kmeans.fit, {"n_components": 2}, "which is called n_clusters here"),
        (kmeans.fit, {"k": 2}, "which is called n_clusters here"),
        (gmm.fit, {"n_components": 2, "reg_covar": 1e-6}, "called covariance_floor here, the least variance in units"),
        (gmm.fit, {"n_components": 2, "means_init": X[:2]}, "which is called init here, starting means"),
    ],
)
def test_other_keywords_of_others(fit, options, words):
    with pytest.raises(InputTypeError, match=words):
        fit(X, **options)


def test_generators_of_other_libraries_are_refused_with_the_reason():
    import jax
    import torch

    for rng, words in (
        (torch.Generator(), r"got a torch\S*Generator; draws are made by NumPy .* `rng=generator.initial_seed\(\)`"),
        (jax.random.key(0), r"got a key; draws are made by NumPy .* `rng=int\(random.bits\(key\)\)`"),
        (jax.random.PRNGKey(0), "got a key; draws are made by NumPy"),
    ):
        with pytest.raises(InputError, match=words):
            kmeans.fit(X, 2, rng=rng)
    assert kmeans.fit(X, 2, rng=torch.Generator().manual_seed(3).initial_seed()).converged


@pytest.mark.parametrize("call", [lambda x: gmm.fit(x, 2), lambda x: kmeans.fit(x, 2), lambda x: select.mixtures(x, 2)])
def test_what_is_no_array_gets_the_right_sentence(call):
    import jax.numpy as jnp
    import pandas as pd
    import polars as pl
    import torch
    from flax import nnx

    for x, words in (
        (nnx.Param(jnp.asarray(X)), r"which holds an array; pass that, `param\[...\]`"),
        (scipy.sparse.csr_array(X), r"a sparse array, expected a dense one; pass `.toarray\(\)`"),
        (torch.asarray(X).to_sparse(), r"a sparse array, expected a dense one; pass `.to_dense\(\)`"),
        (pd.DataFrame(X), r"got pandas.DataFrame, expected an array; pass its numbers, `.to_numpy\(\)`"),
        (pl.DataFrame(X), r"expected an array; pass its numbers, `.to_numpy\(\)`"),
    ):
        with pytest.raises(InputTypeError, match=words):
            call(x)


def test_a_bar_is_closed_when_a_callback_raises(monkeypatch):
    import tqdm.auto

    closed = []

    class Bar(tqdm.auto.tqdm):
        def close(self):
            closed.append(True)
            super().close()

    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)

    def stop(iteration, fit):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        gmm.fit(X, 2, rng=0, progress=True, callback=stop)
    assert closed
