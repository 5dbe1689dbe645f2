"""Gaussian mixtures of rows with gaps: recomputed figures, SciPy's marginal densities, and what holds of any gaps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from emroute import gmm, select
from emroute.data import open_source
from emroute.datasets import iris
from emroute.errors import InputError, InputTypeError
from emroute.gmm import GaussianMixture
from emroute.gmm.covariance import CODES
from emroute.gmm.gaps import gappy
from emroute.gmm.tiles import tiled
from tests.helpers import NUMPY, assert_monotone, for_all, rejected

NAN = np.nan
TINY = np.asarray([[1, 2], [2, NAN], [3, 5], [NAN, 1], [4, 6], [NAN, NAN]])
TINY_START = [1.0], [[2.5, 3.5]], np.eye(2)[None]
IRIS, SPECIES = np.asarray(iris().x), np.repeat(np.arange(3), 50)
GAPPY = np.where((7 * np.arange(150)[:, None] + 3 * np.arange(4)) % 11 == 0, NAN, IRIS)


def from_species():
    """Means and variances of the cases that are there, by species."""
    groups = [GAPPY[label == SPECIES] for label in range(3)]
    means = np.stack([np.nanmean(group, axis=0) for group in groups])
    return np.ones(3) / 3, means, np.stack([np.diag(np.nanvar(group, axis=0)) for group in groups])


def marginalized(lib, x, k, init, **options):
    init = tuple(map(lib.asarray, init))
    return gmm.fit(lib.asarray(x), k, missing="marginalize", init=init, **options)


def test_six_rows(lib):
    start = marginalized(lib, TINY, 1, TINY_START, max_iter=0)
    each = [-4.08787707, -1.04393853, -3.08787707, -4.04393853, -6.08787707, 0]
    np.testing.assert_allclose(lib.to_numpy(start.log_prob(lib.asarray(TINY))), each, atol=1e-8)
    assert float(start.log_likelihood) == pytest.approx(-18.35150827, abs=1e-8)
    fitted = marginalized(lib, TINY, 1, TINY_START, tol=1e-15, max_iter=2000)
    assert float(fitted.trace[1]) == pytest.approx(-12.98183902, abs=1e-8)
    assert float(fitted.log_likelihood) == pytest.approx(-7.56514404, abs=1e-8)
    np.testing.assert_allclose(lib.to_numpy(fitted.means), [[2.04744991, 3.48383747]], atol=1e-6)
    covariance = [[1.82176671, 2.48214213], [2.48214213, 3.40583158]]
    np.testing.assert_allclose(lib.to_numpy(fitted.covariances)[0], covariance, atol=1e-6)
    filled = lib.to_numpy(fitted.impute(lib.asarray(TINY)))
    np.testing.assert_allclose(filled[[1, 3]], [[2, 3.41918736], [0.23724953, 1]], atol=1e-6)
    variances = [lib.to_numpy(fitted.condition([j], lib.asarray([2.0])).covariances).item() for j in (0, 1)]
    np.testing.assert_allclose(variances, [0.02393337, 0.01280187], atol=1e-6)


def test_the_first_step_on_six_rows():
    fitted = marginalized(NUMPY, TINY, 1, TINY_START, max_iter=1)
    np.testing.assert_allclose(fitted.means, [[2.5, 3.5]])
    np.testing.assert_allclose(fitted.covariances[0], [[1.16666667, 1.125], [1.125, 3.16666667]], atol=1e-8)


def test_iris_with_54_gaps(lib):
    one = np.ones(1), np.nanmean(GAPPY, axis=0)[None], np.diag(np.nanvar(GAPPY, axis=0))[None]
    fitted = marginalized(lib, GAPPY, 1, one, tol=1e-13)
    assert float(fitted.trace[0]) == pytest.approx(-677.80059981, abs=1e-7)
    assert float(fitted.log_likelihood) == pytest.approx(-375.26529921, abs=1e-7)
    fitted = marginalized(lib, GAPPY, 3, from_species(), tol=1e-13)
    np.testing.assert_allclose(lib.to_numpy(fitted.trace)[:2], [-296.92895750, -205.72012140], atol=1e-7)
    assert float(fitted.log_likelihood) == pytest.approx(-183.31744159, abs=1e-7)
    np.testing.assert_allclose(lib.to_numpy(fitted.weights), [0.33333333, 0.29735846, 0.36930821], atol=1e-6)
    assert_monotone(lib.to_numpy(fitted.trace), 150)


def test_scores_are_those_of_what_is_seen():
    mixture = marginalized(NUMPY, GAPPY, 3, from_species(), max_iter=3)
    joint = np.empty((150, 3))
    for row, place in np.ndindex(joint.shape):
        o = ~np.isnan(GAPPY[row])
        normal = multivariate_normal(mixture.means[place][o], mixture.covariances[place][np.ix_(o, o)])
        joint[row, place] = np.log(mixture.weights[place]) + normal.logpdf(GAPPY[row][o])
    expected = logsumexp(joint, axis=1)
    np.testing.assert_allclose(mixture.log_prob(GAPPY), expected, rtol=1e-10)
    np.testing.assert_allclose(mixture.responsibilities(GAPPY), np.exp(joint - expected[:, None]), atol=1e-10)
    np.testing.assert_array_equal(mixture.predict(GAPPY), joint.argmax(axis=1))
    assert float(mixture.score(GAPPY)) == pytest.approx(expected.mean())
    assert float(mixture.bic(GAPPY)) == pytest.approx(-2 * expected.sum() + 44 * np.log(150))


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize("narrow", [0.0, 1.0])
def test_tiles_without_gaps_are_rows(covariance_type, narrow):
    mixture = gmm.fit(IRIS, 3, covariance_type=covariance_type, rng=0)
    params = mixture.params._replace(narrow=np.asarray(narrow))
    tiles, place = tiled(open_source(IRIS), np.zeros(IRIS.shape, bool))
    model = mixture.model
    expected = model.expect(params, IRIS, np.ones(150))
    found = gappy(model, tiles).expect(params, tiles.block.data, tiles.weight)
    for a, b in zip((*found.sums, found.log_likelihood), (*expected.sums, expected.log_likelihood), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    assert sorted(place) == sorted(set(place))
    same = gmm.fit(IRIS, 3, covariance_type=covariance_type, rng=0, missing="marginalize")
    np.testing.assert_array_equal(same.trace, mixture.trace)


@for_all(
    code=st.sampled_from([code for code in CODES if code not in ("EVE", "VVE")]),
    seed=st.integers(0, 1000),
    k=st.integers(1, 3),
    examples=20,
)
def test_the_likelihood_never_falls(eager_lib, code, seed, k):
    lib, rng, d = eager_lib, np.random.default_rng(seed), 2 + seed % 3
    x = rng.normal(size=(60, d)) @ rng.normal(size=(d, d)) + rng.normal(size=(3, d))[rng.integers(0, 3, 60)]
    x[rng.random(x.shape) < rng.uniform(0, 0.4)] = NAN
    weight = rng.uniform(0.1, 3, 60)
    options = {"sample_weight": lib.asarray(weight), "max_iter": 30, "rng": seed, "covariance_floor": 1e-12}
    fitted = gmm.fit(lib.asarray(x), k, covariance_type=code, missing="marginalize", **options)
    assert_monotone(lib.to_numpy(fitted.trace), weight.sum())


def test_weights_order_blocks_batches_and_float32_change_nothing():
    init, options = from_species(), {"tol": 0, "max_iter": 4}
    weight = np.where(np.arange(150) % 7 == 0, 2.0, 1.0)
    expected = marginalized(NUMPY, GAPPY, 3, init, sample_weight=weight, **options)
    repeated = np.concatenate([GAPPY, GAPPY[weight == 2]])
    shuffled = np.random.default_rng(0).permutation(len(repeated))
    for x, more in ((repeated[shuffled], {}), (GAPPY, {"sample_weight": weight, "chunk_size": 20})):
        np.testing.assert_allclose(marginalized(NUMPY, x, 3, init, **more, **options).trace, expected.trace, rtol=1e-10)
    other = np.where(np.arange(600).reshape(150, 4) % 13 == 0, NAN, IRIS[::-1])
    both = gmm.fit(np.stack([GAPPY, other]), 3, missing="marginalize", n_init=2, rng=0)
    assert both.log_prob(np.stack([GAPPY, other])).shape == (2, 150)
    for place, x in enumerate((GAPPY, other)):
        alone = marginalized(NUMPY, x, 3, init, sample_weight=weight, **options)
        init_of_both = tuple(np.stack([part, part]) for part in init)
        together = marginalized(NUMPY, np.stack([GAPPY, other]), 3, init_of_both, sample_weight=weight, **options)
        np.testing.assert_allclose(together.trace[place], alone.trace, rtol=1e-10)
        np.testing.assert_allclose(together.log_prob(x)[place], alone.log_prob(x), rtol=1e-9)
    small = tuple(part.astype(np.float32) for part in init)
    in_float32 = marginalized(NUMPY, GAPPY.astype(np.float32), 3, small, **options)
    in_float64 = marginalized(NUMPY, GAPPY, 3, init, **options)
    np.testing.assert_allclose(in_float32.trace, in_float64.trace, atol=150 * 1e-3)


@pytest.mark.parametrize("code", CODES)
def test_a_density_is_that_of_a_part_times_that_of_the_rest_given_it(code):
    mixture = gmm.fit(IRIS, 2, covariance_type=code, max_iter=3, rng=0)
    part, given = mixture.marginal([2, 0]), mixture.condition([2, 0], IRIS[:, [2, 0]])
    rest = given.log_prob(IRIS[:, None, [1, 3]])[:, 0]
    np.testing.assert_allclose(part.log_prob(IRIS[:, [2, 0]]) + rest, mixture.log_prob(IRIS), rtol=1e-9)
    assert part.covariance_type == given.covariance_type
    in_part = gmm.fit(IRIS[:, [2, 0]], 2, covariance_type=part.covariance_type, max_iter=0, rng=0)
    assert part.n_parameters == in_part.n_parameters


def test_rows_are_filled_with_their_expectations():
    mixture = gmm.fit(IRIS, 2, rng=0)
    filled = mixture.impute(GAPPY)
    seen = ~np.isnan(GAPPY)
    np.testing.assert_array_equal(filled[seen], GAPPY[seen])
    row = int(np.argmax(np.isnan(GAPPY).any(axis=1)))
    o = np.flatnonzero(seen[row])
    given = mixture.condition(o.tolist(), GAPPY[row, o])
    np.testing.assert_allclose(filled[row, ~seen[row]], given.weights @ given.means, rtol=1e-9)
    np.testing.assert_array_equal(mixture.impute(IRIS), IRIS)


def test_a_saved_mixture_still_takes_gaps(tmp_path):
    mixture = gmm.fit(GAPPY, 2, missing="marginalize", max_iter=3, rng=0)
    mixture.save(tmp_path / "mixture.npz")
    loaded = GaussianMixture.load(tmp_path / "mixture.npz")
    np.testing.assert_array_equal(loaded.log_prob(GAPPY), mixture.log_prob(GAPPY))
    assert np.isfinite(select.mixtures(GAPPY, 2, ("diag", "VEE"), missing="marginalize", rng=0).table[1].icl)


@pytest.mark.filterwarnings("ignore::emroute.FitWarning")
def test_what_cannot_be_taken_is_refused():
    mixture = gmm.fit(IRIS, 2, max_iter=2, rng=0)
    for run, words in (
        (lambda: gmm.fit(GAPPY, 2), "NaN or infinity"),
        (lambda: mixture.log_prob(GAPPY), "NaN or infinity"),
        (lambda: gmm.fit(GAPPY, 2, missing="drop"), "missing='drop'"),
        (lambda: gmm.fit(np.where(np.arange(4) == 2, NAN, IRIS), 2, missing="marginalize"), "feature 2"),
        (lambda: gmm.fit(np.where(np.isnan(GAPPY), np.inf, GAPPY), 2, missing="marginalize"), "infinity"),
        (lambda: mixture.impute(np.where(np.isnan(GAPPY), np.inf, GAPPY)), "infinity"),
        (lambda: jax.jit(lambda x: gmm.fit(x, 2, missing="marginalize").means)(jnp.asarray(GAPPY)), "jit"),
        (lambda: mixture.marginal([0, 0]), "each once"),
        (lambda: mixture.marginal([4]), "0 to 3"),
        (lambda: mixture.marginal([]), "one or more"),
        (lambda: mixture.condition([0, 1, 2, 3], IRIS[0]), "at least one to be left"),
        (lambda: mixture.condition([0, 1], IRIS[0]), "values"),
    ):
        with pytest.raises(InputError, match=words):
            run()
    with pytest.raises(InputTypeError, match="not a source"):
        gmm.fit([GAPPY[:70], GAPPY[70:]], 2, missing="marginalize")


def test_rows_without_weight_fill_no_gaps():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 2))
    x[30:] += 4
    x[::3, 0] = np.nan
    options = {"missing": "marginalize", "init": [[0.0, 0], [4, 4]]}
    weight = np.r_[0.0, np.ones(60)]
    alone, beside = gmm.fit(x, 2, **options), gmm.fit(np.r_[[[1e6, 0.0]], x], 2, sample_weight=weight, **options)
    assert float(beside.log_likelihood) == pytest.approx(float(alone.log_likelihood), rel=1e-9)
    only = np.c_[np.r_[5.0, np.full(60, np.nan)], np.r_[0.0, x[:, 1]]]
    rejected(lambda: gmm.fit(only, 2, sample_weight=weight, **options), InputError, "feature 0", "NaN in all rows")
