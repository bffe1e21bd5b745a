"""Names of flows, tasks and runs."""

import datetime
import functools
import re
from typing import Any

import pytest

from upwell.core.errors import ConfigurationError, InvalidNameError
from upwell.core.names import check_name, check_name_template, default_name, render_name, run_name


def test_run_names_are_adjective_animal_and_many() -> None:
    names = {run_name(number) for number in range(6400)}
    assert len(names) == 6400
    assert all(re.fullmatch(r"[a-z]+-[a-z]+", name) for name in names)
    assert run_name(2**128) == run_name(2**128)


def test_a_good_name_is_returned() -> None:
    assert check_name("My flow: №1") == "My flow: №1"


@pytest.mark.parametrize("name", ["a/b", "50%", "a&b", "a>b", "a<b"])
def test_a_forbidden_character_is_named(name: str) -> None:
    character = next(c for c in name if c in "/%&><")
    with pytest.raises(InvalidNameError, match=f"contains {character}\\."):
        check_name(name)


@pytest.mark.parametrize("name", ["", "  ", None, 3])
def test_a_name_is_text_that_is_not_empty(name: object) -> None:
    with pytest.raises(InvalidNameError, match="not empty"):
        check_name(name)


def fetch_all_pages(x: int = 0) -> int:
    return x


class Loader:
    def __call__(self) -> None: ...


def test_the_default_name_comes_from_the_function() -> None:
    assert default_name(fetch_all_pages) == "fetch-all-pages"
    assert default_name(functools.partial(functools.partial(fetch_all_pages), 3)) == "fetch-all-pages"
    assert default_name(lambda: None) == "lambda"
    assert default_name(Loader()) == "Loader"


def test_a_template_is_filled_in_from_the_parameters() -> None:
    day = datetime.date(2024, 2, 29)
    assert render_name("{day:%A}-{x}", {"day": day, "x": 3}) == "Thursday-3"
    assert render_name("{parameters[x]:>{width}}", {"x": 3, "width": 2}) == " 3"
    assert render_name("{day.year} of {flow_name}", {"day": day}, flow_name="etl") == "2024 of etl"


def test_a_parameter_may_be_called_parameters() -> None:
    assert render_name("{parameters}", {"parameters": 5}) == "5"


def test_a_function_makes_the_name_with_or_without_the_parameters() -> None:
    def from_parameters(parameters: dict[str, Any]) -> str:
        return f"run of {parameters['x']}"

    assert render_name(from_parameters, {"x": 1}) == "run of 1"
    assert render_name(lambda: "plain", {"x": 1}) == "plain"


def test_a_name_function_must_return_text() -> None:
    with pytest.raises(TypeError, match="returned 3; it must return a text"):
        render_name(lambda: 3, {})


def test_an_exception_of_a_name_function_stays_itself() -> None:
    def broken() -> str:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        render_name(broken, {})


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{y}", "there is no 'y' to use. Known: parameters, x"),
        ("{}", "there is no 'positional value'"),
        ("{x:{y}}", "there is no 'y'"),
        ("{x", "not a valid template"),
        ("{x.__class__}", "begin with an underscore"),
        ("{x[a].__class__}", "begin with an underscore"),
        ("{parameters.__init__}", "begin with an underscore"),
    ],
)
def test_a_template_that_cannot_work_fails_when_it_is_declared(template: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        check_name_template(template, ["x"])


@pytest.mark.parametrize("template", ["{x}", "{parameters[x]}", "{x!r:>{x}}", "{{x}}", "{x.year}", lambda: "a"])
def test_a_template_that_can_work_is_accepted(template: Any) -> None:
    check_name_template(template, ["x"])


def of_two_things(a: int, b: int) -> str:
    return "x"


@pytest.mark.parametrize("template", [3, b"{x}", of_two_things])
def test_a_template_of_the_wrong_type_is_a_type_error(template: Any) -> None:
    with pytest.raises(TypeError, match="run name"):
        check_name_template(template, ["x"])


def test_a_template_that_cannot_be_filled_in_says_why() -> None:
    with pytest.raises(ConfigurationError, match=r"'\{x:%A\}' could not be filled in: ValueError"):
        render_name("{x:%A}", {"x": 3})
    with pytest.raises(ConfigurationError, match="begin with an underscore"):
        render_name("{x.__class__}", {"x": 3})
