"""What holds for every test: it leaves nothing behind. How long random ones go on, and PostgreSQL for who needs it."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator

import pytest
from tests.postgres import NoPostgres, PostgresServer, postgres_server

os.environ.setdefault("UPWELL_JOURNAL", "off")  # tests of the journal switch it on
os.environ["UPWELL_HOME"] = os.path.join(tempfile.gettempdir(), f"upwell-tests-{os.getpid()}")  # never the user's own

from upwell.engine.current import close_portal
from upwell.testing import TaskRunnerConformance, no_leaks


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("upwell")
    group.addoption("--graphs", type=int, default=100, help="random graphs for each task runner")
    group.addoption("--hammer-seconds", type=float, default=4.0, help="how long processes hammer one limit of a store")
    group.addoption("--kills", type=int, default=50, help="how often the oracle kills, at random times")
    group.addoption("--seeds", type=int, default=1000, help="simulated worlds")
    group.addoption("--api-cases", type=int, default=8, help="random requests for each operation of the API")
    group.addoption("--machine-examples", type=int, default=None, help="examples of the journal's state machine")
    group.addoption("--machine-steps", type=int, default=None, help="steps of each")
    group.addoption("--first-seed", type=int, default=0, help="the seed of the first random graph")


def pytest_configure(config: pytest.Config) -> None:
    TaskRunnerConformance.graphs = config.option.graphs
    TaskRunnerConformance.first_seed = config.option.first_seed


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]  # by pytest
    with no_leaks():
        yield


@pytest.fixture(scope="session", autouse=True)
def _closes_the_portal() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]  # by pytest
    yield
    close_portal()


@pytest.fixture
def quiet() -> Iterator[None]:
    """Nothing is logged: thousands of failures would take longer to print than to happen."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server for the whole session, started for the first test that needs it."""
    try:
        with postgres_server() as server:
            yield server
    except NoPostgres as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """A new, empty database on it."""
    with postgres.database() as url:
        yield url
