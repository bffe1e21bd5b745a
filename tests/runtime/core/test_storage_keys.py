"""Templates of storage keys: filled in with data only, and what comes out stays inside of the storage."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import pytest

from upwell.core.errors import ConfigurationError
from upwell.core.storage_keys import InvalidStorageKeyError, check_key_template, render_key


@dataclass
class Item:
    x: Any


PARAMETERS: dict[str, Any] = {"x": 7, "path": "../../etc/passwd", "d": {"k": [1, 2]}, "item": Item(1), "": 0}


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("plain.json", "plain.json"),
        ("{parameters[x]}-{task_run.name}.json", "7-parse-3.json"),
        ("{flow_run.name}/{parameters[x]:03}", "swift-otter/007"),
        ("{parameters[d][k][1]}", "2"),
        ("{parameters[x]!r}{{}}", "7{}"),
        ("a/{parameters[path]}", "a/..%2F..%2Fetc%2Fpasswd"),
        ("{task_run.parameters[x]}", "9"),
    ],
)
def test_a_template_is_filled_in_with_data(template: str, key: str) -> None:
    check_key_template(template)
    facts = {"name": "parse-3", "parameters": {"x": 9}}
    assert render_key(template, PARAMETERS, task_run=facts, flow_run={"name": "swift-otter"}) == key


@pytest.mark.parametrize(
    "template",
    [
        None,
        7,
        "",
        "/x",
        "../{parameters[x]}",
        "{parameters[x]}/",
        "a//b",
        "{",
        "{x}",
        "{}",
        "{0}",
        "{parameters}",
        "{parameters.x}",
        "{parameters[item].x}",
        "{parameters[item].__class__}",
        "{parameters.__class__.__init__.__globals__}",
        "{parameters[x].__class__.__mro__[1]}",
        "{flow_run}",
        "{flow_run.__class__}",
        "{flow_run._secret}",
        "{flow_run[name]}",
        "{flow_run.name.upper}",
        "{task_run.name[0].x}",
        "{parameters[x",
        "{parameters[x]y}",
        "{parameters[x]:{parameters[y]}}",
        "{settings.secret}",
    ],
)
def test_a_template_that_cannot_work_or_looks_at_attributes_is_refused_early(template: Any) -> None:
    with pytest.raises(ConfigurationError):
        check_key_template(template)
    if template and isinstance(template, str):
        with pytest.raises(ConfigurationError):
            render_key(template, PARAMETERS, flow_run={"name": "n"}, task_run={"name": "n"})


def test_a_template_may_only_ask_for_parameters_of_the_function() -> None:
    check_key_template("{parameters[x]}", ["x"])
    with pytest.raises(ConfigurationError, match=r"uses \{parameters\[y\]\}: there is no such parameter; known: x, z"):
        check_key_template("{parameters[y]}", ["x", "z"])


def test_a_fact_that_a_run_does_not_have_is_named() -> None:
    for template in ("{parameters[y]}", "{flow_run.name}", "{parameters[item][x]}", "{parameters[x][0]}"):
        with pytest.raises(ConfigurationError, match=r"there is no '?(y|name|x|0)'? in this run"):
            render_key(template, PARAMETERS)


def test_filling_in_changes_no_argument() -> None:
    counts: defaultdict[str, int] = defaultdict(int)
    with pytest.raises(ConfigurationError):
        render_key("{parameters[counts][x]}", {"counts": counts})
    assert not counts


@pytest.mark.parametrize("value", ["", "..", ".", "x" * 300])
def test_a_value_that_makes_no_valid_key_is_refused(value: str) -> None:
    with pytest.raises(InvalidStorageKeyError):
        render_key("a/{parameters[x]}", {"x": value})


@pytest.mark.parametrize("value", ["a/b", "a\\b", "a\nb", "a\0b", "50%", "\u202e", "\ud800", "é", "a%2Fb"])
def test_values_are_quoted_so_that_they_stay_one_part_and_differ(value: str) -> None:
    key = render_key("{parameters[x]}", {"x": value})
    assert "/" not in key
    assert key != render_key("{parameters[x]}", {"x": "a/b"}) or value == "a/b"
