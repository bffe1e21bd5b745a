"""What is done to many flow runs by one request: which are meant, and what became of each."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypedDict, Unpack

from upwell.cli.asking import control, recorded
from upwell.cli.exits import FAILED
from upwell.cli.filters import flow_run_filter
from upwell.cli.lookup import flow_run_id
from upwell.cli.output import UsageError, complain, confirm, note, say, say_json

if TYPE_CHECKING:
    from uuid import UUID

    from upwell.cli.options import Format, WhichFlowRuns
    from upwell.core.bulk import BulkAction, BulkDone, BulkItem, BulkSpec
    from upwell.journal.control import Control

_WOULD_BE: Final[dict[BulkAction, str]] = {
    "cancel": "cancelled",
    "retry": "run again",
    "resume": "resumed",
    "delete": "deleted",
}


class Details(TypedDict, total=False):
    """What is said of a change besides to which runs; see `BulkSpec`."""

    dry_run: bool
    reason: str | None
    grace_seconds: float | None


async def wanted_of(
    action: BulkAction, names: Sequence[str], which: WhichFlowRuns | None, **details: Unpack[Details]
) -> list[BulkSpec]:
    """What is to be asked for: a change of those that are named, or of those that the filter lets through.

    Raises:
        UsageError: neither is given, or both.
        UnknownRunError: there is no run of one of these names.
    """
    from upwell.core.bulk import MOST_RUNS, BulkSpec  # here, as below: help needs none

    fitting = flow_run_filter(which)
    if bool(names) == any(fitting.values()):
        from dataclasses import fields

        from upwell.cli.options import WhichFlowRuns

        options = ", ".join(f"--{field.name}" for field in fields(WhichFlowRuns))
        raise UsageError(f"{action.capitalize()} which runs? Name them, or say which by {options}; not both.")
    async with recorded() as history:  # which sees first who has died
        ids = list(dict.fromkeys([await flow_run_id(history, name) for name in names]))
    return specs(action, ids, **details) or [BulkSpec(action=action, limit=MOST_RUNS, **fitting, **details)]


def specs(action: BulkAction, ids: Sequence[UUID], **details: Unpack[Details]) -> list[BulkSpec]:
    """A change of the runs of these ids, of so many at once as may be."""
    from upwell.core.bulk import MOST_RUNS, BulkSpec

    return [
        BulkSpec(action=action, ids=tuple(ids[first : first + MOST_RUNS]), limit=MOST_RUNS, **details)
        for first in range(0, len(ids), MOST_RUNS)
    ]


async def change(wanted: Sequence[BulkSpec], *, yes: bool, output: Format = "table", asks_always: bool = False) -> int:
    """Have it done, and say what became of each; the exit code: 1 if one was refused. See `changed`."""
    items = await changed(wanted, yes=yes, output=output, asks_always=asks_always)
    return told(items, output, dry_run=wanted[0].dry_run)


async def changed(
    wanted: Sequence[BulkSpec], *, yes: bool, output: Format = "table", asks_always: bool = False
) -> list[BulkItem]:
    """Have it done, and tell people of each; what became of them.

    asks_always: those that are named are asked about, too.

    Raises:
        UsageError: nobody said yes.
    """
    items: list[BulkItem] = []
    async with control() as asked:
        if not (yes or wanted[0].dry_run) and (asks_always or not wanted[0].ids):
            await _ask(asked, wanted[0])
        async for done in _answers(asked, wanted):
            items += done.items
            if output == "table":
                _tell(done.items, wanted[0])
    return items


def told(items: Sequence[BulkItem], output: Format, *, dry_run: bool = False) -> int:
    """Tell programs what became of them; the exit code."""
    refused = sum(item.refused is not None for item in items)
    if output == "json":
        say_json({"done": 0 if dry_run else len(items) - refused, "refused": refused, "items": items})
    elif not items:
        note("No flow run fits.")
    return FAILED if refused else 0


async def meant_by(wanted: Sequence[BulkSpec]) -> list[BulkItem]:
    """Which runs it would be done to."""
    from msgspec.structs import replace

    async with control() as asked:
        answers = _answers(asked, [replace(spec, dry_run=True) for spec in wanted])
        return [item async for done in answers for item in done.items]


async def _answers(asked: Control, wanted: Iterable[BulkSpec]) -> AsyncGenerator[BulkDone]:
    """One request after the other: where one has taken long, the next goes on."""
    from msgspec.structs import replace

    by = _who()
    for spec in wanted:
        done = await asked.change_flow_runs(spec, by=by)
        yield done
        while done.next is not None:
            done = await asked.change_flow_runs(replace(spec, after=done.next), by=by)
            yield done


async def _ask(asked: Control, wanted: BulkSpec) -> None:
    from msgspec.structs import replace

    found = await asked.change_flow_runs(replace(wanted, dry_run=True), by=_who())
    ask_about([item.name for item in found.items], wanted.action, more=found.next is not None)


def ask_about(names: Sequence[str], action: BulkAction, *, more: bool = False) -> None:
    """Ask whether it is to be done to these, and maybe to more; not where there are none.

    Raises:
        UsageError: nobody said yes.
    """
    if names:
        several = f"{'more than ' if more else ''}{len(names):,} flow runs"
        confirm(f"{action.capitalize()} {names[0] if len(names) == 1 else several}?", yes=False)


def _tell(items: Iterable[BulkItem], wanted: BulkSpec) -> None:
    for item in items:
        if item.refused is not None:
            complain(item.refused)
        elif wanted.dry_run:
            say(f"{item.name}: would be {_WOULD_BE[wanted.action]}")
        else:
            say(f"{item.name}: {_became(item, wanted.action)}")


def _became(item: BulkItem, action: BulkAction) -> str:
    run = item.run
    if run is None:
        return "deleted"
    if action == "retry":
        return f"runs again as {run.name} ({run.id})"
    if action == "resume":
        return f"{run.state.name}, until a worker takes it"
    return run.state.name if run.state.is_final() else "asked to end"


def _who() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "the command line"
