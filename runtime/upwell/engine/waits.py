"""Waits between runs: who holds what while it waits, and whether a wait could ever end."""

# An isinstance check cannot say what a generic future holds, and here nobody needs to know.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
from __future__ import annotations

from typing import Any, Final

from upwell.core.errors import DependencyCycleError
from upwell.engine.future import RunFuture
from upwell.engine.gates import LimitGate
from upwell.engine.limits import NamedLimit, Ticket
from upwell.engine.steps import Life, TakeSlots

Run = RunFuture[Any]
Tickets = tuple[tuple[NamedLimit, Ticket], ...]

MOST_STEPS: Final = 1_000
"""How far a chain of waits is followed; a longer one is taken to be sound."""


def holders_of(run: Run) -> list[Run]:
    """The runs whose slots and worker a wait inside `run` keeps busy: itself, and those that called it directly."""
    holders = [run]
    while run.inline and run.call.parent is not None:
        run = run.call.parent
        holders.append(run)
    return holders


def limits_held_by(holders: list[Run]) -> list[NamedLimit]:
    """The named limits of which these runs hold slots now."""
    held = [limit for holder in holders for limit, _ in holder.tickets]
    for holder in holders:
        held += [gate.limit for gate in holder.call.gates[: holder.gates_held] if isinstance(gate, LimitGate)]
    return held


def take_tickets(limits: list[NamedLimit]) -> Life[Tickets]:
    """Take a slot of each limit, for a direct call."""
    tickets: list[tuple[NamedLimit, Ticket]] = []
    try:
        for limit in limits:
            tickets.append((limit, (yield TakeSlots(limit))))
    except BaseException:
        for limit, ticket in reversed(tickets):
            limit.give_back(ticket)
        raise
    return tuple(tickets)


def give_back_tickets(run: Run) -> list[NamedLimit]:
    """Give back the slots of a direct call; returns the limits that they were of."""
    if not run.tickets:
        return []
    tickets, run.tickets = run.tickets, ()
    for limit, ticket in reversed(tickets):
        limit.give_back(ticket)
    return [limit for limit, _ in tickets]


def check_no_cycle(run: Run, target: Any) -> None:
    """Refuse a wait that could never end, because what is waited for waits, in the end, for the one who waits.

    Raises:
        DependencyCycleError: naming the way round.
    """
    waiting = {id(holder) for holder in holders_of(run)}
    steps, ahead, seen = 0, [(target, run.name)], set[int]()
    while ahead and steps < MOST_STEPS:
        steps += 1
        step, way = ahead.pop()
        if not isinstance(step, RunFuture) or step.done or id(step) in seen:
            continue
        seen.add(id(step))
        way = f"{way} -> {step.name}"
        if id(step) in waiting:
            raise DependencyCycleError(
                f"{run.name!r} would wait for itself and never end: {way}. "
                "Return the future instead of waiting for it, or wait for it outside of this run."
            )
        if step.waits_for is not None:
            ahead.append((step.waits_for, way))
        ahead.extend((upstream, way) for upstream in step.unfinished_upstream())
