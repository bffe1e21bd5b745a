"""The options that commands have, and what their help says of them.

Commands name them in their annotations, which are looked at when cyclopts is to know of them (`app.py`): to import this
loads cyclopts, so that they import it for type checkers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from cyclopts import Parameter

# --- how it is said -----------------------------------------------------------------------------------------

Format: TypeAlias = Literal["table", "json"]
Output: TypeAlias = Annotated[Format, Parameter(name=("--output", "-o"), help="table or json.", show_choices=False)]
Yes: TypeAlias = Annotated[bool, Parameter(name=("--yes", "-y"), help="Do not ask.")]

# --- which ones ---------------------------------------------------------------------------------------------

State: TypeAlias = Annotated[str | None, Parameter(help="A type of state (FAILED) or a state's name (TimedOut).")]
Since: TypeAlias = Annotated[str | None, Parameter(help="Created since: 90s, 15m, 2h, 3d ago, or 2026-01-31T08:00.")]
Until: TypeAlias = Annotated[str | None, Parameter(help="Created before: the same.")]
Text: TypeAlias = Annotated[str | None, Parameter(help="Part of a name.")]
Tag: TypeAlias = Annotated[tuple[str, ...], Parameter(name="--tag", help="A tag; may be given often.")]
Order: TypeAlias = Annotated[Literal["newest", "oldest"], Parameter(help="Which come first.")]
Limit: TypeAlias = Annotated[int, Parameter(name=("--limit", "-n"), help="How many at most; 0 is all.")]


@Parameter(name="*")  # its fields are options of the command
@dataclass(frozen=True, kw_only=True)
class WhichRuns:
    """Which runs are meant, where they are not named one by one."""

    flow: Annotated[str | None, Parameter(help="The name of their flow.")] = None
    state: State = None
    tag: Tag = ()
    since: Since = None
    until: Until = None
    text: Text = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class WhichFlowRuns(WhichRuns):
    """The same of flow runs."""

    deployment: Annotated[str | None, Parameter(help="Their deployment, flow/name.")] = None


DryRun: TypeAlias = Annotated[bool, Parameter(help="Do nothing; say to which it would be done.")]
Runs: TypeAlias = Annotated[tuple[str, ...], Parameter(help="Flow runs, by id or name.")]
Deployments: TypeAlias = Annotated[list[str], Parameter(help="Deployments, flow/name or id.")]
PoolName: TypeAlias = Annotated[str, Parameter(help="The work pool.")]
QueueName: TypeAlias = Annotated[str, Parameter(help="The queue.")]
ProfileName: TypeAlias = Annotated[str, Parameter(help="The profile.")]

Entrypoint: TypeAlias = Annotated[
    str | None, Parameter(help="Where its flow is now, FILE.py:FLOW or MODULE:FLOW, if it is not found by itself.")
]

KeepChanged: TypeAlias = Annotated[
    bool, Parameter(help="What is finished counts although the code of its task has changed.")
]

# --- what of their logs -------------------------------------------------------------------------------------

Follow: TypeAlias = Annotated[bool, Parameter(name=("--follow", "-f"), help="Go on until the run has ended.")]
Level: TypeAlias = Annotated[str, Parameter(help="The least severe lines: DEBUG, INFO, WARNING, ERROR, CRITICAL.")]
Tail: TypeAlias = Annotated[int | None, Parameter(help="Only the last so many lines.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LogLines:
    """Which lines of a log are shown, and how."""

    follow: Follow = False
    level: Level = "DEBUG"
    tail: Tail = None
    output: Output = "table"


# --- parameters of flows ------------------------------------------------------------------------------------

Param: TypeAlias = Annotated[
    tuple[str, ...],
    Parameter(
        name=("--param", "-p"),
        negative=(),
        allow_leading_hyphen=True,
        help="One parameter, NAME=VALUE; the value is JSON, or a text. May be given often.",
    ),
]
Params: TypeAlias = Annotated[
    str | None, Parameter(help="All parameters as a JSON object, or @FILE that holds one; --param goes before it.")
]

# --- limits -------------------------------------------------------------------------------------------------

LimitName: TypeAlias = Annotated[str, Parameter(help="The limit's name.")]
LimitTag: TypeAlias = Annotated[str, Parameter(help="The tag.")]
Slots: TypeAlias = Annotated[int, Parameter(name=("--limit", "-l"), help="How many slots there are.")]
Decay: TypeAlias = Annotated[
    float | None, Parameter(help="Slots become free with time, this many a second, and not by being given back.")
]
