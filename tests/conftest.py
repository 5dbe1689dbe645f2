"""Every test that asks for `lib` runs on every array library; where one cannot run it is skipped, with its reason."""

import importlib.util
import os
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

collect_ignore = ["mutation.py"]  # a program, and Cosmic Ray may not be there

PHASES = [Phase.explicit, Phase.generate, Phase.shrink]
settings.register_profile("emroute", derandomize=True, deadline=None, database=None, max_examples=10, phases=PHASES)
settings.register_profile("mutation", settings.get_profile("emroute"), phases=PHASES[:2])  # whatever fails will do
settings.load_profile("emroute")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "on_jax(*ids): of a test's cases JAX, which compiles each, runs only these")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if _left_out(item)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def _left_out(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("on_jax")
    if not marker or item.callspec.params.get("xp_name") != "jax":
        return False
    return not any(f"-{case}-" in f"-{item.callspec.id}-" for case in marker.args)


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


def _params(*names: str):
    reasons = {name: _missing(name) for name in names}
    return [pytest.param(name, marks=pytest.mark.skip(reason=why) if why else ()) for name, why in reasons.items()]


@pytest.fixture(
    scope="session", params=_params("numpy", "array_api_strict", "torch", "jax", "cupy", "torch-cuda", "jax-cuda")
)
def xp_name(request: pytest.FixtureRequest) -> str:
    """The name of an array library."""
    return request.param


@pytest.fixture(scope="session")
def lib(xp_name: str) -> Library:
    """An array library: `asarray`, `to_numpy` and its name."""
    return library(xp_name)


@pytest.fixture(scope="session", params=_params("numpy", "array_api_strict", "torch", "cupy", "torch-cuda"))
def eager_lib(request: pytest.FixtureRequest) -> Library:
    """A library that compiles nothing, for what has many shapes; the same lines run on JAX in other tests."""
    return library(request.param)


@pytest.fixture
def quick_compilation():
    """Let JAX compile fast code less; the figures are reached with code compiled as users' is."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
