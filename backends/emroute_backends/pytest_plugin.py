"""Pytest: the fixtures `xp` and `device`, over every array library and device that is installed.

It stands outside `emroute`, and imports that only for tests that ask for a fixture: pytest loads plug-ins of everything
installed, before it measures coverage.
"""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ["device", "pytest_addoption", "pytest_generate_tests", "pytest_sessionstart", "xp"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("emroute", "array libraries for the fixtures xp and device")
    group.addoption(
        "--emroute-backend", action="append", metavar="NAME", help="Only this array library; may be repeated."
    )
    group.addoption("--emroute-device", action="append", metavar="NAME", help="Only this device; may be repeated.")


def pytest_sessionstart(session: pytest.Session) -> None:
    if any(_names(session.config)):
        _places(session.config)  # an unknown name is a usage error here, later a failure of every test module


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "emroute_place" in metafunc.fixturenames:
        metafunc.parametrize("emroute_place", _places(metafunc.config), ids=str, scope="session")


def _names(config: pytest.Config) -> tuple[Any, Any]:
    return config.getoption("--emroute-backend"), config.getoption("--emroute-device")


def _places(config: pytest.Config) -> list[Any]:
    from emroute.errors import EmrouteError
    from emroute.testing import places

    try:
        return places(*_names(config))
    except EmrouteError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="session")
def xp(emroute_place: Any) -> Any:
    """The functions of the Array API standard, for each array library."""
    anchor = emroute_place.anchor("float32")
    return emroute_place.backend.namespace(anchor)


@pytest.fixture(scope="session")
def device(emroute_place: Any) -> Any:
    """The device on which a test shall make its arrays."""
    import array_api_compat

    return array_api_compat.device(emroute_place.anchor("float32"))
