"""Every test that asks for `lib` runs on every array library; where one cannot run it is skipped, with its reason."""

import importlib.util

import jax
import pytest
from hypothesis import settings

from tests.helpers import Library, library

jax.config.update("jax_enable_x64", True)

settings.register_profile("emroute", derandomize=True, deadline=None, database=None, max_examples=15)
settings.load_profile("emroute")


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


def _param(name: str):
    reason = _missing(name)
    return pytest.param(name, marks=pytest.mark.skip(reason=reason) if reason else ())


@pytest.fixture(
    scope="session",
    params=[_param(x) for x in ("numpy", "array_api_strict", "torch", "jax", "cupy", "torch-cuda", "jax-cuda")],
)
def xp_name(request: pytest.FixtureRequest) -> str:
    """The name of an array library."""
    return request.param


@pytest.fixture(scope="session")
def lib(xp_name: str) -> Library:
    """An array library: `asarray`, `to_numpy` and its name."""
    return library(xp_name)
