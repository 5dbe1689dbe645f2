"""Parquet, csv and npy files as sources: the rows that are in them, what is refused, and how far reading goes ahead."""

import gzip

import numpy as np
import pytest

from emroute import categorical, data, gmm, kmeans
from emroute._frames import ahead
from emroute.errors import InputError, MissingDependencyError
from tests.helpers import clusters, rejected

pytestmark = pytest.mark.usefixtures("quick_compilation")
pl = pytest.importorskip("polars")

X = clusters(50, 2, 2, seed=3)
NAMES = ("length", "width")


@pytest.fixture
def files(tmp_path):
    """The same rows in every kind of file, beside a column of text."""
    frame = pl.DataFrame(X, schema=NAMES).with_columns(name=pl.lit("a"))
    frame.write_parquet(tmp_path / "rows.parquet")
    frame.write_csv(tmp_path / "rows.csv")
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress((tmp_path / "rows.csv").read_bytes()))
    frame.drop("name").write_csv(tmp_path / "bare.csv", include_header=False)
    for part in range(2):
        frame[25 * part : 25 * part + 25].write_parquet(tmp_path / f"part-{part}.parquet")
    np.save(tmp_path / "rows.npy", X)
    return tmp_path


SOURCES = {
    "parquet": lambda files, **options: data.parquet(files / "rows.parquet", NAMES, **options),
    "a pattern": lambda files, **options: data.parquet(files / "part-*.parquet", NAMES, **options),
    "several": lambda files, **options: data.parquet([files / f"part-{i}.parquet" for i in (0, 1)], NAMES, **options),
    "csv": lambda files, **options: data.csv(files / "rows.csv", NAMES, **options),
    "compressed": lambda files, **options: data.csv(files / "rows.csv.gz", NAMES, **options),
    "no header": lambda files, **options: data.csv(files / "bare.csv", header=False, **options),
    "npy": lambda files, **options: data.npy(files / "rows.npy", **options),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_holds_the_rows_of_the_file_in_every_pass(files, kind):
    source = SOURCES[kind](files, chunk_rows=7)
    for _ in range(2):
        chunks = list(source)
        assert all(len(chunk) <= 7 for chunk in chunks)
        np.testing.assert_array_equal(np.concatenate(chunks), X)
    assert len(source.columns) == 2
    assert "2 columns" in repr(source)


@pytest.mark.parametrize("kind", ["parquet", "csv", "npy"])
def test_a_fit_of_a_source_is_that_of_its_rows(lib, files, kind):
    source = SOURCES[kind](files, chunk_rows=16, like=lib.asarray([0.0]))
    ours, theirs = (gmm.fit(rows, 2, init=X[:2].tolist(), max_iter=3, tol=0) for rows in (source, X))
    np.testing.assert_allclose(lib.to_numpy(ours.covariances), theirs.covariances, rtol=1e-8)


def test_columns_are_read_in_the_order_asked_for(files):
    np.testing.assert_array_equal(next(iter(data.parquet(files / "rows.parquet", ["width"]))), X[:, 1:])
    np.testing.assert_array_equal(next(iter(data.csv(files / "rows.csv", NAMES[::-1]))), X[:, ::-1])
    np.testing.assert_array_equal(next(iter(data.npy(files / "rows.npy", [1, 0]))), X[:, ::-1])


def test_float32_stays_and_other_numbers_become_float64(tmp_path):
    frame = pl.DataFrame({"a": [1.0, 2.0], "n": [3, 4], "flag": [True, False]}, schema_overrides={"a": pl.Float32})
    frame.write_parquet(tmp_path / "rows.parquet")
    narrow, wide = (next(iter(data.parquet(tmp_path / "rows.parquet", names))) for names in (["a"], None))
    assert (narrow.dtype, wide.dtype) == (np.float32, np.float64)
    assert wide.tolist() == [[1, 3, 1], [2, 4, 0]]


def test_a_missing_entry_is_named_with_its_place_or_becomes_a_gap(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a, b\n0, 1\n1, 0\n0,\n1, x\n")
    rejected(lambda: list(data.csv(path)), InputError, "rows.csv", "'b'", "line 4")
    (tmp_path / "first.csv").write_text("a,b\n1,2\n1,2\n")
    rejected(lambda: list(data.csv([tmp_path / "first.csv", path])), InputError, "rows.csv", "line 4")
    rejected(lambda: kmeans.fit(data.csv(path, chunk_rows=2), 2, rng=0), InputError, "line 4")
    pl.DataFrame({"a": [1.0, None], "b": [2.0, 3.0]}).write_parquet(tmp_path / "rows.parquet")
    rejected(lambda: list(data.parquet(tmp_path / "rows.parquet")), InputError, "'a'", "row 1")
    source = data.csv(path, gaps=True)
    np.testing.assert_array_equal(next(iter(source)), [[0, 1], [1, 0], [0, np.nan], [1, np.nan]])
    assert categorical.fit(source, 2, n_categories=2, rng=0).n_parameters == 5


def test_what_cannot_be_read_is_refused(files, monkeypatch):
    rejected(lambda: data.parquet(files / "none-*.parquet"), InputError, "no such file")
    rejected(lambda: data.csv([files / "rows.csv", files / "typo.csv"]), InputError, "no such file", "typo.csv")
    rejected(lambda: data.parquet(files / "rows.csv"), InputError, "rows.csv", "cannot be read")
    rejected(lambda: data.parquet(files / "rows.parquet"), InputError, "'name'", "does not hold numbers")
    rejected(lambda: data.csv(files / "rows.csv", ["colour"]), InputError, "'colour'", "length, width, name")
    rejected(lambda: data.csv(files / "bare.csv"), InputError, "first line holds numbers", "header=False")
    rejected(lambda: data.npy(files / "rows.csv"), InputError, "cannot be read")
    rejected(lambda: data.npy(files / "rows.npy", [2]), InputError, "no column 2", "there are 2")
    rejected(lambda: data.csv(files / "rows.csv", chunk_rows=0), InputError, "chunk_rows=0")
    np.save(files / "flat.npy", X[:, 0])
    rejected(lambda: data.npy(files / "flat.npy"), InputError, "(n, d)")
    monkeypatch.setitem(__import__("sys").modules, "polars", None)
    rejected(lambda: data.csv(files / "rows.csv"), MissingDependencyError, "emroute[cli]")


def test_one_chunk_is_read_ahead_and_no_more():
    made = []

    def chunks():
        for number in range(5):
            made.append(number)
            yield np.full(1, number)

    reading = ahead(chunks())
    assert next(reading) == 0
    assert next(reading) == 1
    assert len(made) <= 3
    reading.close()
    assert len(made) <= 3


def test_an_error_while_reading_ahead_reaches_the_reader():
    def chunks():
        yield np.zeros(1)
        raise InputError("bad row")

    reading = ahead(chunks())
    next(reading)
    rejected(lambda: list(reading), InputError, "bad row")
