"""Count what the rules of the house are about: ``python -m tests.structure [FOLDER]``."""

import ast
import sys
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGES = ("emroute", "backends")


class Function(NamedTuple):
    """A function or method of the package."""

    name: str
    lines: int
    n_params: int
    """`self` and `cls` not counted."""
    private: bool
    """Whether it, its class or its module has a leading underscore."""
    returns_any: bool


def files(root: Path = ROOT) -> dict[str, int]:
    """Lines of each file of the package."""
    paths = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    return {path.relative_to(root).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}


def functions(root: Path = ROOT) -> list[Function]:
    """Every function of the package, those inside others included."""
    return [found for name in files(root) for found in _functions_of(root / name, name)]


def _functions_of(path: Path, name: str) -> list[Function]:
    found = []

    def visit(node: ast.AST, inside: str, private: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                visit(child, f"{inside}.{child.name}", private or child.name.startswith("_"))
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                # constructors are called by keyword, with what their public subclasses take
                hidden = child.name != "__init__" and (private or child.name.startswith("_"))
                found.append(_function(child, inside, hidden))
                visit(child, f"{inside}.{child.name}", True)
            else:
                visit(child, inside, private)

    visit(ast.parse(path.read_text(encoding="utf-8")), name, "/_" in f"/{name}")
    return found


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, inside: str, private: bool) -> Function:
    params = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    n_params = len([each for each in params if each.arg not in ("self", "cls")])
    returns = node.returns is not None and ast.unparse(node.returns) == "Any"
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    return Function(f"{inside}:{node.name}", lines, n_params, private, returns)


def main(root: Path = ROOT) -> None:
    """Print the counts."""
    lines, found = files(root), functions(root)
    longest = max(lines, key=lines.__getitem__)
    print(f"{sum(lines.values())} lines in {len(lines)} files, median {median(lines.values()):.0f}")
    print(f"longest file {longest}, {lines[longest]} lines; {sum(n > 300 for n in lines.values())} have more than 300")
    function = max(found, key=lambda each: each.lines)
    print(f"longest function {function.name}, {function.lines} lines with its docstring")
    many = [each for each in found if each.private and each.n_params > 5]
    print(f"{len(many)} private functions with more than five parameters")
    for each in many:
        print(f"    {each.name} {each.n_params}")
    print(f"{sum(each.returns_any for each in found)} functions that return Any")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
