import io
import subprocess
import sys

import numpy as np
import pytest

from emroute import datasets, em, gmm, plot
from emroute.errors import InputError, MissingDependencyError

FAITHFUL = datasets.faithful()


def drawn(figure):
    """Render a figure, so that what fails or warns only then does so here; return its size in pixels."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG")
    return figure.get_size_inches() * figure.dpi


@pytest.fixture(scope="module")
def mixture():
    return gmm.fit(FAITHFUL.x, 2, rng=0)


def test_pairs_has_a_panel_for_every_pair_and_feature():
    iris = datasets.iris()
    figure = plot.pairs(iris.x, iris.labels, iris.names)
    drawn(figure)
    assert len(figure.axes) == 4 + 6
    assert [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()] == list(iris.names)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["0", "1", "2"]


def test_pairs_draws_no_more_points_than_asked():
    figure = plot.pairs(np.zeros((1000, 2)), max_points=300)
    scatter = next(axes for axes in figure.axes if axes.collections)
    assert len(scatter.collections[0].get_offsets()) == 250
    assert not figure.legends


def test_pairs_survives_nan_one_feature_and_many_groups():
    x = np.where(np.arange(60) == 3, np.nan, np.arange(60.0))[:, None]
    drawn(plot.pairs(x, np.arange(60) % 20))


def test_density_marks_every_component(mixture):
    figure = plot.density(mixture, FAITHFUL.x, FAITHFUL.names)
    drawn(figure)
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == FAITHFUL.names
    crosses = [line.get_xydata()[0] for line in axes.lines if line.get_marker() == "X"]
    np.testing.assert_allclose(crosses, mixture.means)
    ellipse = axes.lines[1].get_xydata() - mixture.means[0]
    radii = np.einsum("ni,ij,nj->n", ellipse, np.linalg.inv(mixture.covariances[0]), ellipse)
    np.testing.assert_allclose(radii, 1)


@pytest.mark.parametrize("kind", ["tied", "diag", "spherical"])
def test_density_draws_every_covariance_type(kind):
    drawn(plot.density(gmm.fit(FAITHFUL.x, 2, covariance_type=kind, rng=0, max_iter=3), FAITHFUL.x))


def test_trace_draws_each_problem_up_to_its_end(mixture):
    batch = gmm.fit(np.stack([FAITHFUL.x, FAITHFUL.x[::-1] ** 2]), 2, rng=0)
    figure = plot.trace(mixture, batch, labels=["one", "two"])
    drawn(figure)
    axes = figure.axes[0]
    assert [len(line.get_ydata()) - 1 for line in axes.lines] == [int(mixture.n_iter), *batch.n_iter.tolist()]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), mixture.trace)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "two"]


def test_relative_trace_falls_to_nothing(mixture):
    figure = plot.trace(mixture, relative=True)
    drawn(figure)
    gap = figure.axes[0].lines[0].get_ydata()
    assert figure.axes[0].get_yscale() == "log"
    assert np.isnan(gap[-1])
    assert (np.diff(gap[:-1]) < 0).all()


def test_arrays_of_every_library_are_drawn(lib):
    x = lib.asarray(FAITHFUL.x[:40])
    given = [lib.asarray(v) for v in ([0.5, 0.5], [[2.0, 54.0], [4.3, 80.0]], [[0.1, 30.0], [0.2, 36.0]])]
    drawn(plot.pairs(x, lib.asarray(np.arange(40) % 3)))
    drawn(plot.density(gmm.GaussianMixture.from_parameters(*given, covariance_type="diag"), x))
    drawn(plot.trace(em.Fit(None, *[lib.asarray([-3.0, -2.0, -1.5])] * 4)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: plot.pairs(np.zeros(3)), "(n, d)"),
        (lambda m: plot.pairs(np.zeros((3, 0))), "at least one row"),
        (lambda m: plot.pairs(np.zeros((3, 2)), np.zeros(4, dtype=int)), "one a row, (3,)"),
        (lambda m: plot.pairs(np.zeros((3, 2)), names=["a"]), "one a feature: 2"),
        (lambda m: plot.density(gmm.fit(np.eye(3), 1), np.eye(3)), "(k, 2)"),
        (lambda m: plot.trace(), "at least one"),
        (lambda m: plot.trace(m, labels=["a", "b"]), "1 fits and 2 labels"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(call, words, mixture):
    with pytest.raises(InputError, match=r"expected") as caught:
        call(mixture)
    assert words in str(caught.value)


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'emroute\[plot\]'"):
        plot.pairs(np.eye(2))


def test_pyplot_is_left_alone():
    code = (
        "import sys, numpy, emroute.plot; assert 'matplotlib' not in sys.modules; emroute.plot.pairs(numpy.eye(2));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
