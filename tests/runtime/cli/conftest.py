"""What tests of the command line share: commands in this process, in a folder and a home of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from upwell import settings
from upwell.cli.main import main
from upwell.composition import close_journal
from upwell.engine.console import ensure_configured
from upwell.settings import Settings, variable_of

UPWELL = Path(sys.executable).with_name("upwell")

FLOWS = '''
import datetime as dt

from upwell import flow, get_run_logger, task


@task(retries=1, retry_delay_seconds=0.01)
def double(number: int) -> int:
    if number == 13:
        raise ValueError("unlucky")
    return 2 * number


@flow
def etl(n: int = 2, day: dt.date | None = None, name: str = "x") -> int:
    """Extract, transform, load.

    Args:
        n: how many
    """
    get_run_logger().warning("n=%r day=%s name=%r", n, day, name)
    get_run_logger().error("nearly done")
    return sum(double.map(list(range(n))).result())


@flow
async def later(n: int = 1) -> int:
    return await double.submit(n)


@flow
def numbers(n: int):
    yield from range(n)
'''


class Done(NamedTuple):
    """What a command did: its exit code, what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Upwell = Callable[..., Done]


def process(folder: Path, *words: str, code: str | None = None) -> subprocess.Popen[str]:
    """A command, or some code, in a process of its own."""
    command = [sys.executable, "-c", code] if code else [str(UPWELL), *words]
    environment = {**os.environ, "UPWELL_HOME": str(folder.parent / "home"), "UPWELL_JOURNAL": "on"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[Path]:
    """The current folder, with flows in it; a home beside; no settings read."""
    for field in Settings.__struct_fields__:
        monkeypatch.delenv(variable_of(field), raising=False)
    monkeypatch.setenv("UPWELL_PROFILE", "")  # so that what a command sets is taken back
    monkeypatch.setenv("UPWELL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("UPWELL_LOGGING_LEVEL", "WARNING")
    monkeypatch.setattr(settings, "_current", None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "flows.py").write_text(FLOWS)
    yield folder
    close_journal()
    monkeypatch.undo()
    ensure_configured()  # the loggers are as other tests want them


@pytest.fixture
def upwell(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Upwell:
    """Runs a command: `upwell("flow-run", "ls")`."""

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(settings, "_current", None)
        monkeypatch.setenv("UPWELL_PROFILE", "")  # the one that a command before was given
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture
def ran(upwell: Upwell) -> Upwell:
    """The same, after one run of `etl` that completed and one that failed."""
    assert upwell("run", "flows.py:etl").code == 0
    assert upwell("run", "flows.py:etl", "--param", "n=14").code == 1
    return upwell


@pytest.fixture
def deployed(upwell: Upwell) -> Upwell:
    """The same, after `upwell deploy`: three deployments of the work pool `default`."""
    assert upwell("init").code == 0
    assert upwell("deploy").code == 0
    return upwell
