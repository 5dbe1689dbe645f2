"""The files that people have, what a fit leaves behind, and saved fits applied to others."""

import gzip
import io
import re
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
from typer.testing import CliRunner

from emroute import binomial, datasets, gmm, kmeans, multinomial, poisson, select
from emroute.cli import app
from emroute.kmeans import KMeans
from emroute.mixture import Mixture
from tests.test_cli import fails, run

FAITHFUL = datasets.faithful()
FRAME = pd.DataFrame(FAITHFUL.x, columns=list(FAITHFUL.names))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def means(*args):
    """Fit two Gaussians, write to ``out``; return their means and what is said on stderr."""
    result = run("fit", "gmm", *args, "-k", 2, "--out", "out", "--force")
    assert result.exit_code == 0, result.stderr
    return pl.read_csv("out/means.csv").drop("component", "weight"), result.stderr


def narrow(*args, width=80, **options):
    """Run the command line in a window of so many columns."""
    result = CliRunner(env={"COLUMNS": str(width)}).invoke(app, [str(arg) for arg in args], **options)
    assert result.exit_code == 0, result.stderr
    return result.stdout


# reading


@pytest.mark.parametrize("write", ["csv", "csv of R", "write.table of R", "read and saved again", "parquet"])
def test_row_numbers_are_left_out_with_a_note(here, write):
    frame = FRAME.set_index(np.arange(1, 273))
    if write == "parquet":
        pl.from_pandas(frame.reset_index(names="__index_level_0__")).write_parquet("rows.parquet")
    elif write == "write.table of R":
        lines = [f'"{row}" {a} {b}' for row, (a, b) in zip(frame.index, FAITHFUL.x.tolist(), strict=True)]
        (here / "rows.csv").write_text('"eruptions" "waiting"\n' + "\n".join(lines) + "\n")
    else:
        frame.to_csv("rows.csv", quoting=2 * (write == "csv of R"))
        if write == "read and saved again":
            pd.read_csv("rows.csv").to_csv("rows.csv", index=False)
    file = "rows.parquet" if write == "parquet" else "rows.csv"
    found, told = means(file)
    np.testing.assert_allclose(found.to_numpy(), gmm.fit(FAITHFUL.x, 2, rng=0).means, rtol=1e-12)
    assert found.columns == list(FAITHFUL.names)
    assert re.fullmatch(rf"emroute: {file}: [^\n]* holds row numbers and is left out; --columns would take it\n", told)


def test_row_names_are_left_out_too(here):
    FRAME[:20].set_index(np.asarray([f"day {row}" for row in range(20)])).to_csv("rows.csv")
    assert means("rows.csv")[0].columns == list(FAITHFUL.names)


def test_a_name_that_is_almost_right_is_suggested(here):
    FRAME.rename(columns={"waiting": "carat"}).to_csv("rows.csv", index=False)
    assert "no column 'Carat'; did you mean 'carat'? the file has" in fails(
        "fit", "gmm", "rows.csv", "-k", 2, "--columns", "Carat"
    )


def test_of_very_many_columns_an_error_names_some(here):
    (here / "rows.csv").write_text(",".join(f"c{i}" for i in range(500)) + "\n" + ",".join(["1"] * 500) + "\n")
    assert fails("fit", "gmm", "rows.csv", "-k", 1, "--columns", "zebra").endswith("c19 and 480 more\n")


@pytest.mark.parametrize("way", ["gz", "stdin", "blanks", "tabs and blanks"])
def test_text_comes_compressed_from_standard_input_and_in_blanks(here, way):
    text, file, stdin = FRAME.to_csv(index=False), "rows.csv", None
    if way == "gz":
        file = "rows.csv.gz"
        (here / file).write_bytes(gzip.compress(text.encode()))
    elif way == "stdin":
        file, stdin = "-", text
    else:
        gap = "   " if way == "blanks" else " \t"
        (here / file).write_text("\n".join("  " + line.replace(",", gap) + " " for line in text.splitlines()) + "\n")
    result = CliRunner().invoke(app, ["fit", "gmm", file, "-k", "2", "--out", "out"], input=stdin)
    assert (result.exit_code, result.stderr) == (0, "")
    np.testing.assert_array_equal(Mixture.load("out/mixture.npz").means, gmm.fit(FAITHFUL.x, 2, rng=0).means)
    assert ("standard input" in result.stdout) == (way == "stdin")


def test_a_broken_archive_is_told(here):
    (here / "rows.csv.gz").write_bytes(b"1,2\n3,4\n")
    assert "rows.csv.gz: cannot be decompressed" in fails("fit", "gmm", "rows.csv.gz", "-k", 1)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a, x;b\n1,5;2\n3,5;4\n9;8\n", ["a, x", "b"]),  # a comma in a name, and decimal ones
        ("a;b\n1,5;2,5\n3,5;4\n9;8\n", ["a", "b"]),
        ("a b\n1,5 2,5\n3,5 4\n9 8\n", ["a", "b"]),
        ("sepal length,sepal width\n1,2\n3,4\n9,8\n", ["sepal length", "sepal width"]),
        ("sepal length\n1\n3\n8\n", ["sepal length"]),
        ("first name,b\nx y,1\nx z,2\nu v,9\n", None),
        ("1, 2, 3\n4, 5, 7\n9, 9, 8\n", ["0", "1", "2"]),
    ],
)
def test_separators_are_told_from_decimal_commas_and_blanks_in_names(here, text, names):
    (here / "rows.csv").write_text(text)
    if names is None:
        assert "column 'first name' does not hold numbers" in fails("fit", "kmeans", "rows.csv", "-k", 2)
        return
    assert run("fit", "kmeans", "rows.csv", "-k", 2, "--out", "out").exit_code == 0
    assert pl.read_csv("out/columns.csv", infer_schema=False)["column"].to_list() == names


def test_rows_with_gaps_are_left_out_if_asked(here):
    frame = FRAME.copy()
    frame.loc[[3, 7, 100], "waiting"] = np.nan
    frame.to_csv("rows.csv", index=False)
    found, told = means("rows.csv", "--drop-missing")
    assert told == "emroute: rows.csv: 3 of 272 rows have missing numbers and are left out\n"
    complete = frame.dropna().to_numpy()
    np.testing.assert_allclose(found.to_numpy(), gmm.fit(complete, 2, rng=0).means, rtol=1e-12)
    labels = pl.read_csv("out/labels.csv", null_values="NA")["label"]  # a line for each row of the file
    assert labels.is_null().arg_true().to_list() == [3, 7, 100]
    assert labels.drop_nulls().to_list() == gmm.fit(complete, 2, rng=0).predict(complete).tolist()
    assert means("rows.csv", "--drop-missing", "--columns", "eruptions")[1] == ""


def test_rows_with_gaps_are_fitted_by_what_they_have(here):
    frame = FRAME.copy()
    frame.loc[[3, 7, 100], "waiting"] = np.nan
    frame.to_csv("rows.csv", index=False)
    found, _ = means("rows.csv", "--missing", "marginalize", "--max-iter", 3, "--plot")
    mixture = gmm.fit(frame.to_numpy(), 2, missing="marginalize", rng=0, max_iter=3)
    np.testing.assert_allclose(found.to_numpy(), mixture.means, rtol=1e-9)
    labels = pl.read_csv(io.BytesIO(run("predict", "out", "rows.csv").stdout_bytes))["label"].to_list()
    assert labels == mixture.predict(frame.to_numpy()).tolist()
    assert "--standardize needs every number" in fails(
        "fit", "gmm", "rows.csv", "-k", 2, "--missing", "marginalize", "--standardize"
    )
    assert "--missing is for gmm" in fails("fit", "kmeans", "rows.csv", "-k", 2, "--missing", "marginalize")


def test_gaps_are_left_out_of_arrays_too_and_not_all(here):
    np.save("rows.npy", np.where(np.arange(272)[:, None] == 5, np.nan, FAITHFUL.x))
    assert "1 of 272 rows" in means("rows.npy", "--drop-missing")[1]
    np.save("rows.npy", np.full((3, 2), np.nan))
    assert "no row has a number in each" in fails("fit", "gmm", "rows.npy", "-k", 1, "--drop-missing")
    (here / "rows.csv").write_text("a,b\n1,\n2,inf\n")
    message = fails("fit", "gmm", "rows.csv", "-k", 1, "--drop-missing")
    assert "rows.csv, line 3: infinity in column 'b'" in message


def test_columns_are_standardized_and_given_back_in_their_units(here):
    FRAME.to_csv("rows.csv", index=False)
    run("fit", "kmeans", "rows.csv", "-k", 2, "--standardize", "--out", "out")
    z = (FAITHFUL.x - FAITHFUL.x.mean(axis=0)) / FAITHFUL.x.std(axis=0)
    clusters = kmeans.fit(z, 2, rng=0)
    found = pl.read_csv("out/centroids.csv").to_numpy()
    np.testing.assert_allclose(found, clusters.centroids * FAITHFUL.x.std(axis=0) + FAITHFUL.x.mean(axis=0))
    labels = pl.read_csv(io.BytesIO(run("predict", "out", "rows.csv").stdout_bytes))["label"].to_list()
    assert labels == clusters.labels.tolist()  # the saved fit standardizes what it is applied to


# what is left in the folder


def test_everything_is_there_as_text(here):
    FRAME.to_csv("rows.csv", index=False)
    shown = narrow("fit", "gmm", "rows.csv", "-k", 2, "--out", "out")
    mixture = Mixture.load("out/mixture.npz")
    table = pl.read_csv("out/means.csv")
    np.testing.assert_array_equal(table["weight"], mixture.weights)
    np.testing.assert_array_equal(table[list(FAITHFUL.names)], mixture.means)
    covariances = pl.read_csv("out/covariances.csv")
    np.testing.assert_array_equal(covariances[list(FAITHFUL.names)].to_numpy().reshape(2, 2, 2), mixture.covariances)
    shares = pl.read_csv("out/responsibilities.csv")
    np.testing.assert_allclose(shares, mixture.responsibilities(FAITHFUL.x), atol=6e-7)
    assert (here / "out" / "summary.txt").read_text() == shown


@pytest.mark.parametrize("kind", ["tied", "diag", "spherical"])
def test_covariances_are_whole_matrices(here, kind):
    FRAME.to_csv("rows.csv", index=False)
    means("rows.csv", "--covariance-type", kind)
    found = pl.read_csv("out/covariances.csv")[list(FAITHFUL.names)].to_numpy().reshape(2, 2, 2)
    mixture = Mixture.load("out/mixture.npz")
    np.testing.assert_allclose(found, mixture.model.covariance.dense(mixture.covariances, 2, 2))


@pytest.mark.parametrize("family", ["poisson", "multinomial", "binomial", "kmeans", "gmm"])
@pytest.mark.parametrize("format", ["npz", "safetensors"])
def test_every_family_is_fitted_and_applied_again(here, family, format):
    rng = np.random.default_rng(0)
    counts = np.concatenate([rng.multinomial(20, p, 30) for p in ([0.1, 0.2, 0.7], [0.6, 0.3, 0.1])])
    x = np.stack([counts[:, 0], np.full(60, 20)], axis=-1) if family == "binomial" else counts
    pd.DataFrame(x).to_csv("rows.csv", index=False)
    result = run("fit", family, "rows.csv", "-k", 2, "--header", "--out", "out", "--format", format)
    assert result.exit_code == 0, result.stderr
    found = pl.read_csv(io.BytesIO(run("predict", "out", "rows.csv", "--header").stdout_bytes))
    labels = pl.read_csv("out/labels.csv")["label"].to_list()
    assert found["label"].to_list() == labels
    modules = {"poisson": poisson, "multinomial": multinomial, "binomial": binomial, "kmeans": kmeans, "gmm": gmm}
    data = x.astype(float)
    expected = modules[family].fit(*(data.T if family == "binomial" else (data,)), 2, rng=0)
    if family == "kmeans":
        np.testing.assert_allclose(found["distance"], np.sqrt(expected.assign(data)[1]), atol=1e-12)
        return
    arguments = data.T if family == "binomial" else (data,)
    np.testing.assert_allclose(found["log_density"], expected.log_prob(*arguments))
    shares = pl.read_csv("out/responsibilities.csv").to_numpy()
    np.testing.assert_allclose(found[["probability_0", "probability_1"]], shares, atol=6e-7)


def test_predictions_go_to_a_file_if_asked_and_replace_none(here):
    FRAME.to_csv("rows.csv", index=False)
    mixture = gmm.fit(FAITHFUL.x, 2, rng=0)
    mixture.save("mixture.npz")
    run("predict", "mixture.npz", "rows.csv", "--out", "found.csv")
    assert pl.read_csv("found.csv")["label"].to_list() == mixture.predict(FAITHFUL.x).tolist()
    assert "found.csv would be replaced" in fails("predict", "mixture.npz", "rows.csv", "--out", "found.csv")
    assert run("predict", "mixture.npz", "rows.csv", "--out", "found.csv", "--force").exit_code == 0


def test_what_is_no_saved_fit_is_told(here):
    FRAME.to_csv("rows.csv", index=False)
    (here / "empty").mkdir()
    assert "empty: no saved fit, expected one of mixture.npz" in fails("predict", "empty", "rows.csv")
    np.savez("other.npz", x=FAITHFUL.x)
    assert "other.npz is not a mixture saved by emroute" in fails("predict", "other.npz", "rows.csv")
    assert "got suffix '.csv'" in fails("predict", "rows.csv", "rows.csv")
    gmm.fit(FAITHFUL.x, 2, rng=0).save("mixture.npz")
    FRAME.assign(third=1.0).to_csv("wide.csv", index=False)
    assert "rows have 3 features, the fitted components have 2" in fails("predict", "mixture.npz", "wide.csv")


def test_a_saved_fit_asks_for_its_columns_by_name(here):
    FRAME.to_csv("rows.csv", index=False)
    means("rows.csv")
    FRAME.assign(third="x")[["third", "waiting", "eruptions"]].to_csv("other.csv", index=False)
    found = pl.read_csv(io.BytesIO(run("predict", "out", "other.csv").stdout_bytes))["label"].to_list()
    assert found == pl.read_csv("out/labels.csv")["label"].to_list()
    FRAME[["eruptions"]].to_csv("one.csv", index=False)
    assert "no column 'waiting'; the file has eruptions" in fails("predict", "out", "one.csv")


# choosing


def test_clusterings_are_chosen_by_the_variance_ratio(here):
    from sklearn.metrics import calinski_harabasz_score

    FRAME.to_csv("rows.csv", index=False)
    assert run("fit", "kmeans", "rows.csv", "-k", "1-4", "--out", "out").exit_code == 0
    table = pl.read_csv("out/criteria.csv")
    for k in (2, 3, 4):
        expected = calinski_harabasz_score(FAITHFUL.x, kmeans.fit(FAITHFUL.x, k, rng=0).labels)
        assert table.filter(pl.col("k") == k)["variance ratio"].item() == pytest.approx(expected)
    best = table["k"][table["variance ratio"].arg_max()]
    assert len(KMeans.load("out/clusters.npz").centroids) == best
    assert table.filter("best")["k"].to_list() == [best]


def test_covariance_types_are_chosen_too(here):
    FRAME.to_csv("rows.csv", index=False)
    shown = narrow("fit", "gmm", "rows.csv", "-k", "1-3", "--covariance-type", "EII,VVV,diag", "--out", "out")
    choice = select.mixtures(FAITHFUL.x, range(1, 4), ("EII", "VVV", "diag"), rng=0)
    table = pl.read_csv("out/criteria.csv")
    np.testing.assert_allclose(table["bic"], [row.bic for row in choice.table])
    assert table["covariance_type"].to_list() == [row.covariance_type for row in choice.table]
    best = choice.table[choice.index]
    assert re.search(rf"^{best.n_components} +{best.covariance_type} +best ", shown, re.MULTILINE)
    assert max(map(len, shown.splitlines())) <= 80


def test_counts_are_chosen_by_a_criterion(here):
    x = np.random.default_rng(0).poisson([[2.0]] * 40 + [[30.0]] * 40)
    np.save("rows.npy", x)
    run("fit", "poisson", "rows.npy", "-k", "1-3", "--criterion", "aic", "--out", "out")
    table = pl.read_csv("out/criteria.csv")
    assert table.filter("best")["k"].to_list() == [2]
    np.testing.assert_allclose(table["aic"][1], poisson.fit(x, 2, rng=0).aic(x))


# what is told


def floored_rows():
    rows = np.random.default_rng(0).normal(size=(300, 2))
    rows[:40, 1] = 0.2
    return rows


def test_one_rule_for_the_floor(here):
    """The criterion of a size alone is that of the size in a grid, and is that of the widened mixture."""
    np.save("rows.npy", floored_rows())
    alone = narrow("fit", "gmm", "rows.npy", "-k", 2, "--n-init", 4)
    run("fit", "gmm", "rows.npy", "-k", "1-2", "--n-init", 4, "--out", "out")
    row = pl.read_csv("out/criteria.csv").filter(pl.col("k") == 2)
    assert row["floored"].item() == 1
    assert f"{row['bic'].item():.4f}" in alone
    words = " ".join(alone.split())
    assert "floor 1e-06 of the columns' squared widths; component 1 rests on it" in words
    higher = narrow("fit", "gmm", "rows.npy", "-k", 2, "--n-init", 4, "--covariance-floor", 0.01)
    assert "floor 0.01 of" in " ".join(higher.split())


def test_what_did_not_end_well_is_in_the_output(here):
    FRAME.to_csv("rows.csv", index=False)
    short = run("fit", "gmm", "rows.csv", "-k", 3, "--max-iter", 2)
    assert "not converged; raise --max-iter or --tol" in short.stdout
    assert "did not converge in 2 iterations: raise --max-iter or --tol" in short.stderr
    edge = run("fit", "gmm", "rows.csv", "-k", "1-2")
    assert "the largest -k tried is best; try more" in edge.stdout
    assert "try more, or --criterion icl" in edge.stderr


def test_tables_fit_80_columns_and_say_what_they_leave_out(here):
    pd.DataFrame(np.random.default_rng(0).normal(size=(60, 40)) * 1e5).add_prefix("measurement ").to_csv(
        "rows.csv", index=False
    )
    shown = narrow("fit", "gmm", "rows.csv", "-k", 2, "--covariance-type", "diag", "--out", "out")
    assert max(map(len, shown.splitlines())) <= 80
    assert re.search(r"Not shown: measurement \d+, measurement ", shown)
    assert "out/means.csv" in shown
    figures = [line.split() for line in shown.splitlines() if re.match(r"[01] +0\.", line)]
    expected = Mixture.load("out/mixture.npz")
    for row, weight, mean in zip(figures, expected.weights, expected.means, strict=True):
        assert row[1:] == [f"{value:.6g}" for value in (weight, *mean)][: len(row) - 1]  # no number is broken


def test_large_weights_do_not_print_38_digits(here):
    FRAME.assign(w=1e30).to_csv("rows.csv", index=False)
    shown = narrow("fit", "gmm", "rows.csv", "-k", "1-2", "--weights-column", "w")
    assert not re.search(r"\d{14}", shown)
    assert "e+3" in shown


def test_help_shows_defaults():
    words = " ".join(run("fit", "--help").stdout.replace("│", " ").split())
    for default in ("(full)", "(1e-6; kmeans: 0)", "(1000; kmeans: 300)", "(bic)", "numpy", "npz"):
        assert f"[default: {default}" in words
    assert "--covariance-floor" in words  # no name is cut
    assert "Missing argument" in fails("predict")


@pytest.mark.parametrize("family", ["kmeans", "gmm"])
def test_a_grid_has_one_bar(here, family, monkeypatch):
    monkeypatch.setattr("emroute.cli.fit.is_terminal", lambda: True)
    FRAME.to_csv("rows.csv", index=False)
    told = run("fit", family, "rows.csv", "-k", "1-3").stderr
    assert "3/3" in told
    assert "EM:" not in told


def test_pictures_of_every_family(here):
    np.save("rows.npy", np.random.default_rng(0).poisson(5, size=(50, 3)))
    for family in ("kmeans", "multinomial"):
        run("fit", family, "rows.npy", "-k", "1-2", "--out", family, "--plot")
        names = {path.name for path in (here / family).glob("*.png")}
        assert names == {"trace.png", "pairs.png", "criteria.png"}


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_names_of_what_is_written_are_checked_before_any_work(here, monkeypatch):
    FRAME.to_csv("rows.csv", index=False)
    (here / "out").mkdir()
    (here / "out" / "summary.txt").write_text("mine")
    monkeypatch.setattr(gmm, "fit", lambda *args, **options: pytest.fail("work was done"))
    assert "out/summary.txt would be replaced" in fails("fit", "gmm", "rows.csv", "-k", 2, "--out", "out")
