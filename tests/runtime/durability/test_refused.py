"""Durable flows: what is refused, by name, and what becomes of large results."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.durability.given import die_once, ran, simple
from tests.runtime.durability.killed import ask, killed

import upwell
from upwell import flow, task
from upwell.exceptions import (
    ConfigurationError,
    DefinitionError,
    DurableKeyError,
    FailedRun,
    SerializationError,
)
from upwell.settings import temporary_settings

# --- what is refused ----------------------------------------------------------------------------------------


@flow(durable=True)
def unhashable(kind: str) -> Any:
    lock = threading.Lock()
    if kind == "direct":
        return use(lock)
    if kind == "keyword":
        return use.submit(1, more={"locks": [lock]})
    if kind == "mapped":
        return use.map([1, lock])
    return use.map([1, 2], more=upwell.unmapped(lock))


@task
def use(lock: Any, more: Any = None) -> int:
    ran["use"] += 1
    return 1


@pytest.mark.parametrize(
    ("kind", "where"),
    [("direct", "lock"), ("keyword", r"more\['locks'\]\[0\]"), ("mapped", "lock"), ("shared", "more")],
)
def test_an_argument_that_cannot_be_known_again_is_named(kind: str, where: str, home: Path) -> None:
    with pytest.raises(DurableKeyError, match=rf"The task 'use' .* its argument {where} cannot .*key='\.\.\.'"):
        unhashable(kind)
    assert not ran


@flow(durable=True)
def with_keys() -> list[int]:
    lock = threading.Lock()
    values = [use(lock, key="first"), use.submit(lock, key=("second", 2)).result()]
    die_once()
    return values


def test_with_a_key_of_its_own_any_call_is_known_again(home: Path) -> None:
    with killed(home):
        with_keys()
    assert with_keys() == [1, 1]
    assert ran["use"] == 2


@flow(durable=True)
def takes_anything(one: Any, two: Any) -> None:
    ran["takes_anything"] += 1


def test_a_parameter_that_cannot_be_stored_is_named_before_anything_runs(home: Path) -> None:
    with pytest.raises(SerializationError, match="The parameter 'two' of the durable flow 'takes-anything' cannot be"):
        takes_anything(1, threading.Lock())
    assert not ran


@flow
def keeps_a_lock() -> Any:
    ran["keeps_a_lock"] += 1
    return {"locks": [threading.Lock()]}


@pytest.mark.parametrize(("durable", "key"), [(True, None), ("strict", None), (False, "a"), (True, "a")])
def test_a_result_that_nobody_could_be_given_again_fails_its_run(durable: Any, key: str | None, home: Path) -> None:
    with pytest.raises(SerializationError, match=r"value\['locks'\]\[0\]: _thread.lock cannot be serialized"):
        keeps_a_lock.with_options(durable=durable)(**({} if key is None else {"idempotency_key": key}))
    assert ask(home, "SELECT state FROM flow_runs") == [("FAILED",)]
    assert "Its result cannot be stored" in ask(home, "SELECT message FROM flow_runs")[0][0]


def test_whoever_asks_for_it_by_its_key_is_told_the_same(home: Path) -> None:
    for expected in (SerializationError, FailedRun):
        with pytest.raises(expected, match=r"_thread\.lock cannot be serialized"):
            keeps_a_lock(idempotency_key="a")
    assert ran["keeps_a_lock"] == 1


@task(retries=5)
def gives_a_lock() -> Any:
    ran["gives_a_lock"] += 1
    return threading.Lock()


@flow(durable=True)
def keeps_locks(kind: str) -> Any:
    return gives_a_lock() if kind == "direct" else gives_a_lock.submit().result()


@pytest.mark.parametrize("kind", ["direct", "submitted"])
def test_a_result_that_cannot_be_stored_fails_its_run_once(kind: str, home: Path) -> None:
    with pytest.raises(SerializationError):
        keeps_locks(kind)
    assert ran["gives_a_lock"] == 1
    assert "Its result cannot be stored, and its flow is durable" in ask(home, "SELECT message FROM task_runs")[0][0]


def test_without_a_journal_a_durable_flow_is_refused(home: Path) -> None:
    with temporary_settings(journal="off"):
        with pytest.raises(ConfigurationError, match=r"'simple' is durable, .* the journal, which is off"):
            simple(1)
        with pytest.raises(ConfigurationError, match="is durable, or was called with an idempotency key"):
            simple.with_options(durable=False)(1, idempotency_key="a")


def test_a_generator_flow_cannot_be_durable() -> None:
    with pytest.raises(DefinitionError, match="'gives' is a generator, and cannot be durable"):

        @flow(durable=True)
        def gives() -> Iterator[int]:
            yield 1

    @flow
    def gives_too() -> Iterator[int]:
        yield 1

    with pytest.raises(ConfigurationError, match=r"is a generator: .* it takes no idempotency_key"):
        gives_too(idempotency_key="a")


# --- large results ------------------------------------------------------------------------------------------


@task
def large(x: int) -> bytes:
    ran["large", x] += 1
    return bytes([x]) * 200_000


@task
def length(data: bytes) -> int:
    ran["length"] += 1
    return len(data) + data[0]


@flow(durable=True)
def of_large() -> int:
    futures = [large.submit(1), large.submit(2), *large.map([3, 4])]
    lengths = length.map(futures).result()
    die_once()
    return sum(lengths)


def test_large_results_are_taken_from_their_files(home: Path) -> None:
    with killed(home):
        of_large()
    assert of_large() == 800_010
    assert (sum(ran.values()), ran["length"]) == (8, 4)


@pytest.mark.parametrize("harm", ["gone", "damaged"])
def test_a_run_whose_result_file_is_lost_is_run_again_and_that_is_said(
    harm: str, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with killed(home):
        of_large()
    files = sorted((home / "results").glob("??/*"))
    assert len(files) == 4
    if harm == "gone":
        files[0].unlink()
    else:
        files[0].write_bytes(files[0].read_bytes()[:-1] + b"!")
    with caplog.at_level(logging.WARNING), temporary_settings(logging_level="WARNING"):
        assert of_large() == 800_010
    assert "A finished run of task 'large' is run again:" in caplog.text
    assert (sum(ran.values()), ran["length"]) == (10, 5)  # that one, and what was made of it
