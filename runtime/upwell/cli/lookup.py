"""Which runs are meant: by id, or by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeVar
from uuid import UUID

from upwell.cli.output import UsageError
from upwell.core.errors import UnknownRunError

if TYPE_CHECKING:
    from upwell.core.model import FlowRunRecord, Page, TaskRun
    from upwell.history import History

PAGE: Final = 200


class _Named(Protocol):
    @property
    def name(self) -> str: ...


R = TypeVar("R", bound=_Named)


async def find_flow_run(history: History, wanted: str) -> FlowRunRecord:
    """The flow run of this id; or the newest one of this name.

    Raises:
        UnknownRunError: there is none.
    """
    if _is_id(wanted):
        return await history.flow_run(wanted)
    return await _of_name(wanted, "flow run", lambda after: history.flow_runs(text=wanted, limit=PAGE, after=after))


async def flow_run_id(history: History, wanted: str) -> UUID:
    """The id of the newest flow run of this name; an id is taken as it is.

    Raises:
        UnknownRunError: there is none of this name.
    """
    return UUID(wanted) if _is_id(wanted) else (await find_flow_run(history, wanted)).id


async def find_task_run(history: History, wanted: str, of: FlowRunRecord | None = None) -> TaskRun:
    """The task run of this id; or the newest one of this name, `fetch-3`. of: only those of this flow run.

    Raises:
        UnknownRunError: there is none.
    """
    if _is_id(wanted):
        return await history.task_run(wanted)
    within = None if of is None else of.id
    return await _of_name(
        wanted, "task run", lambda after: history.task_runs(flow_run_id=within, text=wanted, limit=PAGE, after=after)
    )


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
