"""RELIABILITY: what runs elsewhere is in the server's store, whatever becomes of the server; and no run fails of it."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.runtime.server import remote_lives
from tests.runtime.server.remote_lives import RUNS
from tests.runtime.server.serving import PATIENCE_SECONDS, free_port, server_process

from upwell.server.serve import _listening  # pyright: ignore[reportPrivateUsage]  # what it listens on


@contextmanager
def life(folder: Path, port: int, *arguments: str, **variables: str) -> Generator[subprocess.Popen[str]]:
    """A process that works through the server at this port, and has a home folder of its own."""
    environment = {
        **os.environ,
        "UPWELL_JOURNAL": "on",
        "UPWELL_API_URL": f"http://127.0.0.1:{port}/api",
        "UPWELL_HOME": str(folder / "elsewhere"),
        **variables,
    }
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, remote_lives.__file__, *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def heard(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().strip() == line


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def ended(process: subprocess.Popen[str]) -> str:
    """What it still says, once it has ended well."""
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return said


def logged(folder: Path) -> str:
    """What processes have logged."""
    return (folder / "log").read_text()


def rows(folder: Path, text: str) -> list[tuple[Any, ...]]:
    """What is in the server's store."""
    connection = sqlite3.connect(folder / "upwell.db")
    try:
        return connection.execute(text).fetchall()
    finally:
        connection.close()


def eventually(folder: Path, text: str, wanted: list[tuple[Any, ...]]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while (found := rows(folder, text)) != wanted:
        assert time.monotonic() < until, found
        time.sleep(0.02)


def spooled(folder: Path) -> list[str]:
    return [path.name for path in (folder / "elsewhere" / "spool").rglob("*.spool")]


def test_a_server_that_is_killed_again_and_again_loses_and_doubles_nothing(tmp_path: Path) -> None:
    port = free_port()
    with server_process(tmp_path, port) as server, life(tmp_path, port, "rounds") as process:
        heard(process, "round 0")
        tell(process)
        heard(process, "round 1")
        server.kill()  # while it has a part of this round, or none
        tell(process)
        heard(process, "round 2")
        with server_process(tmp_path, port) as second:
            tell(process)
            heard(process, "round 3")
            second.kill()
        with server_process(tmp_path, port):
            tell(process)
            assert ended(process) == "ended None\n"
            assert "The journal cannot write, and tries again; runs go on: The server" in logged(tmp_path)
            assert rows(tmp_path, "SELECT state FROM flow_runs") == [("COMPLETED",)]
            assert rows(tmp_path, "SELECT count(*), count(DISTINCT series || '-' || number) FROM task_runs") == [
                (4 * RUNS, 4 * RUNS)
            ]
            assert rows(tmp_path, "SELECT state FROM processes") == [("ended",)]
    assert spooled(tmp_path) == []


def test_what_ran_while_there_was_no_server_is_spooled_and_brought_in_by_the_next(tmp_path: Path) -> None:
    port = free_port()
    with life(tmp_path, port, "short") as process:
        assert ended(process) == "ended None\n"
        assert "cannot be reached" in logged(tmp_path)
    assert len(spooled(tmp_path)) == 1
    with server_process(tmp_path, port):
        with life(tmp_path, port, "short") as process:
            ended(process)
        assert rows(tmp_path, "SELECT state, count(*) FROM flow_runs GROUP BY state") == [("COMPLETED", 2)]
        assert rows(tmp_path, "SELECT count(*) FROM logs WHERE message = 'a line'") == [(2,)]
    assert spooled(tmp_path) == []


def test_a_durable_run_whose_process_was_killed_goes_on_in_another(tmp_path: Path) -> None:
    port = free_port()
    with server_process(tmp_path, port):
        with life(tmp_path, port, "steady", "die") as process:
            assert process.wait(30) == -signal.SIGKILL
        with life(tmp_path, port, "steady") as process:
            assert ended(process) == "step 99\nended 1000\n"
        assert rows(tmp_path, "SELECT state, crashes FROM flow_runs") == [("COMPLETED", 1)]


def test_the_run_of_a_process_that_was_killed_is_crashed_by_the_server(tmp_path: Path) -> None:
    port = free_port()
    with server_process(tmp_path, port, UPWELL_LEASE_SECONDS="1"):
        with life(tmp_path, port, "endless", UPWELL_LEASE_SECONDS="1") as process:
            heard(process, "ready")
            assert rows(tmp_path, "SELECT state FROM flow_runs") == [("RUNNING",)]
            process.kill()
            process.wait()
        eventually(tmp_path, "SELECT state FROM flow_runs", [("CRASHED",)])
        assert rows(tmp_path, "SELECT state FROM processes") == [("lost",)]


def test_answers_are_sent_at_once() -> None:
    with _listening("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP  # else asyncio leaves it to TCP to wait, 40 ms an answer
