"""Starting: what an import costs and loads, and whole processes around one task.

Every run is a new interpreter, with compiled modules on disk and in the page cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.rows import Measured, Rival, Row, Run, Setting, Side, Unit

COMMAND: Final = Path(sys.executable).with_name("upwell")

UNWANTED: Final = ("prometheus_client", "rich", "upwell_runners")
"""What a plain import must not load."""

_FROM_FACE = "from upwell import flow, task"

_TIMED = "import time; start = time.{clock}(); {statement}; print(time.{clock}() - start)"

_COUNT = "import sys; {statement}; print(sum(name.partition('.')[0] in {unwanted} for name in sys.modules))"

_BARE_SCRIPT = """
import asyncio
async def one(): return 1
async def main(): return await one()
asyncio.run(main())
"""

_SYNC_SCRIPT = """
from upwell import flow, task
@task
def one(): return 1
@flow
def main(): return one()
main()
"""

_ASYNC_SCRIPT = """
import asyncio
from upwell import flow, task
@task
async def one(): return 1
@flow
async def main(): return await one()
asyncio.run(main())
"""

_ASYNC_SUBMIT_SCRIPT = """
import asyncio
from upwell import flow, task
@task
async def one(): return 1
@flow
async def main(): return await one.submit()
asyncio.run(main())
"""

_SYNC_SUBMIT_SCRIPT = """
from upwell import flow, task
@task
def one(): return 1
@flow
def main(): return one.submit().result()
main()
"""


def _python(code: str, more: Mapping[str, str] | None = None) -> str:
    """What the code prints; its log lines are made but not shown. more: of its environment."""
    answer = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_environment(more or {}),
    )
    return answer.stdout


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """In which modules are compiled once, as where upwell is installed."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | dict(more)


def importing(statement: str, clock: str) -> Callable[[int], Measured]:
    """Seconds that the statement takes in a new interpreter, by its own clock."""
    code = _TIMED.format(statement=statement, clock=clock)
    return lambda _: Measured(_python(code))


def unwanted(statement: str) -> Callable[[int], Measured]:
    """How many modules the statement loads that it should not."""
    return lambda _: Measured(_python(_COUNT.format(statement=statement, unwanted=UNWANTED)))


def command(*words: str) -> Callable[[Setting], AbstractContextManager[Run]]:
    """A command of the command line, in a home of its own that knows nothing yet."""

    @contextmanager
    def prepared(_: Setting) -> Generator[Run]:
        with tempfile.TemporaryDirectory() as home:
            environment = _environment({"UPWELL_HOME": home})

            def run() -> None:
                subprocess.run([COMMAND, *words], check=True, capture_output=True, env=environment)

            yield run

    return prepared


def script(code: str) -> Callable[[int], object]:
    return lambda _: _python(code)


@contextmanager
def tracked(_: Setting) -> Generator[Run]:
    """The same script, with its journal in a file that is there already."""
    with tempfile.TemporaryDirectory() as home:
        environment = {"UPWELL_JOURNAL": "on", "UPWELL_HOME": home}
        _python(_SYNC_SCRIPT, environment)
        yield lambda: _python(_SYNC_SCRIPT, environment)


def _import_row(name: str, statement: str, clock: str, said: str) -> Row:
    return Row(
        name=name,
        measures=f"`{statement}` beside `import asyncio`, each in a new interpreter: {said}.",
        leaves_out="The interpreter's own start; the first import ever, which compiles.",
        ours=Side(statement, importing(statement, clock)),
        rivals=(Rival("import asyncio", importing("import asyncio", clock), most=1.6),),
        size=1,
        quick_size=1,
        unit=Unit.MILLISECONDS,
        rounds=20,
        peak=False,
    )


def _process_row(name: str, what: str, code: str) -> Row:
    return Row(
        name=name,
        measures=f"A whole process that runs {what}, beside one that does `asyncio.run` on one coroutine.",
        leaves_out="The first start ever, which compiles; where the log lines go is not a terminal.",
        ours=Side("script", script(code)),
        rivals=(Rival("asyncio.run script", script(_BARE_SCRIPT), most=2.0),),
        size=1,
        quick_size=1,
        unit=Unit.MILLISECONDS,
        rounds=20,
        peak=False,
    )


def _command_row(name: str, most: float, *words: str) -> Row:
    said = " ".join(words)
    return Row(
        name=name,
        measures=f"`upwell {said}`, the whole process, beside one that does `import asyncio`.",
        leaves_out="The first start ever, which compiles; a terminal, on which tables are drawn.",
        ours=Side(f"upwell {said}", command(*words)),
        rivals=(Rival("import asyncio", script("import asyncio"), most=most),),
        size=1,
        quick_size=1,
        unit=Unit.MILLISECONDS,
        rounds=20,
        peak=False,
    )


ROWS = [
    _import_row("import-upwell", "import upwell", "perf_counter", "wall time"),
    _import_row("import-upwell-cpu", "import upwell", "process_time", "time of the processor"),
    _import_row("import-names", _FROM_FACE, "perf_counter", "wall time"),
    _import_row("import-names-cpu", _FROM_FACE, "process_time", "time of the processor"),
    Row(
        name="import-unwanted",
        measures=f"How many modules of {', '.join(UNWANTED)} are loaded by `{_FROM_FACE}`.",
        leaves_out="What is loaded on first use.",
        ours=Side("modules", unwanted(_FROM_FACE)),
        size=1,
        quick_size=1,
        unit=Unit.COUNT,
        most=0,
        rounds=1,
        warm_up=False,
        peak=False,
    ),
    Row(
        name="tracked-script",
        measures="A whole process that runs a sync flow of one task, with its journal in a SQLite file, beside one "
        "that does `asyncio.run` on one coroutine.",
        leaves_out="The first start ever, which compiles, and makes the file.",
        ours=Side("script", tracked),
        rivals=(Rival("asyncio.run script", script(_BARE_SCRIPT), most=2.5),),
        size=1,
        quick_size=1,
        unit=Unit.MILLISECONDS,
        rounds=20,
        peak=False,
    ),
    _process_row("script-sync", "a sync flow that calls one sync task", _SYNC_SCRIPT),
    _process_row("script-async", "an async flow that calls one async task", _ASYNC_SCRIPT),
    _process_row("script-sync-submit", "a sync flow that submits one sync task", _SYNC_SUBMIT_SCRIPT),
    _process_row("script-async-submit", "an async flow that submits one async task", _ASYNC_SUBMIT_SCRIPT),
    _command_row("command-version", 1.0, "version"),
    _command_row("command-help", 1.0, "--help"),
    _command_row("command-group-help", 1.8, "flow-run", "--help"),
    _command_row("command-listing", 3.0, "flow-run", "ls"),
    _command_row("command-filter", 3.0, "flow-run", "ls", "--state", "FAILED"),
]
