"""Methods of every kind are tasks, and flows, in either order of decorators."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from tests.runtime.given import Run, double, double_later

from upwell import Flow, Task, flow, task
from upwell.flows import BoundFlow
from upwell.tasks import BoundTask

# --- methods --------------------------------------------------------------------------------------------------------


class Shop:
    rate = 3

    def __init__(self, base: int) -> None:
        self.base = base

    @task
    def add(self, x: int) -> int:
        return self.base + x

    @task
    async def add_later(self, x: int) -> int:
        await asyncio.sleep(0)
        return self.base + x

    @task
    @classmethod
    def scaled(cls, x: int) -> int:
        return cls.rate * x

    @classmethod
    @task
    def scaled_too(cls, x: int) -> int:
        return cls.rate * x

    @task
    @staticmethod
    def double(x: int) -> int:
        return 2 * x

    @staticmethod
    @task
    def double_too(x: int) -> int:
        return 2 * x


@pytest.mark.parametrize(
    ("method", "expected"),
    [("add", 14), ("scaled", 12), ("scaled_too", 12), ("double", 8), ("double_too", 8)],
)
def test_methods_of_every_kind_are_tasks_in_either_order_of_decorators(method: str, expected: int) -> None:
    on_object: Any = getattr(Shop(10), method)
    assert on_object(4) == expected
    if method == "scaled_too" and sys.version_info >= (3, 13):
        return  # classmethod does not pass on what it wraps any more: only the call is left
    assert on_object(x=4) == expected
    assert on_object.submit(4).result() == expected
    assert on_object.map([4, 4]).result() == [expected] * 2
    assert list(on_object.stream([4, 4])) == [expected] * 2
    assert on_object.with_options(name="renamed").submit(4).result() == expected
    if not method.startswith("add"):
        on_class: Any = getattr(Shop, method)
        assert on_class(4) == expected
        assert on_class.submit(4).result() == expected


def test_an_async_method_is_a_task(run: Run) -> None:
    async def main() -> list[Any]:
        shop: Any = Shop(1)
        streamed = [x async for x in shop.add_later.stream([3])]
        return [await shop.add_later(1), await shop.add_later.submit(2), *streamed]

    assert run(main()) == [2, 3, 4]


def test_a_method_asked_of_its_class_is_the_task_itself() -> None:
    assert isinstance(Shop.add, Task)
    bound: Any = Shop(1).add
    assert isinstance(bound, BoundTask)
    assert "add" in repr(bound)
    assert Shop.add(Shop(2), 3) == 5


def test_a_class_method_of_a_subclass_gets_the_subclass() -> None:
    class Dear(Shop):
        rate = 100

    cls: Any = Dear
    assert cls.scaled(2) == 200
    assert cls.scaled.submit(2).result() == 200
    assert cls.scaled_too(2) == 200


# --- methods and options --------------------------------------------------------------------------------------------


class ShopOfFlows:
    rate = 3

    def __init__(self, base: int) -> None:
        self.base = base

    @flow
    def add(self, x: int) -> int:
        return self.base + double(x)

    @flow
    @classmethod
    def scaled(cls, x: int) -> int:
        return cls.rate * x

    @classmethod
    @flow
    def scaled_too(cls, x: int) -> int:
        return cls.rate * x

    @flow
    @staticmethod
    def twice(x: int) -> int:
        return 2 * x

    @staticmethod
    @flow
    def twice_too(x: int) -> int:
        return 2 * x

    @flow
    async def add_later(self, x: int) -> int:
        return self.base + await double_later(x)


@pytest.mark.parametrize(
    ("method", "expected"), [("add", 18), ("scaled", 12), ("scaled_too", 12), ("twice", 8), ("twice_too", 8)]
)
def test_methods_of_every_kind_are_flows_in_either_order_of_decorators(method: str, expected: int) -> None:
    on_object: Any = getattr(ShopOfFlows(10), method)
    assert on_object(4) == expected
    if method == "scaled_too" and sys.version_info >= (3, 13):
        return  # classmethod does not pass on what it wraps any more: only the call is left
    assert on_object("4") == expected  # converted
    assert on_object.submit(4).result() == expected
    assert on_object.map([4, 4]).result() == [expected] * 2
    assert on_object.with_options(name="renamed")(4) == expected
    if method != "add":
        assert getattr(ShopOfFlows, method)(4) == expected


def test_an_async_method_is_a_flow(run: Run) -> None:
    shop: Any = ShopOfFlows(1)
    assert isinstance(shop.add_later, BoundFlow)
    assert run(shop.add_later(2)) == 5
    assert isinstance(ShopOfFlows.add, Flow)
