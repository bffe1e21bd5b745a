"""Slots of several named limits taken together, told once for sync and async code."""

from __future__ import annotations

import asyncio
from typing import Any

from upwell.core.errors import (
    AcquireConcurrencySlotTimeoutError,
    ConcurrencySlotAcquisitionError,
    ConfigurationError,
)
from upwell.core.options import check_at_least_one
from upwell.engine.clock import ERRANDS, Gate
from upwell.engine.current import CURRENT_ENGINE
from upwell.engine.limits import PROCESS_LIMITS, Limits, NamedLimit, Ticket, shared
from upwell.engine.scope import CURRENT_SCOPE
from upwell.engine.steps import Life, TakeSlots

Held = list[tuple[NamedLimit, Ticket]]


def take_all(
    names: str | list[str] | tuple[str, ...],
    occupy: int,
    timeout_seconds: float | None,
    strict: bool,
    *,
    as_rate: bool = False,
) -> Life[Held]:
    """Take slots of each limit, always in the order of their names, so that two takers cannot block each other.

    Raises:
        ConcurrencySlotAcquisitionError: `strict`, and there is no such limit.
        AcquireConcurrencySlotTimeoutError: not had in time; nothing is held then.
        ConfigurationError: more slots than the limit has, or a rate of a limit that does not decay.
    """
    check_at_least_one("occupy", occupy)
    held: Held = []
    if _are_to_be_read(names):
        try:
            yield NamesKnown(timeout_seconds)
        except TimeoutError:
            raise AcquireConcurrencySlotTimeoutError(
                f"The store, which knows whether {names!r} is limited, did not answer within {timeout_seconds} s."
            ) from None
    try:
        for limit in _limits(names, strict):
            if as_rate and not limit.slot_decay_per_second:
                raise ConfigurationError(
                    f"The limit {limit.name!r} has no slot_decay_per_second, so it bounds no rate; "
                    f"set_limit({limit.name!r}, {limit.limit}, slot_decay_per_second=...) gives it one."
                )
            try:
                ticket: Ticket = yield TakeSlots(limit, occupy, timeout_seconds)
            except TimeoutError:
                raise AcquireConcurrencySlotTimeoutError(
                    f"{occupy} slot(s) of the limit {limit.name!r} did not become free within {timeout_seconds} s."
                ) from None
            held.append((limit, ticket))
    except BaseException:
        give_all_back(held)
        raise
    return held


def give_all_back(held: Held) -> None:
    """Give back what `take_all` took."""
    for limit, ticket in reversed(held):
        limit.give_back(ticket)


def _limits(names: Any, strict: bool) -> list[NamedLimit]:
    known = known_limits()
    if not known and not strict:
        return []
    found: list[NamedLimit] = []
    for name in sorted({names} if isinstance(names, str) else set(names)):
        limit = known.get(name)
        if limit is not None:
            found.append(limit)
        elif strict:
            raise ConcurrencySlotAcquisitionError(
                f"There is no limit {name!r}; create it with set_limit({name!r}, ...), Runtime(limits=...), or for all "
                f"processes that share the store with create_limit({name!r}, ...)."
            )
    return found


def _are_to_be_read(names: str | list[str] | tuple[str, ...]) -> bool:
    """Whether one of these may be a limit of the store, which has not been asked yet."""
    known = known_limits()
    if all(known.own(name) is not None for name in ((names,) if isinstance(names, str) else names)):
        return False
    behind = shared()
    return behind is not None and not behind.are_known()


class NamesKnown:
    """Wait until it is known which limits the store has; once in the life of a process.

    Raises:
        TimeoutError: not known within `timeout` seconds.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout

    def block(self) -> None:
        behind = shared()
        if behind is None:
            return
        known = Gate()
        ERRANDS.add(self)
        try:
            behind.when_known(known.open)
            if not known.wait(self._timeout):
                raise TimeoutError
        finally:
            ERRANDS.discard(self)

    async def wait(self) -> None:
        behind = shared()
        if behind is None:
            return
        loop = asyncio.get_running_loop()
        known = asyncio.Event()
        ERRANDS.add(self)
        try:
            behind.when_known(lambda: loop.call_soon_threadsafe(known.set))
            async with asyncio.timeout(self._timeout):
                await known.wait()
        finally:
            ERRANDS.discard(self)


def known_limits() -> Limits:
    """The limits that hold here: those of the runtime around, and the process's."""
    scope = CURRENT_SCOPE.get()
    engine: Any = scope.engine if scope is not None and scope.has_engine else CURRENT_ENGINE.get()
    return engine.limits if engine is not None else PROCESS_LIMITS
