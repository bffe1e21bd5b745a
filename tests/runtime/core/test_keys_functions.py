"""Functions, classes, tasks and flows count by name, source, defaults and closure."""

import functools
from collections.abc import Callable
from typing import Any

from upwell.core.keys import digest


def double(x: int) -> int:
    return 2 * x


def adder(n: Any) -> Callable[[int], Any]:
    def add(x: int) -> Any:
        return x + n

    return add


def made(source: str, **around: Any) -> Any:
    """A function without source to be found."""
    exec(source, around)
    return around["f"]


def test_a_function_counts_with_its_defaults_and_closure() -> None:
    assert digest(adder(1)) == digest(adder(1)) != digest(adder(2))
    assert digest(adder([1])) != digest(adder([2]))
    assert digest(made("def f(x=1): return x")) == digest(made("def f(x=1): return x"))
    assert digest(made("def f(x=1): return x")) != digest(made("def f(x=2): return x"))
    assert digest(made("def f(*, x=1): return x")) != digest(made("def f(*, x=2): return x"))
    assert digest(made("def f(x): return x + 1")) != digest(made("def f(x): return x + 2"))
    assert digest(made("def f(x): return lambda: 1")) != digest(made("def f(x): return lambda: 2"))


def test_two_lambdas_of_one_line_differ() -> None:
    both: list[Callable[[int], int]] = [lambda x: x + 1, lambda x: x + 2]
    assert digest(both[0]) != digest(both[1])


def test_a_function_that_refers_to_itself_has_a_digest() -> None:
    def countdown(n: int) -> int:
        return n and countdown(n - 1)

    assert digest(countdown) == digest(countdown)


def test_a_cached_function_counts_as_what_it_wraps() -> None:
    assert digest(functools.lru_cache(adder(1))) == digest(functools.lru_cache(adder(1)))
    assert digest(functools.lru_cache(adder(1))) != digest(functools.lru_cache(adder(2)))


def test_tasks_and_flows_count_by_name_and_source() -> None:
    from upwell import flow, task

    assert digest(task(double)) == digest(task(retries=3)(double)) != digest(task(name="other")(double))
    assert digest(task(double)) != digest(flow(double))
    assert digest(task(adder(1))) != digest(task(adder(2)))
