"""Which runs are meant: by id, or by name."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from upwell.core.errors import UnknownRunError

if TYPE_CHECKING:
    from upwell.core.model import FlowRunRecord, TaskRun
    from upwell.history import History


async def find_flow_run(history: History, wanted: str) -> FlowRunRecord:
    """The flow run of this id; or the newest one of this name.

    Raises:
        UnknownRunError: there is none.
    """
    if _is_id(wanted):
        return await history.flow_run(wanted)
    after: str | None = None
    while True:
        page = await history.flow_runs(text=wanted, limit=200, after=after)
        for run in page:
            if run.name == wanted:
                return run
        after = page.next
        if after is None:
            raise UnknownRunError(
                f"There is no flow run of the name or id {wanted!r}. `upwell flow-run ls` lists them."
            )


async def find_task_run(history: History, wanted: str) -> TaskRun:
    """The task run of this id; or the newest one of this name, `fetch-3`.

    Raises:
        UnknownRunError: there is none.
    """
    if _is_id(wanted):
        return await history.task_run(wanted)
    after: str | None = None
    while True:
        page = await history.task_runs(text=wanted, limit=200, after=after)
        for run in page:
            if run.name == wanted:
                return run
        after = page.next
        if after is None:
            raise UnknownRunError(
                f"There is no task run of the name or id {wanted!r}. `upwell task-run ls` lists them."
            )


async def find_run(history: History, wanted: str) -> FlowRunRecord | TaskRun:
    """The flow run or task run of this id or name.

    Raises:
        UnknownRunError: there is none.
    """
    try:
        return await find_flow_run(history, wanted)
    except UnknownRunError:
        try:
            return await find_task_run(history, wanted)
        except UnknownRunError:
            raise UnknownRunError(f"There is no flow run or task run of the name or id {wanted!r}.") from None


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
