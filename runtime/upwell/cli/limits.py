"""`upwell gcl` and `upwell concurrency-limit`: limits that hold for all processes that share the store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

from msgspec import Struct

from upwell.cli import asking
from upwell.cli.group import group
from upwell.cli.output import UsageError, confirm, say, show, show_fields
from upwell.core.errors import ConflictError, NotFoundError

if TYPE_CHECKING:
    from cyclopts import Parameter

    from upwell.cli.options import Decay, LimitName, LimitTag, Output, Slots, Yes
    from upwell.journal.limit_store import LimitInUse, LimitStore

T = TypeVar("T")

OF_TAG = "tag:"
"""What the names of the limits of tags begin with."""

by_name = group(
    "gcl",
    "upwell gcl create database --limit 5",
    "upwell gcl create api --limit 10 --slot-decay-per-second 2",
    "upwell gcl update database --limit 10",
    "upwell gcl ls",
    more='In code: `with concurrency("database"):`, or `rate_limit("api")`.',
)
of_tags = group(
    "concurrency-limit",
    "upwell concurrency-limit create database 5",
    "upwell concurrency-limit ls",
    "upwell concurrency-limit delete database",
    more='It holds for the task runs that have the tag: @task(tags=["database"]).',
)


class Limit(Struct, frozen=True, kw_only=True):
    """A limit as it stands. taken: slots in use. waiting: how many wait for some."""

    name: str
    limit: int
    taken: float
    waiting: int
    slot_decay_per_second: float
    active: bool


# --- by name ------------------------------------------------------------------------------------------------


@by_name.command(name="ls", reads=True)
async def list_by_name(*, output: Output = "table") -> None:
    """List all limits, those of tags too, and how they stand."""
    _show(await limits(), output, none="There is no limit. `upwell gcl create NAME --limit 5` makes one.")


@by_name.command(name="inspect", reads=True)
async def inspect_by_name(name: LimitName, /, *, output: Output = "table") -> None:
    """Show one limit."""
    _show_one(await _limit(name), output)


@by_name.command(name="create")
async def create_by_name(
    name: LimitName, /, *, limit: Slots, slot_decay_per_second: Decay = None, disable: bool = False
) -> None:
    """Make a limit.

    Args:
        disable: It lets everybody through until it is enabled.
    """
    from upwell.journal.limit_store import LimitRow

    _check(limit, slot_decay_per_second)
    row = LimitRow(name, limit, slot_decay_per_second or 0.0, not disable)
    if not await _asked(lambda store: store.create(row)):
        raise ConflictError(
            f"There is a limit {name!r} already: `upwell gcl update {name} --limit {limit}` changes it."
        )
    say(f"The limit {name} of {limit} is made.")


@by_name.command(name="update")
async def update_by_name(
    name: LimitName,
    /,
    *,
    limit: Slots | None = None,
    slot_decay_per_second: Decay = None,
    enable: Annotated[bool | None, Parameter(negative="--disable")] = None,
) -> None:
    """Change a limit while it is in use; what is not said stays."""
    if limit is None and slot_decay_per_second is None and enable is None:
        raise UsageError("Say what to change: --limit, --slot-decay-per-second, --enable or --disable.")
    await _change(name, limit, slot_decay_per_second, enable)
    say(f"The limit {name} is changed.")


@by_name.command(name="enable")
async def enable_by_name(name: LimitName, /) -> None:
    """Have a limit hold."""
    await _change(name, active=True)
    say(f"The limit {name} holds.")


@by_name.command(name="disable")
async def disable_by_name(name: LimitName, /) -> None:
    """Have a limit let everybody through."""
    await _change(name, active=False)
    say(f"The limit {name} lets everybody through.")


@by_name.command(name="delete")
async def delete_by_name(name: LimitName, /, *, yes: Yes = False) -> None:
    """Delete a limit: who waits is let through."""
    confirm(f"Delete the limit {name}?", yes)
    await _delete(name, name)


# --- of tags ------------------------------------------------------------------------------------------------


@of_tags.command(name="ls", reads=True)
async def list_of_tags(*, output: Output = "table") -> None:
    """List the limits of tags, and how they stand."""
    found = [_of_tag(limit) for limit in await limits() if limit.name.startswith(OF_TAG)]
    _show(found, output, none="No tag has a limit. `upwell concurrency-limit create TAG 5` gives it one.")


@of_tags.command(name="inspect", reads=True)
async def inspect_of_tag(tag: LimitTag, /, *, output: Output = "table") -> None:
    """Show the limit of a tag."""
    _show_one(_of_tag(await _limit(OF_TAG + tag)), output)


@of_tags.command(name="create")
async def create_of_tag(tag: LimitTag, limit: Annotated[int, Parameter(help="How many at once.")], /) -> None:
    """Have at most so many task runs with a tag run at once; in place of the limit that the tag has."""
    from upwell.journal.limit_store import LimitRow

    _check(limit)
    if not await _asked(lambda store: store.create(LimitRow(OF_TAG + tag, limit, 0.0, True))):
        await _change(OF_TAG + tag, limit)
    say(f"At most {limit} task runs with the tag {tag} run at once.")


@of_tags.command(name="delete")
async def delete_of_tag(tag: LimitTag, /, *, yes: Yes = False) -> None:
    """Have any number of task runs with a tag run."""
    confirm(f"Delete the limit of the tag {tag}?", yes)
    await _delete(OF_TAG + tag, tag)


# --- parts --------------------------------------------------------------------------------------------------


async def limits() -> list[Limit]:
    """All limits, and how they stand."""
    return [_shown(limit) for limit in await _asked(lambda store: store.in_use())]


async def _limit(name: str) -> Limit:
    for limit in await limits():
        if limit.name == name:
            return limit
    raise _absent(name)


def _absent(name: str) -> NotFoundError:
    plain = name.removeprefix(OF_TAG)
    if plain == name:
        return NotFoundError(f"There is no limit {name!r}. `upwell gcl ls` lists them.")
    return NotFoundError(f"The tag {plain!r} has no limit. `upwell concurrency-limit ls` lists those that have one.")


def _check(limit: int | None, slot_decay_per_second: float | None = None) -> None:
    if limit is not None and limit < 0:
        raise UsageError(f"The limit is {limit}, and must be 0 or more.")
    if slot_decay_per_second is not None and slot_decay_per_second < 0:
        raise UsageError(f"--slot-decay-per-second is {slot_decay_per_second:g}, and must be 0 or more.")


async def _change(
    name: str, limit: int | None = None, slot_decay_per_second: float | None = None, active: bool | None = None
) -> None:
    from upwell.journal.limit_store import LimitChange

    _check(limit, slot_decay_per_second)
    if not await _asked(lambda store: store.update(LimitChange(name, limit, slot_decay_per_second, active))):
        raise _absent(name)


async def _delete(name: str, shown: str) -> None:
    if not await _asked(lambda store: store.delete(name)):
        raise _absent(name)
    say(f"The limit {shown} is deleted.")


async def _asked(ask: Callable[[LimitStore], Awaitable[T]]) -> T:
    async with asking.limits() as store:
        return await ask(store)


def _shown(limit: LimitInUse) -> Limit:
    return Limit(
        name=limit.name,
        limit=limit.slots,
        taken=round(limit.taken, 3),
        waiting=limit.waiting,
        slot_decay_per_second=limit.slot_decay_per_second,
        active=limit.active,
    )


def _of_tag(limit: Limit) -> Limit:
    from msgspec.structs import replace

    return replace(limit, name=limit.name.removeprefix(OF_TAG))


def _show(limits: list[Limit], output: Output, none: str) -> None:
    show(
        limits,
        [
            ("name", lambda it: it.name),
            ("limit", lambda it: it.limit),
            ("taken", lambda it: f"{it.taken:g}"),
            ("waiting", lambda it: it.waiting),
            ("decay a second", lambda it: f"{it.slot_decay_per_second:g}" if it.slot_decay_per_second else ""),
            ("active", lambda it: it.active),
        ],
        output,
        none=none,
    )


def _show_one(limit: Limit, output: Output) -> None:
    show_fields(limit, {name.replace("_", " "): getattr(limit, name) for name in limit.__struct_fields__}, output)
