"""What holds for every test: it leaves nothing behind. Options for the random ones, and PostgreSQL for who needs it."""

from __future__ import annotations

import gc
import logging
import os
import signal
import tempfile
from collections.abc import Iterator

import pytest
from tests.lengths import LENGTHS
from tests.postgres import NoPostgres, PostgresServer, postgres_server

os.environ.setdefault("UPWELL_JOURNAL", "off")  # tests of the journal switch it on
os.environ["UPWELL_HOME"] = os.path.join(tempfile.gettempdir(), f"upwell-tests-{os.getpid()}")  # never the user's own
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # thousands of processes are started: each would compile everything
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in what a shell's `make test &` has started
    signal.signal(signal.SIGINT, signal.default_int_handler)  # so that what tests start can be interrupted

from upwell.engine.console import ensure_configured
from upwell.engine.current import close_portal
from upwell.engine.limits import PROCESS_LIMITS
from upwell.testing import TaskRunnerConformance, no_leaks

PATIENCE_SECONDS = 15.0
"""For what has been told to end: others may want the machine, too."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("upwell")
    group.addoption("--long", action="store_true", help="the random tests alone, each as long as in `make long`")
    group.addoption("--first-seed", type=int, default=0, help="what random tests begin with")
    for length in LENGTHS:
        group.addoption(
            length.option, type=float, help=f"{length.counts}; {length.gate:,}, or {length.long:,} if --long"
        )


def pytest_configure(config: pytest.Config) -> None:
    for length in LENGTHS:
        asked = getattr(config.option, length.name)
        setattr(config.option, length.name, length.of(asked, long=config.option.long))
    TaskRunnerConformance.graphs = config.option.graphs
    TaskRunnerConformance.first_seed = config.option.first_seed


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.long:
        others = [item for item in items if not any(length.is_of(item.nodeid) for length in LENGTHS)]
        items[:] = [item for item in items if item not in others]
        config.hook.pytest_deselected(items=others)


@pytest.fixture(scope="session", autouse=True)
def _is_quick_about_garbage() -> None:  # pyright: ignore[reportUnusedFunction]  # by pytest
    """What is there before any test need not be looked at whenever one looks for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]  # by pytest
    with no_leaks(patience_seconds=PATIENCE_SECONDS):
        yield


@pytest.fixture(autouse=True)
def _has_limits_of_its_own() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]  # by pytest
    """One that a test has set for the process would bound what others run."""
    yield
    for limit in PROCESS_LIMITS:
        PROCESS_LIMITS.remove(limit.name)


@pytest.fixture(autouse=True)
def _is_as_loud_as_the_settings_say() -> None:  # pyright: ignore[reportUnusedFunction]  # by pytest
    """What another test had set for its logs holds until a flow begins, and in some tests none does."""
    ensure_configured()


@pytest.fixture(scope="session", autouse=True)
def _waits_for_a_slow_store() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]  # by pytest
    """However busy the machine is: what was flushed is in the store, not in the spool; a closed journal has left it."""
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr("upwell.journal.journal.SLOW_SECONDS", 60.0)
        patching.setattr("upwell.journal.journal.GOODBYE_SECONDS", 60.0)
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
        with postgres_server("-c fsync=off") as server:  # it is killed, but the machine is not
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
