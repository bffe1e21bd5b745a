"""Tasks that count together, or not at all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from upwell import flow, task
from upwell.cache_policies import INPUTS
from upwell.composition import close_journal
from upwell.engine.caching import IN_THIS_PROCESS
from upwell.settings import temporary_settings
from upwell.transactions import (
    CommitMode,
    IsolationLevel,
    Transaction,
    TransactionState,
    get_transaction,
    transaction,
)


@pytest.fixture(params=["on", "off"], autouse=True)
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    with temporary_settings(journal=request.param, home=str(tmp_path / "home")):
        yield
        close_journal()
        IN_THIS_PROCESS.clear()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def step(said: list[str]) -> Any:
    """A task that says what becomes of it."""

    @task
    def step(name: str) -> str:
        own = get_transaction()
        if own is not None:
            own.set("name", name)
        said.append(f"run {name}")
        return name

    @step.on_commit
    def committed(txn: Transaction) -> None:
        said.append(f"commit {txn.get('name', 'alone')}")

    @step.on_rollback
    async def rolled_back(txn: Transaction) -> None:
        said.append(f"rollback {txn.get('name')}")

    return step


@task
def fail() -> None:
    raise ValueError("boom")


def test_hooks_are_called_when_the_transaction_is_committed(step: Any, said: list[str]) -> None:
    @flow
    def main() -> None:
        with transaction() as txn:
            step("a")
            step.submit("b").result()
            assert said == ["run a", "run b"]
        assert txn.is_committed()

    main()
    assert said == ["run a", "run b", "commit a", "commit b"]


def test_an_exception_rolls_back_what_was_staged_last_first(step: Any, said: list[str]) -> None:
    states: list[Any] = []

    @flow
    async def main() -> None:
        async with transaction() as txn:
            for name in ("a", "b"):  # on threads: one after the other, or either may be the first
                states.append(step.submit(name))
                await states[-1]
            try:
                fail()
            finally:
                states.append(txn)

    with pytest.raises(ValueError, match="boom"):
        asyncio.run(main())
    assert said == ["run a", "run b", "rollback b", "rollback a"]
    *runs, txn = states
    assert [run.state.name for run in runs] == ["RolledBack", "RolledBack"]
    assert all(run.state.is_completed() for run in runs)
    assert txn.is_rolled_back()


def test_outside_of_transactions_a_run_commits_itself(step: Any, said: list[str]) -> None:
    step("a")
    step.submit("b").result()
    assert said == ["run a", "commit alone", "run b", "commit alone"]


def test_a_transaction_and_a_hook_count_for_a_task_that_was_submitted_before_they_were_there(said: list[str]) -> None:
    @task
    def step() -> None:
        said.append("run")

    def committed(_: Transaction) -> None:
        said.append("commit")

    @flow
    def main() -> None:
        step.submit().result()
        step.on_commit(committed)
        step.submit().result()
        with transaction():
            step.submit().result()
            said.append("end")

    main()
    assert said == ["run", "run", "commit", "run", "end", "commit"]


def test_values_are_found_by_what_is_inside_and_not_outside() -> None:
    with transaction() as outer:
        outer.set("path", "x")
        with transaction() as inner:
            assert inner.get("path") == "x"
            inner.set("path", "y")
        assert outer.get("path") == "x"
        assert outer.get("nothing", None) is None
        with pytest.raises(ValueError, match="nothing"):
            outer.get("nothing")


def test_a_nested_transaction_commits_with_the_outermost_and_eagerly_if_it_says_so(step: Any, said: list[str]) -> None:
    with transaction():
        with transaction() as lazy:
            step("lazy")
        with transaction(commit_mode=CommitMode.EAGER):
            step("eager")
        assert lazy.is_active()
        assert said == ["run lazy", "run eager", "commit eager"]
    assert said[3:] == ["commit lazy"]


def test_a_nested_transaction_that_fails_takes_those_around_along(step: Any, said: list[str]) -> None:
    def inner() -> None:
        with transaction():
            step("b")
            fail()

    with transaction() as outer:
        step("a")
        with pytest.raises(ValueError, match="boom"):
            inner()
    assert outer.is_rolled_back()
    assert said == ["run a", "run b", "rollback b", "rollback a"]


def test_one_that_is_off_is_rolled_back_unless_committed(step: Any, said: list[str]) -> None:
    with transaction(commit_mode=CommitMode.OFF):
        step("a")
    with transaction(commit_mode=CommitMode.OFF) as txn:
        step("b")
        assert txn.commit()
        assert not txn.rollback()
    assert said == ["run a", "rollback a", "run b", "commit b"]


def test_a_cached_result_is_found_by_others_only_after_the_commit() -> None:
    calls: list[int] = []

    @task(cache_policy=INPUTS)
    def compute(value: int) -> int:
        calls.append(value)
        return value

    def failing() -> None:
        with transaction():
            assert [compute(1), compute(1)] == [1, 1]  # inside, it is found
            assert compute.submit(1).result() == 1
            fail()

    with pytest.raises(ValueError, match="boom"):
        failing()
    assert calls == [1]
    with transaction():
        compute(1)
    compute(1)
    assert calls == [1, 1]


def test_others_wait_for_the_commit_of_what_they_want() -> None:
    staged, order = threading.Event(), list[str]()

    @task(cache_policy=INPUTS)
    def compute(value: int) -> int:
        return value

    def other() -> None:
        staged.wait()
        order.append(f"other {compute(1, return_state=True).name}")

    thread = threading.Thread(target=other)
    thread.start()
    with transaction():
        compute(1)
        staged.set()
        thread.join(0.05)
        order.append("commit")
    thread.join()
    assert order == ["commit", "other Cached"]


def test_a_key_that_was_committed_is_committed_from_the_start() -> None:
    with transaction(key="load/2024 ü") as first:
        assert not first.is_committed()
        first.stage({"rows": 3})
    with transaction(key="load/2024 ü") as second:
        assert second.is_committed()
        assert second.read() == {"rows": 3}
    with transaction(key="load/2024 ü", overwrite=True) as third:
        assert not third.is_committed()
        third.stage(4, on_rollback_hooks=[], on_commit_hooks=[])
    with transaction(key="load/2024 ü") as fourth:
        assert fourth.read() == 4


def test_a_key_that_was_rolled_back_is_free_again() -> None:
    def failing() -> None:
        with transaction(key="k") as txn:
            txn.stage(1)
            fail()

    with pytest.raises(ValueError, match="boom"):
        failing()
    with transaction(key="k") as txn:
        assert not txn.is_committed()


def test_a_serializable_key_is_held_by_one_at_a_time() -> None:
    inside, order = threading.Event(), list[str]()

    def second() -> None:
        inside.wait()
        with transaction(key="k", isolation_level=IsolationLevel.SERIALIZABLE) as txn:
            order.append(f"second {txn.is_committed()}")

    thread = threading.Thread(target=second)
    thread.start()
    with transaction(key="k", isolation_level=IsolationLevel.SERIALIZABLE) as txn:
        inside.set()
        thread.join(0.05)
        order.append("first")
        txn.stage(1)
    thread.join()
    assert order == ["first", "second True"]


def test_a_serializable_transaction_inside_of_one_with_its_key_does_not_wait_for_it() -> None:
    with transaction(key="k", isolation_level=IsolationLevel.SERIALIZABLE) as outer:
        with transaction(), transaction(key="k") as inner:  # serializable, too, as the one around it
            inner.stage("inner")
        outer.stage("outer")
    with transaction(key="k") as later:
        assert later.read() == "outer"


def test_a_hook_that_raises_is_logged_and_the_others_are_called(
    said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    def bad(txn: Transaction) -> None:
        raise RuntimeError("hook")

    def failing() -> None:
        with transaction() as txn:
            txn.stage(None, on_rollback_hooks=[lambda txn: said.append("first"), bad, lambda txn: said.append("last")])
            fail()

    with pytest.raises(ValueError, match="boom"):
        failing()
    assert said == ["last", "first"]
    assert "'bad' failed" in caplog.text


def test_what_is_still_under_way_is_waited_for(step: Any, said: list[str]) -> None:
    async def main() -> None:
        async with transaction():
            step.map(["a", "b"])

    asyncio.run(main())
    assert sorted(said) == ["commit a", "commit b", "run a", "run b"]


def test_what_is_under_way_when_an_exception_comes_is_waited_for_and_rolled_back_once(said: list[str]) -> None:
    go_on = threading.Event()

    @task
    def slow() -> None:
        own = get_transaction()
        assert own is not None
        own.on_rollback_hooks.append(lambda _: said.append("rollback its own"))
        go_on.wait()
        said.append("has ended")

    @slow.on_rollback
    def rolled_back(_: Transaction) -> None:
        said.append("rollback")

    runs: list[Any] = []

    def failing() -> None:
        with transaction():
            runs.append(slow.submit())
            threading.Timer(0.05, go_on.set).start()
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert said == ["has ended", "rollback", "rollback its own"]
    assert runs[0].state.name == "RolledBack"


def test_what_runs_inside_of_one_that_was_rolled_back_says_so(step: Any, said: list[str]) -> None:
    @flow
    def goes_on() -> list[str]:
        with transaction() as txn:
            txn.rollback()
            states = [step("called", return_state=True), step.submit("submitted", return_state=True)]
            submitted = step.submit("late")
        return [state.name for state in states] + [submitted.state.name]

    assert goes_on() == ["RolledBack"] * 3
    assert [line for line in said if "rollback" in line] == ["rollback called", "rollback submitted", "rollback late"]


def test_a_run_that_failed_keeps_its_state_and_the_reason() -> None:
    @task
    def stages() -> None:
        own = get_transaction()
        assert own is not None
        own.set("name", "staged")
        raise ValueError("boom")

    with transaction() as txn:
        run = stages.submit()
        run.wait()
        txn.rollback()
    assert run.state.name == "Failed"
    assert "boom" in str(run.state.message)


def test_a_run_that_failed_takes_back_what_it_staged_itself(step: Any, said: list[str]) -> None:
    @task
    def group() -> None:
        step("inner")
        raise ValueError("boom")

    with transaction():
        step("a")
        with pytest.raises(ValueError, match="boom"):
            group()
    assert said == ["run a", "run inner", "commit a", "rollback inner"]


@pytest.mark.parametrize(
    "option", [{"key": 5}, {"store": "x"}, {"commit_mode": "lazy"}, {"isolation_level": 1}, {"key": ""}], ids=str
)
def test_an_option_that_cannot_work_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        transaction(**option)


def test_a_transaction_is_entered_once() -> None:
    with transaction() as txn:
        pass
    with pytest.raises(Exception, match="entered once"), txn:
        pass
    assert txn.state is TransactionState.COMMITTED
