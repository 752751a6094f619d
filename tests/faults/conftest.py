"""What the fault tests share: a registry with two contrary policies, and the table of what was measured."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.arena import CONTRARY, GOOD, Registry, Server
from tests.faults.load import Record
from tests.faults.report import Row, row, write
from tests.workshop import PROJECT

REPORT = PROJECT / "faults-report"
ROWS = pytest.StashKey[list[Row]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Versions 1 and 2, which take contrary actions; 1 is in Production."""
    registry = Registry(tmp_path_factory.mktemp("registry"))
    try:
        registry.register(GOOD)
        registry.register(CONTRARY)
        registry.promote(1)
        yield registry
    finally:
        registry.shop.end()


@pytest.fixture(scope="module")
def pair(registry: Registry) -> Iterator[Server]:
    """A server with two replicas."""
    registry.promote(1)
    server = Server(registry, 2)
    try:
        yield server.wait_up()
    finally:
        server.end()


@pytest.fixture
def tell(pytestconfig: pytest.Config, registry: Registry) -> Callable[..., Row]:
    """Add a row to the table, and return it."""

    def add(fault: str, records: list[Record], *notes: str) -> Row:
        pytestconfig.stash[ROWS].append(row(fault, records, registry.bundles, *notes))
        return pytestconfig.stash[ROWS][-1]

    return add


@pytest.fixture
def screenshots() -> Path:
    directory = REPORT / "screenshots"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = terminalreporter.config.stash[ROWS]
    if rows:
        terminalreporter.write_line("")
        terminalreporter.write_line(write(rows, REPORT))
