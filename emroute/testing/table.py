"""What the public functions declare, as tables: for the documentation, and for the tests that hold it to them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from emroute.capability import Capabilities, capabilities
from emroute.errors import BackendError
from emroute.testing.cases import ALGORITHMS
from emroute.testing.equivalence import DTYPES, report
from emroute.testing.place import places

__all__ = ["COLUMNS", "FAMILIES", "MODULES", "declared", "families", "libraries", "table"]

MODULES = (
    *(
        "gmm",
        "student_t",
        "binomial",
        "multinomial",
        "poisson",
        "categorical",
        "von_mises_fisher",
        "mixture",
        "kmeans",
        "select",
        "capsule",
        "nn",
        "em",
    ),
    *("array", "family", "counts", "von_mises_fisher.bessel", "arrays.diagonal", "backend"),
)
"""Where users find what declares something, in the order of the tables; the last six are to build upon."""

COLUMNS: dict[str, tuple[str, Callable[[Capabilities, Any], bool]]] = {
    "gradients": ("Torch, JAX", lambda can, function: can.gradients),
    "inside `jit`": ("JAX", lambda can, function: can.jit),
    "batch": ("✓", lambda can, function: can.batch),
    "16 bits": ("✓", lambda can, function: can.half),
    "integers": ("✓", lambda can, function: can.integers),
    "weights": ("✓", lambda can, function: _takes(function, "sample_weight")),
    "restarts": ("✓", lambda can, function: _takes(function, "n_init")),
    "streams": ("✓", lambda can, function: can.streams),
}
"""Each column: what it says, and when; what a signature tells is not declared again."""

FAMILIES = {
    "fits: Gaussian and Student-t mixtures, k-means": ("gmm.fit", "student_t.fit", "kmeans.fit"),
    "fits: mixtures of counts, categories, directions": (
        *("binomial.fit", "multinomial.fit", "poisson.fit", "categorical.fit", "von_mises_fisher.fit"),
    ),
    "a model of your own": ("em.fit",),
    "densities and responsibilities": ("mixture.Mixture.log_prob", "mixture.Mixture.responsibilities"),
    "mean density, BIC, AIC, ICL": tuple(f"mixture.Mixture.{name}" for name in ("score", "bic", "aic", "icl")),
    "distances to centroids": ("kmeans.KMeans.transform",),
    "labels": ("mixture.Mixture.predict", "kmeans.KMeans.predict"),
    "samples": (
        *("gmm.GaussianMixture.sample", "student_t.StudentTMixture.sample", "binomial.BinomialMixture.sample"),
        *("multinomial.MultinomialMixture.sample", "poisson.PoissonMixture.sample"),
        *("categorical.CategoricalMixture.sample", "von_mises_fisher.VonMisesFisherMixture.sample"),
    ),
    "model choice": ("select.mixtures",),
    "routing of capsules": (
        *("capsule.em_routing", "capsule.em_routing_from_poses", "capsule.conv_em_routing"),
        *("capsule.class_em_routing", "capsule.dynamic_routing", "capsule.conv_dynamic_routing"),
        *("capsule.kmeans_routing", "capsule.gmm_routing", "capsule.variational_routing", "capsule.variational_bound"),
        *("capsule.attention_routing", "capsule.self_routing", "capsule.self_attention_routing"),
        *(
            f"capsule.{kind}_{name}_routing"
            for kind in ("conv", "class")
            for name in ("variational", "attention", "self")
        ),
        *("capsule.heinsen_routing", "capsule.heinsen_matrix_routing"),
    ),
    "parts and wholes of capsules": (
        *("capsule.mixture_likelihood", "capsule.affine_poses", "capsule.compose_poses", "capsule.warp"),
    ),
    "losses of capsules": (
        *("capsule.margin_loss", "capsule.spread_loss", "capsule.reconstruction_loss"),
        *("nn.capsnet_loss", "nn.matrix_capsnet_loss", "nn.constellation_loss"),
    ),
}
"""The rows of the short table, and the functions that must all be able to do what a row says."""

_LIBRARIES = {"numpy": (True, False), "torch": (True, True), "jax": (True, True), "cupy": (False, True)}
"""Whether each runs on CPU and on GPU."""


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
        (f"{{py:obj}}`{name} <emroute.{name}>`", *(_mark(column, can, function) for column in COLUMNS))
        for name, function, can in declared(modules)
    ]
    return _markdown(("", *COLUMNS), rows)


def families() -> str:
    """Return the short table in Markdown: a row can do what all its functions can."""
    found = {name: (can, function) for name, function, can in declared()}
    rows = []
    for family, names in FAMILIES.items():
        marks = ({_mark(column, *found[name]) for name in names} for column in COLUMNS)
        rows.append((family, *(mark.pop() if len(mark) == 1 else "–" for mark in marks)))
    return _markdown(("", *COLUMNS), rows)


def libraries() -> str:
    """Return in Markdown on which libraries and devices of this machine a routing has just been that of float64 NumPy.

    Raises
    ------
    AssertionError
        If it was not, on one that is installed.
    """
    case = next(case for case in ALGORITHMS if case.name == "capsule.em_routing")
    rows = []
    for library, able in _LIBRARIES.items():
        try:
            here = places([library])
        except BackendError:  # not installed, or without the device that it needs
            here = []
        passed: dict[bool, list[str]] = {True: [], False: []}
        for place in here:
            place.enable_float64()
            dtypes = [dtype for dtype in DTYPES if place.has(dtype)]
            outcomes = list(case.trial(0).run([(place, dtype) for dtype in dtypes]))
            if not all(outcome.passed for outcome in outcomes):
                raise AssertionError(report(outcomes))
            passed[(place.device or "cpu") == "cpu"].append(", ".join(dtypes))
        cells = ["; ".join(passed[cpu]) or "not run here" for cpu in (True, False)]
        rows.append((library, *(cell if can else "–" for cell, can in zip(cells, able, strict=True))))
    return _markdown(("", "CPU", "GPU"), rows)


def _takes(function: Any, parameter: str) -> bool:
    return parameter in inspect.signature(function).parameters


def _mark(column: str, can: Capabilities, function: Any) -> str:
    text, says = COLUMNS[column]
    return text if says(can, function) else "–"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *[":-:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)
