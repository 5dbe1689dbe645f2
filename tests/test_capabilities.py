"""What functions declare is what they do: gradients, `jit`, dtypes, integers, streams, batches; and what tables say."""

import importlib
import inspect
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import emroute
from emroute import (
    backend,
    binomial,
    capsule,
    categorical,
    em,
    gmm,
    kmeans,
    multinomial,
    poisson,
    student_t,
    von_mises_fisher,
)
from emroute.capability import Capabilities, capabilities
from emroute.errors import InputError, InputTypeError
from emroute.testing.cases import ALGORITHMS, OPERATIONS
from emroute.testing.cases.case import look_up
from emroute.testing.compare import change, compare, leaves
from emroute.testing.place import NUMPY, Place
from emroute.testing.table import FAMILIES, declared, families, table
from tests.test_testing import EXEMPT, listed_in_the_reference, public_names, within

PAGE = Path(__file__).parents[1] / "docs" / "capabilities.md"
CASES = [case for case in (*OPERATIONS, *ALGORITHMS) if not case.name.startswith("sklearn.")]
DECLARED = {name: (function, can) for name, function, can in declared()}

# Public functions that declare nothing, beside those without a case, and why
UNDECLARED = {
    "emroute.backend.compiled": "a function of functions",
    "emroute.backend.get": "finds a backend",
    "emroute.backend.is_array": "a question",
    "emroute.backend.named": "finds a backend",
    "emroute.backend.namespace": "finds a backend",
    "emroute.capability": "what declares",
    "emroute.data": "holds rows for a fit",
    "emroute.counts.Counts": "what the steps of a fit need",
    "emroute.family.Family": "what the steps of a fit need",
    "emroute.family.FamilyModel": "the steps of a fit",
    "emroute.family.Nearest": "the start of a fit",
    "emroute.gmm.GaussianMixture.marked": "what a warning says",
    "emroute.gmm.GaussianMixture.widened": "other parameters",
    "emroute.mixture.Mixture.marked": "what a warning says",
    "emroute.mixture.Mixture.remarks": "what a warning says",
    "emroute.fitting": "the steps of a fit",
    "emroute.kmeans.KMeansModel": "the steps of a fit",
    "emroute.binomial.BinomialMixture.data": "arranges arguments",
    "emroute.mixture.Mixture.data": "arranges arguments",
    "emroute.mixture.Mixture.restored": "a step of `load`",
    "emroute.mixture.Mixture.unfitted": "what every `from_parameters` ends with",
    "emroute.gmm.GaussianMixture.restored": "a step of `load`",
    "emroute.student_t.StudentTMixture.marked": "what a warning says",
    "emroute.student_t.StudentTMixture.restored": "a step of `load`",
    "emroute.von_mises_fisher.VonMisesFisherMixture.marked": "what a warning says",
    "emroute.sklearn": "scikit-learn's validation around the fits: test_sklearn.py",
    "emroute.validate": "checks",
}
NO_REVERSE = {
    "array.either": "a loop on JAX, which has no reverse mode",
    "array.set_at": "in place on Torch, which refuses that of what has a gradient",
}
ELSEWHERE = {
    "em.fit": "its case is of a model without batch: test_em.py",
    "kmeans.fit": "its case draws the starts of all problems together: test_kmeans.py",
    "mixture.Mixture.load": "files: test_gmm.py",
    "mixture.Mixture.save": "files: test_gmm.py",
} | dict.fromkeys(FAMILIES["samples"], "one stream of draws for all")
SHARED = {
    *("transforms", "beta_u", "beta_a", "clusters", "route_weights", "route_bias", "bias", "parameters"),
    *("beta_use", "beta_ignore"),
}
"""Arguments that all samples of a batch have in common."""


def public():
    """Functions and methods that users find in a module of the reference, what is inside it aside."""
    modules = [*listed_in_the_reference("To fit and to use"), *listed_in_the_reference("To build upon")]
    for module in map(importlib.import_module, modules):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isroutine(value):
                yield f"{module.__name__}.{name}", value
            for member, function in vars(value).items() if inspect.isclass(value) else ():
                function = getattr(function, "__func__", function)
                abstract = getattr(function, "__isabstractmethod__", False)
                protocol = getattr(value, "_is_protocol", False) and value is not backend.Backend
                if inspect.isfunction(function) and not (member.startswith("_") or abstract or protocol):
                    yield f"{module.__name__}.{name}.{member}", function


def test_every_public_function_declares_what_it_can_do():
    silent = [name for name, function in public() if not capabilities(function)]
    exempt = {
        name
        for function, names in public_names().items()
        for name in names
        if any(within(one, EXEMPT) for one in names)
    }
    lacking = [name for name in silent if name not in exempt and not within(name, EXEMPT | UNDECLARED)]
    assert not lacking, f"declare emroute.capability.Capabilities on {lacking}"
    assert not [name for name in UNDECLARED if not any(within(one, [name]) for one in silent)]


def test_every_declaration_is_in_the_table_and_has_a_case():
    listed = {getattr(function, "__func__", function) for function, _ in DECLARED.values()}
    missing = [names for function, names in public_names().items() if capabilities(function) and function not in listed]
    assert not missing, f"add the module to emroute.testing.table.MODULES: {missing}"
    mine = {look_up(name) for case in CASES for name in (case.name, *case.also)}
    assert not [name for name in DECLARED if look_up(name) not in mine]
    assert all(f"`{name} <" in table() for name in DECLARED)


def test_gradients_are_compared_where_they_are_declared():
    compared = {look_up(name) for case in CASES if case.gradients for name in (case.name, *case.also)}
    assert not [name for name, (_, can) in DECLARED.items() if can.gradients and look_up(name) not in compared]
    for case in CASES:
        assert {capabilities(look_up(name)) for name in case.also} <= {case.declared}, case.title


def test_a_declaration_changes_nothing():
    assert capabilities(gmm.fit) == Capabilities(jit=True, batch=True, streams=True)
    assert inspect.isfunction(gmm.fit)
    assert not hasattr(em.fit, "__wrapped__")
    assert pickle.loads(pickle.dumps(gmm.fit)) is gmm.fit
    assert list(inspect.signature(gmm.fit).parameters)[:2] == ["x", "n_components"]
    assert capabilities(gmm.GaussianMixture.log_prob).gradients
    assert capabilities(gmm.GaussianMixture.from_parameters).gradients
    assert capabilities(gmm.GaussianMixture) is None


# What is declared, one by one: each function by its last case, which is the smallest; a stream is followed from Python

BY_NAME = {case.name: case for case in CASES if case.variant != "stream" and not inspect.isclass(look_up(case.name))}
ONCE = pytest.mark.parametrize("case", BY_NAME.values(), ids=BY_NAME)
OF_ARRAYS = [case for name, case in BY_NAME.items() if not name.startswith("Backend.")]
EACH = pytest.mark.parametrize("case", OF_ARRAYS, ids=[case.name for case in OF_ARRAYS])


def arrays_of(tree):
    return [x for _, x in leaves(tree) if backend.is_array(x)]


def call(case, arrays):
    return (case.expected or case.function)(*change(arrays, lambda x: np.array(x) if backend.is_array(x) else x))


@EACH
def test_what_declares_no_gradient_is_a_constant_to_torch(case):
    if case.name in NO_REVERSE or case.declared.gradients:
        pytest.skip(NO_REVERSE.get(case.name, "declared: compared by the suite"))
    gradients = case.trial(0)._gradients(Place("torch", "cpu").anchor("float64"))
    assert all(not x.any() for x in gradients.values())


@ONCE
@pytest.mark.usefixtures("quick_compilation")
def test_jit(case):
    """The same as outside, a fit's trace longer; or JAX or we say that it cannot be."""
    arrays = case.trial(0).arrays

    def run(*own):
        following = iter(own)
        return arrays_of(case.function(*change(arrays, lambda x: next(following) if backend.is_array(x) else x)))

    jitted, own = jax.jit(run), [jnp.asarray(x) for x in arrays_of(arrays)]
    if case.name == "Backend.chunk_size":
        pytest.skip("a number of the host")
    if not case.declared.jit:
        with pytest.raises((InputError, jax.errors.JAXTypeError)):
            jitted(*own)
        return
    expected = arrays_of(call(case, arrays))
    found = list(map(np.asarray, jitted(*own)))
    found = [x[..., : y.shape[-1]] if x.shape != y.shape else x for x, y in zip(found, expected, strict=True)]
    difference = compare(found, expected)
    assert difference.error < 1e-9, difference


@EACH
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_precision_goes_in_and_comes_out_or_is_refused(case, name):
    if name == "float16":
        half, wide, floating = (lambda x: x.astype(name)), np.float64, lambda x: x.dtype.kind == "f"
    else:
        half, wide, floating = (lambda x: torch.tensor(x).bfloat16()), torch.float64, torch.is_floating_point
    other = np.array if name == "float16" else torch.tensor
    arrays = case.trial(0).arrays
    given = change(arrays, lambda x: x if not backend.is_array(x) else half(x) if x.dtype.kind == "f" else other(x))
    if not arrays or case.name in ("array.concrete", "array.traced", "mixture.Mixture.load", "mixture.Mixture.save"):
        pytest.skip("no numbers come out")
    if not case.declared.half:
        with pytest.raises(InputTypeError, match=name):
            case.function(*given)
        return
    found = case.function(*given)
    dtypes = {str(x.dtype).removeprefix("torch.") for x in arrays_of(found) if floating(x)}
    assert dtypes <= {name}
    widened = change(
        found, lambda x: backend.namespace(x).astype(x, wide) if backend.is_array(x) and floating(x) else x
    )
    difference = compare(widened, call(case, arrays))
    assert difference.error < {"float16": 0.005, "bfloat16": 0.04}[name], difference


@EACH
def test_single_and_double_precision_come_out_as_they_went_in(case):
    for dtype in ("float64", "float32"):
        for outcome in case.trial(0).run([(Place("torch", "cpu"), dtype)]):
            assert outcome.passed, outcome


COUNTS = np.asarray([[3, 1], [0, 7], [2, 2], [9, 0], [4, 4], [1, 8]])
TOSSES = COUNTS[:, 0], COUNTS[:, 0] + COUNTS[:, 1]
SHORT = {"tol": 0.0, "max_iter": 2}
DIRECTIONS = np.asarray([[1, 0], [0, 1], [-1, 0], [0, 1], [0, -1], [1, 0]])
ANSWERS = COUNTS % 2
HALVES = [[[0.4, 0.6], [0.7, 0.3]]] * 2
MIXTURES = {
    student_t.StudentTMixture: (student_t.fit(COUNTS + 0.5, 2, init=COUNTS[:2] + 0.5, max_iter=2), (COUNTS,)),
    gmm.GaussianMixture: (gmm.fit(COUNTS + 0.5, 2, init=COUNTS[:2] + 0.5, max_iter=2), (COUNTS,)),
    binomial.BinomialMixture: (binomial.fit(*TOSSES, 2, init=[0.2, 0.7], **SHORT), TOSSES),
    multinomial.MultinomialMixture: (multinomial.fit(COUNTS, 2, init=[[0.2, 0.8], [0.7, 0.3]], **SHORT), (COUNTS,)),
    poisson.PoissonMixture: (poisson.fit(COUNTS, 2, init=[[2.0, 5.0], [4.0, 1.0]], **SHORT), (COUNTS,)),
    categorical.CategoricalMixture: (categorical.fit(ANSWERS, 2, init=HALVES, **SHORT), (ANSWERS,)),
    von_mises_fisher.VonMisesFisherMixture: (von_mises_fisher.fit(DIRECTIONS, 2, rng=0, **SHORT), (DIRECTIONS,)),
}
FITS = {
    "gmm.fit": lambda x: gmm.fit(x, 2, covariance_type="diag", init=COUNTS[:2] + 0.5, **SHORT),
    "student_t.fit": lambda x: student_t.fit(x, 2, init=COUNTS[:2] + 0.5, **SHORT),
    "kmeans.fit": lambda x: kmeans.fit(x, 2, init=COUNTS[:2] + 0.5, **SHORT),
    "binomial.fit": lambda heads, trials=None: binomial.fit(heads, trials, 2, init=[0.2, 0.7], **SHORT),
    "multinomial.fit": lambda x: multinomial.fit(x, 2, init=[[0.2, 0.8], [0.7, 0.3]], **SHORT),
    "poisson.fit": lambda x: poisson.fit(x, 2, init=[[2.0, 5.0], [4.0, 1.0]], **SHORT),
    "categorical.fit": lambda x: categorical.fit(x, 2, init=HALVES, **SHORT),
    "von_mises_fisher.fit": lambda x: von_mises_fisher.fit(x, 2, init=DIRECTIONS[:2].astype(float), **SHORT),
}


@pytest.mark.parametrize("name", FITS)
def test_fits_take_integers_and_streams_as_declared(name):
    fit, can = FITS[name], DECLARED[name][1]
    data = {"binomial.fit": TOSSES, "categorical.fit": (ANSWERS,), "von_mises_fisher.fit": (DIRECTIONS,)}.get(
        name, (COUNTS,)
    )
    expected = fit(*(x.astype(float) for x in data))
    if can.integers:
        assert compare(fit(*data).trace, expected.trace).error < 1e-12
    else:
        with pytest.raises(InputTypeError, match="int64"):
            fit(*data)
    chunks = [tuple(x[part].astype(float) for x in data) for part in (slice(0, 4), slice(4, 6))]
    assert can.streams
    assert compare(fit(chunks if len(data) > 1 else [x for (x,) in chunks]).trace, expected.trace).error < 1e-10


@pytest.mark.parametrize("kind", MIXTURES, ids=lambda kind: kind.__name__)
def test_scores_take_counts_as_integers_and_no_streams(kind):
    """Of families on counts; Gaussians refuse them."""
    mixture, data = MIXTURES[kind]
    names = [name for name, (_, can) in DECLARED.items() if name.startswith("mixture.Mixture.") and can.integers]
    assert len(names) == 7
    for name in names:
        score, can = getattr(mixture, name.rpartition(".")[2]), DECLARED[name][1]
        if kind in (gmm.GaussianMixture, student_t.StudentTMixture):
            with pytest.raises(InputTypeError, match="int64"):
                score(*data)
        else:
            assert compare(score(*data), score(*(x.astype(float) for x in data))).error < 1e-12
        assert not can.streams
        with pytest.raises(InputTypeError):
            score(*([x.astype(float)] for x in data))


def test_only_counts_may_be_integers():
    """Routing and distances say so; what counts labels or trials is not meant."""
    for name in ("capsule.em_routing", "capsule.squash", "capsule.dynamic_routing", "capsule.vote"):
        first, *rest = BY_NAME[name].trial(0).arrays
        assert not DECLARED[name][1].integers
        with pytest.raises(InputTypeError, match="int64"):
            BY_NAME[name].function(first.astype(int), *rest)


@EACH
def test_batches_are_problems_of_their_own(case):
    """Two draws in one call, and each by itself; what losses sum over samples aside."""
    if not case.declared.batch or case.name in ELSEWHERE:
        pytest.skip(ELSEWHERE.get(case.name, "no batch"))
    draws = [case.trial(seed).arrays for seed in (0, 1)]
    names = list(inspect.signature(case.function).parameters)[: len(draws[0])]
    shared = [name in SHARED for name in names] + [False] * (len(draws[0]) - len(names))

    def stacked(a, b):
        if isinstance(a, tuple):
            return tuple(map(stacked, a, b))
        return np.stack([a, b])

    both = tuple(a if same else stacked(a, b) for a, b, same in zip(*draws, shared, strict=True))
    alone = [
        arrays_of(case.function(*(a if same else x for x, a, same in zip(own, draws[0], shared, strict=True))))
        for own in draws
    ]
    found = arrays_of(case.function(*both))
    for together, *each in zip(found, *alone, strict=True):
        if together.ndim == each[0].ndim:
            assert case.name.endswith("_loss")  # the mean, or the sum, of all
            continue
        width = max(x.shape[-1] if x.ndim else 0 for x in each)
        assert compare([x[..., :width] if x.ndim else x for x in together], each).error < 1e-9


# The short table


def test_the_page_of_capabilities_shows_the_declarations():
    text = PAGE.read_text(encoding="utf-8")
    shown = text.partition("<!-- capabilities -->\n")[2].partition("\n<!-- end -->")[0]
    assert shown.strip() == families(), "put emroute.testing.table.families() into docs/capabilities.md"


def test_the_short_table_leaves_no_function_to_use_out():
    listed = {name for names in FAMILIES.values() for name in names}
    assert listed <= DECLARED.keys()
    missing = {name for name in DECLARED if name.endswith((".fit", ".sample", "_routing", "_loss"))} - listed
    assert not missing, f"add to a row of emroute.testing.table.FAMILIES: {missing}"


def test_modules_with_a_fit_come_with_the_package():
    modules = {name.removesuffix(".fit") for name in DECLARED if name.endswith(".fit")}
    assert not modules - set(emroute.__all__), f"import in emroute/__init__.py: {modules - set(emroute.__all__)}"


def test_capabilities_are_said_in_words():
    assert str(capabilities(capsule.squash)).startswith("differentiable on Torch and JAX; works inside `jax.jit`; ")
    assert str(Capabilities()) == ""
    assert NUMPY.library == "numpy"
