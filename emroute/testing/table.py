"""What the public functions declare, as tables: for the documentation, and for the tests that hold it to them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from emroute.capability import Capabilities, capabilities

__all__ = ["COLUMNS", "FAMILIES", "MODULES", "declared", "families", "table"]

MODULES = (
    *("gmm", "binomial", "multinomial", "poisson", "mixture", "kmeans", "select", "capsule", "nn", "em"),
    *("array", "family", "gmm.diagonal", "backend"),
)
"""Where users find what declares something, in the order of the tables; the last four are to build upon."""

COLUMNS: dict[str, Callable[[Capabilities, Any], bool]] = {
    "gradients": lambda can, function: can.gradients,
    "inside `jit`": lambda can, function: can.jit,
    "batch": lambda can, function: can.batch,
    "float16, bfloat16": lambda can, function: can.half,
    "integers": lambda can, function: can.integers,
    "weights": lambda can, function: "sample_weight" in inspect.signature(function).parameters,
    "restarts": lambda can, function: "n_init" in inspect.signature(function).parameters,
    "streams": lambda can, function: can.streams,
}
"""Each column, and when it is ticked; what a signature tells is not declared again."""

FAMILIES = {
    "fits of mixtures": ("gmm.fit", "binomial.fit", "multinomial.fit", "poisson.fit"),
    "k-means": ("kmeans.fit",),
    "scores of a fitted mixture": tuple(
        f"mixture.Mixture.{name}" for name in ("log_prob", "responsibilities", "score", "bic", "aic", "icl")
    ),
    "distances to centroids": ("kmeans.KMeans.transform",),
    "labels": ("mixture.Mixture.predict", "kmeans.KMeans.predict"),
    "samples": tuple(
        f"{name}.sample"
        for name in (
            "gmm.GaussianMixture",
            "binomial.BinomialMixture",
            "multinomial.MultinomialMixture",
            "poisson.PoissonMixture",
        )
    ),
    "model choice": ("select.mixtures",),
    "routing of capsules": tuple(
        f"capsule.{name}"
        for name in (
            *("em_routing", "em_routing_from_poses", "conv_em_routing", "class_em_routing"),
            *("dynamic_routing", "conv_dynamic_routing", "kmeans_routing", "gmm_routing"),
        )
    ),
    "losses of capsules": ("capsule.margin_loss", "capsule.spread_loss", "capsule.reconstruction_loss"),
    "a model of your own": ("em.fit",),
}
"""The rows of the short table, and the functions that must all be able to do what a row says."""


def declared(modules: Sequence[str] = MODULES) -> Iterator[tuple[str, Any, Capabilities]]:
    """Walk the public functions, classes and methods that declare something: name, what it is, what it can do.

    >>> name, function, can = next(declared(["kmeans"]))
    >>> name, function.__name__, can.streams
    ('kmeans.KMeans.predict', 'predict', False)
    """
    for module in modules:
        home = importlib.import_module(f"emroute.{module}")
        for name in home.__all__:
            value = getattr(home, name)
            inside = vars(value) if inspect.isclass(value) else {}
            members = {member: getattr(value, member) for member in inside if not member.startswith("_")}
            for path, function in ((name, value), *((f"{name}.{member}", each) for member, each in members.items())):
                if (can := capabilities(function)) is not None:
                    yield f"{module}.{path}", function, can


def table(modules: Sequence[str] = MODULES) -> str:
    """Return the whole table in MyST, a row a function, each a link into the reference."""
    rows = [
        (f"{{py:obj}}`{name} <emroute.{name}>`", *(_mark(tick(can, function)) for tick in COLUMNS.values()))
        for name, function, can in declared(modules)
    ]
    return _markdown(("", *COLUMNS), rows)


def families() -> str:
    """Return the short table in Markdown: a row can do what all its functions can."""
    found = {name: (can, function) for name, function, can in declared()}
    chosen = [name for name in COLUMNS if name not in ("weights", "restarts")]
    rows = [
        (family, *(_mark(all(COLUMNS[column](*found[name]) for name in names)) for column in chosen))
        for family, names in FAMILIES.items()
    ]
    return _markdown(("", *chosen), rows)


def _mark(yes: bool) -> str:
    return "✓" if yes else "–"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *[":-:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)
