"""The public face: what `__all__` says is there, and importing it loads next to nothing."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

import upwell

MODULES = [
    "upwell.cache_policies",
    "upwell.concurrency",
    "upwell.concurrency.asyncio",
    "upwell.concurrency.sync",
    "upwell.context",
    "upwell.deployments",
    "upwell.durability",
    "upwell.entrypoints",
    "upwell.exceptions",
    "upwell.filesystems",
    "upwell.flows",
    "upwell.futures",
    "upwell.history",
    "upwell.logging",
    "upwell.project",
    "upwell.pull_steps",
    "upwell.results",
    "upwell.runner.storage",
    "upwell.runtime",
    "upwell.schedules",
    "upwell.serializers",
    "upwell.settings",
    "upwell.states",
    "upwell.stored_results",
    "upwell.task_runners",
    "upwell.task_worker",
    "upwell.tasks",
    "upwell.testing",
    "upwell.transactions",
    "upwell.utilities.annotations",
]

LATE = [
    "rich",
    "upwell_runners",
    "prometheus_client",
    "uvloop",
    "importlib.metadata",
    "cloudpickle",
    "orjson",
    "anyio",
    "sqlite3",
    "aiosqlite",
    "asyncpg",
    "fsspec",
    "numpy",
    "pickle",
]

NEVER_NAMED = {
    "NotAlive",  # between the store and its limits; who waits for a slot gets the next one
    "NotThere",  # caught as the ConcurrencySlotAcquisitionError that it is
    "TooManyListeners",  # an answer of the server's
    "UncarriedException",  # of a part of its own; caught as the FailedRun that it is
}
"""Errors that are not offered by name."""


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after this code."""
    script = f"{code}\nimport sys\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_ctrl_c_is_heard_before_the_command_line_loads_anything() -> None:
    assert not (loaded_by("import upwell.cli.main") - loaded_by("import importlib, gc")) & {"typing", "enum", "re"}


def test_every_name_that_is_listed_is_there() -> None:
    for name in upwell.__all__:
        assert getattr(upwell, name) is not None
    assert dir(upwell) == sorted(upwell.__all__)
    assert list(upwell.__all__) == sorted(upwell.__all__)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_module_offers_what_it_lists(module: str) -> None:
    loaded = importlib.import_module(module)
    assert loaded.__doc__
    for name in getattr(loaded, "__all__", ()):
        assert getattr(loaded, name) is not None


def test_star_import_gives_the_same_names() -> None:
    names: dict[str, object] = {}
    exec("from upwell import *", names)
    assert set(upwell.__all__) <= set(names)


def test_errors_are_found_without_an_import_of_their_own() -> None:
    assert "upwell.exceptions" in loaded_by("import upwell\nassert upwell.exceptions.UpwellError")


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'upwell' has no attribute 'flwo'"):
        getattr(upwell, "flwo")  # noqa: B009  # as `upwell.flwo` does
    from upwell import task_runners

    with pytest.raises(AttributeError, match="NowhereTaskRunner"):
        getattr(task_runners, "NowhereTaskRunner")  # noqa: B009  # likewise


def test_task_runners_can_be_imported_by_class() -> None:
    from upwell.task_runners import (
        ConcurrentTaskRunner,
        ProcessPoolTaskRunner,
        SequentialTaskRunner,
        ThreadPoolTaskRunner,
    )

    for runner in (ConcurrentTaskRunner, ProcessPoolTaskRunner, SequentialTaskRunner, ThreadPoolTaskRunner):
        assert runner.__module__.startswith("upwell_runners.")


def test_every_error_is_an_upwell_error_with_a_doc() -> None:
    from upwell import exceptions

    errors = [value for value in vars(exceptions).values() if isinstance(value, type)]
    assert exceptions.UpwellError in errors
    for error in errors:
        assert issubclass(error, exceptions.UpwellError)
        assert error.__doc__


def test_every_error_of_the_package_is_offered_where_errors_are() -> None:
    from upwell import exceptions, testing

    for package in (upwell, importlib.import_module("upwell_runners")):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    found = {
        error.__name__: error
        for error in kinds_of(exceptions.UpwellError)
        if error.__module__.startswith(("upwell.", "upwell_runners."))
    }
    offered = {name for name, it in found.items() if it in (getattr(exceptions, name, 0), getattr(testing, name, 0))}
    assert set(found) - offered == NEVER_NAMED


def kinds_of(error: type[Exception]) -> Iterator[type[Exception]]:
    for kind in error.__subclasses__():
        yield kind
        yield from kinds_of(kind)


def test_asking_for_the_errors_opens_no_store() -> None:
    loaded = loaded_by("from upwell.exceptions import MissingResult, StoreUnavailable, UpwellError")
    assert [name for name in LATE if name in loaded] == []


def test_importing_upwell_loads_nothing_that_is_needed_later() -> None:
    loaded = loaded_by("import upwell")
    assert [name for name in LATE if name in loaded] == []
    assert "asyncio" not in loaded
    assert [name for name in loaded if name.startswith("upwell.")] == []


def test_asking_for_the_decorators_loads_no_runner_and_no_extra() -> None:
    loaded = loaded_by("from upwell import flow, task, unmapped, Runtime, State, TaskFuture, tags, wait")
    assert [name for name in LATE if name in loaded] == []


def test_a_flow_of_coroutines_loads_no_runner() -> None:
    code = """
import asyncio
from upwell import flow, task
@task
async def one(x): return x
@flow
async def around(): return await one.map(range(3))
assert asyncio.run(around()) == [0, 1, 2]
"""
    loaded = loaded_by(code)
    assert [name for name in LATE if name in loaded and name != "rich"] == []


def test_the_package_says_that_it_is_typed() -> None:
    from importlib.resources import files

    assert files("upwell").joinpath("py.typed").is_file()
    assert upwell.__version__
