"""What the listings of runs share: pages read one after the other, log lines."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from upwell.cli.asking import recorded
from upwell.cli.output import UsageError, compact_json, hand_over, note, say, say_json, show
from upwell.core.errors import UnknownRunError

if TYPE_CHECKING:
    from uuid import UUID

    from upwell.cli.options import Format, LogLines
    from upwell.core.model import FlowRunRecord, LogLine, Page, TaskRun
    from upwell.core.states import State
    from upwell.history import History

T = TypeVar("T")

PAGE_ITEMS: Final = 200
LOG_LINES: Final = 1000
"""Of one page."""

MOST_NAMES: Final = 1000
"""Of task runs that are looked up for one log; those of others are left out."""

LOOK_SECONDS: Final = 0.25
"""How often it is looked whether something has happened."""


async def first_items(ask: Callable[[int, str | None], Awaitable[Page[T]]], limit: int) -> list[T]:
    """So many items, page after page; says, beside them, if there are more.

    Args:
        ask: for a page: how many items, after which cursor.
        limit: 0 is all.

    Raises:
        UsageError: a limit below zero, or it is asked for what means nothing.
    """
    checked_limit(limit)
    found: list[T] = []
    after: str | None = None
    while True:
        wanted = PAGE_ITEMS if limit == 0 else min(PAGE_ITEMS, limit - len(found))
        try:
            page = await ask(wanted, after)
        except ValueError as error:
            raise UsageError(str(error)) from error
        found += page.items
        after = page.next
        if after is None:
            return found
        if limit and len(found) >= limit:
            _say_there_are_more(limit)
            return found


def first_of(items: list[T], limit: int) -> list[T]:
    """So many of what is all here; says, beside them, if there are more.

    Raises:
        UsageError: a limit below zero.
    """
    checked_limit(limit)
    if limit and len(items) > limit:
        _say_there_are_more(limit)
        return items[:limit]
    return items


def checked_limit(limit: int) -> int:
    if limit < 0:
        raise UsageError(f"--limit is {limit}, and must be 0 or more.")
    return limit


def _say_there_are_more(limit: int) -> None:
    note(f"The first {limit}; there are more: --limit {limit * 10}, or --limit 0 for all.")


def level_number(name: str) -> int:
    """A level of logging by its name.

    Raises:
        UsageError: there is none of it.
    """
    import logging  # here, as asyncio below: help needs neither

    number = logging.getLevelNamesMapping().get(name.upper())
    if number is None:
        raise UsageError(f"--level is {name!r}, and must be DEBUG, INFO, WARNING, ERROR or CRITICAL.")
    return number


def show_states(states: Sequence[State], output: Format) -> None:
    """Which states a run has been in, since when, and why."""
    show(
        states,
        [
            ("state", lambda state: state),
            ("since", lambda state: state.timestamp),
            ("why", lambda state: state.message),
        ],
        output,
    )


def say_log_line(line: LogLine, run: str | None = None) -> None:
    """As the console shows it. run: the name of the task run that it speaks for."""
    moment = line.timestamp.astimezone()
    said = line.message if run is None else f"Task run {run!r} - {line.message}"
    say(f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03} | {line.level_name:<7} | {said}")


class LogTail:
    """Reads a run's log on from where it has come to, and knows the names of the task runs in it."""

    def __init__(self, history: History, run_id: UUID, least: int) -> None:
        self._history = history
        self._run_id = run_id
        self._least = least
        self._after: str | None = None
        self._seen = 0
        """How many lines after that cursor are known."""
        self._names: dict[UUID, str | None] = {}

    async def name_of(self, line: LogLine) -> str | None:
        """The task run that a line of a flow run's log speaks for; None if it is the flow run's own."""
        found = line.task_run_id
        if found is None or found == self._run_id:
            return None
        if found not in self._names and len(self._names) < MOST_NAMES:
            try:
                self._names[found] = (await self._history.task_run(found)).name
            except UnknownRunError:  # its line was written before it was
                return None
        return self._names.get(found)

    async def has_ended(self) -> bool:
        """Whether the run has."""
        states = await self._history.states(self._run_id)
        return bool(states) and states[-1].is_final()

    async def fresh(self) -> AsyncGenerator[LogLine]:
        """The lines that were not there before, as they are read."""
        while True:
            page = await self._history.logs(self._run_id, level=self._least, limit=LOG_LINES, after=self._after)
            for line in page.items[self._seen :]:
                yield line
            if page.next is None:
                self._seen = len(page.items)
                return
            self._after, self._seen = page.next, 0


async def show_logs(
    find: Callable[[History, str], Awaitable[FlowRunRecord | TaskRun]], wanted: str, lines: LogLines | None
) -> None:
    """The log of the run that is found so; the last lines of it only, or until it has ended.

    Raises:
        UsageError: a level that there is not, or less than no lines.
    """
    from upwell.cli.options import LogLines  # here: help that lists commands does without cyclopts

    lines = lines or LogLines()
    least = level_number(lines.level)
    if lines.tail is not None and lines.tail < 0:
        raise UsageError(f"--tail is {lines.tail}, and must be 0 or more.")
    async with recorded(watching=lines.follow) as history:
        await _show_lines(LogTail(history, (await find(history, wanted)).id, least), lines)


async def _show_lines(log: LogTail, lines: LogLines) -> None:
    follow, tail, output = lines.follow, lines.tail, lines.output

    async def say_line(line: LogLine) -> None:
        if output == "json":
            say(compact_json(line))
        else:
            say_log_line(line, await log.name_of(line))

    if output == "json" and not follow:
        say_json(list(deque([line async for line in log.fresh()], maxlen=tail)))
        return
    if tail is not None:
        for line in deque([line async for line in log.fresh()], maxlen=tail):
            await say_line(line)
    while True:
        ended = not follow or await log.has_ended()  # first: what it logged before is there then
        async for line in log.fresh():
            await say_line(line)
        hand_over()
        if ended:
            return
        await _pause()


async def _pause() -> None:
    from asyncio import sleep  # here: only who follows a run waits

    await sleep(LOOK_SECONDS)
