"""The structure of the code: no framework in the algorithms, imports one way, short files, public names explained."""

import ast
import graphlib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from statistics import median

import pytest

import emroute
from tests import structure

PACKAGE = Path(emroute.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
FRAMEWORKS = {"cupy", "flax", "jax", "jaxlib", "numba", "torch", "triton"}
OPTIONAL = {"hypothesis", "matplotlib", "polars", "pytest", "rich", "safetensors", "scipy", "sklearn", "tqdm", "typer"}


def module_name(path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def title(path: Path) -> str:
    """The name of a file in a test's id."""
    return path.relative_to(PACKAGE).as_posix()


def public_modules() -> list[str]:
    """Every module of the package whose name has no leading underscore."""
    found = pkgutil.walk_packages(emroute.__path__, "emroute.")
    return ["emroute", *(module.name for module in found if not re.search(r"\._", module.name))]


LAYERS = {PACKAGE / "nn" / "torch": {"torch"}, PACKAGE / "nn" / "flax": {"flax", "jax", "jaxlib"}}
"""Folders of layers for one framework each, and what they alone may import."""


@cache
def imports(path: Path) -> tuple[tuple[str, bool], ...]:
    """What a file imports, at any depth, and whether it does so as it is loaded."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _for_types_only(outer)
        for inner in ast.walk(outer)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node not in late) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{title(path)}: relative imports hide the layers"
            # `from a import b` loads a.b where that is a module, and only a where it is not
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(name if _is_module(name) else node.module, node not in late) for name in names]
    return tuple(found)


def _for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


@cache
def _is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return name.startswith("emroute.") and (path.with_suffix(".py").is_file() or path.is_dir())


def loads(code: str) -> set[str]:
    """The top-level modules in memory after a program has run in a fresh interpreter."""
    program = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("path", FILES, ids=title)
def test_no_file_imports_a_framework_but_layers_their_own(path):
    named = {name.partition(".")[0] for name, _ in imports(path)}
    own = next((names for folder, names in LAYERS.items() if path.is_relative_to(folder)), set())
    assert not named & FRAMEWORKS - own


def test_layers_rest_on_the_algorithms_and_on_one_framework():
    for path in FILES:
        needed = {name for name, _ in imports(path) if name.startswith("emroute.nn.")}
        inside = next((module_name(folder) for folder in LAYERS if path.is_relative_to(folder)), None)
        other = {name for name in needed for folder in LAYERS if name.startswith(module_name(folder))}
        assert all(inside and name.startswith(inside) for name in other), title(path)


def test_imports_go_one_way():
    graph = {module_name(path): {name for name, _ in imports(path) if _is_module(name)} for path in FILES}
    for needed in graph.values():
        needed.discard("emroute")  # which gathers them all; for the version, say
    order = list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index("emroute.errors") < order.index("emroute.backend") < order.index("emroute.em")
    assert order.index("emroute.em") < order.index("emroute.mixture") < order.index("emroute.gmm.mixture")
    assert order.index("emroute.gmm.mixture") < order.index("emroute.select") < order.index("emroute.testing.check")
    around = ("emroute.testing", "emroute.plot", "emroute.cli")  # the algorithms, each outside those before it
    for name in graph.keys() - {"emroute", "emroute.__main__"}:
        own = next((place for place, layer in enumerate(around) if name.startswith(layer)), -1)
        assert not [needed for needed in graph[name] if needed.startswith(around[own + 1 :])], name


def test_files_and_lists_of_parameters_are_short():
    """As `python -m tests.structure` counts them."""
    lines = structure.files()
    long = {name: n for name, n in lines.items() if n > 300}
    assert not long, f"move a part of these files, of more than 300 lines, to a file of its own: {long}"
    assert median(lines.values()) < 150
    assert [each.name for each in structure.functions() if each.private and each.n_params > 5] == []


@pytest.mark.parametrize("module", ["emroute", "emroute.nn", "emroute.nn.weights", "emroute.testing.cases"])
def test_importing_emroute_loads_no_framework_and_nothing_optional(module):
    assert not loads(f"import {module}") & (FRAMEWORKS | OPTIONAL)


@pytest.mark.parametrize(("name", "others"), [("torch", {"flax", "jax", "jaxlib"}), ("flax", {"torch"})])
def test_layers_load_their_own_framework_alone(name, others):
    loaded = loads(f"import emroute\nemroute.nn.{name}.CapsNet")
    assert name in loaded
    assert not loaded & (others | {"safetensors"})


def test_fitting_numpy_arrays_loads_no_framework():
    program = """
import numpy as np, emroute
x = np.random.default_rng(0).normal(size=(50, 2))
mixture = emroute.gmm.fit(x, 2, rng=0, max_iter=3)
mixture.log_prob(x), mixture.sample(3, rng=0), mixture.bic(x)
emroute.kmeans.fit(x, 2, rng=0), emroute.poisson.fit(np.asarray([0, 1, 9, 8]), 2, rng=0)
"""
    assert not loads(program) & (FRAMEWORKS | OPTIONAL)


@pytest.mark.parametrize("path", FILES, ids=title)
def test_what_is_not_a_dependency_is_imported_where_it_is_needed(path):
    """`import emroute.<module>` works without the extras, the command line's own files aside."""
    if path.is_relative_to(PACKAGE / "cli") or path.is_relative_to(PACKAGE / "sklearn"):
        pytest.skip("loaded only by the command line, or by those who have scikit-learn")
    now = {name.partition(".")[0] for name, at_once in imports(path) if at_once}
    assert not now & OPTIONAL


@pytest.mark.parametrize("name", public_modules())
class TestPublic:
    @pytest.fixture
    def module(self, name):
        needed = {"emroute.nn.torch": "torch", "emroute.nn.flax": "flax", "emroute.sklearn": "sklearn"}.get(name)
        if needed and importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
        return importlib.import_module(name)

    def test_all_names_what_is_there(self, module, name):
        assert module.__doc__
        if name == "emroute.__main__":
            return
        missing = [member for member in module.__all__ if not hasattr(module, member)]
        assert not missing
        assert len(set(module.__all__)) == len(module.__all__)

    def test_every_public_callable_is_explained_and_annotated(self, module):
        lacking = []
        for where, function in callables(module):
            if not inspect.getdoc(function):
                lacking.append(f"{where} has no docstring")
            if not inspect.isclass(function):
                bare = [parameter for parameter in unannotated(function) if parameter not in ("self", "cls")]
                lacking += [f"{where} does not annotate {parameter}" for parameter in bare]
        assert not lacking


def callables(module):
    """Public functions and classes that a module defines, and the public methods of the latter."""
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if getattr(value, "__module__", None) != module.__name__ or not callable(value):
            continue
        yield f"{module.__name__}.{name}", value
        if inspect.isclass(value):
            for member, function in vars(value).items():
                function = function.fget if isinstance(function, property) else inspect.unwrap(function)
                function = getattr(function, "__func__", function)
                ours = getattr(function, "__module__", None) == module.__name__  # unlike a NamedTuple's own methods
                if ours and inspect.isfunction(function) and not member.startswith("_"):
                    yield f"{module.__name__}.{name}.{member}", function


def unannotated(function):
    """Names of parameters without an annotation, and ``return``."""
    signature = inspect.signature(function)
    bare = [name for name, parameter in signature.parameters.items() if parameter.annotation is parameter.empty]
    return bare + ["return"] * (signature.return_annotation is signature.empty)


def test_the_version_is_the_same_everywhere():
    cited = (PACKAGE.parent / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {emroute.__version__}\n" in cited


def test_doctests_of_one_module_can_be_run():
    """Without `tests/`, whose conftest is not read then."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "emroute/poisson.py"]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr
