"""The kit: every public function has its case, and planted faults are found and named."""

import importlib
import inspect
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import array_api_strict
import numpy as np
import pytest
from emroute_backends import portable
from hypothesis import given, settings
from typer.testing import CliRunner

import emroute.array
from emroute import backend as backends
from emroute import gmm
from emroute import sklearn as estimators
from emroute.capsule import em_routing
from emroute.cli import app
from emroute.errors import BackendError, InputError, MissingDependencyError
from emroute.testing import Place, assert_equivalent, places, strategies
from emroute.testing.cases import ALGORITHMS, OPERATIONS
from emroute.testing.cases.case import Case, normal
from emroute.testing.compare import compare, leaves
from emroute.testing.place import NUMPY
from tests.test_layers import callables, public_modules

STRICT = "array_api_strict"
API = Path(__file__).parents[1] / "docs" / "api" / "modules.md"
CASES = [*OPERATIONS, *ALGORITHMS]

# Modules, classes and functions without a case, and why
EXEMPT = {
    "emroute.array.eps": "a number that each dtype has for itself",
    "emroute.array.itemsize": "a number that each dtype has for itself",
    "emroute.array.tiny": "a number that each dtype has for itself",
    "emroute.arrays.kernels": "which of two forms runs: test_kernels.py",
    "emroute.backend.installed": "names",
    "emroute.capsule.losses.spread_margin": "a number of the host",
    "emroute.cli": "the command line: test_cli.py",
    "emroute.data.csv": "files: test_file_sources.py",
    "emroute.data.npy": "files: test_file_sources.py",
    "emroute.data.parquet": "files: test_file_sources.py",
    "emroute.datasets": "NumPy arrays for the host",
    "emroute.errors": "errors",
    "emroute.mixtures.family.Family.deviance": "each family on counts has its own",
    "emroute.mixtures.family.Family.peak": "each family on counts has its own",
    "emroute.mixtures.family.Family.size": "each family on counts has its own",
    "emroute.mixtures.storage.kind_of": "a name",
    "emroute.gmm.kind.Covariance.couple": "types that couple components have their own",
    "emroute.gmm.kind.Covariance.inverse": "precisions of the estimators: test_sklearn.py",
    "emroute.gmm.matrices.Full.inverse": "precisions of the estimators: test_sklearn.py",
    "emroute.gmm.matrices.Tied.inverse": "precisions of the estimators: test_sklearn.py",
    "emroute.gmm.variances.Diagonal.dense": "pictures: test_plot.py",
    "emroute.gmm.variances.Spherical.dense": "pictures: test_plot.py",
    "emroute.gmm.mixture.GaussianMixture.covariance_type": "a name",
    "emroute.gmm.mixture.GaussianMixture.widened": "floored components alone differ: test_floor.py",
    "emroute.gmm.model.GaussianModel.marginal": "constant features alone need it: test_floor.py",
    "emroute.gmm.model.GaussianModel.widen": "floored components alone differ: test_floor.py",
    "emroute.kmeans.assignment.assign_again": "fused forms alone remember: test_kernels.py",
    "emroute.kmeans.model.RememberingModel": "fused forms alone remember: test_kernels.py",
    "emroute.gmm.spread.inverse": "precisions of the estimators: test_sklearn.py",
    "emroute.student_t.mixture.StudentTMixture.covariance_type": "a name",
    "emroute.student_t.mixture.StudentTMixture.restored": "files: test_student_t.py",
    "emroute.student_t.model.StudentTModel.describe": "files: test_student_t.py",
    "emroute.nn.constellations.ConstellationNet": "what those of both frameworks share: test_nn_objects.py",
    "emroute.nn.efficient": "what those of both frameworks share: test_nn_routings.py",
    "emroute.nn.flax": "layers of one framework, held to those of Torch: test_nn.py",
    "emroute.nn.layer": "what those of both frameworks share: test_nn.py",
    "emroute.nn.matrix": "what those of both frameworks share: test_nn.py",
    "emroute.nn.network": "what those of both frameworks share: test_nn.py",
    "emroute.nn.networks": "what those of both frameworks share: test_nn.py",
    "emroute.nn.objects.ObjectCapsules": "what those of both frameworks share: test_nn_objects.py",
    "emroute.nn.precision": "what those of both frameworks share: test_nn_precision.py",
    "emroute.nn.settings": "files: test_nn_settings.py",
    "emroute.nn.sets": "what those of both frameworks share: test_nn_objects.py",
    "emroute.nn.sizes": "numbers of the host: test_nn_input.py",
    "emroute.nn.torch": "layers of one framework, held to those of Flax: test_nn.py",
    "emroute.nn.vector": "what those of both frameworks share: test_nn.py",
    "emroute.nn.ways": "names: test_nn_routings.py",
    "emroute.nn.weights": "files: test_nn_input.py",
    "emroute.plot": "pictures: test_plot.py",
    "emroute.testing": "the kit itself",
}


def within(name, listed):
    return any(name == one or name.startswith(f"{one}.") for one in listed)


def public_names():
    """Every public callable by all the names that users have for it, and the function itself."""
    found = {}
    for module in map(importlib.import_module, set(public_modules()) - {"emroute.__main__"}):
        for name, function in callables(module):
            found.setdefault(function, set()).add(name)
        for name in getattr(module, "__all__", ()):
            if inspect.isroutine(value := getattr(module, name)):
                found.setdefault(value, set()).add(f"{module.__name__}.{name}")
    return found


def is_interface(name, function):
    """Members of protocols and abstract methods, which have no body."""
    owner = getattr(sys.modules[function.__module__], name.split(".")[-2], None)
    return getattr(function, "__isabstractmethod__", False) or getattr(owner, "_is_protocol", False)


@pytest.fixture(scope="module")
def executed():
    """The code that the cases run on NumPy."""
    seen = set()
    sys.setprofile(lambda frame, event, _: seen.add(frame.f_code) if event == "call" else None)
    try:
        for case in CASES:
            assert all(outcome.passed for outcome in case.trial(0).run([(NUMPY, "float64")])), case.title
    finally:
        sys.setprofile(None)
    return seen


def listed_in_the_reference(heading):
    """The modules under a heading of the API reference."""
    section = API.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^ {3}(emroute[\w.]*)$", section, re.MULTILINE)


def test_every_public_callable_has_an_equivalence_case(executed):
    """A function to fit and to use has a case of its name; methods, and what is inside, are run by some case."""
    named = {f"emroute.{case.name}" for case in CASES}
    to_use = listed_in_the_reference("To fit and to use")
    assert {"emroute.gmm", "emroute.capsule", "emroute.select"} <= set(to_use)
    lacking = []
    for function, names in public_names().items():
        if inspect.isclass(function) or any(within(name, EXEMPT) or is_interface(name, function) for name in names):
            continue
        mine = [name for name in names if name.rpartition(".")[0] in to_use]
        if not (names & named if mine else names & named or getattr(function, "text", function).__code__ in executed):
            lacking.append(min(names, key=len))
    assert not lacking, f"add a case to emroute/testing/cases for {lacking}"


def test_every_estimator_has_an_equivalence_case():
    assert {f"sklearn.{name}" for name in estimators.__all__} <= {case.name for case in CASES}


def test_every_member_of_a_backend_has_an_equivalence_case():
    members = {name for name in vars(backends.Backend) if not name.startswith("_")}
    assert {f"Backend.{name}" for name in members} <= {case.name for case in OPERATIONS}


@pytest.mark.parametrize("seed", [1, 2])
def test_cases_hold_for_other_draws(seed):
    """Those of ``--thorough``: no tie and no number of iterations hangs on rounding."""
    for case in CASES:
        (outcome,) = replace(case.trial(seed), gradients=False).run([(NUMPY, "float32")])
        assert outcome.passed, (case.title, outcome.difference)


def test_cases_and_exemptions_are_of_what_is_there():
    for name in [*(case.name for case in CASES if not case.name.startswith("Backend.")), *EXEMPT]:
        parts = name.removeprefix("emroute.").split(".")
        value = emroute
        for part in parts:
            value = getattr(value, part, None) or importlib.import_module(f"{value.__name__}.{part}")
    assert len({case.title for case in CASES}) == len(CASES)


# Planted faults: a backend of array_api_strict is spoiled, and the check must name the operation


def transposed(eigh):
    def wrong(x):
        values, vectors = eigh(x)
        return values, array_api_strict.matrix_transpose(vectors)

    return wrong


def loses_a_row(segment_sum):
    return lambda values, segments, n: segment_sum(values[..., 1:, :], segments[..., 1:], n)


def in_half_precision(function):
    def wrong(x):
        result = function(x)
        if x.dtype != array_api_strict.float32:
            return result
        return array_api_strict.asarray(np.asarray(result).astype(np.float16).astype(np.float32))

    return wrong


def hops(function):
    return lambda *args: function(*args).to_device(array_api_strict.Device("device1"))


def returns_numpy(function):
    return lambda *args: np.asarray(function(*args))


def forgets_the_dtype(from_numpy):
    return lambda value, like: array_api_strict.asarray(value)


def skips_the_last_turn(loop):
    return lambda condition, body, state: loop(lambda after: condition(body(after)), body, state)


def drops_the_last_block(map_blocks):
    def wrong(function, arrays, size, recompute=False):
        return map_blocks(function, [x[: x.shape[0] // size * size, ...] for x in arrays], size)

    return wrong


def raises(function):
    def wrong(*args):
        raise RuntimeError("not for this library")

    return wrong


FAULTS = {
    "transposed eigenvectors": ("eigh", transposed, "Backend.eigh"),
    "a row lost": ("segment_sum", loses_a_row, "Backend.segment_sum"),
    "float32 in float16": ("gammaln", in_half_precision, "Backend.gammaln"),
    "another device": ("segment_sum", hops, "Backend.segment_sum"),
    "another device from the host": ("from_numpy", hops, "Backend.from_numpy"),
    "NumPy arrays": ("digamma", returns_numpy, "Backend.digamma"),
    "NumPy arrays from the host": ("from_numpy", lambda _: lambda value, like: value, "Backend.from_numpy"),
    "another dtype": ("from_numpy", forgets_the_dtype, "Backend.from_numpy"),
    "a turn too few": ("loop", skips_the_last_turn, "Backend.loop"),
    "a block lost": ("map_blocks", drops_the_last_block, "Backend.map_blocks"),
    "an error": ("detach", raises, "Backend.detach"),
}


def check(*options):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["check", "--backend", STRICT, *options])


def test_check_is_content_with_a_sound_backend():
    result = check("--device", "cpu")
    assert result.exit_code == 0, result.stdout
    assert "All is well" in result.stdout
    assert "WRONG" not in result.stdout
    for shown in (f"{STRICT} ", array_api_strict.__version__, "Backend.*", "capsule.em_routing ", "float32"):
        assert shown in result.stdout
    assert "gmm.fit, tied" not in result.stdout
    assert "gmm.fit, tied" in check("--device", "cpu", "--verbose").stdout


@pytest.mark.parametrize(("member", "spoil", "named"), FAULTS.values(), ids=FAULTS)
def test_check_names_the_broken_member(monkeypatch, member, spoil, named):
    monkeypatch.setattr(portable, member, spoil(getattr(portable, member)))
    result = check()
    assert result.exit_code == 1
    (line,) = re.findall(rf"^On {STRICT} cpu these are wrong: (.*)\.$", result.stdout, re.MULTILINE)
    assert named in line.split(", ")
    assert "On numpy" not in result.stdout
    assert "gmm.fit" not in line  # what rests on it is not blamed


def test_check_names_a_logsumexp_that_drops_the_max(monkeypatch):
    def wrong(x, *, axis=-1, keepdims=False):
        xp = backends.namespace(x)
        return xp.log(xp.sum(xp.exp(x), axis=axis, keepdims=keepdims))

    monkeypatch.setattr(emroute.array, "logsumexp", wrong)
    result = check()
    assert result.exit_code == 1
    assert f"On {STRICT} cpu these are wrong: array.logsumexp." in result.stdout


def test_check_names_an_algorithm_where_operations_are_sound(monkeypatch):
    """A fault that no operation shows: routing with one iteration too few on one library."""
    sound = emroute.capsule.em_routing

    def wrong(votes, *rest, **options):
        strict = type(votes).__module__.startswith(STRICT)
        return sound(votes, *rest, **options, **({"n_iter": 2} if strict else {}))

    cases = [replace(case, function=wrong) if case.title == "capsule.em_routing" else case for case in ALGORITHMS]
    monkeypatch.setattr("emroute.testing.check.ALGORITHMS", cases)
    result = check()
    assert result.exit_code == 1
    assert f"On {STRICT} cpu these are wrong: capsule.em_routing." in result.stdout


def test_differences_are_sentences_that_fit_80_columns(monkeypatch):
    def wrong(x):
        return x + 1.5 * (type(x).__module__.partition(".")[0] == "torch")

    case = Case("capsule.em_routing_from_poses", wrong, normal((2, 3)), smooth=False)
    monkeypatch.setattr("emroute.testing.check.OPERATIONS", ())
    monkeypatch.setattr("emroute.testing.check.ALGORITHMS", (case,))
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["check", "--backend", STRICT, "--backend", "torch"])
    assert result.exit_code == 1
    assert max(map(len, result.stdout.splitlines())) <= 80
    words = " ".join(result.stdout.split())
    assert re.search(
        r"capsule.em_routing_from_poses on torch cpu, float64, values: error [\d.]+, allowed 1e-10; \[\d, \d\] is "
        r"-?[\d.]+, expected -?[\d.]+",
        words,
    )


def test_check_says_which_libraries_lack_a_device(monkeypatch):
    monkeypatch.setattr("emroute.testing.check.OPERATIONS", ())
    monkeypatch.setattr("emroute.testing.check.ALGORITHMS", (Case("array.sum", lambda x: x, normal((2,))),))
    monkeypatch.setattr("emroute.cli.check.installed_libraries", lambda: ["numpy", "cupy"])
    result = CliRunner().invoke(app, ["check", "--device", "cpu"])
    assert "Left out, because they have no device cpu here: cupy.\n" in result.stdout


def test_check_knows_its_options():
    for options, words in [
        (["--backend", "mxnet"], "no backend for 'mxnet'"),
        (["--backend", "numpy", "--device", "moon"], "has a device 'moon'"),
    ]:
        result = CliRunner().invoke(app, ["check", *options])
        assert result.exit_code == 2
        assert words in result.stderr


# assert_equivalent


def test_assert_equivalent_passes_what_is_equivalent():
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(5, 3, 4)), rng.uniform(0.2, 0.8, 5), np.zeros(3), np.zeros(3)
    assert_equivalent(em_routing, *arrays, gradients=True, n_iter=2)


def of_library(x, name):
    return type(x).__module__.partition(".")[0] == name


def test_the_table_tells_who_differs_where_and_by_how_much():
    def spoiled(x):
        return {"sum": x.sum(), "twice": [x * (2.125 if of_library(x, "torch") else 2)]}

    with pytest.raises(AssertionError) as caught:
        assert_equivalent(spoiled, np.arange(5.0), backends=["numpy", "torch", "jax"])
    title, header, *rows = str(caught.value).splitlines()
    assert title == "2 of 6 results differ from float64 NumPy:"
    assert header.split() == ["library", "device", "dtype", "of", "error", "allowed", "where", "found", "expected"]
    assert [row.split() for row in rows] == [
        ["torch", "cpu", dtype, "values", "0.062", allowed, "['twice'][0][4]", "8.5", "8.0"]
        for dtype, allowed in (("float64", "1e-10"), ("float32", "0.0001"))
    ]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: np.asarray(x), "numpy.ndarray"),
        (lambda x: x.double(), "float64"),
        (lambda x: x.bad, "AttributeError"),
        (lambda x: x[1:], "(2,)"),
        (lambda x: x / x, "nan"),
        (lambda x: (x, x), "the parts"),
    ],
)
def test_whatever_is_wrong_is_told(function, words):
    def torch_alone(x):
        return function(x) if of_library(x, "torch") else x

    with pytest.raises(AssertionError, match=re.escape(words)):
        assert_equivalent(torch_alone, np.arange(3.0), backends=["torch"], dtypes=["float32"])


def test_integers_must_agree_exactly():
    def off_by_one(x, labels):
        return labels + of_library(x, "torch")

    with pytest.raises(AssertionError, match="1000001"):
        assert_equivalent(off_by_one, np.ones(1), np.asarray([10**6]), backends=["torch"])


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        (np.asarray([3 + 1j]), np.asarray([3 + 4j]), 0.6),
        (np.asarray([3.0]), np.asarray([3 + 4j]), np.inf),
        (np.asarray([2**60 + 1]), np.asarray([2**60]), 1),
        (np.asarray([7], dtype=np.int32), np.asarray([7]), 0),
        (np.asarray([1]), np.asarray([True]), np.inf),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, 0),
        ({"a": 1, "b": 2}, {"a": 1}, np.inf),
        (None, np.ones(2), np.inf),
        (np.ones(2), "ones", np.inf),
        ("ones", "ones", 0),
        (np.ones((0, 2)), np.ones((0, 2)), 0),
    ],
)
def test_results_of_every_kind_are_compared(found, expected, error):
    assert compare(found, expected).error == pytest.approx(error)


def test_parts_that_are_missing_are_named():
    assert compare({"a": 1, "b": 2}, {"a": 1, "c": 2})[1:] == ("the parts", "['b']", "['c']")
    assert compare((1, 2), 1)[1:] == ("the parts", "[0], [1]", "the result")


def test_a_value_takes_one_line_of_the_table():
    with pytest.raises(AssertionError) as caught:
        assert_equivalent(
            lambda x: None if of_library(x, "torch") else x, np.eye(3), backends="torch", dtypes="float32"
        )
    assert len(str(caught.value).splitlines()) == 3


def test_a_function_that_writes_to_its_arguments_is_told():
    def halved(parts, x):
        x /= 2
        parts["sum"] = x.sum()
        return x * x

    x, parts = np.asarray([1.0, 2]), {"sum": np.zeros(())}
    with pytest.raises(AssertionError) as caught:
        assert_equivalent(halved, parts, x, backends=["numpy", "torch"], dtypes="float64")
    rows = str(caught.value).splitlines()[2:]
    assert [row.split("  ")[-1].strip() for row in rows] == ["changes its argument 0['sum']"] * 2
    np.testing.assert_array_equal(x, [1, 2])
    assert parts == {"sum": 0}
    with pytest.raises(AssertionError, match="changes its argument scale"):
        assert_equivalent(lambda x, scale: scale.sort() or x, x, scale=x[::-1], backends="numpy")


def test_a_function_may_write_to_what_it_made():
    def doubled(x):
        y = 2 * x
        y += 1
        return y

    assert_equivalent(doubled, np.asarray([1.0, np.nan]), backends=["numpy", "torch"])


@pytest.mark.parametrize("result", [None, 3.0, "done", [], {"mean": 1.5}])
def test_a_result_without_arrays_is_refused(result):
    kind = type(result).__name__
    with pytest.raises(InputError, match=f"^got {kind} from the function, expected arrays.*; did it forget to return"):
        assert_equivalent(lambda x: result, np.ones(2))
    assert_equivalent(lambda x: (result, x), np.ones(2))


def test_an_error_is_told_with_its_line_and_is_the_cause():
    def helper(x):
        return x.bad if of_library(x, "torch") else x

    def calls_a_helper(x):
        return helper(x)

    line = helper.__code__.co_firstlineno + 1
    with pytest.raises(AssertionError, match=rf"has no attribute 'bad' \(test_testing.py:{line}\)") as caught:
        assert_equivalent(calls_a_helper, np.ones(2), gradients=True)
    assert isinstance(caught.value.__cause__, AttributeError)
    with pytest.raises(AssertionError, match=r"'Tensor' object$"):  # raised by the call, in no line of Python
        assert_equivalent(np.ndarray.sum, np.ones(2), backends="torch")


def test_a_function_that_draws_at_random_is_told():
    rng = np.random.default_rng(0)
    with pytest.raises(AssertionError, match="\nNumPy differs from itself: does the function draw at random"):
        assert_equivalent(lambda x: x + rng.random(), np.ones(2), backends="numpy")
    with pytest.raises(AssertionError) as caught:
        assert_equivalent(lambda x: x * (2 if of_library(x, "torch") else 1), np.ones(2), backends=["numpy", "torch"])
    assert "differs from itself" not in str(caught.value)


def test_a_fitted_mixture_is_carried_to_each_library():
    x = np.random.default_rng(0).normal(size=(20, 2))
    assert_equivalent(lambda mixture, x: mixture.log_prob(x), gmm.fit(x, 2, rng=0, max_iter=2), x, gradients=True)


@dataclass(frozen=True)
class Ratio:
    """As a family of distributions may be: an object without fields."""


class Nothing(NamedTuple):
    """A nest without parts."""


def test_objects_without_fields_are_empty_nests():
    nest = (Ratio(), Nothing(), np.ones(2))
    assert [path for path, _ in leaves(nest)] == ["[2]"]
    assert_equivalent(lambda nest: nest, nest)


def test_float32_is_compared_on_the_rounded_arguments():
    """What the dtype loses of an argument is not the function's fault."""
    assert_equivalent(lambda x: x - 1e4, np.asarray([1e4 + 1e-3, 1e4 + 1]), rtol=1e-6, dtypes=["float32"])


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_a_wrong_gradient_is_found(name):
    def detached(x):
        backend = backends.get(x)
        return x * (backend.detach(x) if of_library(x, name) or name == "jax" else x)

    with pytest.raises(AssertionError, match="gradients"):
        assert_equivalent(detached, np.arange(1.0, 4), backends=["numpy", name], gradients=True)


def test_gradients_differ_between_libraries():
    def squared(x):
        return backends.get(x).detach(x) * x if type(x).__module__.startswith("torch") else x * x

    with pytest.raises(AssertionError) as caught:
        assert_equivalent(squared, np.arange(1.0, 4), backends=["jax", "torch"], dtypes=["float64"], gradients=True)
    assert "argument [0]" in str(caught.value)


@pytest.mark.parametrize("wrong", ["torch", "jax"])
def test_only_the_library_whose_gradient_is_wrong_is_blamed(wrong):
    """Central differences are the judge, and whom they bear out."""

    def halved(x):
        return x * (backends.get(x).detach(x) if of_library(x, wrong) else x)

    def of_jax(x):  # tracers, too
        return x * (backends.get(x).detach(x) if type(x).__module__.startswith("jax") else x)

    function = of_jax if wrong == "jax" else halved
    with pytest.raises(AssertionError) as caught:
        assert_equivalent(function, np.arange(1.0, 4), gradients=True)
    assert {line.split()[0] for line in str(caught.value).splitlines()[2:]} == {wrong}


def test_the_gradient_of_what_does_not_depend_on_the_arguments_is_zero():
    assert_equivalent(lambda x: backends.namespace(x).argmax(x), np.arange(1.0, 4), gradients=True)


def test_gradients_are_taken_beside_infinity():
    assert_equivalent(lambda x: 1 / x, np.asarray([2.0, np.inf]), backends=["torch"], gradients=True)


def test_nothing_to_compare_is_an_error():
    for arrays, options, words in [
        ((), {}, "no array"),
        (([1.0, 2.0], 3), {}, "no array"),
        ((np.arange(3),), {"gradients": True}, "no floating array"),
        ((np.ones(3),), {"backends": []}, "nothing to compare"),
        ((np.ones(3),), {"dtypes": ()}, "nothing to compare"),
        ((np.ones(3),), {"devices": []}, "nothing to compare"),
    ]:
        with pytest.raises(InputError, match=words):
            assert_equivalent(lambda *arrays: 3, *arrays, **options)


def test_tolerances_are_checked():
    def off(x):
        return x * (1.01 if of_library(x, "torch") else 1)

    options = {"backends": ["torch"], "dtypes": "float64"}
    assert_equivalent(off, np.ones(2), rtol=np.float32(0.1), **options)
    assert_equivalent(off, np.ones(2), rtol={"float64": 0.1}, **options)
    for rtol, words in [(-1, "rtol=-1"), (np.nan, "rtol=nan"), ("0.1", "rtol='0.1'"), ({"f8": 0.1}, "'f8'")]:
        with pytest.raises(InputError, match=words):
            assert_equivalent(off, np.ones(2), rtol=rtol, **options)


def test_what_cannot_be_compared_is_refused():
    for name in ("a.b", "", None, "mxnet", "pytest"):
        with pytest.raises(BackendError, match=f"no backend for {name!r} "):
            assert_equivalent(lambda x: x, np.ones(2), backends=[name])
    for name, near in [("pytorch", "torch"), ("array-api-strict", STRICT)]:
        with pytest.raises(BackendError, match=f"no backend for {name!r}; did you mean {near!r}"):
            places([name])
    with pytest.raises(InputError, match="moon"):
        assert_equivalent(lambda x: x, np.ones(2), devices=["moon"])
    with pytest.raises(InputError, match="float16"):
        assert_equivalent(lambda x: x, np.ones(2), backends=["torch"], dtypes=["float16"])
    with pytest.raises(InputError, match="differentiates"):
        assert_equivalent(lambda x: x, np.ones(2), backends=["numpy"], gradients=True)


def test_a_library_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setattr("emroute.testing.place.find_spec", lambda name: None if name == "jax" else name)
    with pytest.raises(BackendError, match=r"^jax is not installed; these are: (?!.*jax,).*numpy"):
        places(["jax"])


def test_jax_without_float64_is_left_out_unless_asked_for():
    program = """
        import numpy as np
        from emroute.testing import assert_equivalent
        assert_equivalent(lambda x: 2 * x, np.ones(3))
        try:
            assert_equivalent(lambda x: 2 * x, np.ones(3), backends=["jax"])
        except ValueError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert "jax_enable_x64" in done.stdout


def test_places_are_libraries_once_each():
    found = places()
    assert found[0] == NUMPY
    assert {"numpy", STRICT, "torch", "jax"} <= {place.library for place in found}
    assert "jaxlib" not in {place.library for place in found}
    assert places(["torch"], ["cpu"]) == [Place("torch", "cpu")]
    assert places(devices=["cpu"])[0] == NUMPY
    assert places("torch", "cpu") == places(["torch", "torch"], ["cpu", "cpu"]) == [Place("torch", "cpu")]


def test_a_library_that_cannot_be_compared_is_not_left_out_in_silence(monkeypatch):
    """All would be well then, NumPy having been compared with itself."""
    with monkeypatch.context() as patch:
        patch.delattr(array_api_strict, "zeros")
        for libraries in (None, [STRICT]):
            with pytest.raises(InputError, match=f"{STRICT} cannot use .* no attribute 'zeros'; give .* `anchor`"):
                places(libraries)
    monkeypatch.setattr(portable, "devices", tuple, raising=False)
    assert STRICT not in {place.library for place in places()}
    with pytest.raises(InputError, match=f"no device for {STRICT} here"):
        places([STRICT])


# Strategies, and the plug-in for pytest


@pytest.mark.parametrize("name", [name for name in strategies.__all__ if name != "DEGENERATE"])
def test_strategies_draw_what_they_promise(name):
    strategy = getattr(strategies, name)(batch=(2,))

    @settings(max_examples=20)
    @given(strategy)
    def finite(x):
        assert x.shape[0] == 2
        assert x.dtype == np.float64
        assert np.all(np.isfinite(x))

    finite()


def test_strategies_feed_the_kit():
    @settings(max_examples=5)
    @given(strategies.rows(degenerate=False), strategies.sample_weights())
    def fits_alike(x, weight):
        def fit(x, weight):
            options = {"covariance_type": "diag", "covariance_floor": 0.1, "max_iter": 1, "tol": 0}
            return gmm.fit(x, 2, sample_weight=weight, rng=0, **options).log_likelihood

        assert_equivalent(fit, x, weight, backends=["numpy", "torch"])

    fits_alike()


def test_strategies_need_hypothesis(monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(MissingDependencyError, match="pip install hypothesis"):
        strategies.rows()


PLUGGED = """
    def test_sum(xp, device):
        x = xp.ones(3, device=device)
        assert float(xp.sum(x)) == 3
"""


def pytest_run(folder, *options):
    (folder / "test_mine.py").write_text(textwrap.dedent(PLUGGED))
    plugged = "emroute_backends.pytest_plugin"
    program = f"""
        import pytest, sys
        from importlib.metadata import entry_points
        loaded = [point.value for point in entry_points(group="pytest11")]
        extra = [] if {plugged!r} in loaded else ["-p", {plugged!r}]
        sys.exit(pytest.main([*extra, "-p", "no:cacheprovider", "-v", *{options!r}]))
    """
    arguments = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)


def test_plug_in_runs_tests_on_libraries_and_devices(tmp_path):
    done = pytest_run(tmp_path, "--emroute-backend=numpy", f"--emroute-backend={STRICT}", "--emroute-device=cpu")
    assert done.returncode == 0, done.stdout
    assert re.findall(r"test_sum\[(.*)\] PASSED", done.stdout) == ["numpy cpu", f"{STRICT} cpu"]


def test_plug_in_refuses_unknown_names_in_one_line(tmp_path):
    for option, words in [("--emroute-backend=mxnet", "no backend for 'mxnet'"), ("--emroute-device=moon", "'moon'")]:
        done = pytest_run(tmp_path, "--emroute-backend=numpy", option)
        assert done.returncode == pytest.ExitCode.USAGE_ERROR
        (line,) = done.stderr.split("\n\n")[0].splitlines()
        assert words in line


def test_plug_in_imports_nothing_of_emroute():
    program = "import emroute_backends.pytest_plugin, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"emroute", "numpy", "torch", "jax", "hypothesis", "array_api_compat"}
