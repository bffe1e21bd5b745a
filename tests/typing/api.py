"""What the type checkers must say of code that uses upwell; never run, only checked, by mypy and pyright alike.

Each line is a promise. Mistakes that must be found carry an ignore, and an ignore that is not needed is an error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import datetime
from typing import Any, assert_type
from uuid import UUID

from upwell import (
    Flow,
    Runtime,
    State,
    Task,
    TaskFuture,
    allow_failure,
    as_completed,
    deploy,
    exponential_backoff,
    first,
    first_async,
    flow,
    tags,
    task,
    unmapped,
    wait,
    wait_async,
)
from upwell.deployments import RunnerDeployment, arun_deployment, run_deployment
from upwell.futures import DoneAndNotDoneFutures, FutureList
from upwell.history import FlowRunRecord
from upwell.schedules import Cron, Interval
from upwell.streams import TaskStream
from upwell.task_worker import DelayedRun

# --- tasks --------------------------------------------------------------------------------------------------------


@task
def parse(raw: bytes, strict: bool = True) -> int:
    return len(raw)


@task(retries=3, retry_delay_seconds=[1, 5, 30], timeout_seconds=10, tags=["api"], task_runner="threads")
async def fetch(url: str) -> bytes:
    return url.encode()


@task(retry_delay_seconds=exponential_backoff(2), task_run_name="count-{n}")
def count(n: int) -> Iterator[int]:
    yield from range(n)


@task
async def count_later(n: int) -> AsyncIterator[int]:
    yield n


def tasks_keep_their_signature() -> None:
    assert_type(parse(b"x"), int)
    assert_type(parse(b"x", strict=False), int)
    assert_type(parse(b"x", return_state=True), State)
    assert_type(parse(b"x", wait_for=[]), int)
    assert_type(parse.fn(b"x"), int)
    assert_type(count(3), Iterator[int])
    parse("text")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    parse()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


async def async_tasks_keep_their_signature() -> None:
    assert_type(await fetch("u"), bytes)
    assert_type(await fetch.delay("u"), bytes)
    assert_type(await parse.adelay(b"x"), DelayedRun[int])
    assert_type(await flow.afrom_source("s", "f.py:f"), Flow[..., Any])
    assert_type(await fetch("u", return_state=True), State)
    fetch(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    async for number in count_later(3):
        assert_type(number, int)


def futures_know_their_result() -> None:
    assert_type(parse.delay(b"x"), DelayedRun[int])
    assert_type(fetch.delay("u"), DelayedRun[bytes])
    fetch.delay(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    assert_type(fetch.delay("u").result(timeout=1), bytes)
    assert_type(fetch.as_flow(), Flow[..., Any])
    assert_type(parse.submit(b"x"), TaskFuture[int])
    assert_type(parse.submit(b"x").result(), int)
    assert_type(fetch.submit("u"), TaskFuture[bytes])
    assert_type(fetch.submit("u").result(timeout=3), bytes)
    assert_type(parse.submit(b"x").state, State)
    assert_type(parse.map([b"x"]), FutureList[int])
    assert_type(parse.map([b"x"]).result(), list[int])
    assert_type(fetch.map(["u"], max_at_once=3, max_per_second=2.5), FutureList[bytes])
    assert_type(fetch.map(["u"])[0], TaskFuture[bytes])
    assert_type(parse.submit(b"x", return_state=True), Any)
    assert_type(fetch.map(["u"], return_state=True), Any)
    parse.submit(fetch.submit("u"), strict=unmapped(True))
    parse.map(allow_failure(fetch.map(["u"])))


def what_a_generator_yields_is_a_list_in_its_future() -> None:
    assert_type(count.submit(3), TaskFuture[list[int]])
    assert_type(count.map([3]), FutureList[list[int]])
    assert_type(count_later.submit(3).result(), list[int])
    assert_type(count_later.map([3]).result(), list[list[int]])


async def futures_can_be_awaited() -> None:
    assert_type(await parse.submit(b"x"), int)
    assert_type(await fetch.submit("u"), bytes)
    assert_type(await parse.map([b"x"]), list[int])
    assert_type(await fetch.map(["u"]), list[bytes])


def several_futures_are_waited_for() -> None:
    futures = fetch.map(["u"])
    assert_type(wait(futures), DoneAndNotDoneFutures[bytes])
    assert_type(wait(futures).done, list[TaskFuture[bytes]])
    assert_type(first(futures), TaskFuture[bytes])
    for future in as_completed(futures):
        assert_type(future, TaskFuture[bytes])


async def several_futures_are_awaited() -> None:
    futures = fetch.map(["u"])
    assert_type(await wait_async(futures, timeout=3), DoneAndNotDoneFutures[bytes])
    assert_type(await first_async(futures), TaskFuture[bytes])
    async for future in as_completed(futures):
        assert_type(future, TaskFuture[bytes])


async def streams_know_their_results() -> None:
    assert_type(parse.stream([b"x"]), TaskStream[int])
    async for number in parse.stream([b"x"], max_at_once=3, ordered=False):
        assert_type(number, int)
    for page in fetch.stream(["u"]):
        assert_type(page, bytes)


def options_keep_the_type() -> None:
    assert_type(parse.with_options(retries=1)(b"x"), int)
    assert_type(fetch.with_options(name="other").submit("u"), TaskFuture[bytes])
    parse.with_options(retrys=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    task(retries="3")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


def tasks_can_be_named_in_annotations(one: Task[[int], str], other: Flow[..., int]) -> None:
    assert_type(one(3), str)
    assert_type(one.submit(3), TaskFuture[str])
    assert_type(other.submit(3), TaskFuture[int])


# --- flows --------------------------------------------------------------------------------------------------------


@flow
def report(day: str, pages: int = 3) -> dict[str, int]:
    return {day: pages}


@flow(name="crawl", retries=2, task_runner="threads", log_prints=True, flow_run_name="crawl-{urls}")
async def crawl(urls: list[str]) -> list[int]:
    raws = fetch.map(urls, max_at_once=50)
    return await parse.map(raws)


def flows_keep_their_signature() -> None:
    assert_type(report("monday"), dict[str, int])
    assert_type(report("monday", return_state=True), State)
    assert_type(report.submit("monday"), TaskFuture[dict[str, int]])
    assert_type(report.map(["monday"]).result(), list[dict[str, int]])
    assert_type(report.with_options(version="2")("monday"), dict[str, int])
    report(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def async_flows_keep_their_signature() -> None:
    assert_type(await crawl(["u"]), list[int])
    assert_type(await crawl(["u"], return_state=True), State)
    assert_type(await crawl.submit(["u"]), list[int])
    assert_type(crawl.submit(["u"]), TaskFuture[list[int]])
    assert_type(await crawl.map([["u"]]), list[list[int]])


# --- hooks --------------------------------------------------------------------------------------------------------


@parse.on_failure
def tell(it: object, run: object, state: State) -> None:
    assert_type(state.is_failed(), bool)


def hooks_keep_their_type() -> None:
    said: Callable[[object, object, State], None] = tell
    said(parse, None, parse(b"", return_state=True))


# --- runtimes -----------------------------------------------------------------------------------------------------


async def a_runtime_is_a_context() -> None:
    async with Runtime(task_runner="threads", limits={"db": 5, "api": (10, 2.0)}) as rt:
        assert_type(rt, Runtime)
    with Runtime() as beside, tags("a", "b") as together:
        assert_type(beside, Runtime)
        assert_type(together, frozenset[str])


def coroutines_stay_coroutines() -> Coroutine[Any, Any, bytes]:
    return fetch("u")


# --- deployments --------------------------------------------------------------------------------------------------


def deployments_and_their_runs() -> None:
    deployment = crawl.to_deployment("nightly", cron=["0 3 * * *", "0 4 * * *"], interval=60, schedules=[Interval(5)])
    assert_type(deployment, RunnerDeployment)
    assert_type(run_deployment("crawl/nightly", {"urls": []}, timeout=0), FlowRunRecord)
    assert_type(crawl.deploy("nightly", "pool"), UUID)
    assert_type(deploy(deployment, work_pool_name="pool"), list[UUID])
    assert_type(Cron("0 3 * * *", timezone="UTC").upcoming(), list[datetime])
    crawl.serve("nightly", clock="0 3 * * *")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Cron("0 3 * * *", catchup="some")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def deployments_in_async_code() -> None:
    assert_type(await arun_deployment("crawl/nightly"), FlowRunRecord)
