"""Tasks in the background: asked for here, carried out by a process that serves them, whichever was first."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from upwell import task
from upwell.composition import close_journal, open_control
from upwell.core.errors import (
    BlockingWaitError,
    DefinitionError,
    FailedRun,
    InvalidRequestError,
    ParameterBindError,
    ParameterTypeError,
)
from upwell.entrypoints import load_flow
from upwell.settings import temporary_settings
from upwell.task_worker import serve

pytestmark = pytest.mark.usefixtures("own_modules")

MAIL = """
import os, sys
from upwell import task
from upwell.task_worker import serve

@task
def send(to: str, *more: int, **words: str) -> tuple:
    return os.getppid(), to, more, words

@task
async def look_up(name):
    if name == "nobody":
        raise LookupError(f"There is no {name}.")
    return {"name": name}

if __name__ == "__main__":
    serve(send, look_up, limit=4)
"""


@pytest.fixture
def mail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the tasks, whose file can be run to serve them."""
    (tmp_path / "mail.py").write_text(MAIL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # pyright: ignore[reportUnknownMemberType]  # of pytest's
    settings = {"journal": "on", "home": str(tmp_path / "home"), "logging_level": "CRITICAL"}
    for name, value in settings.items():
        monkeypatch.setenv(f"UPWELL_{name.upper()}", value)
    with temporary_settings(**settings):
        yield import_module("mail")
        close_journal()


def test_a_delayed_run_waits_for_a_process_that_serves_its_task(mail: Any, ends: Callable[..., Any]) -> None:
    early = mail.send.delay("ann", 1, 2, subject="x")
    assert early.state.is_scheduled()
    assert f"{early!r}" == f"<DelayedRun {early.name!r} {early.id}>"
    with pytest.raises(TimeoutError, match=r"has not ended within 0 second\(s\): it is Scheduled"):
        early.result(timeout=0)
    worker = subprocess.Popen([sys.executable, "mail.py"], stdout=subprocess.DEVNULL)
    try:
        parent, *rest = ends(early.result)
        assert rest == ["ann", (1, 2), {"subject": "x"}]
        assert parent != worker.pid  # its template
        early.wait()
        assert early.state.is_completed()

        async def main() -> None:
            found = await mail.look_up.adelay("ann")
            assert await found == {"name": "ann"}
            assert found.state.is_completed()
            for blocks in (found.result, found.wait):
                with pytest.raises(BlockingWaitError, match="await the run itself"):
                    blocks()
            with pytest.raises(FailedRun, match=r"LookupError: There is no nobody."):
                await mail.look_up.delay("nobody")

        asyncio.run(main())
    finally:
        worker.terminate()
        worker.wait()

    async def is_paused() -> bool:
        async with open_control() as control:
            return (await control.deployment("send/background")).paused

    assert not asyncio.run(is_paused())  # what is asked for meanwhile waits, and is not late for that


def test_what_cannot_be_asked_for_is_refused_where_it_is_asked_for(mail: Any) -> None:
    with pytest.raises(ParameterBindError, match="missing a required argument: 'to'"):
        mail.send.delay()
    with pytest.raises(ParameterTypeError, match="to: expected str, got int 3"):
        mail.send.delay(3)
    with pytest.raises(InvalidRequestError, match="nothing that JSON can carry"):
        mail.look_up.delay(object())


def test_a_task_is_found_as_a_flow_that_calls_it(mail: Any) -> None:
    assert mail.look_up.as_flow() is mail.look_up.as_flow()
    assert load_flow("mail:send") is mail.send.as_flow()
    assert mail.send.as_flow()("ann")[1:] == ("ann", (), {})
    assert mail.send.as_flow().to_deployment("x").spec.entrypoint == "mail:send"


def test_what_cannot_be_served_is_refused() -> None:
    @task
    def counts() -> Iterator[int]:
        yield 1

    with pytest.raises(DefinitionError, match="'counts' is a generator"):
        counts.delay()
    with pytest.raises(TypeError, match=r"serve takes tasks: serve\(send, resize\)"):
        serve()
