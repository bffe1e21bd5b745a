"""A run has a Task that is its own: it can be kept, cancelled, named and watched, and touches no other run."""

# Lambdas and options of every kind are passed on: what they are is what the tests are about.
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportFunctionMemberAccess=false
from __future__ import annotations

import asyncio
import weakref
from typing import Any

import pytest


async def _suspend(times: int = 1) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


def _own() -> asyncio.Task[Any]:
    own = asyncio.current_task()
    assert own is not None
    return own


# --- who I am ---------------------------------------------------------------------------------------------


def test_the_current_task_stays_the_same_across_suspensions(world: Any) -> None:
    async def look() -> set[int]:
        seen: list[asyncio.Task[Any]] = []
        for _ in range(3):
            seen.append(_own())
            await asyncio.sleep(0)
        await asyncio.wait([asyncio.ensure_future(_suspend())])
        seen.append(_own())
        return {id(own) for own in seen}

    async def main() -> None:
        for _ in range(3):
            assert len(await world.start(look)) == 1

    world.run(main)


def test_runs_that_are_suspended_at_once_have_tasks_of_their_own(world: Any) -> None:
    async def look(together: asyncio.Barrier) -> int:
        own = id(_own())
        await together.wait()
        assert id(_own()) == own
        return own

    async def main() -> None:
        together = asyncio.Barrier(20)
        futures = [world.start(look, together) for _ in range(20)]
        assert len({await future for future in futures} - {id(_own())}) == 20

    world.run(main)


def test_the_current_task_is_one_of_all_tasks_and_is_not_done(world: Any) -> None:
    async def look() -> None:
        for _ in range(2):
            assert _own() in asyncio.all_tasks()
            assert not _own().done()
            await asyncio.sleep(0)

    async def main() -> None:
        await world.start(look)

    world.run(main)


def test_a_name_that_a_run_gives_to_its_task_is_not_inherited_by_others(world: Any) -> None:
    async def rename(suspensions: int) -> str:
        found = _own().get_name()
        _own().set_name("mine")
        await _suspend(suspensions)
        assert _own().get_name() == "mine"
        return found

    async def main() -> None:
        for suspensions in (0, 0, 1, 1, 0, 1):
            assert await world.start(rename, suspensions) != "mine"

    world.run(main)


def test_callbacks_of_the_loop_see_no_current_task(world: Any) -> None:
    seen: list[Any] = []

    async def schedule() -> None:
        asyncio.get_running_loop().call_soon(lambda: seen.append(asyncio.current_task()))
        await _suspend(2)
        asyncio.get_running_loop().call_soon(lambda: seen.append(asyncio.current_task()))

    async def main() -> None:
        await world.start(schedule)
        await world.turns()

    world.run(main)
    assert seen == [None, None]


@pytest.mark.parametrize("suspensions", [0, 2])
def test_done_callbacks_of_a_future_see_no_current_task(world: Any, suspensions: int) -> None:
    seen: list[Any] = []

    async def main() -> None:
        future = world.start(_suspend, suspensions)
        future.add_done_callback(lambda _: seen.append(asyncio.current_task()))
        await future
        await world.turns()

    world.run(main)
    assert seen == [None]


# --- a Task that somebody keeps -----------------------------------------------------------------------------


@pytest.mark.parametrize("suspensions", [0, 1, 3])
def test_a_kept_task_is_done_once_its_run_has_ended(world: Any, suspensions: int) -> None:
    kept: list[asyncio.Task[Any]] = []

    async def keep() -> None:
        kept.append(_own())
        await _suspend(suspensions)

    async def main() -> None:
        await world.start(keep)
        await world.turns()
        assert kept[0].done()
        assert not kept[0].cancelled()

    world.run(main)


@pytest.mark.parametrize("suspensions", [0, 1, 3])
def test_who_awaits_a_kept_task_is_woken_when_its_run_ends(world: Any, suspensions: int) -> None:
    kept: list[asyncio.Task[Any]] = []

    async def keep() -> None:
        kept.append(_own())
        await _suspend(suspensions)

    async def main() -> None:
        future = world.start(keep)
        while not kept:
            await asyncio.sleep(0)
        done, _ = await asyncio.wait(kept, timeout=60)
        assert done
        await future

    world.run(main)


@pytest.mark.parametrize("suspensions", [0, 1, 3])
def test_a_done_callback_of_the_current_task_is_called_when_the_run_ends(world: Any, suspensions: int) -> None:
    called: list[str] = []

    async def watch_me(name: str) -> None:
        _own().add_done_callback(lambda _: called.append(name))
        await _suspend(suspensions)
        assert name not in called

    async def main() -> None:
        for name in "abc":
            await world.start(watch_me, name)
            await world.turns()
            assert called[-1:] == [name]

    world.run(main)


@pytest.mark.parametrize("weakly", [False, True])
@pytest.mark.parametrize("suspensions", [0, 1])
@pytest.mark.parametrize("when", ["at once", "while others are suspended"])
def test_cancelling_a_kept_task_of_an_ended_run_cancels_nobody(
    world: Any, suspensions: int, weakly: bool, when: str
) -> None:
    kept: list[Any] = []

    async def keep() -> None:
        own = _own()
        kept.append(weakref.ref(own) if weakly else lambda: own)
        await _suspend(suspensions)

    async def other(number: int) -> int:
        await _suspend(3)
        assert not _own().cancelling()
        return number

    def cancel() -> None:
        for get in kept:
            own = get()
            if own is not None:
                own.cancel()

    async def main() -> None:
        for _ in range(3):
            await world.start(keep)
        if when == "at once":
            cancel()
        others = [world.start(other, number) for number in range(10)]
        await world.turns(2)
        cancel()
        assert [await future for future in others] == list(range(10))
        cancel()
        assert await world.start(other, 1) == 1

    world.run(main)


def test_a_kept_task_that_is_cancelled_and_let_go_disturbs_nobody(world: Any) -> None:
    kept: list[asyncio.Task[Any]] = []

    async def keep() -> None:
        kept.append(_own())
        await asyncio.sleep(0)

    async def main() -> None:
        for _ in range(3):
            await world.start(keep)
            kept.pop().cancel()
            assert await world.start(_suspend) is None
            await world.turns()

    world.run(main)


# --- cancelling oneself and others ----------------------------------------------------------------------------


@pytest.mark.parametrize("suspensions", [0, 2])
def test_who_cancels_itself_is_cancelled_at_the_next_suspension_with_its_message(world: Any, suspensions: int) -> None:
    async def cancel_myself() -> tuple[Any, ...]:
        await _suspend(suspensions)
        assert _own().cancel("enough")
        assert _own().cancelling() == 1
        message: tuple[Any, ...] = ()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError as error:
            message = error.args
        assert _own().uncancel() == 0
        await asyncio.sleep(0)
        return message

    async def main() -> None:
        for _ in range(2):
            assert await world.start(cancel_myself) == ("enough",)

    world.run(main)


@pytest.mark.parametrize("suspensions", [0, 2])
def test_who_cancels_itself_cancels_the_future_that_it_awaits_next(world: Any, suspensions: int) -> None:
    async def cancel_myself() -> tuple[bool, tuple[Any, ...]]:
        await _suspend(suspensions)
        awaited = asyncio.get_running_loop().create_future()
        _own().cancel("enough")
        try:
            await awaited
        except asyncio.CancelledError as error:
            return awaited.cancelled(), error.args
        raise AssertionError

    async def main() -> None:
        for _ in range(2):
            assert await world.start(cancel_myself) == (True, ("enough",))

    world.run(main)


@pytest.mark.parametrize("suspensions", [0, 2])
@pytest.mark.parametrize("last_wait", ["none", "sleep(0)", "sleep", "swallowed"])
def test_who_cancels_itself_ends_cancelled_unless_it_swallows_that(
    world: Any, suspensions: int, last_wait: str
) -> None:
    async def cancel_myself() -> None:
        await _suspend(suspensions)
        _own().cancel()
        if last_wait == "sleep(0)":
            await asyncio.sleep(0)
        elif last_wait == "sleep":
            await asyncio.sleep(10)
        elif last_wait == "swallowed":
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                pass

    async def main() -> None:
        for _ in range(2):
            assert await world.was_cancelled(world.start(cancel_myself)) is (last_wait != "swallowed")
            assert await world.start(_suspend) is None

    world.run(main)


@pytest.mark.parametrize("turn", [0, 1, 2, 5])
def test_another_can_cancel_a_suspended_run_through_its_task(world: Any, turn: int) -> None:
    kept: list[asyncio.Task[Any]] = []
    heard: list[tuple[Any, ...]] = []

    async def wait() -> None:
        kept.append(_own())
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError as error:
            heard.append(error.args)
            raise

    async def main() -> None:
        future, untouched = world.start(wait), world.start(_suspend, 20)
        while not kept:
            await asyncio.sleep(0)
        await world.turns(turn)
        kept[0].cancel("go home")
        assert kept[0].cancelling() == 1
        assert await world.was_cancelled(future)
        await untouched

    world.run(main)
    assert heard == [("go home",)]


def test_a_run_that_swallows_a_cancellation_goes_on(world: Any) -> None:
    kept: list[asyncio.Task[Any]] = []

    async def stubborn() -> int:
        kept.append(_own())
        swallowed = 0
        while swallowed < 3:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                swallowed += 1
        return _own().cancelling()

    async def main() -> None:
        future = world.start(stubborn)
        while not kept:
            await asyncio.sleep(0)
        for _ in range(3):
            kept[0].cancel()
            await world.turns(2)
        assert await future == 3
        assert await world.start(_suspend) is None

    world.run(main)


def test_a_cancellation_and_a_result_in_the_same_turn_are_both_seen(world: Any) -> None:
    kept: list[asyncio.Task[Any]] = []

    async def wait(awaited: asyncio.Future[int]) -> str:
        kept.append(_own())
        try:
            await awaited
        except asyncio.CancelledError:
            return f"cancelled, with {awaited.result()}"
        return "not cancelled"

    async def main() -> None:
        awaited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future = world.start(wait, awaited)
        await world.turns(2)
        awaited.set_result(7)
        kept[0].cancel()
        assert await future == "cancelled, with 7"

    world.run(main)


# --- what cannot be awaited -------------------------------------------------------------------------------------


class Yields:
    """An awaitable that yields this to whoever drives the coroutine."""

    def __init__(self, what: Any) -> None:
        self._what = what

    def __await__(self) -> Any:
        return (yield self._what)


@pytest.mark.parametrize("suspensions", [0, 2])
def test_an_awaitable_that_yields_nothing_gives_the_loop_a_turn(world: Any, suspensions: int) -> None:
    async def wait() -> Any:
        await _suspend(suspensions)
        turned: list[int] = []
        asyncio.get_running_loop().call_soon(turned.append, 1)
        answer = await Yields(None)
        return answer, turned

    async def main() -> None:
        for _ in range(2):
            assert await world.start(wait) == (None, [1])

    world.run(main)


@pytest.mark.parametrize("suspensions", [0, 2])
@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a number", "Task got bad yield: 5"),
        ("a bare future", "yield was used instead of yield from"),
        ("a future of another loop", "attached to a different loop"),
        ("itself", "Task cannot await on itself"),
    ],
)
def test_what_cannot_be_awaited_raises_as_in_asyncio(world: Any, suspensions: int, what: str, text: str) -> None:
    elsewhere = asyncio.new_event_loop()

    async def wait() -> str:
        await _suspend(suspensions)
        try:
            if what == "a number":
                await Yields(5)
            elif what == "a bare future":
                await Yields(asyncio.get_running_loop().create_future())
            elif what == "a future of another loop":
                await elsewhere.create_future()
            else:
                await _own()
        except RuntimeError as error:
            await asyncio.sleep(0)
            return str(error)
        return "awaited"

    async def main() -> None:
        for _ in range(2):
            assert text in await world.start(wait)
            await world.turns()  # the Task of the first, if anybody's else it can be, serves the second

    try:
        world.run(main)
    finally:
        elsewhere.close()


@pytest.mark.parametrize("suspensions", [0, 2])
@pytest.mark.parametrize("what", ["a number", "itself"])
def test_a_cancellation_goes_before_what_cannot_be_awaited(world: Any, suspensions: int, what: str) -> None:
    async def wait() -> str:
        await _suspend(suspensions)
        own = _own()
        asyncio.get_running_loop().call_soon(own.cancel)
        try:
            await (Yields(5) if what == "a number" else own)
        except asyncio.CancelledError:
            return "cancelled"
        return "awaited"

    async def main() -> None:
        assert await world.start(wait) == "cancelled"

    world.run(main)


@pytest.mark.parametrize("suspensions", [0, 2])
def test_what_is_done_already_is_awaited_without_suspending(world: Any, suspensions: int) -> None:
    async def wait() -> tuple[int, list[int]]:
        await _suspend(suspensions)
        turned: list[int] = []
        asyncio.get_running_loop().call_soon(turned.append, 1)
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        done.set_result(3)
        return await done, turned[:]

    async def main() -> None:
        for _ in range(2):
            assert await world.start(wait) == (3, [])

    world.run(main)
