"""Base job templates: data in places."""

from __future__ import annotations

import datetime as dt
from typing import Any
from uuid import UUID

import pytest

from upwell.core.deployments import Job
from upwell.core.errors import ConfigurationError
from upwell.pull_steps import GitClone, steps_from
from upwell.serving.docker import DOCKER_TEMPLATE
from upwell.serving.job_templates import PROCESS_TEMPLATE, JobTemplate


def job(**variables: Any) -> Job:
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return Job(
        flow_run_id=UUID(int=1), name="a", flow_name="f", deployment_id=None, deployment_name=None, entrypoint="m:f",
        parameters={}, tags=(), due=now, created=now, job_variables=variables, worker_id="w", claim=1,
    )  # fmt: skip  # names and values


def test_a_variable_takes_its_place_with_its_type_or_as_a_part_of_text() -> None:
    template = JobTemplate(
        {
            "job_configuration": {
                "image": "shop:{{ tag }}",
                "volumes": ["/a:/{{place}}"],
                "env": "{{ env }}",
                "cpus": "{{ cpus }}",
                "memory": "{{ memory }}",
            },
            "variables": {"properties": {"tag": {"default": "latest"}, "cpus": {"default": 2}}},
        },
        DOCKER_TEMPLATE,
    )
    said = template.configuration(job(place="b", env={"X": "1"}))
    assert said == {
        "image": "shop:latest", "volumes": ["/a:/b"], "env": {"X": "1"}, "cpus": 2, "auto_remove": True,
    }  # fmt: skip  # names and values
    assert template.configuration(job(tag="new", cpus=0.5))["image"] == "shop:new"


def test_a_pool_may_say_whose_code_its_runs_are_and_a_run_which_branch() -> None:
    clone = {"git_clone": {"repository": "/srv/shop.git", "branch": "{{ branch }}"}}
    template = JobTemplate({"job_configuration": {"pull_steps": [clone]}}, PROCESS_TEMPLATE)
    for variables, branch in (({}, None), ({"branch": "try-it"}, "try-it")):
        assert steps_from(template.configuration(job(**variables))["pull_steps"]) == [
            GitClone(repository="/srv/shop.git", branch=branch)
        ]


def test_a_place_is_no_expression() -> None:
    template = JobTemplate({"job_configuration": {"working_dir": "{{ env.HOME }}{{ ''.__class__ }}"}}, PROCESS_TEMPLATE)
    assert template.configuration(job())["working_dir"] == "{{ env.HOME }}{{ ''.__class__ }}"


def test_an_empty_template_is_that_of_the_kind_of_pool() -> None:
    assert JobTemplate({}, PROCESS_TEMPLATE).configuration(job(working_dir="/x")) == {
        "env": {}, "warm": True, "working_dir": "/x", "runs_per_process": 1,
    }  # fmt: skip  # names and values


@pytest.mark.parametrize(("slip", "meant"), [("runs_per_proces", "runs_per_process"), ("tags", "tag")])
def test_a_slip_in_the_name_of_a_variable_is_said(slip: str, meant: str) -> None:
    template = JobTemplate({"job_configuration": {"working_dir": "/srv/{{ tag }}"}}, PROCESS_TEMPLATE)
    with pytest.raises(ConfigurationError, match=f"'{slip}' is unknown to the work pool: '{meant}' may be meant"):
        template.configuration(job(**{slip: 1}))
    assert template.configuration(job(tag="new", season="autumn"))["working_dir"] == "/srv/new"  # the run may read it


@pytest.mark.parametrize("template", [{"job_configuration": []}, {"variables": 1}, {"variables": {"properties": []}}])
def test_what_is_no_template_is_refused(template: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="must be an object"):
        JobTemplate(template, PROCESS_TEMPLATE)
