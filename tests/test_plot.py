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


def title_of(figure):
    return figure.get_suptitle()


def test_pictures_say_what_they_leave_out():
    x = np.random.default_rng(0).normal(size=(1000, 11))
    figure = plot.pairs(x, np.arange(1000) % 2, max_points=300)
    assert title_of(figure) == "Groups, by pairs of features\n(250 of 1,000 rows, the first 8 of 11 features)"
    assert len(figure.axes) == 8 * 9 / 2
    assert title_of(plot.pairs(x[:100, :2])) == "Pairs of features"


def test_twelve_groups_have_colours_that_differ():
    def lab(colour):
        """CIE L*a*b*, in which the distance of two colours is how much they differ to the eye."""
        rgb = np.asarray([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        rgb = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
        xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]] @ rgb
        f = np.cbrt(xyz / [0.9505, 1, 1.089])
        return np.asarray([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

    figure = plot.pairs(np.arange(24.0)[:, None], np.arange(24) % 12)
    colours = [handle.get_color() for handle in figure.legends[0].legend_handles]
    points = np.stack([lab(colour) for colour in colours])
    gaps = np.linalg.norm(points[:, None] - points, axis=-1)[np.triu_indices(12, 1)]
    assert gaps.min() > 25
    assert points[:, 0].max() < 80  # nothing that a white page swallows


def test_histograms_show_shares_of_all_rows():
    figure = plot.pairs(np.arange(100.0)[:, None], np.repeat([0, 1], [75, 25]))
    filled = figure.axes[0].patches[::2]
    heights = [patch.get_xy()[:, 1].sum() for patch in filled]
    assert figure.axes[0].get_ylabel() == "% of rows"
    assert heights[0] / heights[1] == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("kind", ["full", "spherical"])
def test_classification_draws_the_gaussians_of_each_pair(kind):
    iris = datasets.iris()
    found = gmm.fit(iris.x, 3, covariance_type=kind, rng=0, max_iter=5)
    figure = plot.classification(found, iris.x, iris.names)
    drawn(figure)
    panel = figure.axes[4]  # row 2, column 1 of the lower triangle
    assert title_of(figure) == f"Classification by 3 Gaussians ({kind})"
    ellipse = panel.lines[1].get_xydata() - found.means[0, [1, 2]]
    covariance = found.model.covariance.dense(found.covariances, 3, 4)[0][np.ix_([1, 2], [1, 2])]
    radii = np.einsum("ni,ij,nj->n", ellipse, np.linalg.inv(covariance), ellipse)
    np.testing.assert_allclose(radii, 1)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["0", "1", "2", "ellipses: 1 and 2 standard\ndeviations", "crosses: means"]


def test_uncertainty_marks_the_rows_between_components(mixture):
    figure = plot.uncertainty(mixture, FAITHFUL.x, FAITHFUL.names)
    drawn(figure)
    unsure = 1 - mixture.responsibilities(FAITHFUL.x).max(axis=1)
    few, some, most = (collection.get_offsets() for collection in figure.axes[1].collections)
    assert [len(few), len(some), len(most)] == [204, 54, 14]
    np.testing.assert_array_equal(np.sort(most.data[:, 0]), np.sort(FAITHFUL.x[np.argsort(unsure)[-14:], 0]))
    assert "75 % of rows" in figure.legends[0].get_texts()[0].get_text()


def test_contours_hold_the_rows_they_say(mixture):
    axes = plot.density(mixture, FAITHFUL.x, FAITHFUL.names).axes[0]
    levels = next(item.levels for item in axes.collections if not getattr(item, "filled", True))
    shares = (mixture.log_prob(FAITHFUL.x)[:, None] >= levels).mean(axis=0)
    np.testing.assert_allclose(shares, [0.95, 0.75, 0.5, 0.25], atol=0.01)


@pytest.mark.parametrize("draw", [plot.classification, plot.uncertainty])
def test_a_batch_is_not_drawn(draw):
    x = np.stack([FAITHFUL.x[:30], FAITHFUL.x[30:60]])
    with pytest.raises(InputError, match="one mixture, not a batch"):
        draw(gmm.fit(x, 2, rng=0, max_iter=2), x[0])
