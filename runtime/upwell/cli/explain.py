"""`upwell explain`: why a run does not go on, why it ran again, why it did not run."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Final

from cyclopts import App
from msgspec import Struct

from upwell.cli.asking import control
from upwell.cli.lookup import find_run
from upwell.cli.output import Output, examples, moment_text, say, say_json, span_text
from upwell.cli.times import now
from upwell.core.errors import NotFoundError
from upwell.core.model import FlowRunRecord, TaskRun
from upwell.core.states import StateType
from upwell.history import History

if TYPE_CHECKING:
    from upwell.core.deployments import Deployment
    from upwell.core.states import State
    from upwell.journal.control import Control

app = App(
    name="explain",
    help_epilogue=examples(
        "upwell explain cheery-hippo",
        "upwell explain fetch-3",
        "upwell explain 01a200d6-3c1c-7ede-aaf4-748f97175773 -o json",
    ),
)

MOST_SHOWN: Final = 5


class Explanation(Struct, frozen=True, kw_only=True):
    """What is known of why a run is as it is."""

    run: str
    state: str
    reasons: tuple[str, ...]


@app.default
async def explain(run: str, /, *, output: Output = "table") -> None:
    """Say why a flow run or task run does not go on, ran again, or did not run.

    Args:
        run: Its id or name.
    """
    async with History() as history:
        found = await find_run(history, run)
        states = await history.states(found.id)
        of_kind = _of_flow_run(history, found) if isinstance(found, FlowRunRecord) else _of_task_run(history, found)
        reasons = [*_told_by(states), *[reason async for reason in of_kind]]
    explanation = Explanation(run=found.name, state=found.state.name, reasons=tuple(reasons))
    if output == "json":
        say_json(explanation)
        return
    say(f"{found.name} is {found.state.name}.")
    for reason in reasons:
        say(f"  - {reason}")


def _told_by(states: Sequence[State]) -> list[str]:
    """What a run's own states say: each that has a reason, and how often it began."""
    told = [f"{moment_text(it.timestamp)} {it.name}: {it.message}" for it in states if it.message]
    began = sum(it.type is StateType.RUNNING for it in states)
    if began > 1:
        told.append(f"It began {began} times, for the reasons above.")
    if states and states[-1].name == "Cached":
        told.append("Its function was not called: a result was there. `task.explain_cache(...)` says by which key.")
    return told


# --- flow runs ----------------------------------------------------------------------------------------------


async def _of_flow_run(history: History, run: FlowRunRecord) -> AsyncIterator[str]:
    state = run.state
    if state.type is StateType.SCHEDULED:
        async for reason in _why_not_begun(history, run):
            yield reason
    elif state.type in (StateType.RUNNING, StateType.CANCELLING):
        async for reason in _what_is_under_way(history, run):
            yield reason
    elif state.type is StateType.FAILED:
        async for reason in _what_failed(history, run):
            yield reason
    elif state.type is StateType.CRASHED:
        yield "Its process ended before it did, or was not heard of any more."
        yield "`upwell flow-run retry` runs it again, if it is a deployment's; `@flow(durable=True)` would go on."
    if run.crashes:
        yield f"Its process died {run.crashes} times, and it went on in another."


async def _why_not_begun(history: History, run: FlowRunRecord) -> AsyncIterator[str]:
    due = run.due or run.state.scheduled_time
    if due is not None and due > now():
        yield f"It is due at {moment_text(due)}, in {span_text((due - now()).total_seconds())}."
    elif due is not None:
        yield f"It was due at {moment_text(due)}, {span_text((now() - due).total_seconds())} ago."
    if run.state.name == "AwaitingRetry":
        yield "An attempt failed, and it waits before the next."
        return
    if run.state.name == "AwaitingConcurrencySlot":
        async for reason in _full_limits():
            yield reason
    if run.deployment_id is None:
        if run.durable:
            yield f"It is durable: its flow's script, started again, or `upwell.resume('{run.id}')` goes on with it."
        return
    async with control() as asked:
        try:
            deployment = await asked.deployment(run.deployment_id)
        except NotFoundError:
            yield "Its deployment was deleted, so nobody will carry it out."
            return
        async for reason in _of_deployment(history, asked, deployment, due):
            yield reason


async def _of_deployment(
    history: History, asked: Control, deployment: Deployment, due: dt.datetime | None
) -> AsyncIterator[str]:
    name = deployment.full_name
    if deployment.paused:
        yield f"Its deployment {name} is paused: `upwell deployment resume {name}`."
    if deployment.concurrency_limit is not None:
        running = await _how_many_run(history, name)
        if running >= deployment.concurrency_limit:
            yield f"{running} runs of {name} go on, and there may be {deployment.concurrency_limit} at once."
    workers = [it for it in await asked.workers(deployment.work_pool) if it.online]
    if deployment.work_pool is None:
        workers = [it for it in workers if it.pool is None]
        if not workers:
            yield f"Nobody serves {name}: start the script that calls serve()."
    else:
        pool = await asked.work_pool(deployment.work_pool)
        queues = [it for it in pool.queues if it.name == (deployment.work_queue or "default")]
        if pool.paused:
            yield f"Its work pool {pool.name} is paused: `upwell work-pool resume {pool.name}`."
        for queue in queues:
            if queue.paused:
                how = f"`upwell work-pool queue resume {pool.name} {queue.name}`"
                yield f"Its queue {queue.name} of {pool.name} is paused: {how}."
        if not workers:
            yield f"Nobody works for the pool {pool.name}: `upwell worker start --pool {pool.name}`."
        for thing, limit in (
            (f"pool {pool.name}", pool.concurrency_limit),
            *((f"queue {q.name}", q.concurrency_limit) for q in queues),
        ):
            if limit is not None:
                yield f"At most {limit} runs of the {thing} go on at once."
    if workers and (due is None or due <= now()):
        names = sorted(it.name for it in workers)
        yield f"{len(names)} workers are there to take it: {', '.join(names[:MOST_SHOWN])}."


async def _how_many_run(history: History, deployment: str) -> int:
    total = 0
    for state in ("PENDING", "RUNNING", "CANCELLING"):
        after: str | None = None
        while True:
            page = await history.flow_runs(deployment=deployment, state=state, limit=1000, after=after)
            total += len(page)
            after = page.next
            if after is None:
                break
    return total


async def _what_is_under_way(history: History, run: FlowRunRecord) -> AsyncIterator[str]:
    tree = await history.tree(run.id, runs_per_task=0)
    for group in tree.tasks:
        if open_ones := {kind: n for kind, n in group.states.items() if kind not in _ENDED}:
            counts = ", ".join(f"{n} {kind.value}" for kind, n in open_ones.items())
            yield f"It waits for task runs of {group.task_name}: {counts} of {group.total}."
    for child in tree.flow_runs:
        if not child.run.state.is_final():
            yield f"It waits for the flow run {child.run.name} of {child.run.flow_name}: {child.run.state.name}."
    if run.state.type is StateType.CANCELLING:
        yield "It ends when all that it started has ended; its process is killed if that takes too long."


async def _what_failed(history: History, run: FlowRunRecord) -> AsyncIterator[str]:
    failed = await history.task_runs(flow_run_id=run.id, state="FAILED", order="oldest", limit=MOST_SHOWN + 1)
    for task_run in failed.items[:MOST_SHOWN]:
        yield f"The task run {task_run.name} failed: {task_run.state.message or task_run.state.name}"
    if len(failed) > MOST_SHOWN:
        yield f"And others: `upwell task-run ls --flow-run {run.name} --state FAILED`."


_ENDED: Final = {StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED}


# --- task runs ----------------------------------------------------------------------------------------------


async def _of_task_run(history: History, run: TaskRun) -> AsyncIterator[str]:
    if run.state.type is StateType.COMPLETED:
        return
    if run.state.name == "AwaitingConcurrencySlot":
        async for reason in _full_limits():
            yield reason
    if run.flow_run_id is None or run.state.type not in (StateType.PENDING, StateType.SCHEDULED):
        return
    shown = 0
    after: str | None = None
    while True:
        page = await history.edges(run.flow_run_id, after=after)
        for edge in page:
            if edge.task_run_id == run.id and shown < MOST_SHOWN:
                upstream = await history.task_run(edge.upstream_id)
                if upstream.state.type is not StateType.COMPLETED:
                    shown += 1
                    yield f"It waits for {upstream.name}, which is {upstream.state.name}."
        after = page.next
        if after is None:
            break
    owner = await history.flow_run(run.flow_run_id)
    if owner.state.is_final():
        yield f"Its flow run {owner.name} has ended ({owner.state.name}), so it never will begin."


async def _full_limits() -> AsyncIterator[str]:
    from upwell.cli.limits import limits

    for limit in await limits():
        if limit.active and limit.taken >= limit.limit:
            stands = f"{limit.taken:g} of {limit.limit} slots are taken, {limit.waiting} wait"
            yield f"The limit {limit.name} is full: {stands}."
