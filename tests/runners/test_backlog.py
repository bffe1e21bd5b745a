"""The sequences of attempts that a pool of processes has under way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from upwell.core.seams import Attempt
from upwell_runners.processes.backlog import Backlog, InFlight, group_of


class One:
    """An attempt of a group."""

    def __init__(self, name: str, group: object = "a group") -> None:
        self.name = name
        self.group = group

    def __repr__(self) -> str:
        return self.name


class Known(list[Any]):
    """Attempts of which it is known that they are of one group."""

    group = "known"

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        return Known(found) if isinstance(place, slice) else found


def some(names: str, group: object = "a group") -> list[Attempt]:
    return [cast("Attempt", One(name, group)) for name in names]


def names(attempts: Sequence[Attempt]) -> str:
    return "".join(attempt.name for attempt in attempts)


def test_what_waits_is_taken_in_its_order_and_put_back_before_the_others() -> None:
    backlog = Backlog()
    backlog.add(some("abcde"))
    backlog.add([])
    backlog.add(some("f"))
    assert len(backlog) == 6
    assert backlog.head.name == "a"
    first = backlog.take(2)
    assert names(first) == "ab"
    assert backlog.head.name == "c"
    backlog.put_back(first[1:])
    assert (names(backlog.take(1)), names(backlog.take(2)), len(backlog)) == ("b", "cd", 2)
    assert names(backlog.clear()) == "ef"
    assert len(backlog) == 0


def test_attempts_that_came_one_by_one_are_taken_together() -> None:
    backlog = Backlog()
    for name in "abcdef":
        backlog.add(some(name))
    assert names(backlog.take(4)) == "abcd"
    backlog.add(some("ghi"))
    assert names(backlog.take(3)) == "efg"
    assert names(backlog.take(9)) == "hi"


def test_a_sequence_of_one_group_stays_alone() -> None:
    backlog = Backlog()
    backlog.add(some("a"))
    backlog.add(Known(some("bcd")))
    backlog.add(some("e"))
    assert [names(backlog.take(2)) for _ in range(4)] == ["a", "bc", "d", "e"]


def test_those_that_are_not_wanted_are_taken_out_wherever_they_wait() -> None:
    backlog = Backlog()
    all_of_them = some("abcdef")
    backlog.add(all_of_them[:3])
    backlog.add(all_of_them[3:])
    backlog.take(1)
    assert names(backlog.drop({all_of_them[1], all_of_them[4]})) == "be"
    assert names(backlog.take(9)) == "cdf"


def test_the_group_is_told_only_if_all_share_it() -> None:
    assert group_of(some("ab", "one")) == "one"
    assert group_of([*some("a", "one"), *some("b", "two")]) is None
    assert group_of(Known(some("ab", "another"))) == "known"


@pytest.fixture
def in_flight() -> InFlight:
    found = InFlight()
    found.add(1, some("abcd"))
    found.add(5, some("ef"))
    return found


def by_serial(in_flight: InFlight) -> dict[int, str]:
    return {serial: attempt.name for serial, attempt in in_flight}


def test_what_is_answered_leaves_from_the_front(in_flight: InFlight) -> None:
    assert (in_flight.first, len(in_flight), bool(in_flight)) == (1, 6, True)
    assert names(in_flight.answered(1, 3)) == "abc"
    assert by_serial(in_flight) == {4: "d", 5: "e", 6: "f"}
    assert names(in_flight.answered(4, 1)) == "d"
    assert names(in_flight.answered(5, 2)) == "ef"
    assert not in_flight


def test_an_answer_about_others_than_the_first_takes_out_just_these(in_flight: InFlight) -> None:
    assert names(in_flight.answered(5, 1)) == "e"
    assert by_serial(in_flight) == {1: "a", 2: "b", 3: "c", 4: "d", 6: "f"}


def test_an_attempt_is_found_by_its_serial(in_flight: InFlight) -> None:
    for serial, name in by_serial(in_flight).items():
        attempt = in_flight.get(serial)
        assert attempt is not None
        assert attempt.name == name
    assert in_flight.get(0) is None
    assert in_flight.get(7) is None


def test_what_is_given_back_is_taken_out_of_the_middle_too(in_flight: InFlight) -> None:
    assert names(in_flight.take_out({2, 4, 5, 99})) == "bde"
    assert by_serial(in_flight) == {1: "a", 3: "c", 6: "f"}
    assert names(in_flight.take_out({1, 3, 6})) == "acf"
    assert not in_flight
