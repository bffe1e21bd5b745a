"""Inputs in few words: no code of the value's own hurts, and what is secret is not told."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import pytest

from upwell.core.shown import MOST_CHARACTERS, shown, shown_arguments, shown_parameters


class Zone(dt.tzinfo):
    """One of the user's own."""

    def utcoffset(self, moment: dt.datetime | None, /) -> dt.timedelta:
        raise RuntimeError

    dst = tzname = utcoffset  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]  # none answers

    def __repr__(self) -> str:
        raise RuntimeError


@dataclass
class Guarded:
    name: str

    def __getattribute__(self, name: str) -> object:
        if name == "name":
            raise RuntimeError
        return super().__getattribute__(name)


class Silent:
    def __repr__(self) -> str:
        raise RuntimeError


def test_code_of_the_values_own_hurts_nobody() -> None:
    assert shown(Silent()) == "<Silent>"
    assert shown([Silent(), 1]) == "[<Silent>, 1]"
    assert shown(Guarded("x")) == "<Guarded>"
    assert shown(dt.datetime(2024, 5, 1, tzinfo=Zone())) == "datetime.datetime(2024, 5, 1, 0, 0, tzinfo=<Zone>)"
    assert shown(dt.datetime(2024, 5, 1, tzinfo=dt.UTC)).endswith("tzinfo=datetime.timezone.utc)")


def test_a_number_that_is_too_long_to_be_written_is_described() -> None:
    assert shown(10**5000) == "<int of 16,610 bits>"
    assert shown([10**5000, 1]) == "[<int of 16,610 bits>, 1]"
    assert shown(10**1000) == f"1{'0' * (MOST_CHARACTERS - 1)}..."


@dataclass
class Login:
    user: str
    password: str


def test_what_has_the_name_of_a_secret_is_hidden_at_any_depth() -> None:
    values = [5, "hunter2", {"Api-Token": "hunter2", "n": {"secret": "hunter2"}}, [Login("me", "hunter2")]]
    text = shown_arguments(["n", "API_KEY", "headers", "logins"], values)
    assert "hunter2" not in text
    assert text.startswith("n=5, API_KEY=********, headers={'Api-Token': ********, ")
    assert shown_parameters({"password": "hunter2", "n": 1}) == {"password": "********", "n": "1"}


@pytest.mark.parametrize("before", ["", "x" * (MOST_CHARACTERS - 20)])
def test_the_password_of_an_address_is_hidden(before: str) -> None:
    text = shown(f"{before} postgresql://me:hunter2@host/db and redis://:hunter2@host")
    assert "hunter" not in text
    assert "://me:***" in text
    assert shown_arguments(["urls"], [["https://me:hunter2@host"]]) == "urls=['https://me:********@host']"
    assert shown("http://host:80/a@b") == "'http://host:80/a@b'"
