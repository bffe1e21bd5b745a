"""Who a process is: whether it is still there can be told, and it is never mistaken for another."""

from __future__ import annotations

import os
import subprocess
import sys

from upwell.journal.processes import is_gone, started_at, this_host, this_process


def test_this_process_is_there() -> None:
    process = this_process(30)
    assert process.pid == os.getpid()
    assert is_gone(process.host, process.pid, process.pid_started) is False


def test_each_writer_is_another_one() -> None:
    assert this_process(30).id != this_process(30).id


def test_one_that_has_ended_is_gone_for_certain() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        started = started_at(child.pid)
        assert started is not None
        assert is_gone(this_host(), child.pid, started) is False
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert is_gone(this_host(), child.pid, started) is True, "a zombie has ended"
    assert is_gone(this_host(), child.pid, started) is True


def test_a_later_process_with_its_pid_is_another() -> None:
    assert is_gone(this_host(), os.getpid(), "12345") is True


def test_one_on_another_machine_cannot_be_seen() -> None:
    assert is_gone("another", os.getpid(), "12345") is None
