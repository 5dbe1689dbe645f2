import importlib.util
import io
import os
import re
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest
import safetensors.numpy
from rich.console import Console
from typer.testing import CliRunner

from emroute import binomial, datasets, gmm, kmeans, select
from emroute.cli import app, demo
from emroute.cli.show import show
from emroute.mixture import Mixture

FAITHFUL = datasets.faithful().x
WIDTH = 80


def run(*args):
    """Run the command line in this process; what is wrong must show as one line, never as a traceback."""
    result = CliRunner(env={"COLUMNS": str(WIDTH)}).invoke(app, [str(arg) for arg in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def fails(*args):
    """Return the one line that a command fails with."""
    result = run(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(r"emroute: [^\n]+\n", result.stderr)
    return result.stderr


def module(*args, before="pass", **options):
    """Run ``python -m emroute`` in a process of its own, after a line of Python."""
    start = "runpy.run_module('emroute', run_name='__main__')"
    code = f"import runpy, sys; sys.argv[1:] = {list(map(str, args))!r}; {before}; {start}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **options)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("faithful.npy", FAITHFUL)
    frame = pl.DataFrame(FAITHFUL, schema=["eruptions", "waiting"])
    frame.write_csv("faithful.csv")
    frame.cast(pl.Float32).write_parquet("faithful.parquet")
    text = frame.with_columns(pl.lit("x").alias("place"))
    text.write_csv("text.csv")
    text.write_parquet("text.parquet")
    (tmp_path / "one.csv").write_text("a\n1\n2\n")
    np.savez("one.npz", x=FAITHFUL)
    np.savez("two.npz", x=FAITHFUL, y=FAITHFUL[:5])
    (tmp_path / "coins.csv").write_text("heads,trials,coin\n5,10,B\n9,10,A\n8,10,A\n4,10,B\n7,10,A\n")
    return tmp_path


# fit


@pytest.mark.parametrize(("name", "order"), [("faithful.csv", "F"), ("faithful.npy", "C"), ("one.npz", "C")])
def test_gmm_of_any_file_is_the_librarys(here, name, order):
    """To the last digit, in the file's own order: the columns of a text come one after another."""
    result = run("fit", "gmm", name, "-k", 2, "--out", "out", "--tol", "1e-9")
    assert result.exit_code == 0, result.stderr
    expected = gmm.fit(np.asarray(FAITHFUL, order=order), 2, rng=0, tol=1e-9)
    saved = Mixture.load(here / "out" / "mixture.npz")
    np.testing.assert_array_equal(saved.means, expected.means)
    labels = (here / "out" / "labels.csv").read_text().split()
    assert labels[0] == "label"
    assert list(map(int, labels[1:])) == expected.predict(FAITHFUL).tolist()
    for figure in ("-1130.26396", "2322.19", "0.35587", "54.478", "converged"):
        assert figure in result.stdout
    assert not result.stderr


def test_float32_files_are_fitted_in_float32_unless_told_otherwise(here):
    assert "float32 on numpy" in run("fit", "gmm", "faithful.parquet", "-k", 2).stdout
    assert "float64 on numpy" in run("fit", "gmm", "faithful.parquet", "-k", 2, "--dtype", "float64").stdout


def test_options_reach_the_fit(here):
    run("fit", "gmm", "faithful.csv", "-k", 3, "--covariance-type", "tied", "--n-init", 4, "--seed", 7, "--max-iter", 5,
        "--columns", "waiting", "--out", "out", "--quiet")  # fmt: skip
    saved = Mixture.load(here / "out" / "mixture.npz")
    expected = gmm.fit(FAITHFUL[:, 1:], 3, covariance_type="tied", n_init=4, rng=7, max_iter=5)
    # columns of a text lie one after another, so that BLAS adds in another order
    np.testing.assert_allclose(saved.means, expected.means, rtol=1e-14)


def test_safetensors(here):
    run("fit", "binomial", "coins.csv", "-k", 2, "--out", "out", "--format", "safetensors")
    expected = binomial.fit(np.asarray([5, 9, 8, 4, 7]), 10, 2, rng=0)
    saved = safetensors.numpy.load_file(here / "out" / "mixture.safetensors")
    np.testing.assert_allclose(saved["params.probs"], expected.probs)


def test_weights_count_as_repeated_rows(here):
    (here / "w.csv").write_text("a,w,b\n1,1,2\n3,2,4\n5,1,7\n9,3,8\n")
    run("fit", "kmeans", "w.csv", "-k", 2, "--weights-column", "w", "--out", "out")
    rows = np.repeat([[1.0, 2], [3, 4], [5, 7], [9, 8]], [1, 2, 1, 3], axis=0)
    header, *centroids = (here / "out" / "centroids.csv").read_text().split()
    assert header == "a,b"
    found = np.asarray([line.split(",") for line in centroids], dtype=float)
    expected = kmeans.fit(rows, 2, n_init=4, rng=0).centroids
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(expected, axis=0))


@pytest.mark.parametrize("columns", [[], ["--heads", "heads", "--trials", "trials"]])
def test_coins(here, columns):
    result = run("fit", "binomial", "coins.csv", "-k", 2, "--tol", 0, *columns)
    assert "-9.795419" in result.stdout
    assert "0.793368" in result.stdout


def test_two_columns_of_any_name_are_heads_and_trials(here):
    np.save("coins.npy", np.asarray([[5, 10], [9, 10], [8, 10], [4, 10], [7, 10]]))
    run("fit", "binomial", "coins.npy", "-k", 2, "--out", "out", "-q")
    expected = binomial.fit(np.asarray([5, 9, 8, 4, 7]), 10, 2, rng=0).probs
    np.testing.assert_allclose(Mixture.load(here / "out" / "mixture.npz").probs, expected)


@pytest.mark.parametrize("library", ["torch", "jax", "cupy"])
def test_every_library_gives_the_same_clusters(here, library):
    if importlib.util.find_spec(library) is None:
        assert f"pip install 'emroute[{library}]'" in fails(
            "fit", "kmeans", "faithful.npy", "-k", 2, "--backend", library
        )
        return
    assert run("fit", "kmeans", "faithful.npy", "-k", 2, "--backend", library, "--out", "out").exit_code == 0
    found = np.loadtxt(here / "out" / "centroids.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(found, kmeans.fit(FAITHFUL, 2, rng=0).centroids, rtol=1e-9)


def test_pictures_and_quiet(here):
    result = run("fit", "gmm", "faithful.csv", "-k", 2, "--out", "new/out", "--plot", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    names = {path.name for path in (here / "new" / "out").iterdir()}
    kept = {"columns.csv", "labels.csv", "mixture.npz", "responsibilities.csv", "summary.txt", "trace.png"}
    drawn = {"classification.png", "density.png", "uncertainty.png"}
    assert names == {*kept, *drawn, "means.csv", "covariances.csv"}
    assert run("fit", "binomial", "coins.csv", "-k", 2, "--out", "coins", "--plot").exit_code == 0
    assert {path.name for path in (here / "coins").iterdir()} == {*kept, "probs.csv"}


def test_npy_files_are_mapped_not_read(here, monkeypatch):
    seen = []
    monkeypatch.setattr(kmeans, "fit", lambda x, *args, **options: seen.append(x) or sys.exit(0))
    run("fit", "kmeans", "faithful.npy", "-k", 2)
    base = seen[0]
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap)


def test_csv_details(here):
    (here / "spaces.csv").write_text("\ufeffa, b\n1, 2\n3 ,4.5\n5,1e1\n", encoding="utf-8")
    assert run("fit", "kmeans", "spaces.csv", "-k", 1, "--out", "out").exit_code == 0
    assert (here / "out" / "centroids.csv").read_text().split()[1] == "3.0,5.5"
    (here / "headless.csv").write_text("1,2\n3,4\n")
    run("fit", "kmeans", "headless.csv", "-k", 1, "--columns", "1", "--out", "out", "--force")
    assert (here / "out" / "centroids.csv").read_text().split() == ["1", "3.0"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt"])
def test_the_first_line_tells_the_separator(here, separator, suffix):
    text = '"a, in m"|b\n1|2\n3|4\n\n'  # an empty line at the end is no row
    (here / f"rows.{suffix}").write_text(text.replace("|", separator))
    assert run("fit", "kmeans", f"rows.{suffix}", "-k", 1, "--out", "out").exit_code == 0
    assert (here / "out" / "centroids.csv").read_text() == '"a, in m",b\n2.0,3.0\n'


def test_gaps_in_columns_that_are_not_fitted_do_not_matter(here):
    (here / "rows.csv").write_text("a,b,c\n1,,2\n3,4,\n")
    assert run("fit", "kmeans", "rows.csv", "-k", 1, "--columns", "a").exit_code == 0
    assert "rows.csv, line 3: no number in column 'c'" in fails("fit", "kmeans", "rows.csv", "-k", 1, "--columns", "c")


def test_missing_entries_of_parquet_are_told_by_their_row(here):
    pl.DataFrame({"a": [1.0, None, 2.0], "b": [float("nan"), 1.0, 2.0]}).write_parquet("rows.parquet")
    assert "rows.parquet, row 0: no number in column 'b'" in fails("fit", "gmm", "rows.parquet", "-k", 1)


@pytest.mark.parametrize(("sizes", "criterion", "best"), [("1-3", "icl", 2), ("1,3", None, 3), ("2-3", "aic", 3)])
def test_the_number_of_components_is_chosen(here, sizes, criterion, best):
    options = ["--criterion", criterion] if criterion else []
    result = run("fit", "gmm", "faithful.csv", "--n-components", sizes, "--covariance-type", "tied", "--n-init", 4,
                 "--out", "out", *options)  # fmt: skip
    assert result.exit_code == 0, result.stderr
    tried = [int(part) for part in sizes.replace("1-3", "1,2,3").replace("-", ",").split(",")]
    choice = select.mixtures(FAITHFUL, tried, "tied", criterion or "bic", n_init=4, rng=0)
    table = result.stdout.split("\n\n")[0]
    assert table.startswith(f"How many components, by {(criterion or 'bic').upper()}\n")
    for row in choice.table:
        marked = "best " if row.n_components == best else ""
        assert re.search(rf"^{row.n_components} +{marked} *{getattr(row, choice.criterion):.2f} ", table, re.MULTILINE)
    saved = Mixture.load(here / "out" / "mixture.npz")
    assert len(saved.weights) == best
    np.testing.assert_allclose(saved.means, choice.best.means)


def test_an_array_is_chosen_by_its_key(here):
    assert "BIC" in run("fit", "gmm", "two.npz", "-k", 2, "--key", "x").stdout


def test_of_many_columns_the_first_are_shown(here):
    np.save("wide.npy", np.random.default_rng(0).normal(size=(20, 30)))
    shown = run("fit", "kmeans", "wide.npy", "-k", 2, "--out", "out").stdout
    assert re.search(r"Not shown: \d+, [\d, ]*, 29; out/centroids.csv has them", " ".join(shown.split()))


# what goes wrong


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (None, "gone.csv", "gone.csv: No such file or directory"),
        (b"1,2", "data.dat", "suffix '.dat', expected .csv"),
        (b"", "a.csv", "empty CSV"),
        (b"a,b\n", "a.csv", "no rows"),
        (b"\xff\xfe\x00\x01", "a.csv", "UTF-8"),
        (b'a,b\n1,"2\n3,4\n', "a.csv", "cannot be read"),
        (b"a,b\n1,2,3\n", "a.csv", "a.csv, line 2: number of fields is 3, in the first line 2"),
        (b"a,b\n1,2\n\n3\n5,6\n", "a.csv", "a.csv, line 4: number of fields is 1, in the first line 2"),
        (b"a,b\n1,2\n3,NA\n", "a.csv", "a.csv, line 3: no number in column 'b'; fill it in, add --drop-missing, or"),
        (b"a,b\n1,2\n\n,6\n", "a.csv", "a.csv, line 3: no number in column 'a'"),
        (b"1;2\n3;\n;4\n", "a.csv", "a.csv, line 2: no number in column '1'"),
        (b"a, a\n1,2\n", "a.csv", "two columns are named 'a'"),
        (b"a,b\n1,2\n3,oops\n", "a.csv", "column 'b' does not hold numbers (line 3: 'oops'); correct it, or"),
        (b"a|b\n1|2\n", "a.txt", "(line 2: '1|2'; fields are separated by commas, semicolons, tabs or blanks)"),
        (b"", "a.npy", "cannot be read"),
        (b"hello", "a.npy", "does not hold plain arrays"),
        (b"PK\x03\x04hello", "a.npz", "cannot be read"),
        (b"hello", "a.parquet", "cannot be read"),
    ],
)
def test_bad_files(here, content, name, words):
    if content is not None:
        (here / name).write_bytes(content)
    assert words in fails("fit", "gmm", name, "-k", 1)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((0, 2)), "no rows"),
        (np.zeros((2, 3, 4)), "shape (2, 3, 4)"),
        (np.asarray(["a"]), "dtype <U1"),
        (np.asarray([[1.0], [np.nan], [2.0]]), "NaN or infinity: first in row 1"),
        (np.asarray([[{}]]), "cannot be read"),
    ],
)
def test_bad_arrays(here, array, words):
    np.save("a.npy", array, allow_pickle=True)
    assert words in fails("fit", "gmm", "a.npy", "-k", 1)


def test_truncated_npy(here):
    (here / "a.npy").write_bytes((here / "faithful.npy").read_bytes()[:500])
    assert "cannot be read" in fails("fit", "gmm", "a.npy", "-k", 1)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("gmm faithful.csv", "Missing option '-k'"),
        ("lda faithful.csv -k 2", "'lda' is not one of 'gmm', 'kmeans', 'binomial'"),
        ("gmm faithful.csv -k 0", "got -k 0, expected a number of at least 1, or several: 1-6 or 2,3,5"),
        ("gmm faithful.csv -k two", "got -k two"),
        ("gmm faithful.csv -k 3-1", "got -k 3-1"),
        ("gmm faithful.csv -k 1,", "got -k 1,"),
        ("gmm faithful.csv -k 2 --criterion aic", "--criterion chooses among several"),
        ("gmm faithful.csv -k 1-2 --criterion best", "'best' is not one of 'bic', 'aic', 'icl'"),
        ("kmeans faithful.csv -k 1-3 --criterion bic", "clusterings are compared by the variance ratio"),
        ("gmm faithful.csv -k 273", "272 rows for n_components=273"),
        ("gmm faithful.csv -k 2 --backend mxnet", "'mxnet' is not one of"),
        ("gmm faithful.csv -k 2 --device cuda", "numpy cannot use device 'cuda'"),
        ("gmm faithful.csv -k 2 --backend torch --device moon", "torch cannot use device 'moon'"),
        ("gmm faithful.csv -k 2 --tol=-1", "tol=-1"),
        ("gmm faithful.csv -k 2 --columns eruptions,wait", "no column 'wait'; did you mean 'waiting'? the file"),
        ("gmm faithful.csv -k 2 --columns w", "no column 'w'; the file has eruptions, waiting"),
        ("gmm faithful.csv -k 2 --covariance-type round", "got --covariance-type round, expected all or some of full"),
        ("poisson faithful.csv -k 2 --standardize", "--standardize is for gmm and kmeans, got poisson"),
        ("gmm faithful.csv -k 2 --weights-column w", "no column 'w'"),
        ("gmm one.csv -k 2 --weights-column a", "no column beside the weights"),
        ("gmm text.parquet -k 2", "'place' does not hold numbers (String); correct it, or fit the others: --columns "),
        ("gmm text.csv -k 2", "'place' does not hold numbers (line 2: 'x'); correct it, or fit the others: --columns "),
        ("gmm text.csv -k 2 --weights-column place --columns waiting", "'place' does not hold numbers (line 2: 'x'); "),
        ("gmm text.csv -k 2 --weights-column place --columns waiting", "weights are numbers; name another --weights-c"),
        ("gmm text.csv -k 2", "--columns eruptions,waiting"),
        ("gmm two.npz -k 2", "two.npz: holds the arrays x, y; choose one with --key"),
        ("gmm two.npz -k 2 --key z", "there is no 'z'"),
        ("gmm faithful.csv -k 2 --key x", "--key is for npz files"),
        ("gmm faithful.csv -k 2 --heads waiting", "for binomial"),
        ("gmm faithful.csv -k 2 --plot", "--out"),
        ("gmm faithful.csv -k 2 --out coins.csv", "coins.csv: File exists"),
        ("gmm faithful.csv -k 2 --out coins.csv/out", "coins.csv/out: Not a directory"),
        ("kmeans faithful.csv -k 2 --covariance-type tied", "for gmm, got kmeans"),
        ("binomial coins.csv -k 2 --columns heads", "--columns is not for binomial"),
        ("binomial coins.csv -k 2 --trials tosses", "no column 'tosses'"),
        ("binomial faithful.csv -k 2", "whole numbers with 0 <= heads <= trials: first in row 0"),
    ],
)
def test_bad_options(here, args, words):
    assert words in fails("fit", *args.split())


def test_missing_extras(here, monkeypatch):
    find_spec = importlib.util.find_spec
    for package, args, extra in [
        ("polars", "faithful.csv -k 2", "cli"),
        ("matplotlib", "faithful.npy -k 2 --plot --out out", "plot"),
        ("safetensors", "faithful.npy -k 2 --format safetensors", "cli"),
        ("torch", "faithful.npy -k 2 --backend torch", "torch"),
    ]:
        monkeypatch.setattr(
            "emroute.cli.libraries.find_spec", lambda name, gone=package: None if name == gone else find_spec(name)
        )
        message = fails("fit", "gmm", *args.split())
        assert f"needs {package}; pip install 'emroute[{extra}]'" in message
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (MemoryError("5 TiB"), "out of memory"),
        (OSError(28, "No space left on device", "out/x"), "out/x: No space left on device"),
    ],
)
def test_what_stops_a_fit_is_told_in_one_line(here, monkeypatch, raised, words):
    def fit(*args, **options):
        raise raised

    monkeypatch.setattr(gmm, "fit", fit)
    assert words in fails("fit", "gmm", "faithful.npy", "-k", 2)


def test_a_fit_that_met_nan_fails(here, monkeypatch):
    real = gmm.fit

    def fit(*args, **options):
        result = real(*args, **options)
        object.__setattr__(result, "status", result.status * 0 + 2)
        return result

    monkeypatch.setattr(gmm, "fit", fit)
    assert "not finite" in fails("fit", "gmm", "faithful.npy", "-k", 2, "--out", "out")
    assert not list((here / "out").iterdir())


# the process


def test_help_and_version():
    for args in ([], ["--help"], ["fit", "--help"], ["demo", "-h"]):
        result = run(*args)
        assert (result.exit_code, result.stderr) == (0, "")
        assert "Usage" in result.stdout
    assert re.fullmatch(r"emroute \d+\.\d+\.\d+\n", run("--version").stdout)
    assert "No such command 'fitt'. Did you mean 'fit'?" in fails("fitt")
    assert "--bogus" in fails("--bogus")


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_the_extra_one_line_says_what_to_install(package):
    result = module("--version", before=f"sys.modules[{package!r}] = None")
    assert result.returncode == 2
    assert result.stderr == f"emroute: the command line needs {package}; pip install 'emroute[cli]'\n"


def test_python_m_emroute(here):
    result = module("fit", "kmeans", "faithful.npy", "-k", "2", env={**os.environ, "COLUMNS": "120"})
    assert (result.returncode, result.stderr) == (0, "")  # no progress bar where there is no terminal
    assert "8901.77" in result.stdout
    assert module("fit", "gmm", "gone.npy", "-k", "2").stderr == "emroute: gone.npy: No such file or directory\n"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and terminals")
def test_ctrl_c_ends_with_one_line(here):
    slow = "import emroute.kmeans, time; emroute.kmeans.fit = lambda *a, **o: (print('on', flush=True), time.sleep(60))"
    start = (
        "import sys; from emroute.__main__ import main; sys.argv[1:] = 'fit kmeans faithful.npy -k 2'.split(); main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", f"{slow}; {start}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "on\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "emroute: interrupted\n")
    assert process.returncode == 2


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and terminals")
def test_a_terminal_gets_a_progress_bar(here):
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    result = subprocess.run(
        [sys.executable, "-m", "emroute", "fit", "gmm", "faithful.npy", "-k", "2"],
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    assert result.returncode == 0
    assert b"EM:" in os.read(ours, 65536)
    os.close(ours)


# demo


def test_demo_shows_the_published_figures(here):
    result = run("demo", "--backend", "numpy", "--backend", "torch", "--out", "pictures")
    assert (result.exit_code, result.stderr) == (0, "")
    for figures in (
        "1 0.713012 0.581339 0.71 0.58 -11.320587 -10.9139 -32.6872",
        "9 0.796668 0.519770 -9.796936 -8.1003 -29.8736",
        "10 0.796744 0.519659 0.80 0.52 ",
        "limit 0.79678907 0.51958312 -9.796924292",
        "free weights 0.793368 0.513917 0.522751 0.477249 -9.795419",
        "known coins 0.800000 0.450000 0.600000 0.400000 -7.001573 0.80 0.45",
        "152.3479518 152.3479518",
        "78.8514414 78.8514414",
        "57.2284732 57.2284732",
        "full -180.1855 -180.1855",
        "-256.35404 -256.35404",
        "-306.86046 -306.86046",
        "-384.31410 -384.31410",
        "-1130.263960 -1130.263960",
        "0 0.355873 2.036388 54.478514",
    ):
        assert figures in re.sub(" +", " ", result.stdout)
    assert len(re.findall(r"setosa +50 +0 +0 *\n", result.stdout)) == 2  # the same number in both tables
    assert max(map(len, result.stdout.splitlines())) <= 80
    gaps = re.findall(r"(k-means|Gaussians) +(numpy|torch cpu) +[\d.]+ +[\d.]+ +(\S+)", result.stdout)
    assert len(gaps) == 4
    assert all(float(gap) < 1e-9 for *_, gap in gaps)
    names = {path.name for path in (here / "pictures").iterdir()}
    assert names == {"faithful-gmm.png", "iris-gmm.png", "iris-kmeans.png", "traces.png"}


def test_demo_without_matplotlib_says_so(here, monkeypatch):
    monkeypatch.setattr("emroute.cli.demo.find_spec", lambda name: None)
    monkeypatch.setattr("emroute.cli.demo._libraries", lambda *args: None)
    result = run("demo")
    assert result.exit_code == 0
    assert "pip install 'emroute[plot]'" in result.stdout
    assert not (here / "emroute-demo").exists()


def test_the_demo_says_how_to_see_other_libraries(here, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("emroute.cli.demo._places", lambda chosen: [])
    monkeypatch.setattr("emroute.cli.demo.find_spec", lambda name: None if name == "jax" else find_spec(name))
    console = Console(width=80, file=io.StringIO())
    demo._libraries(console, None)
    shown = " ".join(console.file.getvalue().split())
    assert re.search(r"Not installed here: jax[^.]*\. `pip install 'emroute\[torch,jax\]'` adds Torch and JAX", shown)


def test_long_names_are_broken_and_not_figures():
    console = Console(width=50, file=io.StringIO())
    show(console, "Table", ["", "one", "two"], [["a" * 40, "1e-16", "2e-16"], ["b", "3e-16", "4e-16"]])
    text = console.file.getvalue()
    assert all(figure in text for figure in ("1e-16", "2e-16", "3e-16", "4e-16"))
    assert "a" * 40 not in text
    assert text.count("a") == 40 + 1  # and the one in the title


@pytest.mark.parametrize("k", ["2", "1-2"])
def test_what_a_fit_warns_of_is_a_line_of_ours(k, tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n" + "1,2\n" * 9)
    told = run("fit", "gmm", tmp_path / "rows.csv", "-k", k).stderr
    assert re.fullmatch(r"emroute: [^\n]*component \[0\] came to rest on the covariance floor[^\n]*\n", told)
    assert run("fit", "gmm", tmp_path / "rows.csv", "-k", k, "--quiet").stderr == ""
