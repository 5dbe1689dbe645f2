"""The floor is below what a component honestly is, whatever the other groups are; what rests on it is told."""

import numpy as np
import pytest
from hypothesis import strategies as st

from emroute import FitWarning, em, gmm, kmeans, poisson, select
from emroute.datasets import iris
from emroute.gmm import GaussianMixture
from tests.helpers import COVARIANCE_TYPES, NUMPY, assert_monotone, for_all

pytestmark = pytest.mark.usefixtures("quick_compilation")

every_type = pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)


def two_groups(distance, widths=(1.0, 1.0), n=300):
    """Two groups of one feature, and the variance of each."""
    rng = np.random.default_rng(0)
    parts = [rng.normal(0, widths[0], n), rng.normal(distance, widths[1], n)]
    return np.concatenate(parts)[:, None], np.array([part.var() for part in parts])


def variances(lib, fitted):
    """Variances of a fit of one feature, the component of the least mean first."""
    order = np.argsort(lib.to_numpy(fitted.means)[:, 0])
    return (lib.to_numpy(fitted.covariances).reshape(-1) * np.ones(len(order)))[order]


@pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical"])
@pytest.mark.parametrize(("dtype", "distance", "width"), [("float32", 1e4, 1e-4), ("float64", 1e9, 1e-8)])
def test_a_narrow_group_near_0_keeps_digits_that_a_far_one_has_not(lib, covariance_type, dtype, distance, width):
    x = two_groups(distance, (width, 1.0))[0].astype(dtype)
    fitted = gmm.fit(lib.asarray(x), 2, covariance_type=covariance_type, covariance_floor=0, rng=0)
    own = [x[:300].astype(float).var(), x[300:].astype(float).var()]
    np.testing.assert_allclose(variances(lib, fitted), own, rtol=1e-3)


@every_type
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("distance", [1e2, 1e4, 1e6])
def test_far_groups_keep_their_own_variances(lib, covariance_type, dtype, distance):
    x, _ = two_groups(distance)
    x = x.astype(dtype).astype(float)  # what rounding leaves of them
    own = np.array([x[:300].var(), x[300:].var()])
    fitted = gmm.fit(lib.asarray(x, dtype), 2, covariance_type=covariance_type, rng=0)
    expected = own.mean() if covariance_type == "tied" else own
    np.testing.assert_allclose(variances(lib, fitted), expected, rtol=1e-2 if dtype == "float32" else 1e-6)
    assert not lib.to_numpy(fitted.floored).any()


@pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical"])
def test_groups_of_different_widths_keep_them(lib, covariance_type):
    x, own = two_groups(1e4, (1.0, 1e-3))
    fitted = gmm.fit(lib.asarray(x), 2, covariance_type=covariance_type, rng=0)
    np.testing.assert_allclose(variances(lib, fitted), own, rtol=1e-5)
    assert not lib.to_numpy(fitted.floored).any()
    assert_monotone(lib.to_numpy(fitted.trace), 600)


@every_type
def test_a_row_far_out_decides_nothing(lib, covariance_type):
    x = np.append(np.random.default_rng(0).normal(size=1000), 1e6)[:, None]
    fitted = gmm.fit(lib.asarray(x), 2, covariance_type=covariance_type, rng=0)
    shared = 1000 / 1001 if covariance_type == "tied" else 1
    assert variances(lib, fitted)[0] == pytest.approx(x[:1000].var() * shared, rel=1e-5)
    assert lib.to_numpy(fitted.floored).sum() == (covariance_type != "tied")


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_a_matrix_of_float32_is_narrow_in_one_feature_only(lib, covariance_type):
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(0, [1, 1], (300, 2)), rng.normal([50, 0], [1e-3, 1], (300, 2))])
    x = x.astype(np.float32)
    fitted = gmm.fit(lib.asarray(x), 2, covariance_type=covariance_type, rng=0)
    expected = gmm.fit(x.astype(float), 2, covariance_type=covariance_type, rng=0)
    order, theirs = np.argsort(lib.to_numpy(fitted.means)[:, 0]), np.argsort(expected.means[:, 0])
    got, want = lib.to_numpy(fitted.covariances)[order], expected.covariances[theirs]
    units = np.sqrt([x[:300].astype(float).var(axis=0), x[300:].astype(float).var(axis=0)])
    units = units**2 if covariance_type == "diag" else units[:, :, None] * units[:, None, :]
    np.testing.assert_allclose(got / units, want / units, atol=1e-2)


ROUGH = {
    "zeros and others": lambda rng: np.where(rng.random((200, 2)) < 0.8, 0.0, rng.lognormal(size=(200, 2))),
    "integers": lambda rng: rng.poisson(3, (200, 2)).astype(float),
    "duplicates": lambda rng: rng.normal(size=(5, 2))[rng.integers(5, size=200)],
    "a constant": lambda rng: np.stack([rng.normal(size=200), np.full(200, 0.1)], axis=-1),
    "a line": lambda rng: rng.normal(size=(200, 1)) * [1.0, -2.0],
}


@every_type
@pytest.mark.parametrize("name", ROUGH)
def test_rescaled_features_give_the_fit_rescaled(eager_lib, covariance_type, name):
    x = ROUGH[name](np.random.default_rng(2))
    unit = np.array([2.0**-27, 2.0**27]) if covariance_type != "spherical" else 2.0**-27
    if name == "a constant":
        unit = 1.0 if covariance_type == "spherical" else np.array([2.0**-27, 1.0])
    options = {"covariance_type": covariance_type, "rng": 0, "max_iter": 50}
    one = gmm.fit(eager_lib.asarray(x), 3, **options)
    two = gmm.fit(eager_lib.asarray(x * unit), 3, **options)
    np.testing.assert_allclose(eager_lib.to_numpy(two.means) / unit, eager_lib.to_numpy(one.means), atol=1e-6)
    assert_monotone(eager_lib.to_numpy(one.trace), 200, 1e-9)
    assert eager_lib.to_numpy(one.floored).tolist() == eager_lib.to_numpy(two.floored).tolist()


@every_type
def test_weights_batches_and_streams_have_the_floor_of_repeated_rows(eager_lib, covariance_type):
    lib = eager_lib
    x, _ = two_groups(1e4, n=40)
    weight = np.arange(80) % 3 + 0.0
    start = np.array([[0.0], [1e4]])
    options = {"covariance_type": covariance_type, "covariance_floor": 1e6}
    repeated = np.repeat(x, weight.astype(int), axis=0)
    plain = gmm.fit(lib.asarray(repeated), 2, init=lib.asarray(start), **options)
    assert lib.to_numpy(plain.floored).all()
    weighted = gmm.fit(lib.asarray(x), 2, init=lib.asarray(start), sample_weight=lib.asarray(weight), **options)
    stream = gmm.fit([lib.asarray(repeated[:11]), lib.asarray(repeated[11:])], 2, init=lib.asarray(start), **options)
    batch = gmm.fit(lib.asarray(np.stack([repeated, 3 * repeated])), 2, init=lib.asarray(start), **options)
    for other in (weighted, stream):
        np.testing.assert_allclose(lib.to_numpy(other.covariances), lib.to_numpy(plain.covariances), rtol=1e-9)
    np.testing.assert_allclose(lib.to_numpy(batch.covariances)[0], lib.to_numpy(plain.covariances), rtol=1e-9)


@for_all(distance=st.sampled_from([1e1, 1e2, 1e3]), width=st.sampled_from([1.0, 10.0]), seed=st.integers(0, 9))
def test_float32_fits_what_float64_does(eager_lib, distance, width, seed):
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.normal(0, 1, (60, 2)), rng.normal(distance * width, width, (60, 2))]).astype(np.float32)
    start = np.stack([x[:60].mean(axis=0), x[60:].mean(axis=0)])
    for covariance_type in ("full", "diag"):
        options = {"covariance_type": covariance_type, "max_iter": 5}
        single = gmm.fit(eager_lib.asarray(x), 2, init=eager_lib.asarray(start), **options)
        double = gmm.fit(x.astype(float), 2, init=start.astype(float), **options)
        got = eager_lib.to_numpy(single.covariances)
        np.testing.assert_allclose(got, double.covariances, rtol=2e-2, atol=2e-2 * got.min(initial=1, where=got > 0))


@every_type
@pytest.mark.parametrize("unit", [1e-10, 1e-25, 1e15])
def test_float32_in_any_unit_is_one_fit(lib, covariance_type, unit):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, (300, 2)), rng.normal(8, 1, (300, 2))])
    fitted = gmm.fit(lib.asarray(x * unit, "float32"), 2, covariance_type=covariance_type, rng=0)
    expected = gmm.fit(x, 2, covariance_type=covariance_type, rng=0)
    np.testing.assert_allclose(np.sort(lib.to_numpy(fitted.weights)), np.sort(expected.weights), rtol=1e-5)
    got = np.sort(lib.to_numpy(fitted.means).astype(float) / unit, axis=0)
    np.testing.assert_allclose(got, np.sort(expected.means, axis=0), atol=1e-4)


# Choice


def test_a_choice_gains_nothing_from_the_floor():
    x, own = two_groups(100.0)
    best = select.mixtures(x, [2], "full", rng=0).best
    np.testing.assert_allclose(variances(NUMPY, best), own, rtol=1e-6)
    outlier = np.append(np.random.default_rng(0).normal(size=1000), 1e6)[:, None]
    assert select.mixtures(outlier, range(1, 5), "full", rng=0).best.n_components == 2
    for floor in (1e-3, 1e-6, 1e-9):
        choice = select.mixtures(iris().x, range(1, 5), n_init=2, rng=0, covariance_floor=floor)
        assert repr(choice).startswith("Choice(2 full, bic=574.0178")


@pytest.mark.parametrize(("value", "unit", "dtype"), [(5, 1, "float64"), (5e6, 1, "float32"), (5, 1e-4, "float64")])
def test_a_constant_feature_changes_no_choice(eager_lib, value, unit, dtype):
    x = np.concatenate([np.random.default_rng(1).normal(m, 1, (150, 2)) for m in (0, 8)])
    wide = np.insert(x, 1, value, axis=1) * unit
    types = ("full", "tied", "diag")
    alone = select.mixtures(eager_lib.asarray(x * unit, dtype), (1, 2), types, rng=0)
    choice = select.mixtures(eager_lib.asarray(wide, dtype), (1, 2), types, rng=0)
    for name in select.CRITERIA:
        got, expected = ([getattr(row, name) for row in each.table] for each in (choice, alone))
        np.testing.assert_allclose(got, expected, rtol=1e-3 if dtype == "float32" else 1e-6)
    everything = select.mixtures(eager_lib.asarray(wide, dtype), (1, 2, 3), rng=0)
    assert everything.best.n_components == 2


def test_a_row_of_a_table_is_the_fit_of_its_size():
    x, _ = two_groups(100.0)
    choice = select.mixtures(x, range(1, 4), "full", rng=0)
    assert choice.table[2].log_likelihood == float(gmm.fit(x, 3, rng=0).log_likelihood)


# Parameters in the user's units


CORRELATIONS = np.array([[1, 0.6, 0.3], [0.6, 1, -0.4], [0.3, -0.4, 1]])


@pytest.mark.parametrize(
    ("deviations", "dtype", "density"),
    [((1e5, 1e-6, 300), "float64", -5.4568011), ((1e8, 1e-8, 1), "float64", None), ((1e5, 1e-6, 300), "float32", None)],
)
@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_covariances_in_any_units_are_positive_definite(lib, covariance_type, deviations, dtype, density):
    sd = np.array(deviations)
    matrix = CORRELATIONS * sd * sd[:, None]
    expected = -0.5 * (3 * np.log(2 * np.pi) + np.linalg.slogdet(CORRELATIONS)[1]) - np.log(sd).sum()
    assert density is None or expected == pytest.approx(density)
    parts = np.ones(1), np.zeros((1, 3)), matrix[None] if covariance_type == "full" else matrix
    parts = [lib.asarray(part, dtype) for part in parts]
    mixture = GaussianMixture.from_parameters(*parts, covariance_type=covariance_type)
    got = lib.to_numpy(mixture.log_prob(lib.asarray(np.stack([np.zeros(3), sd]), dtype)))
    away = expected - 0.5 * np.linalg.inv(CORRELATIONS).sum()
    np.testing.assert_allclose(got, [expected, away], atol=1e-9 if dtype == "float64" else 1e-4)
    assert not lib.to_numpy(mixture.floored).any()


def test_a_fits_own_covariances_are_a_start(eager_lib):
    x = np.random.default_rng(0).normal(size=(200, 3)) @ np.linalg.cholesky(CORRELATIONS).T * [1e5, 1e-6, 300]
    fitted = gmm.fit(eager_lib.asarray(x), 1)
    again = GaussianMixture.from_parameters(fitted.weights, fitted.means, fitted.covariances)
    got, expected = (eager_lib.to_numpy(m.log_prob(eager_lib.asarray(x))) for m in (again, fitted))
    np.testing.assert_allclose(got, expected, atol=1e-8)


# What is told


def test_a_fit_tells_what_is_wrong_with_it(tmp_path):
    x = np.random.default_rng(0).normal(size=(100, 2))
    with pytest.warns(FitWarning, match="did not converge in 2 iterations: raise max_iter") as caught:
        gmm.fit(x, 3, max_iter=2, rng=0, tol=0)
    assert [record.filename for record in caught] == [__file__]
    with pytest.warns(FitWarning, match=r"component \[0\] came to rest on the covariance floor.*leave out"):
        fitted = gmm.fit(np.random.default_rng(0).normal(size=(3, 200)), 1)
    assert "floored=[0]" in repr(fitted)
    fitted.save(tmp_path / "mixture.npz")
    assert GaussianMixture.load(tmp_path / "mixture.npz").floored.tolist() == [True]
    init = np.array([0.5, 0.5]), np.array([[0.0, 0.0], [1e6, 1e6]]), np.ones((2, 2))
    with pytest.warns(FitWarning, match=r"component \[1\] lost all weight"):
        fitted = gmm.fit(x, 2, covariance_type="diag", init=init)
    assert "lost=[1]" in repr(fitted)
    with pytest.warns(FitWarning, match="did not converge in 1 iteration"):
        kmeans.fit(x, 5, max_iter=1, rng=0)
    with pytest.warns(FitWarning, match="did not converge in 1 iteration"):
        poisson.fit(np.floor(np.abs(9 * x)), 3, max_iter=1, rng=0, tol=0)
    with pytest.warns(FitWarning, match=r"2 of 2 fits did not converge"):
        gmm.fit(np.stack([x, x]), 3, max_iter=2, rng=0, tol=0)


def test_fixed_weights_of_0_are_not_told_as_lost(recwarn):
    x = np.asarray([0.0, 0, 1, 5])
    fitted = poisson.fit(x, 2, weights=np.asarray([1.0, 0]), init=np.asarray([1.0, 2]))
    assert not recwarn.list
    assert "lost" not in repr(fitted)


def test_a_start_that_cannot_give_a_row_is_told_so():
    with pytest.warns(FitWarning, match="a start under which every row is possible"):
        poisson.fit(np.asarray([0.0, 0, 1, 5]), 2, init=np.zeros(2))


def test_a_choice_tells_that_the_best_is_the_largest_tried():
    x = np.concatenate([np.random.default_rng(0).normal(m, 1, (100, 1)) for m in (0, 20, 40)])
    with pytest.warns(FitWarning, match="best number of components, 2, is the largest tried"):
        choice = select.mixtures(x, (1, 2), "full", rng=0)
    assert "the largest tried" in repr(choice)


def test_a_good_fit_is_told_nothing(recwarn):
    gmm.fit(two_groups(10.0)[0], 2, rng=0)
    gmm.fit(two_groups(10.0)[0], 2, rng=0, max_iter=0)
    assert not recwarn.list


class Wrong:
    """A model whose steps go the wrong way."""

    def expect(self, params, x, weight):
        return (x[:, 0] - params[0]).sum()[None], (x[:, 0] ** 2).sum()[None]

    def maximize(self, statistics, params):
        return (params[0] + 1,)

    def objective(self, statistics, params):
        return -(params[0] ** 2)


def test_a_model_whose_objective_falls_is_told():
    with pytest.warns(FitWarning, match="the objective falls"):
        em.fit(Wrong(), np.ones((3, 1)), (np.asarray(1.0),), max_iter=3)


@pytest.mark.parametrize("kind", ["full", "diag", "spherical"])
def test_a_widened_component_is_as_wide_as_the_features_and_others_are_kept(kind):
    x = np.r_[np.random.default_rng(0).normal(size=1000), 1e6][:, None]
    fitted = gmm.fit(x, 2, covariance_type=kind, rng=0)
    wide, narrow = np.reshape(fitted.widened().covariances, 2), np.reshape(fitted.covariances, 2)
    assert fitted.floored.sum() == 1
    np.testing.assert_allclose(wide[fitted.floored], narrow[fitted.floored] / 1e-6)
    np.testing.assert_allclose(wide[~fitted.floored], narrow[~fitted.floored])
