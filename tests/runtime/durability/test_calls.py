"""Which run the call of a durable flow means: resumed, forked, the one of an idempotency key."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.durability.given import die_once, double, ran, simple, switches
from tests.runtime.durability.killed import Killed, ask, change, killed, look_killed

import upwell
from upwell import flow, task
from upwell.engine.recorder import recorder
from upwell.exceptions import (
    ConfigurationError,
    CrashedRun,
    FailedRun,
    NotResumableError,
    UnknownRunError,
)
from upwell.runtime import flow_run
from upwell.settings import temporary_settings


def id_of_run(home: Path) -> str:
    ((identity,),) = ask(home, "SELECT id FROM flow_runs")
    return str(identity)


# --- which run is gone on with ------------------------------------------------------------------------------


def test_a_call_with_other_arguments_is_another_run(home: Path) -> None:
    with killed(home):
        simple(1)
    identity = id_of_run(home)
    assert simple(5)[0] != identity
    assert simple(1)[0] == identity
    assert simple(1)[0] != identity  # there is none any more that could be gone on with


def test_a_process_remembers_none_of_the_runs_that_have_ended(home: Path) -> None:
    switches.clear()
    for number in range(20):
        simple(number)
    here = recorder()
    assert here is not None
    assert here.journal.flush()
    assert not here.journal.beginnings._ours


def test_with_the_setting_off_only_resume_goes_on(home: Path) -> None:
    with killed(home):
        simple(1)
    identity = id_of_run(home)
    with temporary_settings(durable_resume=False):
        assert simple(1)[0] != identity
        assert upwell.resume(identity, simple) == (identity, 6)
    assert ran["double", 1] == 2


def test_resume_finds_the_flow_by_its_module_and_name(home: Path) -> None:
    with killed(home):
        simple(1)
    identity = id_of_run(home)
    change(home, "UPDATE flow_runs SET entrypoint = 'tests.runtime.durability.resumable:greets', flow = 'greets'")
    from tests.runtime.durability import resumable

    resumable.greeted.clear()
    assert upwell.resume(identity) == "hello 1"
    assert resumable.greeted == [1]


def test_a_flow_that_is_not_found_is_said_with_what_to_do(home: Path) -> None:
    with killed(home):
        simple(1)
    identity = id_of_run(home)
    change(home, "UPDATE flow_runs SET entrypoint = 'nowhere.at_all:simple'")
    with pytest.raises(ConfigurationError, match=r"'simple' is not found at nowhere.at_all:simple: .*Pass it: resume"):
        upwell.resume(identity)
    assert upwell.resume(identity, simple) == (identity, 6)


def test_what_cannot_be_resumed_says_why(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    switches.clear()
    identity, _ = simple(1)
    caplog.clear()
    with pytest.raises(NotResumableError, match=r"has ended Completed, so there is nothing to resume. `upwell.fork\('"):
        upwell.resume(identity, simple)
    unknown = "0197a5c8-0000-7000-8000-000000000000"
    with pytest.raises(UnknownRunError, match=f"There is no flow run {unknown} in this store"):
        upwell.resume(unknown, simple)
    with pytest.raises(UnknownRunError, match=f"There is no flow run {unknown} in this store"):
        upwell.fork(unknown, flow=simple)
    assert not caplog.records  # no run of these has failed, for there is none
    plain = str(_plain())
    with pytest.raises(NotResumableError, match="it is not durable, so its arguments were not kept"):
        upwell.resume(plain)
    assert ask(home, "SELECT count(*) FROM flow_runs") == [(2,)]  # those refusals are no runs


@flow
def _plain() -> Any:
    return flow_run.id


may_end = threading.Event()


@flow(durable=True)
def holds() -> str:
    ran["holds"] += 1
    assert may_end.wait(60)
    return str(flow_run.id)


def test_a_run_that_is_at_work_is_not_resumed(home: Path) -> None:
    with ThreadPoolExecutor() as pool:
        at_work = pool.submit(holds)
        try:
            while not ran["holds"]:
                time.sleep(0.01)
            connection_said = _ask_open(home, "SELECT id FROM flow_runs")
            with pytest.raises(NotResumableError, match="this process is at work on it"):
                upwell.resume(connection_said, holds)
        finally:
            may_end.set()
        assert at_work.result() == connection_said


def _ask_open(home: Path, query: str) -> str:
    import sqlite3

    connection = sqlite3.connect(home / "upwell.db")
    try:
        return str(connection.execute(query).fetchone()[0])
    finally:
        connection.close()


def test_of_many_that_resume_a_run_at_once_one_goes_on(home: Path) -> None:
    with killed(home):
        simple(1)
    identity = id_of_run(home)
    ready = threading.Barrier(6)

    def resume() -> Any:
        ready.wait()
        try:
            return upwell.resume(identity, simple)
        except NotResumableError:
            return None

    with ThreadPoolExecutor(6) as pool:
        answers = [future.result() for future in [pool.submit(resume) for _ in range(6)]]
    assert [answer for answer in answers if answer] == [(identity, 6)]
    assert ran["double", 2] == 1


def test_resume_all_goes_on_with_all_runs_of_these_flows(home: Path) -> None:
    for x in (1, 10, 20):
        switches.add("die")
        with killed(home):
            simple(x)
    assert [value for _, value in upwell.resume_all(simple)] == [6, 42, 82]
    assert upwell.resume_all(simple) == []


def test_resume_all_tells_of_those_that_failed_when_all_have_ended(home: Path) -> None:
    for x in (1, 10):
        switches.add("die")
        with killed(home):
            simple(x)
    switches.add("die")
    with pytest.raises(ExceptionGroup, match="1 of 2 resumed flow runs failed") as raised:
        upwell.resume_all(simple)
    assert [type(error) for error in raised.value.exceptions] == [Killed]
    assert ask(home, "SELECT count(*) FROM flow_runs WHERE state = 'COMPLETED'") == [(1,)]


# --- forks --------------------------------------------------------------------------------------------------


@flow(durable=True)
def three_steps(x: int) -> tuple[str, int]:
    first = double(x)
    second = double.submit(first + 100).result()
    if "broken" in switches:
        raise ValueError("broken")
    return str(flow_run.id), sub_flow(second) + double(second + 1)


@flow
def sub_flow(x: int) -> int:
    return double(x + 5000)


def test_a_failed_run_is_forked_and_goes_on_where_it_failed(home: Path) -> None:
    switches.add("broken")
    with pytest.raises(ValueError, match="broken"):
        three_steps(1)
    failed = id_of_run(home)
    switches.discard("broken")
    identity, value = upwell.fork(failed, flow=three_steps)
    assert identity != failed
    assert value == 204 * 2 + 10000 + 410
    assert ran["double", 1] == 1
    assert ask(home, f"SELECT state_name FROM task_runs WHERE state_name = 'Cached' AND '{identity}' <> ''") != []
    assert ask(home, f"SELECT state FROM flow_runs WHERE id = '{failed}'") == [("FAILED",)]


def test_a_whole_run_is_forked_with_its_subflows_and_a_fork_can_be_forked(home: Path) -> None:
    first, value = three_steps(1)
    second, again = upwell.fork(first, flow=three_steps)
    third, once_more = upwell.fork(second, flow=three_steps)
    assert value == again == once_more
    assert len({first, second, third}) == 3
    assert set(ran.values()) == {1}


def test_a_fork_before_a_task_run_runs_that_and_all_later_ones(home: Path) -> None:
    identity, value = three_steps(1)
    from upwell.core.ids import uuid7

    base, created = ask(
        home,
        f"""SELECT s.base, t.created FROM series s JOIN task_runs t ON t.series = s.key
        WHERE s.flow_run_id = '{identity}' AND t.number = 1""",
    )[0]
    second = uuid7(created / 1e6 + 1e-6, int(base, 16) + 1)
    assert upwell.fork(identity, second, three_steps)[1] == value
    assert ran["double", 1] == 1
    assert ran["double", 102] == 2
    assert ran["double", 5204] == 2
    with pytest.raises(UnknownRunError, match="is none of this flow run's, or never began"):
        upwell.fork(identity, identity, three_steps)
    with pytest.raises(UnknownRunError, match="'double-1' is not the id of a task run: it must be a UUID"):
        upwell.fork(identity, "double-1", three_steps)


# --- what has changed ---------------------------------------------------------------------------------------


def make_step(factor: int) -> Any:
    if factor == 2:

        @task(name="step")
        def step(x: int) -> int:
            ran["step"] += 1
            return x * 2
    else:

        @task(name="step")
        def step(x: int) -> int:
            ran["step"] += 1
            return x * 3

    return step


steps = {"step": make_step(2)}


@flow(durable=True)
def of_steps() -> int:
    value = int(steps["step"](1))
    follower = double.submit(steps["step"].submit(5)).result()
    die_once()
    return value + follower


def test_results_of_a_task_whose_code_has_changed_do_not_count(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    steps["step"] = make_step(2)
    with killed(home):
        of_steps()
    steps["step"] = make_step(3)
    switches.add("die")
    with caplog.at_level(logging.WARNING), temporary_settings(logging_level="WARNING"), killed(home):
        of_steps()
    assert "The code of task 'step' has changed: its finished runs are run again" in caplog.text
    assert of_steps() == 3 + 30
    assert ran["step"] == 4  # twice by the old code, twice by the new: what that had finished counted in the end
    assert (ran["double", 10], ran["double", 15]) == (1, 1)


def test_unless_they_are_to_be_kept(home: Path) -> None:
    steps["step"] = make_step(2)
    with killed(home):
        of_steps()
    steps["step"] = make_step(3)
    assert upwell.resume(id_of_run(home), of_steps, keep_changed=True) == 2 + 20
    assert ran["step"] == 2


def test_a_flow_that_has_changed_says_so_and_goes_on(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    with killed(home):
        simple(1)
    change(home, "UPDATE flow_runs SET source_hash = 'another'")
    with caplog.at_level(logging.WARNING), temporary_settings(logging_level="WARNING"):
        assert simple(1)[1] == 6
    assert "The code of flow 'simple' has changed since this run began" in caplog.text
    assert ran["double", 1] == 1


# --- runs that crash ----------------------------------------------------------------------------------------


def test_a_run_that_crashes_again_and_again_is_given_up_with_its_history(home: Path) -> None:
    from upwell.composition import open_recorder
    from upwell.journal.liveness import Observer

    identity = ""
    with temporary_settings(durable_max_crashes=2):
        for _ in range(2):
            switches.add("die")
            with pytest.raises(Killed):
                simple(1)
            identity = id_of_run(home)
            change(
                home,
                """UPDATE processes SET state = 'lost';
                UPDATE flow_runs SET state = 'RUNNING', ended = NULL,
                    process_id = (SELECT id FROM processes ORDER BY key DESC LIMIT 1)""",
            )
            recorder = open_recorder()
            assert recorder is not None

            async def look(store: Any) -> None:
                await Observer(store.database, None, 2).look()

            recorder.journal.ask(look).result(10)
        rows = ask(home, "SELECT state, crashes, message FROM flow_runs")
        assert rows[0][:2] == ("CRASHED", 2)
        assert "UPWELL_DURABLE_MAX_CRASHES" in rows[0][2]
        assert simple(1)[0] != identity
        assert upwell.fork(identity, flow=simple)[1] == 6


# --- idempotency keys ---------------------------------------------------------------------------------------


@flow
def once_only(x: int, odd: Any = None) -> tuple[str, int]:
    ran["once_only"] += 1
    if "slow" in switches:
        time.sleep(0.4)
    if "fail" in switches:
        raise ValueError("failed")
    return str(flow_run.id), x


def test_the_same_key_gives_the_same_run(home: Path) -> None:
    first = once_only(1, idempotency_key="a")
    assert once_only(1, idempotency_key="a") == first
    assert once_only(1, idempotency_key="b") != first
    assert ran["once_only"] == 2
    assert ask(home, "SELECT count(*) FROM flow_runs") == [(2,)]


def test_a_submitted_flow_takes_a_key_too(home: Path) -> None:
    first = once_only.submit(1, idempotency_key="a").result()
    assert once_only.submit(1, idempotency_key="a").result() == first == once_only(1, idempotency_key="a")
    assert ran["once_only"] == 1


def test_who_comes_while_it_runs_waits_for_it(home: Path) -> None:
    switches.add("slow")
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(once_only, 1, idempotency_key="a") for _ in range(4)]
        assert len({future.result() for future in futures}) == 1
    assert ran["once_only"] == 1


def test_the_same_key_gives_the_same_failure(home: Path) -> None:
    switches.add("fail")
    with pytest.raises(ValueError, match="failed"):
        once_only(1, idempotency_key="a")
    with pytest.raises(FailedRun, match="failed"):
        once_only(1, idempotency_key="a")
    assert ran["once_only"] == 1


def test_a_run_of_a_key_whose_process_died_begins_again_as_the_same(home: Path) -> None:
    switches.add("fail")
    with pytest.raises(ValueError, match="failed"):
        once_only(1, idempotency_key="a")
    identity = id_of_run(home)
    look_killed(home)
    switches.discard("fail")
    assert once_only(1, idempotency_key="a") == (identity, 1)


def test_a_key_needs_no_arguments_that_can_be_stored(home: Path) -> None:
    lock = threading.Lock()
    assert once_only(1, lock, idempotency_key="a") == once_only(1, lock, idempotency_key="a")


@flow
async def once_async(x: int) -> int:
    ran["once_async"] += 1
    await asyncio.sleep(1000)
    return x


def test_who_waits_for_the_run_of_a_key_can_be_cancelled(home: Path) -> None:
    async def main() -> None:
        first = asyncio.create_task(once_async(1, idempotency_key="a"))
        while not ran["once_async"]:
            await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(once_async(1, idempotency_key="a"), 0.1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(main())
    assert ask(home, "SELECT state FROM flow_runs") == [("CANCELLED",)]


def test_the_end_of_a_crashed_run_is_told_as_such(home: Path) -> None:
    switches.add("fail")
    with pytest.raises(ValueError, match="failed"):
        once_only(1, idempotency_key="a")
    ask(home, "SELECT 1")
    change(home, "UPDATE flow_runs SET state = 'CRASHED', message = 'Its process died.'")
    with pytest.raises(CrashedRun, match="Its process died"):
        once_only(1, idempotency_key="a")
