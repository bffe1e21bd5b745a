"""Futures inside arguments: found, counted once, and replaced by results."""

import enum
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import attrs
import msgspec
import numpy as np
import pydantic
import pytest

from upwell.core.annotations import allow_failure, opaque, quote, unmapped
from upwell.core.dependencies import Dependency, DependencyFinder
from upwell.core.errors import ParameterTypeError


class Future:
    def __init__(self, result: object) -> None:
        self.result = result


class ChildFuture(Future): ...


def result_of(future: Future, allow_failure: bool) -> object:
    return future.result


@pytest.fixture
def finder() -> DependencyFinder[Future]:
    return DependencyFinder(Future)


class Point(NamedTuple):
    x: Any
    y: Any


@dataclass(frozen=True, slots=True)
class Frozen:
    x: Any
    y: Any = field(default=0, init=False)


@dataclass
class Plain:
    x: Any
    initialised: int = 0

    def __post_init__(self) -> None:
        self.initialised += 1


@dataclass
class Attribute:
    x: Any
    y: Any


class Record(msgspec.Struct, frozen=True):
    x: Any


@attrs.frozen
class Attrs:
    x: Any


class Model(pydantic.BaseModel):
    x: Any


class MyList(list[Any]):
    """With an attribute of its own."""

    label = ""


class Colour(enum.Enum):
    RED = 1


CONTAINERS: list[Callable[[Any], Any]] = [
    lambda x: [1, x],
    lambda x: (1, x),
    lambda x: {"k": x},
    lambda x: {x: "v"},
    lambda x: {x, 1},
    lambda x: frozenset([x]),
    lambda x: Point(1, x),
    lambda x: Frozen(x),
    lambda x: Plain(x),
    lambda x: Record(x),
    lambda x: Attrs(x),
    lambda x: Model(x=x),
    lambda x: deque([1, x], maxlen=2),
    lambda x: OrderedDict[str, Any](a=1, b=x),
    lambda x: Counter({"a": x}),
    lambda x: MyList([x]),
    lambda x: [{"a": (Plain([x]),)}],
]


@pytest.mark.parametrize("make", CONTAINERS)
def test_a_future_in_any_container_is_found_and_replaced(finder: DependencyFinder[Future], make: Any) -> None:
    future = Future(7)
    value = make(future)
    assert not finder.is_plain((value,), {})
    assert not finder.is_plain((), {"k": value})
    assert finder.find(value) == [Dependency(future, False)]
    resolved = finder.resolve(value, result_of)
    assert resolved == make(7)
    assert type(resolved) is type(value)
    assert finder.find(value) == [Dependency(future, False)], "the caller's own object is left as it was"


@pytest.mark.parametrize("make", CONTAINERS)
def test_a_container_without_futures_is_passed_by_identity(finder: DependencyFinder[Future], make: Any) -> None:
    value = make(7)
    assert finder.is_plain((value,), {"k": value})
    assert finder.find(value) == []
    assert finder.resolve(value, result_of) is value


def test_subclasses_of_the_future_class_are_futures(finder: DependencyFinder[Future]) -> None:
    assert finder.resolve([ChildFuture(1)], result_of) == [1]


def test_only_what_holds_a_future_is_rebuilt(finder: DependencyFinder[Future]) -> None:
    untouched = {"a": [1, 2]}
    resolved = finder.resolve([untouched, [Future(1)]], result_of)
    assert resolved == [untouched, [1]]
    assert resolved[0] is untouched


def test_each_future_is_reported_once_in_the_order_first_seen(finder: DependencyFinder[Future]) -> None:
    a, b, c = Future(1), Future(2), Future(3)
    found = finder.find(((b, [a, b]), {"k": c, "l": a}))
    assert [dependency.future for dependency in found] == [b, a, c]


def test_allow_failure_covers_all_that_stands_inside(finder: DependencyFinder[Future]) -> None:
    a, b = Future(1), Future(2)
    value = (allow_failure([a, {"k": a}]), b)
    assert finder.find(value) == [Dependency(a, True), Dependency(b, False)]
    seen: list[tuple[Future, bool]] = []
    finder.resolve(value, lambda future, lenient: seen.append((future, lenient)))
    assert seen == [(a, True), (a, True), (b, False)]


def test_a_future_that_also_stands_outside_of_allow_failure_may_not_fail(
    finder: DependencyFinder[Future],
) -> None:
    future, shared = Future(1), [Future(2)]
    assert finder.find((allow_failure(future), future)) == [Dependency(future, False)]
    assert [found.allow_failure for found in finder.find((allow_failure(shared), shared))] == [False]


NESTINGS: list[Callable[[Any], Any]] = [
    lambda x: unmapped(allow_failure(x)),
    lambda x: allow_failure(unmapped(x)),
]


@pytest.mark.parametrize("nest", NESTINGS)
def test_wrappers_nest_and_are_taken_off(finder: DependencyFinder[Future], nest: Any) -> None:
    future = Future(1)
    assert finder.find(nest([future])) == [Dependency(future, True)]
    assert finder.resolve(nest([future]), result_of) == [1]


def test_a_wrapper_without_a_future_is_not_plain_and_is_taken_off(finder: DependencyFinder[Future]) -> None:
    value = [5]
    assert not finder.is_plain((unmapped(value),), {})
    assert not finder.is_plain(([unmapped(value)],), {})
    assert finder.find(unmapped(value)) == []
    assert finder.resolve(unmapped(value), result_of) is value
    assert finder.resolve([unmapped(5)], result_of) == [5]


def test_nothing_looks_inside_a_quote(finder: DependencyFinder[Future]) -> None:
    future = Future(1)
    held = [future]
    assert finder.find([quote(held), quote(future)]) == []
    assert finder.resolve(quote(held), result_of) is held
    assert finder.resolve([quote(future)], result_of) == [future]


def test_an_opaque_container_is_not_opened_but_an_opaque_future_is_resolved(
    finder: DependencyFinder[Future],
) -> None:
    future = Future(1)
    held = [future]
    assert finder.find(opaque(held)) == []
    assert finder.resolve(opaque(held), result_of) is held
    assert finder.find(opaque(future)) == [Dependency(future, False)]
    assert finder.resolve(opaque(future), result_of) == 1


def test_a_result_is_not_looked_into(finder: DependencyFinder[Future]) -> None:
    inner = Future(1)
    assert finder.resolve([Future([inner])], result_of) == [[inner]]


def test_objects_of_other_classes_are_not_opened(finder: DependencyFinder[Future]) -> None:
    class Box:
        def __init__(self) -> None:
            self.future = Future(1)

        def __iter__(self) -> Iterator[Any]:
            raise AssertionError("opened")

    values = (Box(), np.arange(3), iter([1]), Colour.RED, Box, object())
    assert finder.is_plain(values, {})
    assert finder.resolve(values, result_of) is values


def test_a_shared_container_stays_shared(finder: DependencyFinder[Future]) -> None:
    shared = [Future(1)]
    left, right = finder.resolve([shared, shared], result_of)
    assert left is right


def test_a_widely_shared_structure_is_walked_once(finder: DependencyFinder[Future]) -> None:
    value: list[Any] = [Future(1)]
    for _ in range(200):
        value = [value, value]
    assert len(finder.find(value)) == 1
    assert finder.resolve(value, result_of) is not value


def test_a_cycle_without_futures_is_left_alone(finder: DependencyFinder[Future]) -> None:
    loop: list[Any] = [1]
    loop.append({"back": loop})
    assert finder.is_plain((loop,), {})
    future = Future(2)
    resolved = finder.resolve([loop, future], result_of)
    assert resolved[0] is loop
    assert resolved[1] == 2


def test_a_cycle_with_futures_is_an_error_that_says_what_to_do(finder: DependencyFinder[Future]) -> None:
    loop: list[Any] = []
    loop.extend([{"back": loop}, Future(1)])
    assert len(finder.find(loop)) == 1
    with pytest.raises(ParameterTypeError, match="A list contains itself"):
        finder.resolve(loop, result_of)


def in_a_list(value: Any) -> list[Any]:
    return [value]


WRAPS: list[Callable[[Any], Any]] = [in_a_list, lambda x: (x,), lambda x: {"k": x}, Plain, Record, unmapped]


@pytest.mark.parametrize("wrap", WRAPS)
def test_nesting_is_not_bounded_by_the_recursion_limit(finder: DependencyFinder[Future], wrap: Any) -> None:
    value: Any = Future("deep")
    for _ in range(100_000 if wrap is in_a_list else 20_000):
        value = wrap(value)
    assert not finder.is_plain((value,), {})
    assert len(finder.find(value)) == 1
    resolved: Any = finder.resolve(value, result_of)
    while resolved != "deep":
        resolved = next(iter(parts_of(resolved)))
    assert resolved == "deep"


def parts_of(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return [value["k"]]  # pyright: ignore[reportUnknownVariableType]: of our own making
    return [value.x] if isinstance(value, Plain | Record) else value


def test_a_list_of_plain_values_is_not_walked_item_by_item(finder: DependencyFinder[Future]) -> None:
    class Counting(list[int]):
        walks = 0

        def __iter__(self) -> Iterator[int]:
            self.walks += 1
            return super().__iter__()

    numbers = Counting(range(1000))
    assert finder.is_plain((numbers,), {})
    assert numbers.walks == 1
    numbers.walks = 0
    assert finder.find(numbers) == []
    assert numbers.walks == 1
    numbers.walks = 0
    assert finder.resolve(numbers, result_of) is numbers
    assert numbers.walks == 1


def test_many_inputs_are_checked_at_once(finder: DependencyFinder[Future]) -> None:
    assert finder.all_plain(range(10))
    assert finder.all_plain([1, "a", [1], {"k": None}])
    assert not finder.all_plain([1, [Future(1)]])
    assert not finder.all_plain([1, unmapped(1)])


def test_a_default_factory_survives(finder: DependencyFinder[Future]) -> None:
    value: defaultdict[str, Any] = defaultdict(list, a=Future(1))
    resolved = finder.resolve(value, result_of)
    assert resolved == {"a": 1}
    assert resolved["new"] == []


def test_the_attributes_of_a_subclass_survive(finder: DependencyFinder[Future]) -> None:
    value = MyList([Future(1)])
    value.label = "mine"
    assert finder.resolve(value, result_of).label == "mine"


def test_init_is_not_run_again(finder: DependencyFinder[Future]) -> None:
    assert finder.resolve(Plain(Future(1)), result_of).initialised == 1


class OddTuple(tuple[Any, ...]): ...


class OddFrozenset(frozenset[Any]): ...


class Uncopyable(dict[str, Any]):
    def __copy__(self) -> Any:
        return self


@pytest.mark.parametrize(
    "value",
    [
        OddTuple([Future(1)]),
        OddFrozenset([Future(1)]),
        Uncopyable(k=Future(1)),
        {Future([])},
        {Future([]): 1},
    ],
)
def test_what_cannot_be_rebuilt_says_so(finder: DependencyFinder[Future], value: Any) -> None:
    assert len(finder.find(value)) == 1
    with pytest.raises(ParameterTypeError, match=f"no {type(value).__name__} can be made with their results"):
        finder.resolve(value, result_of)


def test_endless_new_classes_are_not_remembered_for_ever(finder: DependencyFinder[Future]) -> None:
    for number in range(5000):
        assert finder.is_plain((type(f"C{number}", (), {})(),), {})
    assert len(finder._shapes) <= 4096  # pyright: ignore[reportPrivateUsage]: nothing public shows a leak
    assert finder.is_plain((5, "x"), {})
    assert not finder.is_plain(([Future(1)],), {})


def test_an_unset_field_is_no_obstacle(finder: DependencyFinder[Future]) -> None:
    record = Attribute.__new__(Attribute)
    record.y = Future(4)
    assert finder.resolve(record, result_of).y == 4
