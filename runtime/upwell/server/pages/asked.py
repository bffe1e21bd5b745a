"""From the query of an address to what is asked of the store: the same words on every list."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final
from uuid import UUID

from msgspec import Struct

from upwell.core.errors import InvalidRequestError
from upwell.journal.reader import FlowRunFilter
from upwell.journal.reader_task_runs import TaskRunFilter
from upwell.server.pages.rendering import now

PAGE_ITEMS: Final = 50

_LONG_AGO: Final = re.compile(r"(\d{1,4})\s*([mhd])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}

LIST_QUERY: Final = frozenset({"state", "flow", "deployment", "tag", "q", "since", "until", "after"})
TASK_QUERY: Final = frozenset({"state", "flow", "run", "task", "tag", "q", "since", "until", "after"})


class Asked(Struct, frozen=True, kw_only=True):
    """What a list is asked for, as its address says it. since: a time, or how long ago: `24h`, `7d`."""

    state: str = ""
    flow: str = ""
    deployment: str = ""
    run: str = ""
    task: str = ""
    tag: str = ""
    q: str = ""
    since: str = ""
    until: str = ""
    after: str = ""

    @classmethod
    def of(cls, query: dict[str, str]) -> Asked:
        """As this query has it, without what it does not say."""
        return cls(**{name: query[name].strip() for name in cls.__struct_fields__ if query.get(name)})

    def query(self, **changed: str) -> dict[str, str]:
        """The parts of an address for the same list, some of them changed; without the page."""
        said = {name: getattr(self, name) for name in self.__struct_fields__ if name != "after"}
        return {name: value for name, value in {**said, **changed}.items() if value}

    def flow_runs(self) -> FlowRunFilter:
        """The flow runs that are asked for; those ahead of their time only where a state is said."""
        return FlowRunFilter(
            flow=self.flow or None,
            state=self.state or None,
            tags=[self.tag] if self.tag else None,
            since=moment_of(self.since),
            until=moment_of(self.until),
            text=self.q or None,
            parent=None,
            deployment=id_of(self.deployment) if self.deployment else None,
            ahead=bool(self.state),
        )

    def task_runs(self) -> TaskRunFilter:
        """The task runs that are asked for."""
        return TaskRunFilter(
            flow_run_id=id_of(self.run) if self.run else None,
            task=self.task or None,
            flow=self.flow or None,
            state=self.state or None,
            tags=[self.tag] if self.tag else None,
            since=moment_of(self.since),
            until=moment_of(self.until),
            text=self.q or None,
            parent=None,
        )


def flow_run_filter(
    *,
    flow: str | None = None,
    state: str | None = None,
    since: dt.datetime | None = None,
    parent: UUID | None = None,
    text: str | None = None,
    deployment: UUID | None = None,
    ahead: bool = True,
) -> FlowRunFilter:
    """A filter of flow runs that asks for these alone. ahead: those that are only scheduled, too."""
    return FlowRunFilter(
        flow=flow,
        state=state,
        tags=None,
        since=since,
        until=None,
        text=text,
        parent=parent,
        deployment=deployment,
        ahead=ahead,
    )


def id_of(text: str) -> UUID:
    """The id that a text says.

    Raises:
        InvalidRequestError: it says none.
    """
    try:
        return UUID(text)
    except ValueError:
        raise InvalidRequestError(f"{text[:60]!r} is no id of a run or deployment.") from None


def moment_of(text: str) -> dt.datetime | None:
    """A time, or how long ago it was: `2026-11-21T10:00`, `24h`, `7d`.

    Raises:
        InvalidRequestError: it is neither.
    """
    if not text:
        return None
    if (found := _LONG_AGO.fullmatch(text)) is not None:
        return now() - dt.timedelta(**{_UNITS[found[2]]: int(found[1])})
    try:
        given = dt.datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        raise InvalidRequestError(f"{text[:60]!r} is no time: say 2026-11-21T10:00, or 24h, or 7d.") from None
    return given if given.tzinfo is not None else given.replace(tzinfo=dt.UTC)


__all__ = ["LIST_QUERY", "PAGE_ITEMS", "TASK_QUERY", "Asked", "flow_run_filter", "id_of", "moment_of"]
