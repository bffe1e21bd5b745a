"""Why a flow run or task run is as it is, beyond what its states say; and which command does something about it."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from upwell.cli.asking import control
from upwell.cli.output import moment_text, span_text
from upwell.cli.times import now
from upwell.core.errors import ConfigurationError, NotFoundError
from upwell.core.model import FlowRunRecord, TaskRun
from upwell.core.states import StateType

if TYPE_CHECKING:
    from upwell.core.deployments import Deployment
    from upwell.core.model import TaskGroup
    from upwell.history import History
    from upwell.journal.control import Control

MOST_SHOWN: Final = 5
MOST_EDGE_PAGES: Final = 20
"""So many thousand edges are looked through for what one task run waits for."""

_OPEN: Final = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)


# --- flow runs ----------------------------------------------------------------------------------------------


async def of_flow_run(history: History, run: FlowRunRecord) -> AsyncIterator[str]:
    """Why it does not go on, or ended as it did."""
    if run.crashes:
        yield f"Its process died {'once' if run.crashes == 1 else f'{run.crashes} times'}."
    if run.state.type is StateType.SCHEDULED:
        why = _why_not_begun(history, run)
    elif run.state.type in _OPEN:
        why = _what_is_under_way(history, run)
    else:
        why = _how_it_ended(history, run)
    async for reason in why:
        yield reason


async def _why_not_begun(history: History, run: FlowRunRecord) -> AsyncIterator[str]:
    if run.state.name == "AwaitingRetry":
        yield "An attempt failed, and it waits before the next."
        return
    due = run.due or run.state.scheduled_time
    if due is not None and run.state.name != "AwaitingResume":
        seconds = (due - now()).total_seconds()
        if seconds > 0:
            yield f"It is due at {moment_text(due)}, in {span_text(seconds)}."
        else:
            yield f"It was due at {moment_text(due)}, {span_text(-seconds)} ago."
    if run.state.name == "AwaitingConcurrencySlot":
        async for reason in full_limits():
            yield reason
    if run.deployment_id is None:
        if run.durable:
            yield f"`upwell flow-run resume {run.name}` goes on with it here; so does its flow's script, started again."
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
    name, limit = deployment.full_name, deployment.concurrency_limit
    if deployment.paused:
        yield f"Its deployment {name} is paused: `upwell deployment resume {name}`."
    if limit is not None and (running := await _how_many_run(history, name, limit)) >= limit:
        yield (
            f"{'One run' if running == 1 else f'{running} runs'} of {name} {'goes' if running == 1 else 'go'} on, and "
            f"there may be {limit} at once: "
            f"`upwell deployment set-limit {name} {limit + 1}`."
        )
    workers = [it for it in await asked.workers(deployment.work_pool) if it.online]
    if deployment.work_pool is None:
        workers = [it for it in workers if it.pool is None]
        if not workers:
            yield f"Nobody serves {name}: start the script that calls serve()."
    else:
        async for reason in _of_pool(asked, deployment.work_pool, deployment.work_queue or "default"):
            yield reason
        if not workers:
            how = f"`upwell worker start --pool {deployment.work_pool}`"
            yield f"Nobody works for the pool {deployment.work_pool}: {how}."
    if workers and (due is None or due <= now()):
        names = sorted(it.name for it in workers)
        who = "One worker is" if len(names) == 1 else f"{len(names)} workers are"
        yield f"{who} there to take it: {', '.join(names[:MOST_SHOWN])}."


async def _of_pool(asked: Control, name: str, queue_name: str) -> AsyncIterator[str]:
    pool = await asked.work_pool(name)
    if pool.paused:
        yield f"Its work pool {name} is paused: `upwell work-pool resume {name}`."
    if pool.concurrency_limit is not None:
        yield f"At most {pool.concurrency_limit} runs of the pool {name} go on at once."
    for queue in pool.queues:
        if queue.name == queue_name:
            if queue.paused:
                how = f"`upwell work-pool queue resume {name} {queue.name}`"
                yield f"Its queue {queue.name} of {name} is paused: {how}."
            if queue.concurrency_limit is not None:
                yield f"At most {queue.concurrency_limit} runs of the queue {queue.name} go on at once."


async def _how_many_run(history: History, deployment: str, enough: int) -> int:
    """How many runs of a deployment go on; that they are enough is enough."""
    total = 0
    for state in _OPEN:
        if total < enough:
            page = await history.flow_runs(deployment=deployment, state=state, limit=min(enough, 1000))
            total += len(page)
    return total


async def _what_is_under_way(history: History, run: FlowRunRecord) -> AsyncIterator[str]:
    if run.state.type is StateType.CANCELLING:
        yield "It ends when all that it started has ended; its process is killed if that takes too long."
    elif run.start_time is not None:
        yield f"It has been running for {span_text((now() - run.start_time).total_seconds())}."
    tree = await history.tree(run.id, runs_per_task=0)
    children = [child.run for child in tree.flow_runs if not child.run.state.is_final()]
    waiting = False
    for task in tree.tasks:
        if told := _open_runs(task):
            yield told
            waiting = waiting or StateType.PENDING in task.states
    for child in children[:MOST_SHOWN]:
        yield f"It waits for the flow run {child.name} of {child.flow_name}, which is {child.state.name}."
    if waiting:
        async for reason in full_limits():
            yield reason
    if run.start_time is not None:
        yield f"`upwell flow-run logs {run.name} --follow` shows what it says meanwhile."


def _open_runs(task: TaskGroup) -> str | None:
    """The runs of a task that have not ended, in words."""
    running = sum(number for kind, number in task.states.items() if kind in (StateType.RUNNING, StateType.CANCELLING))
    waiting = sum(task.states.get(kind, 0) for kind in (StateType.PENDING, StateType.SCHEDULED))
    told = [_number(running, "goes on", "go on"), _number(waiting, "has not begun", "have not begun")]
    if not any(told):
        return None
    return f"Of {task.total} task runs of {task.task_name}, {' and '.join(filter(None, told))}."


def _number(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}" if number else ""


async def _how_it_ended(history: History, run: FlowRunRecord) -> AsyncIterator[str]:
    if run.start_time is not None and run.end_time is not None:
        yield _how_long(run.start_time, run.end_time)
    async for reason in _failures(history, run):
        yield reason
    cached = await history.task_runs(flow_run_id=run.id, state="Cached", limit=MOST_SHOWN + 1)
    if cached.items:
        names = ", ".join(it.name for it in cached.items[:MOST_SHOWN])
        more = ", and others" if len(cached.items) > MOST_SHOWN else ""
        yield f"Not run, because their results were in the cache: {names}{more}."
    if run.state.is_completed():
        return
    if run.deployment_id is not None:
        yield f"`upwell flow-run retry {run.name}` runs it again."
    if run.durable:
        yield f"`upwell flow-run fork {run.name}` runs it again here, and takes over what it finished."
    elif run.state.type is StateType.CRASHED and run.start_time is not None:  # else nothing was lost with it
        yield "`@flow(durable=True)` would have it go on where it was."


async def _failures(history: History, run: FlowRunRecord) -> AsyncIterator[str]:
    failed = await history.task_runs(flow_run_id=run.id, state="FAILED", order="oldest", limit=MOST_SHOWN + 1)
    shown = [it for it in failed.items[:MOST_SHOWN] if it.state.name != "NotReady"] or failed.items[:MOST_SHOWN]
    for task_run in shown:
        yield f"The task run {task_run.name} failed: {task_run.state.message or task_run.state.name}"
    if len(failed.items) > len(shown):
        yield f"And others: `upwell task-run ls --flow-run {run.name} --state FAILED`."


# --- task runs ----------------------------------------------------------------------------------------------


async def of_task_run(history: History, run: TaskRun) -> AsyncIterator[str]:
    """Why it does not go on, or was not run."""
    if run.state.name == "Cached":
        yield (
            "Its function was not called: a run with the same key had left a result. The task's `explain_cache(...)` "
            "says what the key is made of; `refresh_cache=True` has it computed anew."
        )
    elif run.start_time is not None and run.end_time is not None:
        yield _how_long(run.start_time, run.end_time)
    if run.state.name == "AwaitingConcurrencySlot":
        async for reason in full_limits():
            yield reason
    never_ran = run.state.is_final() and run.start_time is None and run.state.name != "Cached"
    if run.flow_run_id is None or not (never_ran or run.state.type in (StateType.PENDING, StateType.SCHEDULED)):
        return
    async for upstream in _upstreams(history, run, run.flow_run_id):
        if not run.state.is_final():
            yield f"It waits for {upstream.name}, which is {upstream.state.name}."
        elif upstream.start_time is not None:
            yield f"{upstream.name} is {upstream.state.name}; `upwell task-run logs {upstream.id}` shows what it said."
        else:
            yield f"{upstream.name} is {upstream.state.name}: `upwell explain {upstream.id}`."
    owner = await history.flow_run(run.flow_run_id)
    if owner.state.is_final() and not run.state.is_final():
        yield f"Its flow run {owner.name} has ended ({owner.state.name}), so it never will begin."


async def of_not_begun(history: History, wanted: str) -> AsyncIterator[str]:
    """Of the name of a task run that is not recorded yet: which flow run it belongs to, and what holds it up."""
    task_name, _, number = wanted.rpartition("-")
    if not number.isdecimal():
        return
    for state in (StateType.RUNNING, StateType.PENDING):
        for run in await history.flow_runs(state=state, limit=MOST_SHOWN * 4):
            for task in (await history.tree(run.id, runs_per_task=0)).tasks:
                if task.task_name == task_name and task.total > int(number):
                    yield "It has not begun, and what waits is counted only: its reasons are recorded when it begins."
                    yield f"In the flow run {run.name}: {_open_runs(task)}"
                    async for reason in full_limits():
                        yield reason
                    return


async def _upstreams(history: History, run: TaskRun, flow_run_id: object) -> AsyncIterator[TaskRun]:
    """The first of those that a task run waited for and that did not complete."""
    shown, after = 0, None
    for _ in range(MOST_EDGE_PAGES):
        page = await history.edges(str(flow_run_id), after=after)
        for edge in page:
            if edge.task_run_id == run.id:
                upstream = await history.task_run(edge.upstream_id)
                if upstream.state.type is not StateType.COMPLETED:
                    yield upstream
                    shown += 1
                    if shown == MOST_SHOWN:
                        return
        after = page.next
        if after is None:
            return


# --- both ---------------------------------------------------------------------------------------------------


async def full_limits() -> AsyncIterator[str]:
    """The limits of the store that have no slot left."""
    from upwell.cli.limits import OF_TAG, limits

    try:
        known = await limits()
    except ConfigurationError:  # of a store that this process may read, but does not record in
        return
    for limit in known:
        if limit.active and limit.taken >= limit.limit:
            name = limit.name.removeprefix(OF_TAG)
            more = limit.limit + 1
            if name == limit.name:
                what, how = f"limit {name}", f"`upwell gcl update {name} --limit {more}`"
            else:
                what, how = f"limit of the tag {name}", f"`upwell concurrency-limit create {name} {more}`"
            taken = f"{limit.taken:g} of {limit.limit} slots are taken, {limit.waiting} wait"
            yield f"The {what} is full: {taken}. {how} has it let more through."


def _how_long(begin: dt.datetime, end: dt.datetime) -> str:
    return f"It ran for {span_text((end - begin).total_seconds())}, from {moment_text(begin)} on."
