"""What the tests of durable flows share: a journal in a file, and runs that look as if their process had been killed.

A flow that raises `Killed` has failed; `killed` makes the store say what it says after `kill -9`: the run is to be gone
on with, what was under way in it has crashed. Real kills are in `tests/oracle`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from upwell.composition import close_journal
from upwell.engine.console import ensure_configured
from upwell.engine.current import close_portal
from upwell.settings import temporary_settings


class Killed(Exception):
    """Here the process dies, or so it looks."""


@contextmanager
def journal(home: Path, **updates: Any) -> Generator[Path]:
    """A journal in this folder, closed at the end; the file."""
    settings: dict[str, Any] = {"journal": "on", "home": str(home), "logging_level": "CRITICAL", **updates}
    try:
        with temporary_settings(**settings):
            try:
                yield home / "upwell.db"
            finally:
                close_portal()
                close_journal()
    finally:
        ensure_configured()  # the loggers are as other tests want them


@contextmanager
def killed(home: Path) -> Generator[None]:
    """What runs inside raises `Killed`; after that all flow runs that failed look as if their process had died."""
    try:
        yield
    except Killed:
        pass
    else:
        raise AssertionError("It did not come to the place where it is killed.")
    finally:
        close_journal()
    look_killed(home)


def look_killed(home: Path, which: str = "FAILED") -> None:
    """Have flow runs of this state look as if their process had died."""
    close_journal()
    change(
        home,
        f"""UPDATE task_runs SET state = 'CRASHED' WHERE state <> 'COMPLETED' AND message LIKE '%Killed%';
        UPDATE flow_runs SET state = 'SCHEDULED', state_name = 'AwaitingResume', ended = NULL, process_id = NULL,
            crashes = crashes + 1 WHERE state = '{which}';""",
    )


def change(home: Path, script: str) -> None:
    """Change the store behind everybody's back."""
    connection = sqlite3.connect(home / "upwell.db")
    try:
        connection.executescript(script)
        connection.commit()
    finally:
        connection.close()


def ask(home: Path, query: str) -> list[tuple[Any, ...]]:
    """What the store says, now that everything is written."""
    close_journal()
    connection = sqlite3.connect(home / "upwell.db")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()
