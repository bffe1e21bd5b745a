"""Finds task runners by name, among the entry points of installed distributions."""

from __future__ import annotations

from typing import Any, Final

from upwell.core.errors import UnknownTaskRunnerError
from upwell.core.seams import TaskRunner

GROUP: Final = "upwell.task_runners"


def runner_named(name: str) -> TaskRunner:
    """A new task runner of this name, with its default options; errors as `runner_class`."""
    runner: TaskRunner = runner_class(name)()
    return runner


def runner_class(name: str) -> Any:
    """The class of the task runner of this name.

    Raises:
        UnknownTaskRunnerError: no installed distribution offers one; lists those that are.
    """
    from importlib import metadata  # only here: it costs a fifth of the whole start

    found = _in_upwell_itself(metadata, name) or _anywhere(metadata, name)
    if found is None:
        known = sorted({entry.name for entry in metadata.entry_points(group=GROUP)})
        raise UnknownTaskRunnerError(
            f"no task runner {name!r} is installed; known: {', '.join(known) or 'none'}; "
            + ("" if known else "install the project with `pip install -e .`; ")
            + "a runner is a name from this list or an object"
        )
    return found.load()


def _in_upwell_itself(metadata: Any, name: str) -> Any:
    """Most names are upwell's own: one distribution is read instead of all that are installed."""
    try:
        own = metadata.distribution("upwell").entry_points
    except metadata.PackageNotFoundError:
        return None
    return next((entry for entry in own if entry.group == GROUP and entry.name == name), None)


def _anywhere(metadata: Any, name: str) -> Any:
    return next(iter(metadata.entry_points(group=GROUP, name=name)), None)
