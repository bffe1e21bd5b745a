"""Which runs are meant: by id, by the beginning of one, or by name.

Task runs have no ids in the store, but an id begins with the moment at which its run was created: so those whose ids
begin alike are found by when they were created, and nobody looks through all of them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeVar
from uuid import UUID

from upwell.cli.output import UsageError
from upwell.core.errors import UnknownRunError
from upwell.core.ids import ids_beginning, milliseconds_of

if TYPE_CHECKING:
    from upwell.core.model import FlowRunRecord, Page, TaskRun
    from upwell.history import History

PAGE: Final = 200

MOST_SHOWN: Final = 5
"""Runs that are named where several could be meant."""

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class _Run(Protocol):
    @property
    def id(self) -> UUID: ...

    @property
    def name(self) -> str: ...


R = TypeVar("R", bound=_Run)


async def find_flow_run(history: History, wanted: str) -> FlowRunRecord:
    """The flow run of this id, or the one whose id begins so; or the newest one of this name.

    Raises:
        UnknownRunError: there is none.
        UsageError: several begin so.
    """
    if _is_id(wanted):
        return await history.flow_run(wanted)
    if ids_beginning(wanted) is not None:
        runs = await history.flow_runs_by_id(wanted, limit=MOST_SHOWN + 1)
        if (found := _only(runs, wanted, "flow run")) is not None:
            return found
    return await _of_name(wanted, "flow run", lambda after: history.flow_runs(text=wanted, limit=PAGE, after=after))


async def flow_run_id(history: History, wanted: str) -> UUID:
    """The id of the flow run that is meant; one that is whole is taken as it is.

    Raises:
        UnknownRunError: there is none.
        UsageError: several begin so.
    """
    return UUID(wanted) if _is_id(wanted) else (await find_flow_run(history, wanted)).id


async def find_task_run(history: History, wanted: str, of: FlowRunRecord | None = None) -> TaskRun:
    """The task run of this id, or the one that has begun and whose id begins so; or the newest one of this name,
    `fetch-3`. of: only those of this flow run.

    Raises:
        UnknownRunError: there is none.
        UsageError: several begin so.
    """
    if _is_id(wanted):
        return await history.task_run(wanted)
    within = None if of is None else of.id
    if (between := ids_beginning(wanted)) is not None:
        runs = await _task_runs_between(history, *between, within)
        if (found := _only(runs, wanted, "task run")) is not None:
            return found
    return await _of_name(
        wanted, "task run", lambda after: history.task_runs(flow_run_id=within, text=wanted, limit=PAGE, after=after)
    )


async def _task_runs_between(history: History, first: UUID, last: UUID, flow_run_id: UUID | None) -> list[TaskRun]:
    """Some task runs that have begun, and whose ids are the first, the last, or between."""
    try:
        since, until = (_EPOCH + dt.timedelta(milliseconds=milliseconds_of(one)) for one in (first, last))
        until += dt.timedelta(milliseconds=1)
    except OverflowError:  # after the year 9999
        return []
    found: list[TaskRun] = []
    after: str | None = None
    while len(found) <= MOST_SHOWN:
        page = await history.task_runs(flow_run_id=flow_run_id, since=since, until=until, limit=PAGE, after=after)
        found += [run for run in page if first <= run.id <= last]
        after = page.next
        if after is None:
            break
    return found


def _only(found: list[R], beginning: str, what: str) -> R | None:
    """The one of these whose ids begin so, if there is one.

    Raises:
        UsageError: there are several.
    """
    if len(found) > 1:
        those = "".join(f"\n  {run.id}  {run.name}" for run in found[:MOST_SHOWN])
        more = "\n  and more" if len(found) > MOST_SHOWN else ""
        raise UsageError(f"The ids of several {what}s begin with {beginning}; say more of the one meant:{those}{more}")
    return found[0] if found else None


async def _of_name(name: str, what: str, ask: Callable[[str | None], Awaitable[Page[R]]]) -> R:
    """The newest run of this name among all pages."""
    after: str | None = None
    while True:
        page = await ask(after)
        for run in page:
            if run.name == name:
                return run
        after = page.next
        if after is None:
            command = what.replace(" ", "-")
            raise UnknownRunError(f"There is no {what} of the name or id {name!r}. `upwell {command} ls` lists them.")


async def find_run(history: History, wanted: str) -> FlowRunRecord | TaskRun:
    """The flow run or task run that is meant.

    Raises:
        UnknownRunError: there is none.
        UsageError: the ids of several begin so.
    """
    try:
        return await find_flow_run(history, wanted)
    except UnknownRunError:
        try:
            return await find_task_run(history, wanted)
        except UnknownRunError:
            raise UnknownRunError(f"There is no flow run or task run of the name or id {wanted!r}.") from None


def ref(deployment: str) -> UUID | str:
    """A deployment as it is asked for.

    Raises:
        UsageError: neither an id nor flow/name.
    """
    if _is_id(deployment):
        return UUID(deployment)
    if "/" not in deployment:
        raise UsageError(f"{deployment!r} is no deployment: it must be flow/name, or an id.")
    return deployment


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
