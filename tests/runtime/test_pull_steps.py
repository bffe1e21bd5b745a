"""Pull steps as they are written: what is taken, and what is said of what is not, without giving a secret away."""

from __future__ import annotations

from typing import Any

import pytest

from upwell.core.errors import ConfigurationError
from upwell.pull_steps import STEPS, GitClone, RunShellScript, as_written, check_repository, steps_from


def refused(said: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        steps_from(said)
    return str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/shop.git",
        "https://example.org:8443/a/b",
        "git@example.org:team/shop.git",
        "ssh://git@example.org:22/shop.git",
        "file:///srv/shop.git",
        "/srv/shop.git",
        "http://127.0.0.1:3000/shop.git",
        "http://localhost/shop.git",
    ],
)
def test_addresses_of_repositories(url: str) -> None:
    assert check_repository(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop.git",
        "-uploadpack=touch",
        "--upload-pack=touch:x",
        "ext::sh -c touch% x",
        "ext::touch",
        "git@-oProxyCommand=x:shop",
        "ssh://-oProxyCommand=x/shop",
        "http://example.org/shop.git",
        "git://example.org/shop.git",
        "ftp://example.org/shop.git",
        "https:///shop.git",
        "file://example.org/shop.git",
        "https://example.org/shop.git\nmore",
        "https://example.org:port/",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        check_repository(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://ann:s3cret@example.org/shop.git",
        "https://s3cret@example.org/shop.git",
        "https://ann:s3cret@pass@example.org/shop.git",
        "ssh://git:s3cret@example.org/shop.git",
        "https://example.org/shop.git?token=s3cret",
        "ftp://ann:s3cret@example.org/shop.git",
        "https://ann:s3cret@example.org:port/",
        "ext::https://ann:s3cret@example.org/",
    ],
)
def test_an_address_that_holds_a_secret_is_refused_and_not_repeated(url: str) -> None:
    said = refused([{"git_clone": {"repository": url}}])
    assert "s3cret" not in said
    if url.startswith("https://ann:s3cret@example.org/"):
        assert "access_token_variable='GIT_TOKEN'" in said


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({}, "step 2 must have one key"),
        ("git_clone", "step 2 must have one key"),
        ({"git_clon": {}}, "step 2: there is no step 'git_clon'. Did you mean 'git_clone'?"),
        ({"prefect.deployments.steps.git_clone": {}}, "Did you mean 'git_clone'?"),
        ({"build_docker_image": {}}, "There are: git_clone, "),
        ({"git_clone": {}}, "step 2 (git_clone): Object missing required field `repository`"),
        ({"git_clone": {"repository": 3}}, "step 2 (git_clone): Expected `str`, got `int` - at `repository`"),
        ({"git_clone": {"repository": "/x", "branhc": "a"}}, "there is no `branhc`. Did you mean `branch`?"),
        ({"git_clone": {"repository": "/x", "access_token": "t"}}, "say `access_token_variable: NAME`"),
        ({"git_clone": {"repository": "/x", "branch": "a", "tag": "b"}}, "branch and tag cannot both be said"),
        ({"git_clone": {"repository": "/x", "branch": "--all"}}, "branch must be the name of a branch"),
        ({"git_clone": {"repository": "/x", "tag": "a..b"}}, "tag must be the name of a tag"),
        ({"git_clone": {"repository": "/x", "commit": "abc123"}}, "all 40 digits"),
        (
            {"git_clone": {"repository": "https://x/y", "access_token_variable": "ghp-3/x"}},
            "it is not the token itself",
        ),
        ({"git_clone": {"repository": "git@x:y", "access_token_variable": "T"}}, "over ssh the worker's own key"),
        ({"run_shell_script": {"script": "echo 'a"}}, "cannot be split into arguments"),
        ({"run_shell_script": {"script": "# nothing"}}, "says no command"),
        ({"run_shell_script": {"script": "a", "timeout_seconds": 0}}, "Expected `float` > 0"),
        ({"pull_from_remote_storage": {"url": "s3://"}}, "must be like s3://bucket/folder"),
        ({"pull_from_remote_storage": {"url": "ftp://a:s3cret@h/x"}}, "The URL ftp://***@h/x holds a password"),
        ({"set_working_directory": {"directory": ""}}, "step 2 (set_working_directory)"),
    ],
)
def test_a_step_that_cannot_be_is_named(step: Any, said: str) -> None:
    assert said in refused([{"pip_install_requirements": None}, step])


def test_steps_are_a_list() -> None:
    assert "are a list" in refused({"git_clone": {}})
    assert steps_from(None) == []


def test_a_script_is_lines_or_the_arguments_of_one_command() -> None:
    assert RunShellScript(script="a 'b c'\n\n# d\ne \\\n f").commands() == [["a", "b c"], ["e", "f"]]
    assert RunShellScript(script=["a", "b c"]).commands() == [["a", "b c"]]


def test_what_is_stored_is_what_was_said() -> None:
    said: list[dict[str, Any]] = [
        {"git_clone": {"repository": "https://example.org/shop.git", "branch": "main"}},
        {"pull_from_remote_storage": {"url": "s3://bucket/flows"}},
        {"set_working_directory": {"directory": "flows"}},
        {"run_shell_script": {"script": ["make"], "env": {"A": "1"}}},
        {"pip_install_requirements": {}},
    ]
    assert [as_written(step) for step in steps_from(said)] == said
    assert {name for it in said for name in it} == set(STEPS)
    assert steps_from([GitClone(repository="/srv/shop.git")]) == [GitClone(repository="/srv/shop.git")]
