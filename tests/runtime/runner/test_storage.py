"""Where code is from: what is meant by an address or a path; flows that are from there, and their deployments."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.serving.repository import Repository

from upwell import Flow, flow
from upwell.core.errors import ConfigurationError, SourceError
from upwell.deployments import run_deployment
from upwell.runner.storage import GitRepository, LocalStorage, RemoteStorage, storage_of
from upwell.settings import temporary_settings

pytestmark = pytest.mark.usefixtures("own_modules")

CODE = """
    from upwell import flow

    @flow(version="3")
    def sells(what: str, count: int = 1):
        "Sell it."
        return what * count
"""


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path / "shop")
    repository.commit(flows=CODE)
    return repository


def steps_of(made: Flow[..., Any], **keywords: Any) -> Any:
    return made.to_deployment("x", **keywords).spec.job_variables["pull_steps"]


def test_what_is_meant_by_an_address_or_a_path(repository: Repository, tmp_path: Path) -> None:
    assert isinstance(storage_of("https://example.org/shop"), GitRepository)
    assert isinstance(storage_of("git@example.org:shop.git"), GitRepository)
    assert isinstance(storage_of(f"file://{repository.folder}"), GitRepository)
    assert isinstance(storage_of("s3://bucket/flows"), RemoteStorage)
    assert isinstance(storage_of(repository.folder), LocalStorage)  # a working copy is a folder
    bare = storage_of(os.path.relpath(repository.folder / ".git"))
    assert isinstance(bare, GitRepository)
    assert bare.step.repository == str(repository.folder / ".git")
    for wrong in (tmp_path / "nowhere", "ext::sh", "-x", "git://example.org/shop"):
        with pytest.raises(ConfigurationError):
            storage_of(wrong)


def test_a_repository_says_which_code() -> None:
    commit = "a" * 40
    made = GitRepository("https://h/x", commit_sha=commit, access_token_variable="T", include_submodules=True)
    assert (made.step.commit, made.step.access_token_variable, made.step.include_submodules) == (commit, "T", True)
    with pytest.raises(ConfigurationError, match="say access_token_variable='GIT_TOKEN'"):
        GitRepository("https://h/x", credentials={"access_token": "s3cret"})
    with pytest.raises(ConfigurationError, match="say one of them"):
        GitRepository("https://h/x", commit=commit, commit_sha=commit)


def test_a_flow_of_a_repository_runs_here_and_keeps_its_source_when_it_is_deployed(
    repository: Repository, tmp_path: Path
) -> None:
    with temporary_settings(home=str(tmp_path / "home")):
        sells = flow.from_source(repository.url, "flows.py:sells")
        again = asyncio.run(Flow.afrom_source(source=repository.url, entrypoint="flows.py:sells"))
    assert sells("a", 2) == again("a", 2) == "aa"
    spec = sells.with_options(name="other").to_deployment("nightly", parameters={"what": "b"}).spec
    assert (spec.flow_name, spec.entrypoint, spec.version) == ("other", "flows.py:sells", "3")
    assert spec.job_variables == {"pull_steps": [{"git_clone": {"repository": repository.url}}]}
    assert spec.parameter_schema["required"] == ["what"]
    installs: dict[str, Any] = {"pip_install_requirements": {}}
    assert steps_of(sells, pull_steps=[installs]) == [{"git_clone": {"repository": repository.url}}, installs]
    pooled = sells.to_deployment("x", work_pool_name="p", job_variables={"env": {}}).spec
    assert (pooled.entrypoint, sorted(pooled.job_variables)) == ("flows.py:sells", ["env", "pull_steps"])


def test_a_flow_of_a_folder_is_run_where_it_stands(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository.folder.parent)
    sells = Flow.from_source("shop", entrypoint="flows.py:sells")
    assert steps_of(sells) == [{"set_working_directory": {"directory": str(repository.folder)}}]


def test_what_is_not_there_is_said_when_it_is_written(repository: Repository, tmp_path: Path) -> None:
    with temporary_settings(home=str(tmp_path / "home")):
        with pytest.raises(SourceError, match=r"has no branch 'nope'. It has: main"):
            flow.from_source(GitRepository(repository.url, branch="nope"), "flows.py:sells")
        with pytest.raises(ConfigurationError, match=r"There is no file wrong.py in"):
            flow.from_source(repository.url, "wrong.py:sells")
        with pytest.raises(ConfigurationError, match="is no entry point"):
            flow.from_source(repository.url, "flows")

    @flow
    def other() -> None: ...

    steps = [{"git_clone": {"repository": "https://a:s3cret@example.org/x"}}]
    with pytest.raises(
        ConfigurationError, match=r"Pull step 1 \(git_clone\): The address https://\*\*\*@example.org/x"
    ):
        other.to_deployment("x", entrypoint="a.py:b", pull_steps=steps)
    with pytest.raises(ConfigurationError, match=r"Pull step 1 \(git_clone\)"):
        other.to_deployment("x", entrypoint="a.py:b", job_variables={"pull_steps": steps})
    with pytest.raises(ConfigurationError, match=r"Pull step 1 \(git_clone\)"):
        run_deployment("other/x", job_variables={"pull_steps": steps})
