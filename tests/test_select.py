"""Model choice: every cell against scikit-learn, the same table on every library, bad input refused."""

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture as Reference

import emroute.plot
from emroute import datasets, gmm, select
from emroute.errors import InputError, InputTypeError
from tests.helpers import COVARIANCE_TYPES, clusters, rejected

pytestmark = pytest.mark.usefixtures("quick_compilation")

IRIS = datasets.iris().x


@pytest.fixture(scope="module")
def choice():
    return select.mixtures(IRIS, n_init=2, rng=0)


def test_bic_finds_two_full_gaussians_on_iris(choice):
    best = choice.table[choice.index]
    assert (best.n_components, best.covariance_type) == (2, "full")
    assert best.bic == pytest.approx(574.0178, abs=1e-3)
    assert choice.best is choice.mixtures[choice.index]
    assert len(choice.table) == len(choice.mixtures) == 24
    assert all(row.converged for row in choice.table)


def test_each_cell_is_the_fit_of_its_seed(choice):
    for row, mixture in zip(choice.table, choice.mixtures, strict=True):
        alone = gmm.fit(
            IRIS,
            row.n_components,
            covariance_type=row.covariance_type,
            n_init=2,
            rng=0,
        )
        np.testing.assert_array_equal(mixture.means, alone.means)
        assert row.log_likelihood == float(alone.log_likelihood)
        assert row.bic == float((alone.widened() if alone.floored.any() else alone).bic(IRIS))


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_every_cell_is_scikit_learns_from_the_same_start(covariance_type, k):
    x = clusters(n=300, gap=4.0)
    options = {"covariance_floor": 1e-9, "tol": 1e-12}
    chosen = select.mixtures(x, k, covariance_type, rng=0, **options)
    start = gmm.fit(x, k, covariance_type=covariance_type, rng=0, max_iter=0, **options)
    invert = np.linalg.inv if covariance_type in ("full", "tied") else np.reciprocal
    theirs = Reference(
        k,
        covariance_type=covariance_type,
        weights_init=start.weights,
        means_init=start.means,
        precisions_init=invert(start.covariances),
        reg_covar=0,
        tol=1e-12,
        max_iter=1000,
    ).fit(x)
    (row,) = chosen.table
    assert row.bic == pytest.approx(theirs.bic(x), rel=1e-7)
    assert row.aic == pytest.approx(theirs.aic(x), rel=1e-7)
    assert row.n_parameters == theirs._n_parameters()


def test_one_seed_gives_one_table_on_every_library(lib):
    x, weight = clusters(n=40), np.random.default_rng(1).uniform(0.5, 2, 40)
    options = {"n_components": (1, 2), "covariance_type": ("full", "diag"), "n_init": 2, "rng": 3, "max_iter": 5}
    expected = select.mixtures(x, sample_weight=weight, **options)
    found = select.mixtures(lib.asarray(x), sample_weight=lib.asarray(weight), **options)
    for ours, theirs in zip(found.table, expected.table, strict=True):
        assert ours[:2] == theirs[:2]
        assert ours.converged == theirs.converged
        np.testing.assert_allclose(ours[2:7], theirs[2:7], rtol=1e-9)
    assert found.index == expected.index
    assert lib.owns(found.best.means)


@pytest.mark.parametrize("criterion", select.CRITERIA)
def test_the_best_has_least_of_the_criterion(criterion):
    found = select.mixtures(clusters(), (1, 2, 3), "diag", criterion, rng=0)
    values = [getattr(row, criterion) for row in found.table]
    assert found.index == int(np.argmin(values))
    for row in found.table:
        n = len(clusters())
        assert row.bic == pytest.approx(-2 * row.log_likelihood + row.n_parameters * np.log(n))
        assert row.aic == pytest.approx(-2 * row.log_likelihood + 2 * row.n_parameters)
        assert row.icl >= row.bic - 1e-9


def test_weights_count_as_repeated_rows():
    x, weight = clusters(n=30), np.random.default_rng(0).integers(1, 4, 30)
    options = {"n_components": 1, "covariance_type": "full"}
    (weighted,) = select.mixtures(x, sample_weight=weight.astype(float), **options).table
    (repeated,) = select.mixtures(np.repeat(x, weight, axis=0), **options).table
    np.testing.assert_allclose(weighted[2:7], repeated[2:7])


def test_a_fit_that_is_not_finite_is_never_best():
    row = select.mixtures(clusters(), 1, "diag", rng=0).table[0]
    rows = (row._replace(bic=np.nan), row, row._replace(bic=-np.inf))
    assert select.Choice("bic", rows, ()).index == 1


def test_a_choice_prints_its_table(choice):
    header, *rows = str(choice).splitlines()
    assert header.split() == list(select.Row._fields)
    assert [line.endswith("*") for line in rows].index(True) == choice.index
    assert repr(choice) == "Choice(2 full, bic=574.017832, of 24)"


def test_a_choice_is_drawn(choice):
    (axes,) = emroute.plot.criteria(choice).axes
    assert axes.get_xlabel() == "number of components"
    assert axes.get_ylabel() == "BIC"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [*COVARIANCE_TYPES, "best"]
    for line, kind in zip(axes.lines, COVARIANCE_TYPES, strict=False):
        np.testing.assert_array_equal(line.get_xdata(), range(1, 7))
        np.testing.assert_array_equal(line.get_ydata(), [r.bic for r in choice.table if r.covariance_type == kind])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"criterion": "dic"}, ("criterion='dic'", "'icl'")),
        ({"n_components": ()}, ("nothing to try",)),
        ({"covariance_type": ()}, ("nothing to try",)),
        ({"covariance_type": ("full", "round")}, ("'round'",)),
        ({"covariance_type": None}, ("covariance_type=None", "'full'")),
        ({"n_components": (2, 0)}, ("n_components=0",)),
        ({"n_components": "two"}, ("n_components='t'",)),
        ({"n_components": 61}, ("60 rows",)),
        ({"init": np.zeros((2, 3))}, ("k-means++",)),
        ({"n_init": 0}, ("n_init=0",)),
        ({"x": clusters()[None]}, ("(1, 60, 3)", "for each problem")),
        ({"x": np.full((9, 2), np.nan)}, ("row 0",)),
    ],
)
def test_bad_input_is_refused(options, words):
    rejected(lambda: select.mixtures(**{"x": clusters(), **options}), InputError, *words)


def test_streams_and_lists_are_refused():
    rejected(lambda: select.mixtures([clusters()]), InputTypeError, "list", "array")


def test_gradients_are_not_followed():
    import torch

    x = torch.asarray(clusters())
    weight = torch.ones(60, dtype=x.dtype)
    found = select.mixtures(x.clone().requires_grad_(), 2, "diag", sample_weight=weight.requires_grad_(), rng=0)
    assert found.table == select.mixtures(x, 2, "diag", rng=0).table


def test_a_choice_cannot_be_traced():
    import jax

    rejected(lambda: jax.jit(lambda x: select.mixtures(x, 1).table)(jax.numpy.ones((5, 2))), InputError, "jit")
