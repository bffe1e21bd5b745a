"""The docs are complete: every setting, option, error and public name has its place in them."""

from __future__ import annotations

import re
from inspect import iscoroutinefunction, signature
from pathlib import Path

import pytest

import upwell
from upwell import exceptions, testing
from upwell.core.options import FlowKeywords, TaskKeywords
from upwell.history import History
from upwell.settings import Settings, variable_of

DOCS = Path(__file__).parents[2] / "docs"


def missing_from(page: str, names: list[str]) -> list[str]:
    text = (DOCS / page).read_text()
    return [name for name in names if not re.search(rf"`{re.escape(name)}\b", text)]


def test_every_setting_is_explained() -> None:
    assert missing_from("settings.md", [variable_of(field) for field in Settings.__struct_fields__]) == []


def test_every_setting_that_is_explained_exists() -> None:
    named = set(re.findall(r"`(UPWELL_[A-Z_]+)`", (DOCS / "settings.md").read_text()))
    assert named == {variable_of(field) for field in Settings.__struct_fields__}


def test_every_error_is_explained() -> None:
    everything = {**vars(exceptions), **vars(testing)}
    errors = [
        name for name, it in everything.items() if isinstance(it, type) and issubclass(it, exceptions.UpwellError)
    ]
    assert len(errors) > 20
    assert missing_from("errors.md", errors) == []


def test_every_error_that_is_explained_exists() -> None:
    named = re.findall(r"^\| `(\w+)` \|", (DOCS / "errors.md").read_text(), re.M)
    assert [name for name in named if not hasattr(exceptions, name) and not hasattr(testing, name)] == []


def test_every_tool_for_tests_is_explained() -> None:
    text = (DOCS / "testing.md").read_text() + (DOCS / "errors.md").read_text()
    assert [name for name in testing.__all__ if name not in text and name != "VirtualClock"] == []


def test_every_question_to_the_history_and_each_of_its_filters_is_explained() -> None:
    text = (DOCS / "history.md").read_text()
    questions = {name: it for name, it in vars(History).items() if name[0] != "_" and iscoroutinefunction(it)}
    filters = {*signature(History.flow_runs).parameters, *signature(History.task_runs).parameters} - {"self"}
    told = {name for name in {*questions, *filters} if re.search(rf"`{name}\b|\b{name}=|\.{name}\(", text)}
    assert {*questions, *filters} - told == set()


@pytest.mark.parametrize("keywords", [TaskKeywords, FlowKeywords])
def test_every_option_is_explained(keywords: type) -> None:
    assert missing_from("tasks.md", sorted(keywords.__annotations__)) == []


def test_every_public_name_stands_in_some_page() -> None:
    text = "\n".join(page.read_text() for page in DOCS.glob("*.md"))
    assert [name for name in upwell.__all__ if not re.search(rf"\b{name}\b", text)] == []
