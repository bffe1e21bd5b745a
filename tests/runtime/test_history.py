"""The history as people ask for it: from scripts and from services, where there is nothing yet, and where it is old."""

from __future__ import annotations

import asyncio
import datetime as dt
import inspect
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from upwell import flow, history, task, unmapped
from upwell.composition import close_journal
from upwell.core.errors import RuntimeClosedError
from upwell.core.states import StateType
from upwell.history import History, UnknownRunError
from upwell.journal.database import StoreTooNew
from upwell.journal.sqlite import SqliteDatabase
from upwell.settings import temporary_settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path) -> Iterator[Path]:
    """A home in which a journal is kept."""
    with temporary_settings(journal="on", home=str(tmp_path)):
        yield tmp_path
        close_journal()


@task
def double(n: int) -> int:
    return 2 * n


@flow
def doubles(n: int = 3) -> int:
    return sum(double.map(range(n)).result())


NO_RUN = "01a2002d-6a01-7143-816b-ca90af17019f"


def test_where_nothing_was_recorded_there_is_nothing_and_no_file_is_made(home: Path) -> None:
    assert history.flow_runs().items == ()
    assert history.task_runs(tags=["x"], text="y").items == ()
    assert (
        history.task_runs(flow="x", task="y", state="FAILED").items == history.task_runs(flow_run_id=NO_RUN).items == ()
    )
    assert {span.total for span in history.counts()} == {span.total for span in history.counts(of="flow_runs")} == {0}
    for ask in (history.flow_run, history.task_run, history.states, history.logs, history.edges, history.tree):
        with pytest.raises(UnknownRunError, match="recorded elsewhere"):
            ask(NO_RUN)
    with pytest.raises(UnknownRunError):
        history.timeline(NO_RUN)
    assert list(home.rglob("*.db*")) == []


def test_a_span_of_time_may_be_said_by_how_long_ago_it_was() -> None:
    doubles()
    assert len(history.flow_runs(since=dt.timedelta(hours=1)).items) == 1
    assert len(history.task_runs(since=dt.timedelta(hours=1), until=dt.timedelta(minutes=30)).items) == 0
    assert sum(span.total for span in history.counts(of="flow_runs", since=dt.timedelta(hours=1))) == 1
    with pytest.raises(
        TypeError, match="since takes a datetime with a time zone, or a timedelta: so long ago; not '1h'"
    ):
        history.flow_runs(since="1h")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # a mistake


def test_a_history_that_was_opened_before_the_first_run_sees_it() -> None:
    async def main() -> list[int]:
        found: list[int] = []
        async with History() as h:
            found.append(len(await h.task_runs()))
            await asyncio.to_thread(doubles)
            found.append(len(await h.task_runs()))
        return found

    assert asyncio.run(main()) == [0, 3]


def test_what_just_ran_is_there_outside_of_flows_too() -> None:
    double(1)
    assert [run.name for run in history.task_runs()] == ["double-0"]


def test_a_task_run_that_was_given_a_future_says_of_which_run() -> None:
    @task
    def fail() -> int:
        raise ValueError

    @flow
    def stops() -> None:
        double.submit(fail.submit()).wait()

    stops(return_state=True)
    (run,) = history.task_runs(task="double").items
    assert run.state.name == "NotReady"
    assert str(run.inputs).startswith("n=<TaskFuture 'fail-0' Failed(")


def test_sync_questions_can_be_asked_inside_of_a_running_loop_and_inside_of_runs() -> None:
    @task
    async def look() -> int:
        return len(history.task_runs(task="double"))

    @flow
    def looking() -> int:
        double(1)
        return look.submit().result()  # on the loop beside this code

    @flow
    async def looking_on_the_loop() -> int:
        return await look.submit()

    assert looking() == 1
    assert asyncio.run(looking_on_the_loop()) == 1


def test_many_tasks_may_ask_one_history() -> None:
    doubles(20)

    async def main() -> list[int]:
        async with History() as h:
            pages = await asyncio.gather(*(h.task_runs(limit=n) for n in range(1, 20)))
            return [len(page) for page in pages]

    assert asyncio.run(main()) == list(range(1, 20))


def test_a_history_that_is_not_open_says_so() -> None:
    async def main() -> None:
        h = History()
        with pytest.raises(RuntimeClosedError, match="async with History"):
            await h.task_runs()
        async with h:
            await h.task_runs()
        with pytest.raises(RuntimeClosedError):
            await h.task_runs()

    asyncio.run(main())


def test_another_process_reads_what_this_one_has_recorded(home: Path) -> None:
    doubles()
    code = "from upwell import history; print(len(history.task_runs(flow='doubles')))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"UPWELL_HOME": str(home), "UPWELL_JOURNAL": "off"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "3"


def test_what_all_runs_of_a_map_have_is_among_their_inputs() -> None:
    @task
    def draw(x: int, y: int = 0, style: str = "") -> int:
        return x

    @flow
    def draws() -> None:
        draw.map([1, 2], style=unmapped("thin")).wait()
        draw.map([1], [2], style=unmapped("thin")).wait()

    draws()
    shown = [run.inputs for run in history.task_runs(task="draw", order="oldest")]
    assert shown == ["x=1, style='thin'", "x=2, style='thin'", "x=1, y=2, style='thin'"]


def test_secrets_among_inputs_are_in_no_file(home: Path) -> None:
    @task
    def log_in(user: str, password: str) -> str:
        return user

    @flow
    def logs_in(api_key: str) -> None:
        log_in("me", "hunter2")
        log_in.submit("me", password="hunter2").wait()
        log_in.map(["me"], password=unmapped(api_key)).wait()
        log_in.map(["me"], [f"https://me:{api_key}@host"]).wait()

    logs_in(api_key="hunter2")
    assert [run.inputs for run in history.task_runs(task="log-in")] == ["user='me', password=********"] * 4
    assert history.flow_runs().items[0].parameters == {"api_key": "********"}
    close_journal()
    assert not any(b"hunter2" in file.read_bytes() for file in home.glob("upwell.db*"))


DIES = """
import os
from upwell import flow, history, task

@task
def stays():
    assert history.task_runs(state="RUNNING").items  # now it is written that it runs
    os.kill(os.getpid(), 9)

@flow
def dies():
    stays()

dies()
"""


@pytest.mark.parametrize("opened", [False, True])
def test_what_a_dead_process_ran_is_not_shown_as_running(home: Path, opened: bool) -> None:
    subprocess.run([sys.executable, "-c", DIES], env={"UPWELL_HOME": str(home)}, stderr=subprocess.DEVNULL)

    async def ask() -> Any:
        async with History() as h:
            return await h.flow_runs(state="CRASHED"), await h.task_runs(state="CRASHED")

    with temporary_settings(journal="off"):
        if opened:
            flow_runs, task_runs = asyncio.run(ask())
        else:
            task_runs, flow_runs = history.task_runs(state="CRASHED"), history.flow_runs(state="CRASHED")
    assert [run.flow_name for run in flow_runs] == ["dies"]
    assert [run.name for run in task_runs] == ["stays-0"]
    assert "died" in str(flow_runs.items[0].state.message)


def test_a_store_of_a_newer_upwell_is_refused_and_an_empty_file_is_as_good_as_none(home: Path) -> None:
    doubles()
    close_journal()

    async def become_newer() -> None:
        database = SqliteDatabase(home / "upwell.db")
        await database.open()
        await database.fetch_text("INSERT INTO schema_migrations (number, name, applied) VALUES (999, 'later', 0)")
        await database.close()

    asyncio.run(become_newer())
    with temporary_settings(journal="off"):
        with pytest.raises(StoreTooNew, match="newer upwell"):
            history.task_runs()
        for file in home.glob("upwell.db*"):
            file.unlink()
        (home / "upwell.db").touch()
        assert history.task_runs().items == ()


def test_a_store_of_an_older_upwell_is_brought_up_to_date_first(home: Path) -> None:
    from upwell.journal.migrations import migrate
    from upwell.journal.sql import Dialect, migrations

    async def make_old() -> None:
        database = SqliteDatabase(home / "upwell.db")
        await database.open()
        await migrate(database, migrations(Dialect.SQLITE)[:1])
        await database.close()

    asyncio.run(make_old())
    with temporary_settings(journal="off"):
        assert history.task_runs().items == ()
        assert history.flow_runs().items == ()


def test_counts_are_by_state_and_span_of_time() -> None:
    before = dt.datetime.now(dt.UTC)
    doubles(4)
    after = dt.datetime.now(dt.UTC) + dt.timedelta(milliseconds=1)
    for by in (60, 0.001, "day"):
        spans = history.counts(since=before, until=after, by=by)
        assert sum(span.states.get(StateType.COMPLETED, 0) for span in spans) == sum(span.total for span in spans) == 4
        assert (spans[0].start, spans[-1].end) == (before, after)
        assert all(one.end == other.start for one, other in itertools.pairwise(spans))
    assert [span.states for span in history.counts(of="flow_runs", by="day")] == [{StateType.COMPLETED: 1}]
    for wrong, said in (
        ({"by": "week"}, "'minute', 'hour', 'day' or a number"),
        ({"by": 0}, "above 0"),
        ({"since": after, "until": before}, "must be before"),
        ({"by": 0.001}, "more than 10,000 spans"),
        ({"by": float("inf")}, "a number of seconds above 0"),
        ({"by": float("nan")}, "a number of seconds above 0"),
        ({"of": "logs"}, "'task_runs' or 'flow_runs'"),
    ):
        options: Any = wrong
        with pytest.raises(ValueError, match=said):
            history.counts(**options)


@pytest.mark.parametrize("name", [name for name in dir(History) if not name.startswith("_")])
def test_every_question_can_be_asked_from_sync_code(name: str) -> None:
    sync, asked = getattr(history, name), getattr(History, name)
    assert list(inspect.signature(sync).parameters) == list(inspect.signature(asked).parameters)[1:]
    assert sync.__doc__ == asked.__doc__
    assert name in history.__all__
