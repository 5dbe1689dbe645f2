"""Every example of the README and of the site runs, and the site is complete."""

import doctest
import importlib.util
import inspect
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
from matplotlib.testing.compare import compare_images

import emroute
from emroute.backend import namespace
from emroute.errors import InputError
from emroute.family import ratio
from tests.test_layers import public_modules

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
SITE = sorted(page for page in DOCS.rglob("*.md") if page.parent != DOCS / "api" and page.name != "README.md")
PAGES = [README, ROOT / "backends" / "README.md", *SITE]
RUN = r"python|pycon|\{code-cell\} ipython3"
SHOWN = r"bash|toml|text|\{(autosummary|bibliography|eval-rst|glossary|include|literalinclude|toctree)\}.*"


def blocks(page: Path, language: str = "python|pycon") -> list[tuple[str, str]]:
    """The fenced blocks of a page, with their language."""
    return re.findall(rf"^```({language})\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def run(page: Path, which: slice = slice(None)) -> dict:
    """Run blocks of a page one after another, as one program; output shown in a session is compared."""
    scope = {"__name__": "page"}
    parser, runner = (
        doctest.DocTestParser(),
        doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS),
    )
    for number, (language, text) in enumerate(blocks(page)[which]):
        if language == "python":
            exec(compile(text, f"{page.name}, block {number}", "exec"), scope)
        else:
            test = parser.get_doctest(text, scope, f"{page.name}, block {number}", str(page), 0)
            runner.run(test, clear_globs=False)
            scope.update(test.globs)
    assert not runner.failures
    return scope


def unavailable(text: str) -> str | None:
    """Why the library that a program imports cannot run here, or None."""
    if "import cupy" not in text:
        return None
    if importlib.util.find_spec("cupy") is None:
        return "cupy is not installed"
    import cupy

    return None if cupy.cuda.is_available() else "CuPy finds no CUDA device"


LIBRARIES = {"numpy": "np", "torch": "torch", "jax.numpy": "jnp", "cupy": "cp"}


@pytest.mark.parametrize("module", LIBRARIES)
def test_readme_example_runs_on(module, capsys):
    """As it stands on NumPy, elsewhere with the two changes that the README names; what it prints is in the README."""
    ((_, text),) = blocks(README, "python")
    alias = LIBRARIES[module]
    text = text.replace("import numpy as np", f"import {module} as {alias}").replace("np.asarray", f"{alias}.asarray")
    if reason := unavailable(text):
        pytest.skip(reason)
    scope = {}
    exec(compile(text, "README.md", "exec"), scope)
    x, mixture = scope["x"], scope["mixture"]
    assert float(mixture.log_likelihood) == pytest.approx(-1130.26396, abs=1e-2)
    for result in (mixture.means, scope["density"], scope["rows"]):
        assert (type(result), result.dtype) == (type(x), x.dtype)
    if module == "numpy":
        ((_, shown),) = blocks(README, "text")
        printed = capsys.readouterr().out
        number = r"-?\d+\.\d+"
        assert re.split(number, printed) == re.split(number, shown)
        values = (np.asarray(re.findall(number, each), float) for each in (printed, shown))
        np.testing.assert_allclose(*values, rtol=1e-5)


@pytest.mark.parametrize("figures", [("100,000 × 16, k = 16", "653 ms", "2.70 s"), ("of a file", "13.8 MB", "4.00 GB")])
def test_figures_of_the_readme_are_on_the_page_of_benchmarks(figures):
    assert all(figure in README.read_text(encoding="utf-8") for figure in figures[1:])
    rows = (DOCS / "benchmarks.md").read_text(encoding="utf-8").splitlines()
    assert any(all(figure in row for figure in figures) for row in rows)


ON_THEIR_OWN = {"add-a-backend.md", "add-a-family.md", "howto/keras.md"}
RUN_HERE = [name for page in SITE if (name := page.relative_to(DOCS).as_posix()) not in ON_THEIR_OWN and blocks(page)]


@pytest.mark.parametrize("name", RUN_HERE)
def test_page_runs(name, capsys):
    run(DOCS / name)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_keras_page_runs(backend):
    """Keras chooses its library when it is imported, so each has a process of its own."""
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not installed")
    program = "from tests.test_docs import DOCS, run; run(DOCS / 'howto' / 'keras.md')"
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stdout + done.stderr


def test_every_code_block_is_of_a_language_that_is_run():
    """By a test here, or as the site is built; shell and configuration aside."""
    for page in SITE:
        opened = re.findall(r"^`{3,}(\S.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert not [language for language in opened if not re.fullmatch(f"{RUN}|{SHOWN}", language)], page


def test_own_model_finds_the_lines_on_every_library(lib):
    page = run(DOCS / "own-model.md", slice(2))
    x, y = lib.asarray(page["x"]), lib.asarray(page["y"])
    start = page["Lines"](*map(lib.asarray, page["start"]))
    fit = page["em"].fit(page["Regressions"](), (x, y), start)
    assert bool(fit.converged)
    np.testing.assert_allclose(lib.to_numpy(fit.params.slopes), [[1.0, 2.0], [0.5, -1.0]], atol=0.06)
    np.testing.assert_allclose(lib.to_numpy(fit.params.weights), [0.6, 0.4], atol=0.03)
    np.testing.assert_allclose(lib.to_numpy(fit.params.variances), 0.04, atol=0.005)
    assert np.all(np.diff(lib.to_numpy(fit.trace)) > -1e-9)
    np.testing.assert_allclose(lib.to_numpy(fit.trace), page["fit"].trace, rtol=1e-9)


@pytest.fixture(scope="module")
def family_page():
    return run(DOCS / "add-a-family.md")


def test_own_family_runs_on_every_library(lib, family_page):
    x, fit = family_page["x"][:500], family_page["fit"]
    expected = fit(x, 2, rng=0)
    mixture = fit(lib.asarray(x), 2, rng=0)
    np.testing.assert_allclose(lib.to_numpy(mixture.probs), expected.probs, rtol=1e-9)
    np.testing.assert_allclose(lib.to_numpy(mixture.log_prob(lib.asarray(x))), expected.log_prob(x), rtol=1e-9)
    assert np.all(np.diff(lib.to_numpy(mixture.trace)) > -1e-9)


def test_own_family_may_be_continuous(lib, family_page):
    """Exponential durations; what the page calls rates is here under the name of the probabilities."""

    class Exponential(family_page["Geometric"]):
        complaint = "durations must be positive and finite"

        def natural_parameters(self, params):
            xp = namespace(params.probs)
            return xp.stack([xp.log(params.probs), -params.probs], axis=-1)

        def from_sums(self, sums, params):
            return params._replace(probs=ratio(sums[..., 0], sums[..., 1], params.probs))

        def is_valid(self, *arrays):
            return (arrays[0] > 0) & namespace(*arrays).isfinite(arrays[0])

    def fit(x):
        options = family_page["Options"](rng=0)
        return family_page["fit_counts"](family_page["GeometricMixture"], Exponential(), x, 2, options)

    rng = np.random.default_rng(0)
    x = np.where(rng.random(4000) < 0.3, rng.exponential(1, 4000), rng.exponential(20, 4000))
    mixture = fit(lib.asarray(x))
    rates, weights = lib.to_numpy(mixture.probs), lib.to_numpy(mixture.weights)
    order = np.argsort(rates)
    np.testing.assert_allclose(rates[order], [0.05, 1], rtol=0.1)
    np.testing.assert_allclose(weights[order], [0.7, 0.3], atol=0.03)
    assert np.all(np.diff(lib.to_numpy(mixture.trace)) > -1e-9)
    density = (weights * rates * np.exp(-rates * x[:, None])).sum(axis=-1)
    np.testing.assert_allclose(lib.to_numpy(mixture.log_likelihood), np.log(density).sum())
    x[3] = 0
    with pytest.raises(InputError, match="durations must be positive and finite: first in row 3"):
        fit(lib.asarray(x))


def test_own_backend_serves_its_library(tmp_path):
    """The files of the page, with the metadata that an installation would write."""
    for _, text in blocks(DOCS / "add-a-backend.md", "python"):
        name = text.partition("\n")[0].removeprefix("# ")
        (tmp_path / name).write_text(text)
    ((_, table),) = blocks(DOCS / "add-a-backend.md", "toml")
    project = tomllib.loads(table)
    ((key, module),) = project["project"]["entry-points"]["emroute.backends"].items()
    assert {f"{name}.py" for name in project["tool"]["setuptools"]["py-modules"]} < set(os.listdir(tmp_path))
    metadata = tmp_path / "emroute_toyarray-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: emroute-toyarray\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[emroute.backends]\n{key} = {module}\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def output(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stdout + done.stderr
        return done.stdout

    assert output("use.py").startswith("GaussianMixture(n_components=2, log_likelihood=-1130.26")
    checked = output("-m", "emroute", "check", "--backend", key)
    table = checked.partition("Largest differences")[2]
    assert key in table.partition("───")[0]
    assert "All is well" in checked


def listed(page: str) -> list[str]:
    """The names in the tables of a page of the reference."""
    return re.findall(r"^ {3}([a-z][\w.]*)$", (DOCS / "api" / page).read_text(encoding="utf-8"), re.MULTILINE)


def test_every_public_module_is_in_the_reference():
    """The package itself and its entry for ``python -m`` aside."""
    modules = listed("modules.md")
    assert len(set(modules)) == len(modules)
    public = set(public_modules()) - {"emroute", "emroute.__main__"}
    assert not public - set(modules), f"add to docs/api/modules.md: {public - set(modules)}"
    assert not set(modules) - public, f"take out of docs/api/modules.md: {set(modules) - public}"


def test_every_public_function_and_class_is_in_the_reference():
    """Those of the inner modules aside, which are on the modules' own pages."""
    names = listed("index.md")
    assert len(set(names)) == len(names)
    importlib.import_module("emroute.sklearn")
    found = {id(attrgetter(name)(emroute)) for name in names}
    outer = (DOCS / "api" / "modules.md").read_text(encoding="utf-8").partition("## Inside")[0]
    for module in map(importlib.import_module, re.findall(r"^ {3}(emroute[\w.]*)$", outer, re.MULTILINE)):
        public = {name: getattr(module, name) for name in module.__all__}
        wanted = {name for name, value in public.items() if inspect.isroutine(value) or inspect.isclass(value)}
        lacking = {f"{module.__name__}.{name}" for name in wanted if id(public[name]) not in found}
        assert not lacking, f"add to docs/api/index.md, or take out of the module's __all__: {lacking}"


def test_links_between_files_lead_somewhere():
    broken = []
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", DOCS / "api" / "index.md"]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken


def test_every_page_is_in_the_contents():
    contents = (DOCS / "index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^([\w/-]+)$", contents, re.MULTILINE))
    assert {page.relative_to(DOCS).with_suffix("").as_posix() for page in SITE} - {"index"} <= listed


def test_the_picture_of_the_readme_is_what_its_script_draws(tmp_path):
    script = DOCS / "images" / "old_faithful.py"
    runpy.run_path(str(shutil.copy(script, tmp_path)))
    assert compare_images(script.with_name("old-faithful.png"), tmp_path / "old-faithful.png", tol=3) is None
