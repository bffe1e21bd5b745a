"""Random requests made of the API's own schema: none finds a fault of the server's, each is answered as documented."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import checks as any_checks
from schemathesis.specs.openapi import checks as openapi_checks
from tests.runtime.server.serving import Asked, asking

from upwell.core.deployments import DeploymentSpec, RunSpec, ScheduleSpec, WorkPoolSpec

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


SHARES: Final = 8
"""Tests among which the operations are shared out, so that several processes can make them."""


class Walk:
    """Somebody who asks an application in this process, from outside its loop, and knows what is there."""

    def __init__(self, runner: asyncio.Runner, asked: Asked) -> None:
        self._runner = runner
        self._asked = asked
        self._headers: dict[str, str] = {}
        self.known: dict[str, str] = {}
        """Ids and names by the parameters that they are for: random ones would find nothing."""

    async def furnish(self) -> None:
        """Make a key, and something of each kind."""
        self._headers = await self._asked.key("admin")
        control = self._asked.parts.control
        spec = DeploymentSpec(
            flow_name="f",
            name="d",
            entrypoint="a.py:f",
            parameter_schema=SCHEMA,
            schedules=(ScheduleSpec(kind="interval", expression="3600", slug="hourly"),),
        )
        deployment = await control.apply_deployment(spec)
        run = await control.run_deployment(deployment.id, RunSpec(parameters={"n": 1}))
        await control.put_work_pool("pool", WorkPoolSpec())
        self.known = {
            "deployment_id": str(deployment.id),
            "run_id": str(run.id),
            "slug": "hourly",
            "name": "pool",
            "queue": "default",
        }

    def ask(self, method: str, url: str, *, cookies: Any = None, data: Any = None, **request: Any) -> Any:
        """The answer to a request, with no cookies: no operation has any."""
        headers = {**request.pop("headers", {}), **self._headers}
        return self._runner.run(self._asked.http.request(method, url, headers=headers, content=data, **request))


@contextmanager
def walk(folder: Path) -> Generator[Walk]:
    with asyncio.Runner() as runner:
        opened = AsyncExitStack()
        asked: Asked = runner.run(opened.enter_async_context(asking(folder)))
        try:
            walk = Walk(runner, asked)
            runner.run(walk.furnish())
            yield walk
        finally:
            runner.run(opened.aclose())


@pytest.mark.timeout(400)
@pytest.mark.parametrize("share", range(SHARES))
def test_no_request_finds_a_fault(share: int, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    with walk(tmp_path) as here:
        schema: Any = schemathesis.openapi.from_dict(here.ask("GET", "/api/openapi.json").json())
        schema.config.generation.update(with_security_parameters=False)  # who asks has a key
        operations = [found.ok() for found in schema.get_all_operations()]
        walked = [operation for operation in operations if not operation.path.startswith(NOT_WALKED)]
        assert len(walked) > 50
        for operation in walked[share::SHARES]:
            ask_at_random(operation, here, pytestconfig.option.api_cases, pytestconfig.option.first_seed)
        assert here.ask("GET", "/api/health").status_code == 200


def ask_at_random(operation: Any, here: Walk, cases: int, first_seed: int) -> None:
    """Make random requests of one operation, most of them of what is there."""

    @seed(first_seed)
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
            given_ids.update({name: here.known[name] for name in given_ids.keys() & here.known.keys()})
        answer = here.ask(**case.as_transport_kwargs(base_url="http://127.0.0.1:4200"))
        case.validate_response(answer, checks=CHECKS)

    ask()
