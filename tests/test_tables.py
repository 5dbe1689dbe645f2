"""Text files as others write them: headers of numbers, decimal commas, ends of lines, infinities."""

import os
import zipfile

import numpy as np
import pandas as pd
import polars as pl
import pytest

from emroute import kmeans
from tests.test_cli import fails, run

X = np.random.default_rng(0).normal(size=(12, 3)).round(3) + 10 * (np.arange(12) % 2)[:, None]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def labels(*args):
    """Fit two clusters; return the labels of the rows, and what is said on stderr."""
    result = run("fit", "kmeans", *args, "-k", 2, "--out", "out", "--force")
    assert result.exit_code == 0, result.stderr
    return np.loadtxt("out/labels.csv", skiprows=1).tolist(), result.stderr


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_header_of_numbers_is_a_header(here, d, separator):
    pd.DataFrame(X[:, :d]).to_csv("rows.csv", index=False, sep=separator)
    found, told = labels("rows.csv")
    assert found == kmeans.fit(X[:, :d], 2, rng=0).labels.tolist()
    names = ",".join(map(str, range(d)))
    assert f"emroute: rows.csv: the first line, {names}, is taken for names of columns; --no-header reads" in told
    assert labels("rows.csv", "--header") == (found, "")


def test_the_guess_can_be_overruled(here):
    (here / "rows.csv").write_text("0,1\n9,9\n0,2\n")
    assert len(labels("rows.csv")[0]) == 2
    assert (len(labels("rows.csv", "--no-header")[0]), labels("rows.csv", "--no-header")[1]) == (3, "")
    (here / "years.csv").write_text("2019,2020\n9,9\n0,2\n5,5\n")
    found, told = labels("years.csv")
    assert len(found) == 4
    assert told.startswith("emroute: years.csv: the first line holds numbers and is read as a row; --header takes it")
    assert (len(labels("years.csv", "--header")[0]), labels("years.csv", "--header")[1]) == (3, "")
    assert (here / "out" / "centroids.csv").read_text().startswith("2019,2020\n")


def test_counts_that_begin_with_0_in_a_single_column_are_rows(here):
    (here / "counts.csv").write_text("0\n3\n9\n")
    assert len(labels("counts.csv")[0]) == 3


def test_columns_0_and_1_that_are_not_in_order_are_a_row(here):
    (here / "rows.csv").write_text("1,0\n9,9\n0,2\n")
    assert len(labels("rows.csv")[0]) == 3
    (here / "rows.csv").write_text("0.0,1.0\n9,9\n0,2\n")
    assert len(labels("rows.csv")[0]) == 3


def test_guesses_are_not_told_when_quiet(here):
    (here / "rows.csv").write_text("0,1\n9,9\n0,2\n")
    assert run("fit", "kmeans", "rows.csv", "-k", 2, "--quiet").output == ""


def test_headers_are_for_text(here):
    np.save("rows.npy", X)
    assert "--header and --no-header are for .csv, .tsv, .txt files, got rows.npy" in fails(
        "fit", "kmeans", "rows.npy", "-k", 2, "--no-header"
    )
    (here / "rows.csv").write_text("a,b\n1,2\n")
    assert "column 'a' " not in fails("fit", "kmeans", "rows.csv", "-k", 1, "--no-header")
    assert "column '0' does not hold numbers (line 1: 'a')" in fails(
        "fit", "kmeans", "rows.csv", "-k", 1, "--no-header", "--columns", "0"
    )


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
@pytest.mark.parametrize("header", ["a,b\n", ""])
def test_lines_may_end_in_any_way(here, end, header):
    text = header + "1,2\n3,4\n10,20\n"
    (here / "rows.csv").write_bytes(text.replace("\n", end).encode())
    assert labels("rows.csv")[0] == kmeans.fit(np.asarray([[1.0, 2], [3, 4], [10, 20]]), 2, rng=0).labels.tolist()
    (here / "rows.csv").write_bytes((header + "1,2\n3,\n").replace("\n", end).encode())
    where = f"rows.csv, line {2 + bool(header)}: no number in column '{'b' if header else 1}'"
    assert where in fails("fit", "kmeans", "rows.csv", "-k", 1)


@pytest.mark.parametrize(
    "text",
    ["1,5;2,5\n3,5;4\n10;20,25\n", "a;b\n1,5;2,5\n3,5;4\n10;20,25\n", "1,5\t2,5\n3,5\t4\n1e1\t20,25\n"],
    ids=["no header", "header", "tabs"],
)
def test_decimal_commas_are_read(here, text):
    (here / "rows.csv").write_text(text)
    found, told = labels("rows.csv")
    assert found == kmeans.fit(np.asarray([[1.5, 2.5], [3.5, 4], [10, 20.25]]), 2, rng=0).labels.tolist()
    centroids = np.loadtxt("out/centroids.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(centroids[np.argsort(centroids[:, 0])], [[2.5, 3.25], [10, 20.25]])
    assert "are read as decimal points" in told


@pytest.mark.parametrize("text", ["a;b\n1.234,5;2\n", "a;b\n1,234,567;2\n", "a;b\n1,5;2\n1.5;2\n"])
def test_commas_that_may_be_something_else_are_not_read(here, text):
    (here / "rows.csv").write_text(text)
    message = fails("fit", "kmeans", "rows.csv", "-k", 1)
    assert "column 'a' does not hold numbers (line 2: '1" in message
    assert "--columns b" in message


@pytest.mark.parametrize("entry", ["inf", "-Infinity", "1e999"])
def test_infinities_are_told_by_file_and_line(here, entry):
    (here / "rows.csv").write_text(f"a,b\n1,2\n3,{entry}\n5,6\n")
    message = fails("fit", "gmm", "rows.csv", "-k", 1)
    assert "rows.csv, line 3: infinity in column 'b'; correct it, or leave the row out" in message
    assert run("fit", "gmm", "rows.csv", "-k", 1, "--columns", "a").exit_code == 0
    weights = fails("fit", "gmm", "rows.csv", "-k", 1, "--columns", "a", "--weights-column", "b")
    assert "line 3: infinity in column 'b'" in weights


def test_infinities_of_parquet_are_told_by_their_row(here):
    pl.DataFrame({"a": [1.0, float("inf"), 2.0]}).write_parquet("rows.parquet")
    assert "rows.parquet, row 1: infinity in column 'a'" in fails("fit", "gmm", "rows.parquet", "-k", 1)


def test_a_column_whose_name_has_a_comma_can_be_chosen_as_advised(here):
    (here / "rows.csv").write_text('"a, x",b,c\n1,z,2\n3,4,4\n9,9,9\n')
    message = fails("fit", "kmeans", "rows.csv", "-k", 2)
    assert "--columns '\"a, x\",c'" in message
    assert len(labels("rows.csv", "--columns", '"a, x",c')[0]) == 3
    assert (here / "out" / "centroids.csv").read_text().startswith('"a, x",c\n')


@pytest.mark.parametrize("option", ["--columns", "--weights-column"])
def test_letters_may_be_composed_otherwise_than_in_the_file(here, option):
    (here / "rows.csv").write_text("gro\u0308sse,b\n1,2\n3,4\n9,9\n", encoding="utf-8")
    labels("rows.csv", option, "gr\u00f6sse")
    names = (here / "out" / "centroids.csv").read_text(encoding="utf-8").splitlines()[0]
    assert names == ("gro\u0308sse" if option == "--columns" else "b")


@pytest.mark.parametrize(("header", "point"), [("a, x;b", "."), ("a,x,y;b", "."), ("a,x,y;b", ",")])
def test_commas_in_names_do_not_hide_semicolons(here, header, point):
    (here / "rows.csv").write_text(f"{header}\n1{point}5;2\n3{point}5;4\n9;8\n")
    assert len(labels("rows.csv")[0]) == 3
    assert (here / "out" / "centroids.csv").read_text().splitlines()[1] in ("9.0,8.0", "2.5,3.0")


@pytest.mark.parametrize(("first", "others"), [("\n", "\r"), ("\r\n", "\r"), ("\r", "\n"), ("\r\r\n", "\r\r\n")])
def test_ends_of_lines_may_differ_within_a_file(here, first, others):
    (here / "rows.csv").write_bytes((f"a,b{first}" + others.join(["1,2", "3,4", "9,9", ""])).encode())
    assert len(labels("rows.csv")[0]) == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_refused_at_once(here):
    os.mkfifo("rows.csv")
    assert "a pipe, which can be read only once" in fails("fit", "kmeans", "rows.csv", "-k", 2)


def test_an_archive_of_other_files(here):
    with zipfile.ZipFile("rows.npz", "w") as archive:
        archive.writestr("a.txt", "text")
    assert "rows.npz: cannot be read (it does not hold plain arrays)" in fails("fit", "kmeans", "rows.npz", "-k", 2)
