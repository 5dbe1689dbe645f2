"""How well the tests test: mutants of the algorithms that the NumPy tests let live.

    python -m tests.mutation [--seed 0] [--sample 300]

Cosmic Ray finds what can be mutated: operators, comparisons, numbers, decorators. Left out are annotations, which are
never evaluated, and what is no Python. Every mutant has a process of its own, forked after the heavy imports, that is
handed the mutated source in place of the file: nothing is ever written. It is killed by the first test that fails, or
by taking far longer than the tests do.
"""

from __future__ import annotations

import argparse
import ast
import gc
import hashlib
import importlib
import multiprocessing
import os
import resource
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

CAPSULES = (
    *(f"tests/test_capsule_{name}.py" for name in ("routing", "input", "pitfalls", "properties")),
    "tests/test_memory.py::test_a_child_takes_what_its_routing_says",
    "tests/test_memory.py::test_a_block_holds_the_children_that_fit_and_at_least_one_sample",
)
FITS = (
    *(f"tests/test_{name}.py" for name in ("gmm", "kmeans", "em", "families", "input", "streams", "degenerate")),
    "tests/test_memory.py::test_a_row_takes_what_its_model_says",
)
TESTS = {  # quick ones first; a mutant that only the long test_properties.py would kill lacks a test of its own
    "emroute/capsule": CAPSULES,
    "emroute/arrays/diagonal.py": CAPSULES,
    "emroute/gmm/ridge.py": ("tests/test_sklearn.py",),
    **dict.fromkeys(("emroute/_engine", "emroute/gmm", "emroute/kmeans", "emroute/mixtures"), FITS),
    "emroute/em.py": FITS,
    "emroute/mixture.py": FITS,
}
OTHERS = ("array_api_strict", "torch", "jax", "cupy")
PROCESSES = ("suite", "array_libraries", "loaded_only")  # tests that start some, which know nothing of the mutant
HEAVY = ("jax.numpy", "torch", "scipy.stats", "sklearn.cluster", "sklearn.datasets", "sklearn.mixture", "hypothesis")
PLAIN = (
    *("-x", "--import-mode=importlib", "--assert=plain", "-pno:xdist", "-pno:cacheprovider", "-oaddopts="),
    "--hypothesis-profile=mutation",
)
MEMORY = 16 * 2**30  # bytes that a mutant may ask for
PATIENCE = 1800  # seconds, for one that waits without working


class Mutant(NamedTuple):
    """One change of one file."""

    path: Path
    line: int
    operator: str
    occurrence: int

    @property
    def source(self) -> str | None:
        """The mutated file; None if it is no Python."""
        changed = mutate_code(self.path.read_text(encoding="utf-8"), get_operator(self.operator)(), self.occurrence)
        try:
            ast.parse(changed)
        except SyntaxError:
            return None
        return changed

    def __str__(self) -> str:
        lines = (text.splitlines() for text in (self.path.read_text(encoding="utf-8"), self.source))
        was, now = next(pair for pair in zip(*lines, strict=False) if pair[0] != pair[1])
        return f"{self.path}:{self.line}  {self.operator.partition('/')[2]}\n    - {was.strip()}\n    + {now.strip()}"


def annotated(source: str) -> set[tuple[int, int]]:
    """Lines and columns within annotations."""
    nodes = ast.walk(ast.parse(source))
    found = [getattr(node, field, None) for node in nodes for field in ("annotation", "returns")]
    inner = [part for node in found if node for part in ast.walk(node) if hasattr(part, "lineno")]
    return {(x.lineno, column) for x in inner for column in range(x.col_offset, x.end_col_offset)}


def mutants(path: Path) -> Iterator[tuple[str, Mutant]]:
    """All mutants of a file, each with words that tell it from others, wherever in the file it is."""
    source = path.read_text(encoding="utf-8")
    tree, lines, left_out, alike = get_ast(source), source.splitlines(), annotated(source), Counter()
    for name in operator_names():
        operator = get_operator(name)
        if operator.arguments():
            continue  # replaces variables that must be named
        places = (start for node in ast_nodes(tree) for start, _ in operator().mutation_positions(node))
        for occurrence, (line, column) in enumerate(places):
            words = f"{path} {name} {column} {lines[line - 1]}"
            alike[words] += 1
            if (line, column) not in left_out:
                yield f"{words} {alike[words]}", Mutant(path, line, name, occurrence)


def draw(seed: int, size: int) -> Iterator[Mutant]:
    """Some mutants, drawn by a hash of what they are: an edit elsewhere leaves the sample as it is."""
    files = sorted({file for path in TESTS for file in (Path(path), *Path(path).glob("*.py")) if file.suffix})
    everything = [pair for file in files for pair in mutants(file)]
    print(f"{len(everything)} mutants in {len(files)} files", flush=True)
    everything.sort(key=lambda pair: hashlib.sha256(f"{seed} {pair[0]}".encode()).digest())
    return islice((mutant for _, mutant in everything if mutant.source), size)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave NumPy's tests, as this module is a plug-in too."""
    items[:] = [item for item in items if not any(word in item.nodeid for word in (*OTHERS, *PROCESSES))]


def run_tests(tests: Iterable[str], seconds: int, module: str = "", path: str = "", source: str = "") -> None:
    """Run the tests with one module's source exchanged, and exit with their status."""
    loader = SourceFileLoader(module, path)
    loader.get_code = lambda name: compile(source, path, "exec")
    spec = spec_from_file_location(module, path, loader=loader)
    sys.meta_path.insert(0, SimpleNamespace(find_spec=lambda name, *_: spec if name == module else None))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    os._exit(pytest.main([*PLAIN, *tests], [sys.modules[__name__]]))


def survives(*arguments: object) -> bool:
    """Whether all tests pass in time."""
    process = multiprocessing.get_context("fork").Process(target=run_tests, args=arguments)
    process.start()
    process.join(PATIENCE)
    process.kill()
    process.join()
    return process.exitcode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sample", type=int, default=300)
    options = parser.parse_args()
    for module in HEAVY:
        importlib.import_module(module)
    assert "emroute" not in sys.modules
    gc.freeze()
    seconds, alive = {}, []
    for tests in set(TESTS.values()):
        start = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        assert survives(tests, 3600), f"without a mutant, too, one of these fails: {tests}"
        seconds[tests] = 10 + 3 * int(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - start)
    print("CPU seconds until a mutant is killed:", *seconds.values(), flush=True)
    for number, mutant in enumerate(draw(options.seed, options.sample), 1):
        tests = next(TESTS[path] for path in TESTS if mutant.path.is_relative_to(path))
        module = ".".join(mutant.path.with_suffix("").parts)
        if survives(tests, seconds[tests], module, str(mutant.path.resolve()), mutant.source):
            alive.append(mutant)
            print(f"{len(alive)} of {number} alive: {mutant}", flush=True)
    print(f"{len(alive)} of {options.sample} alive, {len(alive) / options.sample:.1%}, seed {options.seed}")


if __name__ == "__main__":
    main()
