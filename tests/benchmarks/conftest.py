"""Collect what the benchmarks measure, and write docs/benchmarks.md."""

from pathlib import Path

import pytest

from tests.benchmarks.page import write
from tests.benchmarks.timing import Bench

BENCH: pytest.StashKey[Bench] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-table", metavar="FILE", help="write the figures as a page of Markdown with charts")
    parser.addoption("--rounds", type=int, default=5, help="how often each function is timed; the page has the medians")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[BENCH] = Bench(config.getoption("--rounds"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:  # peers warn of what they like, and that ten iterations are not enough is known
        item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Bench:
    return request.config.stash[BENCH]


def pytest_sessionfinish(session: pytest.Session) -> None:
    target, bench = session.config.getoption("--write-table"), session.config.stash[BENCH]
    if target and bench.rows:
        write(Path(target), bench.rows, bench.rounds)
