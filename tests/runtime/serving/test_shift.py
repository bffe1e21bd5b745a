"""Runs of deployments, carried out by a worker: real templates, real children, a real file."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from tests.runtime.serving.workplace import at_work, is_there, pid_in, until

from upwell.serving.templates import how_it_ended

Flows = Callable[[str], Path]


def test_a_run_is_carried_out_as_the_one_that_the_store_knows(flows: Flows) -> None:
    folder = flows(
        """
        from upwell.runtime import deployment, flow_run

        @task
        def double(x): return 2 * x

        @flow
        def sums(x: int, y: int = 1):
            due = flow_run.scheduled_start_time.isoformat()
            Path("facts").write_text(f"{flow_run.id} {flow_run.name} {deployment.name} {deployment.id} {due}")
            if double(x) + y != 15:
                raise ValueError(x, y)

        @flow
        async def later(day: "datetime.date"):
            import datetime
            assert day == datetime.date(2026, 1, 2)

        import datetime

        @flow
        def yields():
            yield 1
            yield 2
        """
    )

    async def main() -> None:
        async with at_work(folder, "sums", "later", "yields", tags=("nightly",)) as work:
            started = [
                await work.start("sums", x=7),
                await work.start("later", day="2026-01-02"),
                await work.start("yields"),
                await work.start("sums", x="seven"),
                await work.start("sums", x=1, z=1),
            ]
            summed, dated, yielded, wrong, unknown = [await work.ended(run) for run in started]
            deployment = work.deployments["sums"]
        assert [run.state_name for run in (summed, dated, yielded)] == ["Completed"] * 3
        assert (wrong.state_name, unknown.state_name) == ("Failed", "Failed")
        assert "x: expected int, got str 'seven'" in (wrong.state.message or "")
        assert "'z'" in (unknown.state.message or "")
        assert (summed.id, summed.tags, summed.run_count) == (started[0], frozenset({"nightly"}), 1)
        assert summed.due is not None
        facts = f"{summed.id} {summed.name} test {deployment.id} {summed.due.isoformat()}"
        assert (folder / "facts").read_text() == facts

    asyncio.run(main())


def test_code_that_cannot_be_run_crashes_its_run_and_says_why(flows: Flows) -> None:
    folder = flows("raise RuntimeError('not today')")

    async def main() -> None:
        async with at_work(folder, "anything") as work:
            run = await work.ended(await work.start("anything"))
            assert run.state_name == "Crashed"
            assert "RuntimeError: not today" in (run.state.message or "")
            flows("@flow\ndef other(): pass")
            run = await work.ended(await work.start("anything"))
            assert run.state_name == "Crashed"
            assert "has no 'anything'; it has: other" in (run.state.message or "")
            flows("@flow\ndef anything(): pass")
            assert (await work.ended(await work.start("anything"))).state_name == "Completed"

    asyncio.run(main())


def test_code_that_has_changed_is_imported_anew(flows: Flows) -> None:
    folder = flows("@flow\ndef says(): Path('said').write_text('one')")

    async def main() -> None:
        async with at_work(folder, "says") as work:
            await work.ended(await work.start("says"))
            assert (folder / "said").read_text() == "one"
            flows("@flow\ndef says(): Path('said').write_text('another')")
            await work.ended(await work.start("says"))
            assert (folder / "said").read_text() == "another"

    asyncio.run(main())


def test_code_that_starts_threads_is_not_forked(flows: Flows) -> None:
    folder = flows(
        """
        import threading
        threading.Thread(target=time.sleep, args=[1000], daemon=True).start()

        @flow
        def alone(): Path("argv").write_text(Path("/proc/self/cmdline").read_text())
        """
    )

    async def main() -> None:
        async with at_work(folder, "alone") as work:
            assert (await work.ended(await work.start("alone"))).state_name == "Completed"
        assert "upwell.serving.once" in (folder / "argv").read_text()

    asyncio.run(main())


def test_variables_of_a_job_are_its_environment_and_its_folder(flows: Flows) -> None:
    folder = flows("@flow\ndef where(): Path('here').write_text(os.environ['COLOUR'])")
    (folder / "below").mkdir()

    async def main() -> None:
        async with at_work(folder, "where", job_variables={"env": {"COLOUR": "red"}}) as work:
            red = await work.start("where")
            blue = await work.start(
                "where", variables={"env": {"COLOUR": "blue"}, "working_dir": str(folder / "below")}
            )
            nowhere = await work.start("where", variables={"working_dir": "/no/such/folder"})
            for run in (red, blue):
                assert (await work.ended(run)).state_name == "Completed"
            assert "is no folder here" in ((await work.ended(nowhere)).state.message or "")
        assert (folder / "here").read_text() == "red"
        assert (folder / "below" / "here").read_text() == "blue"

    asyncio.run(main())


def test_a_process_carries_out_as_many_runs_as_it_may_if_each_leaves_nothing_behind(flows: Flows) -> None:
    folder = flows(
        """
        import threading

        def note(what):
            with Path("notes").open("a") as notes:
                notes.write(f"{what} {os.getpid()}\\n")

        @flow
        def works(): note("works")

        @flow
        async def fails():
            note("fails")
            raise ValueError

        @flow
        def leaves_a_thread():
            note("leaves")
            threading.Thread(target=time.sleep, args=[0.1]).start()

        @flow
        def dies():
            note("dies")
            os.kill(os.getpid(), 9)
        """
    )

    async def main() -> None:
        names = ("works", "fails", "leaves_a_thread", "dies")
        async with at_work(folder, *names, limit=1, job_variables={"runs_per_process": 3}) as work:
            order = ("works", "fails", "works", "works", "works", "works", "leaves_a_thread", "works", "dies", "works")
            runs = [await work.start(name) for name in order]
            ended = [(await work.ended(run)).state_name for run in runs]
        assert ended == [
            "Failed" if name == "fails" else "Crashed" if name == "dies" else "Completed" for name in order
        ]
        pids = [line.split()[1] for line in (folder / "notes").read_text().splitlines()]
        together = [[pids.index(pid) for pid in pids[first:last]] for first, last in ((0, 2), (2, 5), (5, 7), (7, 9))]
        assert together == [[0, 0], [2, 2, 2], [5, 5], [7, 7]]
        assert len(set(pids)) == 5

    asyncio.run(main())


def test_a_number_of_runs_that_is_none_is_refused(flows: Flows) -> None:
    folder = flows("@flow\ndef works(): pass")

    async def main() -> None:
        async with at_work(folder, "works", job_variables={"runs_per_process": 0}) as work:
            ended = await work.ended(await work.start("works"))
        assert ended.state_name == "Crashed"
        assert "runs_per_process is 0" in (ended.state.message or "")

    asyncio.run(main())


def test_no_more_runs_go_on_at_once_than_the_limit(flows: Flows) -> None:
    folder = flows(
        """
        @flow
        def counts(k: int):
            Path(f"here-{k}").touch()
            Path(f"seen-{k}").write_text(str(len(list(Path.cwd().glob("here-*")))))
            time.sleep(0.1)
            Path(f"here-{k}").unlink()
        """
    )

    async def main() -> None:
        async with at_work(folder, "counts", limit=2) as work:
            for run in [await work.start("counts", k=k) for k in range(6)]:
                await work.ended(run)
        assert max(int(seen.read_text()) for seen in folder.glob("seen-*")) <= 2

    asyncio.run(main())


# --- deaths -----------------------------------------------------------------------------------------------


def test_a_killed_child_has_crashed_and_a_durable_one_goes_on(flows: Flows) -> None:
    folder = flows(
        """
        from upwell.composition import flush_journal

        @flow
        def dies(): os.kill(os.getpid(), 9)

        @task
        def once(): Path("once").open("a").write("x"); return 1

        @flow(durable=True)
        def goes_on():
            once()
            if not Path("died").exists():
                Path("died").touch()
                flush_journal()
                os.kill(os.getpid(), 9)
        """
    )

    async def main() -> None:
        async with at_work(folder, "dies", "goes_on") as work:
            dies, goes_on = await work.start("dies"), await work.start("goes_on")
            dead = await work.ended(dies)
            assert dead.state_name == "Crashed"
            assert "was killed" in (dead.state.message or "")  # by SIGKILL, if the worker noticed before who asks here
            survivor = await work.ended(goes_on)
            assert (survivor.state_name, survivor.crashes, survivor.run_count) == ("Completed", 1, 2)
        assert (folder / "once").read_text() == "x"

    asyncio.run(main())


def test_how_a_process_ended_is_said_in_words() -> None:
    assert how_it_ended(3) == "exited with code 3"
    assert how_it_ended(-signal.SIGKILL) == "was killed by SIGKILL (out of memory?)"
    assert how_it_ended(-signal.SIGSEGV) == "was killed by SIGSEGV"
    assert how_it_ended(None) == "has gone, and nobody knows how"


def test_a_run_outlives_its_template(flows: Flows) -> None:
    folder = flows(
        """
        @flow
        def waits():
            Path("template-of").write_text(str(os.getppid()))
            Path("template-of").rename("template")
            while not Path("go").exists():
                time.sleep(0.01)
        """
    )

    async def main() -> None:
        async with at_work(folder, "waits") as work:
            first = await work.start("waits")
            await work.running(first)
            await until((folder / "template").exists)
            os.kill(pid_in(folder, "template"), signal.SIGKILL)
            second = await work.start("waits")
            await work.running(second)
            (folder / "go").touch()
            assert (await work.ended(first)).state_name == "Completed"
            assert (await work.ended(second)).state_name == "Completed"
            assert (await work.history.flow_run(first)).run_count == 1

    asyncio.run(main())


# --- cancelling and stopping ------------------------------------------------------------------------------


def test_cancelling_is_gentle_first_and_then_hard(flows: Flows) -> None:
    folder = flows(
        """
        import asyncio

        @flow
        def sleeps():
            try:
                Path("sleeps").touch()
                time.sleep(1000)
            finally:
                Path("cleaned").touch()

        @flow
        async def awaits():
            Path("awaits").touch()
            await asyncio.sleep(1000)

        @flow
        def stubborn():
            Path("pid").write_text(str(os.getpid()))
            while True:
                try:
                    Path("stubborn").touch()
                    time.sleep(1000)
                except BaseException:
                    pass
        """
    )

    async def main() -> None:
        async with at_work(folder, "sleeps", "awaits", "stubborn") as work:
            runs = [await work.start(name) for name in work.deployments]
            for run in runs:
                await work.running(run)
            await until(lambda: all((folder / name).exists() for name in work.deployments))
            for run, grace_seconds in zip(runs, (60, 60, 2), strict=True):
                await work.control.request_cancel(run, by="me", reason="enough", grace_seconds=grace_seconds)
            sleeps, awaits, stubborn = [await work.ended(run) for run in runs]
            assert {run.state_name for run in (sleeps, awaits, stubborn)} == {"Cancelled"}
            assert sleeps.state.message == awaits.state.message == "Cancelled by me: enough"
            assert "did not end by itself within 2 second(s), and was killed" in (stubborn.state.message or "")
            assert not is_there(pid_in(folder))
        assert (folder / "cleaned").exists()

    asyncio.run(main())


def test_a_process_that_cannot_even_look_at_what_is_asked_of_it_is_killed_by_its_worker(flows: Flows) -> None:
    folder = flows(
        """
        import ctypes

        @flow
        def holds():
            Path("pid").write_text(str(os.getpid()))
            shell = b"touch held; while kill -0 $PPID; do sleep 0.1; done"
            ctypes.PyDLL(None).system(shell)  # no other thread of this process can do anything meanwhile
        """
    )

    async def main() -> None:
        async with at_work(folder, "holds") as work:
            run = await work.start("holds")
            await until((folder / "held").exists)
            await work.control.request_cancel(run, by="me", grace_seconds=0.5)
            ended = await work.ended(run)
            assert ended.state_name == "Cancelled"
            assert "did not end by itself within 0.5 second(s), and was killed" in (ended.state.message or "")
            assert not is_there(pid_in(folder))

    asyncio.run(main())


def test_a_worker_that_is_stopped_lets_runs_end_and_cancels_them_when_told_again(flows: Flows) -> None:
    folder = flows("@flow\ndef waits(file: str):\n    while not Path(file).exists(): time.sleep(0.02)")

    async def main() -> None:
        async with at_work(folder, "waits", limit=2) as work:
            ends, never = await work.start("waits", file="there"), await work.start("waits", file="nowhere")
            for run in (ends, never):
                await work.running(run)
            work.stop()
            waits = await work.start("waits", file="there")
            (folder / "there").touch()
            assert (await work.ended(ends)).state_name == "Completed"
            work.stop()
            stopped = await work.ended(never)
            assert (stopped.state_name, stopped.state.message) == (
                "Cancelled",
                "Cancelled by tester: It was stopped with its worker.",
            )
            assert (await work.history.flow_run(waits)).state.is_scheduled()

    asyncio.run(main())
