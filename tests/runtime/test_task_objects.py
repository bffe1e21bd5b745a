"""What `@task` makes of a function: its looks, its options, changed copies."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest
from tests.runtime.given import Run, square, square_later

from upwell import task

# --- options of the object ------------------------------------------------------------------------------------------


def test_a_task_looks_like_its_function() -> None:
    named: Any = square
    assert named.__name__ == "square"
    assert square.__doc__ == "The square."
    assert square.description == "The square."
    assert square.fn(3) == 9
    assert repr(square) == "<Task 'square'>"


def test_version_description_and_tags_are_kept_on_the_task() -> None:
    @task(version="1.2", description="For people.", tags=["b", "a"])
    def documented() -> None:
        """Not this."""

    assert documented.version == "1.2"
    assert documented.description == "For people."
    assert documented.tags == frozenset({"a", "b"})


def test_with_options_makes_a_changed_copy_and_leaves_the_original() -> None:
    original = task(retries=2, name="first", tags=["x"])(square.fn)
    copy = original.with_options(name="second", tags=["y"])
    assert (original.name, set(original.tags)) == ("first", {"x"})
    assert (copy.name, set(copy.tags)) == ("second", {"y"})
    assert copy(3) == 9


def test_with_options_keeps_hooks_unless_it_names_them() -> None:
    heard: list[str] = []
    original = task(on_completion=[lambda *_: heard.append("option")])(square.fn)  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]  # a lambda needs no annotations here

    @original.on_completion
    def added(*_: Any) -> None:
        heard.append("added")

    original.with_options(retries=1)(1)
    assert heard == ["option", "added"]
    original.with_options(on_completion=[])(1)
    assert heard == ["option", "added"]


def test_a_hook_added_to_a_copy_is_not_heard_by_the_original() -> None:
    heard: list[str] = []
    original = task(square.fn)
    copy = original.with_options(retries=1)

    @copy.on_completion
    def added(*_: Any) -> None:
        heard.append("copy")

    original(1)
    assert heard == []


def test_with_options_can_say_zero() -> None:
    attempts: list[int] = []

    @task(retries=3)
    def flaky() -> None:
        attempts.append(1)
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        flaky.with_options(retries=0)()
    assert len(attempts) == 1


def test_partials_and_callable_objects_are_tasks(run: Run) -> None:
    class Adder:
        def __call__(self, x: int) -> int:
            return x + 1

    class AdderLater:
        async def __call__(self, x: int) -> int:
            return x + 1

    assert task(functools.partial(lambda a, b: a + b, 1))(2) == 3  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]  # a lambda needs no annotations here
    assert task(functools.partial(lambda a, b: a + b, 1)).submit(2).result() == 3  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]  # a lambda needs no annotations here
    assert task(Adder()).submit(1).result() == 2
    assert run(task(AdderLater())(1)) == 2
    assert task(AdderLater()).submit(1).result() == 2


def test_a_sync_task_that_returns_an_awaitable_gives_it_back_as_it_is() -> None:
    @task
    def makes() -> Any:
        return square_later(2)

    coroutine = makes()
    assert asyncio.run(coroutine) == 4


def test_what_prefects_users_import_from_tasks_is_there() -> None:
    import upwell.tasks
    from upwell.cache_policies import task_input_hash
    from upwell.core.retries import exponential_backoff

    assert upwell.tasks.task_input_hash is task_input_hash
    assert upwell.tasks.exponential_backoff is exponential_backoff
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        upwell.tasks.nothing  # noqa: B018  # the look is what raises
