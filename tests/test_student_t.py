"""Student-t mixtures: values of the literature, SciPy's densities, outliers, and what every fit must keep."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp, psi

from emroute import gmm, student_t
from emroute.datasets import faithful, iris
from emroute.errors import InputError
from emroute.student_t.model import solved
from tests.helpers import rejected

pytestmark = pytest.mark.usefixtures("quick_compilation")

FAITHFUL, IRIS = faithful().x, iris().x
SPOILED = FAITHFUL.copy()
SPOILED[::20, 1] += 60
PLACES = np.arange(9)
TINY = np.concatenate([np.stack([np.sin(PLACES), np.cos(1.7 * PLACES)], axis=1), [[6, -5]]])
SHORT_LONG = (FAITHFUL[:, 0] >= 3).astype(int)
SPECIES = np.repeat([0, 1, 2], 50)


def start(x, labels):
    """What an M-step makes of labels: weights, means and covariances."""
    parts = [x[labels == k] for k in range(labels.max() + 1)]
    means, covariances = [part.mean(axis=0) for part in parts], [np.cov(part.T, bias=True) for part in parts]
    return np.bincount(labels) / len(x), np.stack(means), np.stack(covariances)


# data, labels of the start, degrees of freedom; log-likelihood at the start and at the end, degrees of freedom
KNOWN = {
    "faithful, 5": (FAITHFUL, SHORT_LONG, 5.0, -1145.30212983, -1137.16998561, [5, 5]),
    "spoiled, 5": (SPOILED, SHORT_LONG, 5.0, None, -1267.32149575, [5, 5]),
    "spoiled, common": (SPOILED, SHORT_LONG, "common", None, -1252.50301363, [2.39650261] * 2),
    "iris, 5": (IRIS, SPECIES, 5.0, None, -187.59558843, [5, 5, 5]),
    "tiny, 3": (TINY, np.zeros(10, int), 3.0, -33.77697874, -30.75203384, [3]),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_values_of_the_specification(lib, name):
    x, labels, dof, first, last, dofs = KNOWN[name]
    init = tuple(map(lib.asarray, start(x, labels)))
    fitted = student_t.fit(lib.asarray(x), len(dofs), dof=dof, init=init, tol=1e-13, max_iter=400)
    if first is not None:
        assert float(fitted.trace[0]) == pytest.approx(first, abs=1e-8)
    assert float(fitted.log_likelihood) == pytest.approx(last, abs=2e-8)
    np.testing.assert_allclose(lib.to_numpy(fitted.dofs), dofs, rtol=1e-6)


@pytest.mark.parametrize(
    ("x", "labels", "dof", "last"),
    [
        (FAITHFUL, SHORT_LONG, "common", -1130.17891852),
        (FAITHFUL, SHORT_LONG, None, -1129.96017163),
        (SPOILED, SHORT_LONG, None, -1242.88034570),
        (IRIS, SPECIES, "common", -179.96280859),
    ],
)
def test_the_slow_values_of_the_specification(x, labels, dof, last):
    options = {"tol": 1e-13, "max_iter": 400, "accelerate": "squarem"}
    fitted = student_t.fit(x, labels.max() + 1, dof=dof, init=start(x, labels), **options)
    # the specification's fits, without acceleration, were still rising in the eighth digit
    assert last - 1e-8 < float(fitted.log_likelihood) < last + 1e-7


def test_degrees_of_freedom_of_ten_rows():
    fitted = student_t.fit(TINY, 1, init=(*start(TINY, np.zeros(10, int)), [3.0]), tol=1e-13, max_iter=400)
    assert float(fitted.log_likelihood) == pytest.approx(-30.59743370, abs=1e-8)
    assert float(fitted.dofs[0]) == pytest.approx(2.10875053, abs=1e-4)


def test_the_equation_of_the_degrees_of_freedom_is_solved(lib):
    c = np.asarray([0.0051, 0.1, 1, 10, 100])
    found = lib.to_numpy(solved(lib.asarray(c), lib.asarray(np.full(5, 10.0))))
    np.testing.assert_allclose(np.log(found / 2) - psi(found / 2), c, rtol=1e-4)
    ends = lib.to_numpy(solved(lib.asarray([-1.0, 0.0, 1e6]), lib.asarray([10.0, 10, 10])))
    np.testing.assert_array_equal(ends, [200, 200, 1e-3])


def test_an_m_step_follows_the_equations():
    x, (w, m, s), v = SPOILED, start(SPOILED, SHORT_LONG), np.asarray([4.0, 30.0])
    gaps = x[:, None] - m
    q = np.einsum("nki,kij,nkj->nk", gaps, np.linalg.inv(s), gaps)
    joint = np.stack([np.log(w[k]) + stats.multivariate_t(m[k], s[k], v[k]).logpdf(x) for k in (0, 1)], axis=1)
    r = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    u = (v + 2) / (v + q)
    m_new = np.einsum("nk,ni->ki", r * u, x) / (r * u).sum(axis=0)[:, None]
    gaps = x[:, None] - m_new
    s_new = np.einsum("nk,nki,nkj->kij", r * u, gaps, gaps) / r.sum(axis=0)[:, None, None]
    fitted = student_t.fit(x, 2, init=(w, m, s, v), tol=0, max_iter=1)
    assert float(fitted.trace[0]) == pytest.approx(logsumexp(joint, axis=1).sum(), rel=1e-12)
    np.testing.assert_allclose(fitted.weights, r.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(fitted.means, m_new, rtol=1e-10)
    np.testing.assert_allclose(fitted.covariances, s_new, rtol=1e-9)
    h = (v + 2) / 2
    c = -1 - (r * (np.log(u) - u)).sum(axis=0) / r.sum(axis=0) - psi(h) + np.log(h)
    np.testing.assert_allclose(np.log(fitted.dofs / 2) - psi(fitted.dofs / 2), c, rtol=1e-4)


def test_densities_are_those_of_scipy():
    w, m, s = start(FAITHFUL, SHORT_LONG)
    mixture = student_t.StudentTMixture.from_parameters(w, m, s, np.asarray([3.0, 50.0]))
    parts = [stats.multivariate_t(m[k], s[k], (3.0, 50.0)[k]).logpdf(FAITHFUL) + np.log(w[k]) for k in (0, 1)]
    np.testing.assert_allclose(mixture.log_prob(FAITHFUL), logsumexp(parts, axis=0), rtol=1e-11)


@settings(max_examples=12)
@given(
    st.integers(0, 2**31),
    st.sampled_from(["full", "tied", "diag", "spherical"]),
    st.sampled_from([None, "common", 1.0]),
    st.booleans(),
)
def test_the_objective_never_falls(seed, covariance_type, dof, weighted):
    rng = np.random.default_rng(seed)
    x = rng.standard_t(2, (60, 2)) + 4 * (np.arange(60)[:, None] % 2)
    x[:5] = x[0]
    weight = rng.uniform(0, 3, 60) if weighted else None
    options = {"covariance_type": covariance_type, "sample_weight": weight, "rng": 0, "tol": 1e-12, "max_iter": 60}
    fitted = student_t.fit(x, 3, dof=dof, **options)
    steps = np.diff(fitted.trace[np.isfinite(fitted.trace)])
    assert steps.min(initial=0) > -1e-9 * abs(float(fitted.trace[0]))


def test_outliers_do_not_pull_the_means_along():
    clean = gmm.fit(FAITHFUL, 2, init=start(FAITHFUL, SHORT_LONG))
    pulled = gmm.fit(SPOILED, 2, init=start(SPOILED, SHORT_LONG))
    robust = student_t.fit(SPOILED, 2, init=start(SPOILED, SHORT_LONG), dof="common")
    assert np.abs(robust.means - clean.means).max() < 1.5
    assert np.abs(pulled.means - clean.means).max() > 3


def test_batches_weights_streams_and_float32():
    options = {"dof": "common", "init": [[2.0, 50.0], [4.0, 80.0]], "tol": 1e-9}
    whole = student_t.fit(SPOILED, 2, **options)
    both = student_t.fit(np.stack([SPOILED, FAITHFUL]), 2, **options)
    np.testing.assert_allclose(both.means[0], whole.means, rtol=1e-6)
    twice = student_t.fit(np.concatenate([SPOILED, SPOILED]), 2, **options)
    weighted = student_t.fit(SPOILED, 2, sample_weight=np.full(272, 2.0), **options)
    np.testing.assert_allclose(weighted.log_likelihood, twice.log_likelihood, rtol=1e-10)
    chunks = student_t.fit([SPOILED[:100], SPOILED[100:]], 2, **options)
    np.testing.assert_allclose(chunks.dofs, whole.dofs, rtol=1e-6)
    offset = (SPOILED + 1e4).astype(np.float32)
    single, double = (student_t.fit(x, 2, dof=5.0, rng=0, tol=1e-7) for x in (offset, offset.astype(float)))
    assert abs(float(single.log_likelihood - double.log_likelihood)) / 272 < 1e-3


def test_a_sample_has_the_mixtures_quantiles():
    mixture = student_t.StudentTMixture.from_parameters(
        np.ones(1), np.asarray([[3.0, -1.0]]), np.asarray([[4.0, 1.0]]), np.asarray([3.0]), covariance_type="diag"
    )
    x, _ = mixture.sample(40000, rng=0)
    expected = 3 + 2 * stats.t(3).ppf([0.05, 0.5, 0.95])
    np.testing.assert_allclose(np.quantile(x[:, 0], [0.05, 0.5, 0.95]), expected, atol=0.15)


def test_a_mixture_comes_back_from_a_file(tmp_path):
    for covariance_type in ("full", "VVE"):
        fitted = student_t.fit(FAITHFUL, 2, covariance_type=covariance_type, dof=4.0, rng=0)
        fitted.save(tmp_path / "heavy.npz")
        again = student_t.StudentTMixture.load(tmp_path / "heavy.npz")
        np.testing.assert_array_equal(again.log_prob(FAITHFUL), fitted.log_prob(FAITHFUL))
        assert again.n_parameters == fitted.n_parameters


def test_degrees_of_freedom_may_be_given_for_each_component():
    for dof in ([4.0, 9.0], np.asarray([4.0, 9.0]), np.asarray([4, 9])):
        assert student_t.fit(FAITHFUL, 2, dof=dof, rng=0, tol=1e-3).dofs.tolist() == [4, 9]
    assert student_t.fit(FAITHFUL, 2, dof=np.float32(4), rng=0, tol=1e-3).dofs.tolist() == [4, 4]


def test_parameters_are_counted():
    fits = [student_t.fit(FAITHFUL, 2, dof=dof, rng=0, tol=1e-3) for dof in (None, "common", 5.0)]
    assert [fit.n_parameters for fit in fits] == [13, 12, 11]


def test_what_cannot_be_fitted_is_refused():
    fit, x = student_t.fit, FAITHFUL
    rejected(lambda: fit(x, 2, dof="each"), InputError, "dof='each'", "'common'")
    rejected(lambda: fit(x, 2, dof=True), InputError, "dof=True")
    rejected(lambda: fit(x, 2, dof=np.asarray([4.0, 5, 6])), InputError, "(..., 2)")
    rejected(lambda: fit(x, 2, dof=0.0), InputError, "must be positive")
    rejected(lambda: fit(x, 2, dof=-3), InputError, "must be positive")
    rejected(lambda: fit(x, 2, dof=np.nan), InputError, "degrees of freedom")
    rejected(lambda: fit(x, 2, dof=5.0, init=(*start(x, SHORT_LONG), [5.0, 5.0])), InputError, "twice")
    rejected(lambda: fit(np.where(x == x[3], np.nan, x), 2), InputError, "NaN", "row")
    rejected(lambda: fit(x, 2, covariance_type="round"), InputError, "covariance_type='round'")


@pytest.mark.parametrize(("dtype", "dof"), [("float32", 1e4), ("float32", 1e8), ("float64", 1e15), ("float64", 1e200)])
def test_many_degrees_of_freedom_are_a_gaussian(dtype, dof):
    x = FAITHFUL.astype(dtype)
    options = {"init": [[2.0, 50.0], [4.0, 80.0]], "max_iter": 5, "tol": 0}
    heavy, gaussian = student_t.fit(x, 2, dof=dof, **options), gmm.fit(x, 2, **options)
    assert float(heavy.log_likelihood) == pytest.approx(float(gaussian.log_likelihood), rel=1e-5)
