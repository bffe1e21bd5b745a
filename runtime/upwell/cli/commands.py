"""Which commands there are, and what each does in a line."""

from __future__ import annotations

from typing import Final

COMMANDS: Final = {
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

_HOMES: Final = {"concurrency-limit": "limits.of_tags", "gcl": "limits.by_name"}

ALIASES: Final = {"global-concurrency-limit": "gcl"}

HELP: Final = ("--help", "-h")

OPTIONS: Final = {
    "--profile NAME": "Before a command: the profile whose settings it goes by.",
    "--help (-h)": "Say what there is; behind a command: what it does.",
    "--version": "Say the version.",
}

ABOUT: Final = "Flows and tasks from plain Python functions: run them, look at them, schedule them."

EPILOGUE: Final = """Examples:

    upwell run flows.py:etl --param day=2026-01-31
    upwell flow-run ls --state FAILED --since 1d
    upwell server start
    upwell --profile production deployment run etl/nightly --watch

`upwell COMMAND --help` says more. Exit codes: 0 done, 1 failed or refused, 2 not understood."""


def home_of(name: str) -> str:
    """Where a command is: a module of this package, and the name of its group in it."""
    return _HOMES.get(name, f"{name.replace('-', '_')}.app")
