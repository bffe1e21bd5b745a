"""Random requests made of the API's own schema: none finds a fault of the server's, each is answered as documented."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import checks as any_checks
from schemathesis.specs.openapi import checks as openapi_checks
from tests.runtime.server.serving import Process, opened, server_process, settings_of

from upwell.core.deployments import DeploymentSpec, RunSpec, ScheduleSpec

_ANY: Any = any_checks  # whose types are not all known
_OPENAPI: Any = openapi_checks
CHECKS: Final[list[Any]] = [
    _ANY.not_a_server_error,
    _OPENAPI.status_code_conformance,
    _OPENAPI.content_type_conformance,
    _OPENAPI.response_schema_conformance,
]
NOT_WALKED: Final = ("/api/stream", "/api/journal/")
"""A stream does not end; the other has a language of its own."""

SCHEMA: Final = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}


@pytest.fixture
def known(tmp_path: Path) -> dict[str, str]:
    """A key, and what is there: random ids would find nothing."""

    async def main() -> dict[str, str]:
        async with opened(settings_of(tmp_path)) as (parts, _):
            control = parts.control
            _, secret = await control.create_key("walker", "admin")
            spec = DeploymentSpec(
                flow_name="f",
                name="d",
                entrypoint="a.py:f",
                parameter_schema=SCHEMA,
                schedules=(ScheduleSpec(kind="interval", expression="3600", slug="hourly"),),
            )
            deployment = await control.apply_deployment(spec)
            run = await control.run_deployment(deployment.id, RunSpec(parameters={"n": 1}))
            await control.put_work_pool("pool")
            return {
                "secret": secret,
                "deployment_id": str(deployment.id),
                "run_id": str(run.id),
                "slug": "hourly",
                "name": "pool",
                "queue": "default",
            }

    return asyncio.run(main())


@pytest.fixture
def server(tmp_path: Path, known: dict[str, str]) -> Iterator[Process]:
    with server_process(tmp_path) as process:
        yield process


def test_no_request_finds_a_fault(server: Process, known: dict[str, str], request: pytest.FixtureRequest) -> None:
    cases: int = request.config.option.api_cases
    headers = {"Authorization": f"Bearer {known['secret']}"}
    schema: Any = schemathesis.openapi.from_url(f"{server.url}/api/openapi.json", headers=headers)
    walked = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path.startswith(NOT_WALKED):
            continue
        walked += 1
        walk(operation, known, headers, cases)
    assert walked > 50
    assert server.get("/api/health")[0] == 200


def walk(operation: Any, known: dict[str, str], headers: dict[str, str], cases: int) -> None:
    """Make random requests of one operation, most of them of what is there."""

    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        given_ids: dict[str, Any] = case.path_parameters or {}
        if operation.method != "delete":
            given_ids.update({name: known[name] for name in given_ids.keys() & known.keys()})
        answer = case.call(headers=headers)
        case.validate_response(answer, checks=CHECKS)

    ask()
