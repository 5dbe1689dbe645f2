"""Every test that asks for `lib` runs on every array library; where one cannot run it is skipped once, with its reason.

JAX compiles each case. So the default run has one case of a test on JAX, where the program that it traces is what is
tested, and no network that learns for long. ``-m thorough`` has the rest.
"""

import importlib.util
import os
import zlib
from pathlib import Path

# Most of the tests' time is XLA's: keep what it compiled, for the other worker, for subprocesses and for the next run.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax
import pytest
from hypothesis import Phase, settings

from tests.helpers import Library, library

jax.config.update("jax_enable_x64", True)


def _import_triton() -> None:
    """Where there is no GPU, have Triton's interpreter run kernels: that is decided when Triton is first imported."""
    import torch

    if not torch.cuda.is_available():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_INTERPRET", "1")
            importlib.import_module("triton.language")


if importlib.util.find_spec("triton"):
    _import_triton()

collect_ignore = ["mutation.py", "compile_triton.py"]  # programs; Cosmic Ray and Triton may not be there

PHASES = [Phase.explicit, Phase.generate, Phase.shrink]
settings.register_profile("emroute", derandomize=True, deadline=None, database=None, max_examples=10, phases=PHASES)
settings.register_profile("mutation", settings.get_profile("emroute"), phases=PHASES[:2])  # whatever fails will do
settings.load_profile("emroute")


SMOKE = {  # what a change of an algorithm breaks first
    *("test_em.py", "test_families.py", "test_figures.py", "test_gmm.py", "test_kmeans.py", "test_backends.py"),
    *("test_capsule_routing.py", "test_counts.py", "test_layers.py", "test_streams.py"),
}
ON_JAX = {  # where the program that JAX traces is what is tested; elsewhere its cases are thorough
    *SMOKE,
    *("test_capabilities.py", "test_capsule_gradients.py", "test_close_centroids.py", "test_gradients.py"),
    *("test_jax.py", "test_precision.py", "test_testing.py", "test_votes_precision.py"),
}
LONG = {  # networks that learn, export, pages around them, and the like: each takes five seconds or more
    "test_docs.py::test_keras_page_runs[jax]",
    "test_docs.py::test_keras_page_runs[torch]",
    "test_docs.py::test_page_runs[networks.md]",
    "test_docs.py::test_page_runs[howto/own-network.md]",
    "test_capsule_gradients.py::test_torch_compiles_the_way_back_through_blocks",
    "test_models.py::test_a_trained_network_knows_its_images[matrix-capsnet-mnist]",
    "test_models.py::test_flax_reads_the_same_network[matrix-capsnet-mnist]",
    "test_figures.py::test_the_default_tolerance_finds_the_weights_of_an_unequal_mixture[torch]",
    "test_nn.py::test_both_frameworks_find_the_same[MatrixCapsNet]",
    "test_nn.py::test_both_frameworks_have_the_same_gradients[MatrixCapsNet]",
    "test_nn.py::test_both_frameworks_learn_alike[CapsNet]",
    "test_nn.py::test_both_frameworks_learn_alike[MatrixCapsNet]",
    "test_nn.py::test_compiles[MatrixCapsNet]",
    "test_nn.py::test_flax_learns_64_digits[MatrixCapsNet]",
    "test_nn.py::test_torch_learns_64_digits[MatrixCapsNet]",
    "test_nn_objects.py::test_one_file_of_constellations_serves_both_frameworks",
    "test_nn_routings.py::test_flax_keeps_moments_of_batches",
    "test_nn_routings.py::test_one_file_of_efficient_capsnet_serves_both_frameworks",
    "test_nn_start.py::test_three_layers_learn_on_flax",
    "test_onnx.py::test_onnxruntime_finds_the_same_in_any_batch[CapsNet]",
    "test_onnx.py::test_onnxruntime_finds_the_same_in_any_batch[MatrixCapsNet]",
    "test_sklearn.py::test_parts_of_scikit_learns_own_suite",
    "test_training.py::test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit[torch-train_matrix_capsnet]",
    "test_training.py::test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit[jax-train_capsnet]",
    "test_training.py::test_a_run_that_is_killed_goes_on_where_it_was",
    "test_training.py::test_each_script_trains_and_says_what_is_wrong[train_cnn]",
    "test_training.py::test_each_script_trains_and_says_what_is_wrong[train_matrix_capsnet]",
    "test_training.py::test_what_was_trained_is_looked_into[train_capsnet]",
    "test_training.py::test_what_was_trained_is_looked_into[train_matrix_capsnet]",
    "test_units.py::test_a_choice_by_weights_that_sum_to_one_is_told[torch]",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--part", metavar="K/N", help="of the thorough tests only the K-th of N parts, in turn one each run"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Under ``-m smoke`` load no file but those that have something to run: imports take longer than the tests."""
    only_smoke = config.getoption("markexpr") == "smoke" and collection_path.suffix == ".py"
    return True if only_smoke and collection_path.name not in {*SMOKE, "conftest.py"} else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    seen: set[tuple[str, str]] = set()
    left_out = []
    for item in items:
        library = _library_of(item)
        test = item.nodeid.partition("[")[0]
        first = (test, library) not in seen
        if (library in ABSENT and not first) or _refused_on_jax(item, library):  # one is skipped, with its reason
            left_out.append(item)
        elif _waits(item, library, first):
            item.add_marker("thorough")
            if not _in_part(config.getoption("--part"), item):
                left_out.append(item)
        elif item.path.name in SMOKE and (library == "numpy" or item.path.name == "test_layers.py"):
            item.add_marker("smoke")
        seen.add((test, library))
    gone = set(left_out)
    items[:] = [item for item in items if item not in gone]
    config.hook.pytest_deselected(items=left_out)


def _id(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[2].removesuffix("]")


def _waits(item: pytest.Item, library: str, first: bool) -> bool:
    """Whether a test is thorough: JAX's further cases, all where its program is not what is tested, and LONG."""
    if library == "jax":
        chosen = item.get_closest_marker("on_jax") is not None
        return item.path.name not in ON_JAX or not (first or chosen)
    return item.nodeid.removeprefix("tests/") in LONG


def _refused_on_jax(item: pytest.Item, library: str) -> bool:
    chosen = item.get_closest_marker("on_jax")
    return library == "jax" and chosen is not None and not any(f"-{case}-" in f"-{_id(item)}-" for case in chosen.args)


def _library_of(item: pytest.Item) -> str:
    """The array library that a test runs on; none where it chooses itself."""
    params = getattr(item, "callspec", None) and item.callspec.params
    return next((params[name] for name in ("xp_name", "eager_lib") if params and name in params), "")


def _in_part(part: str | None, item: pytest.Item) -> bool:
    if part is None:
        return True
    k, n = map(int, part.split("/"))
    return zlib.crc32(item.nodeid.encode()) % n == k % n


def _missing(name: str) -> str | None:
    """Why a library cannot run here, or None."""
    kind, _, device = name.partition("-")
    if importlib.util.find_spec(kind) is None:
        return f"{kind} is not installed"
    if kind == "cupy":
        import cupy

        return None if cupy.cuda.is_available() else "CuPy finds no CUDA device"
    if kind == "torch" and device:
        import torch

        return None if torch.cuda.is_available() else "torch finds no CUDA device"
    if kind == "jax" and device:
        return None if any(x.platform == "gpu" for x in jax.devices()) else "JAX finds no CUDA device"
    return None


LIBRARIES = ("numpy", "array_api_strict", "torch", "jax", "cupy", "torch-cuda", "jax-cuda")
ABSENT = {name for name in LIBRARIES if _missing(name)}


def _params(*names: str):
    reasons = {name: _missing(name) for name in names}
    return [pytest.param(name, marks=pytest.mark.skip(reason=why) if why else ()) for name, why in reasons.items()]


@pytest.fixture(scope="session", params=_params(*LIBRARIES))
def xp_name(request: pytest.FixtureRequest) -> str:
    """The name of an array library."""
    return request.param


@pytest.fixture(scope="session")
def lib(xp_name: str) -> Library:
    """An array library: `asarray`, `to_numpy` and its name."""
    return library(xp_name)


@pytest.fixture(scope="session", params=_params(*(name for name in LIBRARIES if not name.startswith("jax"))))
def eager_lib(request: pytest.FixtureRequest) -> Library:
    """A library that compiles nothing, for what has many shapes; the same lines run on JAX in other tests."""
    return library(request.param)


@pytest.fixture
def quick_compilation():
    """Let JAX compile fast code less; the figures are reached with code compiled as users' is."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
