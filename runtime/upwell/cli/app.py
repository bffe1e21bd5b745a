"""The commands there are, by name: each is loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from cyclopts import App, CycloptsError, Group, Parameter

from upwell import __version__
from upwell.cli.exits import FAILED, MISUSED
from upwell.cli.output import UsageError, complain
from upwell.core.errors import UpwellError

_COMMANDS: Final = {
    "Run and look": {
        "run": "Run a flow, here and now.",
        "flow": "Flows: what has run, or can be started.",
        "flow-run": "Flow runs: list, inspect, follow, cancel, retry, resume.",
        "task-run": "Task runs: list, inspect, their logs.",
        "explain": "Why a run does not go on, or ran again, or did not.",
    },
    "Deploy and schedule": {
        "init": "Write an upwell.yaml for this folder.",
        "deploy": "Make the deployments of upwell.yaml what it says.",
        "deployment": "Deployments: list, run, schedule, pause, delete.",
        "work-pool": "Work pools and their queues: where workers take runs from.",
        "worker": "Start a worker; see who works.",
        "concurrency-limit": "Limits for task runs with a tag.",
        "gcl": "Limits by name; in full, global-concurrency-limit.",
    },
    "Serve and keep": {
        "server": "The server: API and web UI.",
        "api-key": "Keys to the server's API.",
        "config": "Settings: view, set, unset.",
        "profile": "Profiles: sets of settings by name.",
        "database": "The database: upgrade, backup, vacuum, size.",
        "doctor": "What is wrong with this installation.",
        "bench": "Measure this machine: task runs against bare asyncio, in ten seconds.",
        "completion": "Completion for your shell.",
        "version": "The versions of what is installed.",
    },
}

_MODULES: Final = {"concurrency-limit": "limits:of_tags", "gcl": "limits:by_name"}
"""Where a command is not the `app` of the module of its name."""

_ALIASES: Final = {"global-concurrency-limit": "gcl"}

EPILOGUE: Final = """Examples:

    upwell run flows.py:etl --param day=2026-01-31
    upwell flow-run ls --state FAILED --since 1d
    upwell server start
    upwell --profile production deployment run etl/nightly --watch

`upwell COMMAND --help` says more. Exit codes: 0 done, 1 failed or refused, 2 not understood."""


@cache
def make_app() -> App:
    """The command line, with no group of it loaded."""
    app = App(
        name="upwell",
        help="Flows and tasks from plain Python functions: run them, look at them, schedule them.",
        help_epilogue=EPILOGUE,
        help_format="plaintext",
        version=__version__,
        default_parameter=Parameter(negative=(), show_default=_default_text),
        result_action="return_value",
        exit_on_error=False,
        suppress_keyboard_interrupt=False,
    )
    for order, (title, commands) in enumerate(_COMMANDS.items()):
        group = Group(title, sort_key=order)
        for place, (name, summary) in enumerate(commands.items()):
            home = _MODULES.get(name, f"{name.replace('-', '_')}:app")
            app.command(f"upwell.cli.{home}", name=name, help=summary, group=group, sort_key=place)
    return app


def _default_text(default: object) -> str | None:
    """How help shows a default: not at all where it is nothing."""
    return None if str(default) in ("[]", "False", "None") else str(default)


def run_command(tokens: Sequence[str]) -> int:
    """Run one command; returns its exit code."""
    first = tokens[:1]
    try:
        code: Any = make_app()([*(_ALIASES.get(name, name) for name in first), *tokens[1:]])
    except CycloptsError:  # it has said what it did not understand
        return MISUSED
    except UsageError as error:
        complain(str(error))
        return MISUSED
    except UpwellError as error:
        complain(str(error))
        return FAILED
    return code if isinstance(code, int) else 0
