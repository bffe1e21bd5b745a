"""Exceptions of runs point at the user's lines, keep what they are linked to, and are let go with their frames."""

from __future__ import annotations

import asyncio
import gc
import logging
import traceback
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from upwell import Runtime, flow, task
from upwell.core.errors import FailedRun


def _lines(error: BaseException | None) -> list[str]:
    assert error is not None
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


async def _deeper(suspended: bool) -> None:
    if suspended:
        await asyncio.sleep(0)
    raise ValueError("boom")


async def _fail(suspended: bool) -> None:
    await _deeper(suspended)


def _deeper_here() -> None:
    raise ValueError("boom")


def _fail_here(_: bool) -> None:
    _deeper_here()


FAILING: dict[str, tuple[Callable[..., Any], dict[str, Any], list[str]]] = {
    "on the loop": (_fail, {}, ["_fail", "_deeper"]),
    "on the loop, with a timeout": (_fail, {"timeout_seconds": 60}, ["_fail", "_deeper"]),
    "on threads": (_fail_here, {}, ["_fail_here", "_deeper_here"]),
    "coroutine on threads": (_fail, {"task_runner": "threads"}, ["_fail", "_deeper"]),
}


@pytest.mark.parametrize("suspended", [False, True])
@pytest.mark.parametrize("place", list(FAILING))
def test_the_traceback_in_a_state_begins_at_the_users_own_line(runs_only: Any, place: str, suspended: bool) -> None:
    fn, options, lines = FAILING[place]

    async def main() -> None:
        future = task(fn, **options).submit(suspended)
        with pytest.raises(ValueError, match="boom"):
            await future
        again = future.state.data
        assert isinstance(again, ValueError)

    async def look() -> list[str]:
        future = task(fn, **options).submit(suspended)
        while not future.is_done():
            await asyncio.sleep(0)
        return _lines(future.state.data)

    runs_only.run(main)
    assert runs_only.run(look) == lines


@pytest.mark.parametrize("suspended", [False, True])
@pytest.mark.parametrize("place", list(FAILING))
def test_what_is_raised_shows_where_it_was_awaited_and_where_it_arose(
    runs_only: Any, place: str, suspended: bool
) -> None:
    fn, options, lines = FAILING[place]

    async def main() -> BaseException:
        future = task(fn, **options).submit(suspended)
        for _ in range(3):
            try:
                await future
            except ValueError as error:
                shown = _lines(error)
                assert shown[0] == "main"
                assert shown[-len(lines) :] == lines
                assert shown.count(lines[0]) == 1
            else:
                raise AssertionError
        return ValueError()

    runs_only.run(main)


def test_a_blocking_result_shows_the_users_lines_too() -> None:
    @flow
    def outer() -> None:
        task(_fail_here).submit(True).result()

    with pytest.raises(ValueError, match="boom") as caught:
        outer()
    shown = _lines(caught.value)
    assert shown[-2:] == ["_fail_here", "_deeper_here"]
    assert "outer" in shown


def test_a_direct_call_shows_the_users_lines_once() -> None:
    @flow
    def outer() -> None:
        task(_fail_here)(True)

    for _ in range(2):
        with pytest.raises(ValueError, match="boom") as caught:
            outer()
        assert _lines(caught.value).count("_fail_here") == 1


@pytest.mark.parametrize("suspended", [False, True])
def test_cause_and_context_of_an_exception_are_kept(runs_only: Any, suspended: bool) -> None:
    async def fail() -> None:
        try:
            await _deeper(suspended)
        except ValueError as error:
            try:
                raise KeyError("second")
            except KeyError:
                raise LookupError("third") from error

    async def main() -> None:
        with pytest.raises(LookupError) as caught:
            await task(fail).submit()
        error = caught.value
        assert repr(error.__cause__) == "ValueError('boom')"
        assert repr(error.__context__) == "KeyError('second')"
        assert error.__context__ is not None
        assert error.__context__.__context__ is error.__cause__

    runs_only.run(main)


def test_notes_of_an_exception_are_kept(runs_only: Any) -> None:
    async def fail() -> None:
        error = ValueError("boom")
        error.add_note("look here")
        raise error

    async def main() -> None:
        with pytest.raises(ValueError, match="boom") as caught:
            await task(fail).submit()
        assert caught.value.__notes__ == ["look here"]

    runs_only.run(main)


def test_an_exception_raised_while_another_is_handled_does_not_become_its_own_context(runs_only: Any) -> None:
    async def main() -> None:
        future = task(_fail).submit(True)
        try:
            await future
        except ValueError:
            with pytest.raises(ValueError, match="boom") as caught:
                await future
            assert caught.value.__context__ is not caught.value

    runs_only.run(main)


# --- what is let go of ----------------------------------------------------------------------------------------


@pytest.fixture
def unlogged() -> Iterator[None]:
    """No log records, which pytest would keep, and their exceptions with them."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


class Held:
    """Something to keep an eye on."""


async def _return_held(seen: Any, suspended: bool) -> Held:
    held = Held()
    seen.append(weakref.ref(held))
    if suspended:
        await asyncio.sleep(0)
    return held


async def _fail_holding(seen: Any, suspended: bool) -> None:
    held = Held()
    seen.append(weakref.ref(held))
    if suspended:
        await asyncio.sleep(0)
    raise ValueError(held)


async def _take_held(held: Held, suspended: bool) -> None:
    if suspended:
        await asyncio.sleep(0)


@pytest.mark.parametrize("suspended", [False, True])
def test_a_result_is_freed_with_its_future_without_the_collectors_help(runs_only: Any, suspended: bool) -> None:
    async def main() -> None:
        seen: list[weakref.ref[Held]] = []
        future = task(_return_held).submit(seen, suspended)
        assert isinstance(await future, Held)
        await runs_only.turns()
        assert seen[0]() is not None
        del future
        await runs_only.turns()
        assert seen[0]() is None

    gc.disable()
    try:
        runs_only.run(main)
    finally:
        gc.enable()


@pytest.mark.parametrize("suspended", [False, True])
def test_an_argument_is_freed_when_its_run_has_ended(runs_only: Any, suspended: bool) -> None:
    async def main() -> None:
        held = Held()
        seen = weakref.ref(held)
        future = task(_take_held).submit(held, suspended)
        del held
        await future
        await runs_only.turns()
        assert seen() is None

    gc.disable()
    try:
        runs_only.run(main)
    finally:
        gc.enable()


@pytest.mark.usefixtures("unlogged")
@pytest.mark.parametrize("suspended", [False, True])
def test_an_exception_and_its_frames_are_collected_with_its_future(runs_only: Any, suspended: bool) -> None:
    async def main() -> None:
        seen: list[weakref.ref[Held]] = []
        future = task(_fail_holding).submit(seen, suspended)
        try:
            await future
        except ValueError:
            pass
        else:
            raise AssertionError
        del future
        await runs_only.turns()
        gc.collect()
        assert seen[0]() is None

    runs_only.run(main)


@pytest.mark.usefixtures("unlogged")
@pytest.mark.parametrize("in_a_runtime", [False, True])
def test_a_loop_that_has_ended_is_let_go_of_with_what_ran_on_it(in_a_runtime: bool) -> None:
    seen: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    @flow
    async def fails() -> None:
        seen.append(weakref.ref(asyncio.get_running_loop()))
        await task(_fail_holding).submit([], True)

    async def main() -> None:
        if not in_a_runtime:
            await fails()
        async with Runtime() as runtime:
            await runtime.call(fails)

    for _ in range(4):
        with pytest.raises(ValueError, match="Held"):
            asyncio.run(main())
    gc.collect()
    gc.collect()  # what the first time has only finalized
    assert sum(loop() is not None for loop in seen) <= 1


def _more_than(before: tuple[int, int]) -> bool:
    """Whether there are more of either; fewer there may be, for other tests leave some that are let go of now."""
    return any(now > then for now, then in zip(_lives(), before, strict=True))


def _lives() -> tuple[int, int]:
    """How many exceptions and frames of this module there are."""
    gc.collect()
    objects = gc.get_objects()
    exceptions = sum(isinstance(found, ValueError) for found in objects)
    frames = sum(isinstance(found, FrameType) and found.f_code.co_filename == __file__ for found in objects)
    return exceptions, frames


@pytest.mark.usefixtures("unlogged")
@pytest.mark.parametrize("kind", ["sync flow", "async flow", "task in a sync flow", "task in an async flow", "task"])
def test_failures_in_a_loop_leave_no_exceptions_and_frames_behind(runs_only: Any, kind: str) -> None:
    @flow
    def sync_flow(inner: bool) -> None:
        if inner:
            task(_fail_here).submit(True).result()
        _deeper_here()

    @flow
    async def async_flow(inner: bool) -> None:
        if inner:
            await task(_fail).submit(True)
        await _deeper(True)

    async def once() -> None:
        try:
            if kind == "task":
                await task(_fail).submit(True)
            else:
                await async_flow("task" in kind)
        except ValueError:
            pass

    async def many() -> None:
        for _ in range(5):
            await once()
        before = _lives()
        for _ in range(50):
            await once()
        assert not _more_than(before)

    if "sync flow" in kind and "async" not in kind:
        for round_ in range(2):
            before = _lives()
            for _ in range(50 if round_ else 5):
                with pytest.raises(ValueError, match="boom"):
                    sync_flow("task" in kind)
            if round_:
                assert not _more_than(before)
    else:
        runs_only.run(many)


@pytest.mark.usefixtures("unlogged")
def test_memory_stays_flat_while_flows_fail() -> None:
    @flow
    def fails() -> None:
        task(_fail).map([True] * 5)

    def many(count: int) -> int:
        for _ in range(count):
            with pytest.raises(FailedRun):
                fails()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        many(20)
        before = many(20)
        after = many(100)
    finally:
        tracemalloc.stop()
    assert after - before < 50_000


def test_a_failed_run_whose_future_is_dropped_leaves_no_warning(
    runs_only: Any, recwarn: pytest.WarningsRecorder
) -> None:
    async def main() -> None:
        for suspended in (False, True):
            task(_fail).submit(suspended)
        await runs_only.turns()

    runs_only.run(main)
    gc.collect()
    assert not recwarn.list


def test_runs_that_never_begin_leave_no_coroutine_unawaited(runs_only: Any, recwarn: pytest.WarningsRecorder) -> None:
    async def main() -> None:
        task(_fail).map([True] * 1000)
        ready = task(_fail).submit(True)
        task(_return_held).submit([], False, wait_for=[ready])

    runs_only.run(main)
    gc.collect()
    assert not recwarn.list
