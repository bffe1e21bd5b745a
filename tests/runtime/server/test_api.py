"""The API as programs use it: pages, filters, errors that say what to do, requests that may be repeated."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.server.serving import Asked, asking

from upwell.journal.database import StoreUnavailable
from upwell.journal.read_pool import ReadPool

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0}},
    "required": ["n"],
    "additionalProperties": False,
}
DEPLOYMENT = {"flow_name": "report", "name": "daily", "entrypoint": "report.py:report", "parameter_schema": SCHEMA}
NO_ID = "01a2002d-6a01-7143-816b-ca90af17019f"


def with_server(folder: Path, check: Callable[[Asked], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with asking(folder, **settings) as asked:
            await check(asked)

    asyncio.run(main())


async def deployed(asked: Asked, **others: Any) -> str:
    answer = await asked.http.put("/api/deployments", json={**DEPLOYMENT, **others})
    assert answer.status_code == 200, answer.text
    identity: str = answer.json()["id"]
    return f"/api/deployments/{identity}"


def test_what_is_wrong_with_a_request_is_said_to_who_wrote_it(tmp_path: Path) -> None:
    async def check(asked: Asked) -> None:
        at = f"{await deployed(asked)}/runs"
        form = await asked.http.post(at, data={"n": "3"})
        assert form.status_code == 403
        assert "say `Content-Type: application/json`" in form.json()["detail"]
        asked.http.headers["Content-Type"] = "application/json"
        assert (await asked.http.post("/api/flow-runs/bulk")).json()["errors"] == [
            {"source": "body", "message": "is missing"}
        ]
        large = await asked.http.post(at, content=b" " * (1 << 21))
        assert (large.status_code, "1 MiB" in large.json()["detail"]) == (413, True)
        (fault,) = (await asked.http.get("/api/flow-runs?limit=0")).json()["errors"]
        assert (fault["key"], fault["source"]) == ("limit", "query")

    with_server(tmp_path, check)


def test_a_deployment_is_made_scheduled_run_paused_and_removed(tmp_path: Path) -> None:
    async def check(asked: Asked) -> None:
        at = await deployed(asked)
        assert await deployed(asked) == at, "what is wanted again is there already"
        by_name = await asked.http.get("/api/deployments/by-name/report/daily")
        assert at.endswith(by_name.json()["id"])
        schedule = {"kind": "cron", "expression": "0 9 * * *", "slug": "nine", "parameters": {"n": 1}}
        assert (await asked.http.put(f"{at}/schedules", json=schedule)).json()["schedules"][0]["slug"] == "nine"
        paused = await asked.http.patch(f"{at}/schedules/nine", json={"active": False})
        assert paused.json()["schedules"][0]["active"] is False
        run = await asked.http.post(f"{at}/runs", json={"parameters": {"n": 3}})
        assert run.status_code == 201
        assert run.json()["state"]["type"] == "SCHEDULED"
        found = await asked.http.get(f"/api/flow-runs?deployment={at.rpartition('/')[2]}")
        assert run.json()["id"] in [item["id"] for item in found.json()["items"]]
        cancelled = await asked.http.post(f"/api/flow-runs/{run.json()['id']}/cancel", json={"reason": "not today"})
        assert cancelled.status_code == 202
        assert cancelled.json()["state"]["type"] == "CANCELLED"
        assert (await asked.http.post(f"{at}/pause")).json()["paused"] is True
        assert (await asked.http.post(f"{at}/resume")).json()["paused"] is False
        assert (await asked.http.delete(f"{at}/schedules/nine")).json()["schedules"] == []
        assert (await asked.http.delete(at)).status_code == 204
        assert (await asked.http.get(at)).status_code == 404
        audit = (await asked.http.get("/api/audit")).json()["items"]
        actions = [record["action"] for record in reversed(audit)]
        assert actions[:3] == ["apply deployment", "apply deployment", "put schedule"]
        assert actions[-1] == "delete deployment"
        assert {record["actor"] for record in audit} == {"loopback"}

    with_server(tmp_path, check)


def test_what_is_wrong_is_a_problem_that_says_so(tmp_path: Path) -> None:
    async def check(asked: Asked) -> None:
        at = await deployed(asked)
        run = (await asked.http.post(f"{at}/runs", json={"parameters": {"n": 1}})).json()["id"]
        await asked.http.post(f"/api/flow-runs/{run}/cancel")
        soon = dt.datetime.now(dt.UTC).isoformat()
        expected: list[tuple[int, str, str, Any, str]] = [
            (404, "GET", f"/api/flow-runs/{NO_ID}", None, NO_ID),
            (404, "GET", f"/api/task-runs/{NO_ID}/states", None, NO_ID),
            (404, "GET", f"/api/deployments/{NO_ID}", None, NO_ID),
            (404, "GET", "/api/nothing", None, "nothing at this address"),
            (404, "DELETE", "/api/concurrency-limits/none", None, "none"),
            (405, "PATCH", "/api/flow-runs", None, ""),
            (400, "GET", "/api/flow-runs?lmit=3", None, "not known"),
            (400, "GET", "/api/flow-runs?limit=0", None, "limit"),
            (400, "GET", "/api/flow-runs?limit=1001", None, "limit"),
            (400, "GET", "/api/flow-runs?since=yesterday", None, "since"),
            (422, "GET", "/api/flow-runs?since=2026-01-01T00:00:00", None, "time zone"),
            (422, "GET", "/api/flow-runs?after=nonsense", None, "after"),
            (422, "GET", "/api/counts?until=0001-01-01T00:00:00Z", None, "out of range"),
            (422, "GET", "/api/counts?until=9999-12-31T23:59:59-01:00", None, "out of range"),
            (422, "POST", f"{at}/runs", {"parameters": {"n": -1}}, "n"),
            (422, "POST", f"{at}/runs", {"parameters": {}}, "n"),
            (400, "POST", f"{at}/runs", {"paramters": {"n": 1}}, "paramters"),
            (422, "PUT", f"{at}/schedules", {"kind": "cron", "expression": "every day"}, "every day"),
            (409, "POST", f"/api/flow-runs/{run}/cancel", None, "Cancelled"),
            (400, "POST", f"{at}/schedules/x/backfill", {"since": soon}, "until"),
            (400, "PUT", "/api/concurrency-limits/x", {"slots": -1}, "slots"),
            (400, "PUT", "/api/concurrency-limits/x", {"slots": 2**70}, "slots"),
            (400, "POST", "/api/api-keys", {"name": "x", "scope": "root"}, "scope"),
        ]
        for status, method, path, body, says in expected:
            answer = await asked.http.request(method, path, json=body)
            assert answer.status_code == status, (method, path, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == status
            assert says in answer.text, answer.text

    with_server(tmp_path, check)


def test_bodies_that_are_no_json_too_large_or_too_deep_are_refused(tmp_path: Path) -> None:
    async def check(asked: Asked) -> None:
        at = await deployed(asked)
        deep = b'{"parameters": {"n": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
        large = b'{"parameters": {"n": "' + b"x" * 2_000_000 + b'"}}'
        no_text = b'{"parameters": {"n": "\xff"}}'
        for status, body in ((400, b"{"), (400, b"[]"), (400, b"\xff"), (400, no_text), (400, deep), (413, large)):
            headers = {"Content-Type": "application/json"}
            answer = await asked.http.post(f"{at}/runs", content=body, headers=headers)
            assert answer.status_code == status, (body[:30], answer.status_code)

        async def endless() -> AsyncGenerator[bytes]:
            for _ in range(100):
                yield b"x" * 100_000

        answer = await asked.http.post(f"{at}/runs", content=endless(), headers={"Content-Type": "application/json"})
        assert answer.status_code == 413

    with_server(tmp_path, check)


def test_who_goes_away_amid_a_request_is_no_fault_of_the_servers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def check(asked: Asked) -> None:
        parts = iter(({"type": "http.request", "body": b'{"flow', "more_body": True}, {"type": "http.disconnect"}))

        async def receive() -> Any:
            return next(parts)

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        where = {"path": "/api/deployments", "raw_path": b"/api/deployments", "query_string": b"", "root_path": ""}
        who = {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 4200), "scheme": "http", "http_version": "1.1"}
        scope = {"type": "http", "method": "PUT", "headers": headers, **where, **who}
        await asked.app(scope, receive, send)

    with_server(tmp_path, check)
    assert sent[0]["status"] == 400
    assert not caplog.records


def test_a_run_of_one_idempotency_key_is_made_once(tmp_path: Path) -> None:
    async def check(asked: Asked) -> None:
        at = await deployed(asked)
        body, headers = {"parameters": {"n": 1}}, {"Idempotency-Key": "monday"}
        made = await asyncio.gather(*(asked.http.post(f"{at}/runs", json=body, headers=headers) for _ in range(8)))
        assert {answer.status_code for answer in made} <= {200, 201}
        assert len({answer.json()["id"] for answer in made}) == 1
        again = await asked.http.post(f"{at}/runs", json=body, headers=headers)
        assert (again.status_code, again.json()["id"]) == (200, made[0].json()["id"])
        other = await asked.http.post(f"{at}/runs", json=body, headers={"Idempotency-Key": "tuesday"})
        assert other.status_code == 201

    with_server(tmp_path, check)


def test_pages_go_on_where_the_one_before_ended(tmp_path: Path) -> None:
    async def check(asked: Asked) -> None:
        at = await deployed(asked)
        ids = [(await asked.http.post(f"{at}/runs", json={"parameters": {"n": n}})).json()["id"] for n in range(7)]
        seen: list[str] = []
        after: dict[str, str] = {}
        while True:
            page = (await asked.http.get("/api/flow-runs", params={"limit": "3", "order": "oldest", **after})).json()
            seen += [item["id"] for item in page["items"]]
            if page["next"] is None:
                break
            after = {"after": page["next"]}
        assert seen == ids

    with_server(tmp_path, check)


def test_many_runs_are_changed_by_one_request_that_is_noted_of_each(tmp_path: Path) -> None:
    async def check(asked: Asked) -> None:
        at = await deployed(asked)
        made = [(await asked.http.post(f"{at}/runs", json={"parameters": {"n": n}})).json()["id"] for n in range(3)]
        wanted = {"action": "cancel", "deployment": "report/daily", "reason": "moved"}

        async def bulk(**others: Any) -> Any:
            return await asked.http.post("/api/flow-runs/bulk", json={**wanted, **others})

        found = await asked.http.get("/api/flow-runs", params={"deployment": "report/daily", "ended": "false"})
        assert [item["id"] for item in found.json()["items"]] == made[::-1]
        assert (await bulk(dry_run=True)).json()["done"] == 0
        done = (await bulk(limit=2)).json()
        assert (done["done"], done["refused"], [item["id"] for item in done["items"]]) == (2, 0, made[:2])
        again = (await bulk(ids=made, deployment=None)).json()
        assert (again["done"], again["refused"]) == (1, 2)
        audit = (await asked.http.get("/api/audit")).json()["items"]
        noted = [(one["target"], one["detail"]) for one in audit if one["action"] == "cancel flow run"]
        assert noted[::-1] == [(one, "moved") for one in made]
        assert (await bulk(deployment=None)).status_code == 422
        for wrong in ({"action": "burn"}, {"limit": 0}, {"ids": ["x"]}, {"stat": "FAILED"}):
            assert (await bulk(**wrong)).status_code == 400
        headers = await asked.key("read")
        assert (await asked.http.post("/api/flow-runs/bulk", json=wanted, headers=headers)).status_code == 403

    with_server(tmp_path, check)


def test_a_head_is_answered_as_its_get_is_without_the_body(tmp_path: Path) -> None:
    async def check(asked: Asked) -> None:
        at = await deployed(asked)
        for path in (at, "/api/flow-runs", "/api/health", "/api/openapi.json", "/runs", "/metrics", "/login"):
            whole, head = await asked.http.get(path), await asked.http.head(path)
            assert (head.status_code, head.content) == (200, b""), path
            names = set(whole.headers) - {"date"}
            assert set(head.headers) - {"date"} == names
            if path != "/metrics":
                assert head.headers["content-length"] == whole.headers["content-length"]
        assert (await asked.http.head(at)).headers["etag"] == (await asked.http.get(at)).headers["etag"]
        assert (await asked.http.head("/api/nothing")).status_code == 404
        assert (await asked.http.head("/api/upkeep/jobs")).status_code == 405
        async with asyncio.timeout(30):
            stream = await asked.http.head("/api/stream")
        assert (stream.status_code, stream.content) == (200, b"")

    with_server(tmp_path, check)


def test_what_somebody_has_already_is_not_sent_again(tmp_path: Path) -> None:
    async def check(asked: Asked) -> None:
        at = await deployed(asked)
        first = await asked.http.get(at)
        tag = first.headers["etag"]
        for names in (tag, f"W/{tag}", f'"x", {tag}', "*"):
            again = await asked.http.get(at, headers={"If-None-Match": names})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == tag
        assert (await asked.http.get(at, headers={"If-None-Match": '"x"'})).status_code == 200
        await asked.http.post(f"{at}/pause")
        changed = await asked.http.get(at, headers={"If-None-Match": tag})
        assert changed.status_code == 200
        assert changed.json()["paused"] is True

    with_server(tmp_path, check)


def test_flows_are_listed_with_their_last_run(tmp_path: Path) -> None:
    async def check(asked: Asked) -> None:
        at = await deployed(asked)
        await deployed(asked, flow_name="other")
        run = (await asked.http.post(f"{at}/runs", json={"parameters": {"n": 1}})).json()
        page = (await asked.http.get("/api/flows?limit=1")).json()
        assert [(flow["name"], flow["deployments"], flow["last_run_id"]) for flow in page["items"]] == [
            ("other", 1, None)
        ]
        page = (await asked.http.get("/api/flows", params={"after": page["next"]})).json()
        assert [(flow["name"], flow["last_run_id"]) for flow in page["items"]] == [("report", run["id"])]
        assert (await asked.http.get("/api/flows?text=REP")).json()["items"] == page["items"]

    with_server(tmp_path, check)


def test_a_key_of_scope_run_cannot_say_what_workers_run(tmp_path: Path) -> None:
    async def check(asked: Asked) -> None:
        admin, run = await asked.key("admin"), await asked.key("run")
        await asked.http.put("/api/work-pools/pool", json={}, headers=admin)
        of_pool = {**DEPLOYMENT, "name": "pooled", "work_pool": "pool"}
        assert (await asked.http.put("/api/deployments", json=of_pool, headers=run)).status_code == 403
        assert (await asked.http.put("/api/deployments", json=of_pool, headers=admin)).status_code == 200
        without = {**of_pool, "work_pool": None, "entrypoint": "evil.py:evil"}
        assert (await asked.http.put("/api/deployments", json=without, headers=run)).status_code == 403
        own = await asked.http.put("/api/deployments", json=DEPLOYMENT, headers=run)
        assert own.status_code == 200
        runs = f"/api/deployments/{own.json()['id']}/runs"
        with_image = {"parameters": {"n": 1}, "job_variables": {"image": "evil"}}
        assert (await asked.http.post(runs, json=with_image, headers=run)).status_code == 403
        assert (await asked.http.post(runs, json={"parameters": {"n": 1}}, headers=run)).status_code == 201
        records = (await asked.http.get("/api/audit", headers=admin)).json()["items"]
        assert records[0]["actor"] == "run-key"

    with_server(tmp_path, check)


def test_metrics_say_how_the_store_stands(tmp_path: Path) -> None:
    async def check(asked: Asked) -> None:
        at = await deployed(asked)
        await asked.http.post(f"{at}/runs", json={"parameters": {"n": 1}})
        await asked.http.put("/api/concurrency-limits/tag:a/b", json={"slots": 3})
        assert (await asked.http.get("/api/concurrency-limits/tag:a/b")).json()["slots"] == 3
        text = (await asked.http.get("/metrics")).text
        assert 'upwell_flow_runs{state="SCHEDULED"} 1.0' in text
        assert 'upwell_jobs{state="due"} 1.0' in text
        assert 'upwell_limit_slots{limit="tag:a/b"} 3.0' in text
        assert 'upwell_server_request_seconds_count{method="POST",status="2xx"} 1.0' in text
        await asked.key("admin")
        asked.parts.access.forget()
        assert (await asked.http.get("/metrics")).status_code == 401

    with_server(tmp_path, check)


def test_readiness_tells_whether_the_store_can_be_used_and_nothing_else(tmp_path: Path) -> None:
    async def check(asked: Asked) -> None:
        assert (await asked.http.get("/api/health")).json() == {"status": "ok"}
        assert (await asked.http.get("/api/ready")).json() == {"status": "ok"}

    with_server(tmp_path, check)


class Refusing(ThreadPoolExecutor):
    """A pool of threads that does nothing for anybody."""

    def submit(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("a thread was asked")


def test_no_request_has_a_thread_do_what_takes_no_time(tmp_path: Path) -> None:
    async def check(asked: Asked) -> None:
        at = await deployed(asked)
        asyncio.get_running_loop().set_default_executor(Refusing())
        for address in ("/api/health", "/api/flow-runs?limit=1", at, "/metrics", "/", "/runs", "/login"):
            assert (await asked.http.get(address)).status_code == 200, address
        assert (await asked.http.get("/api/flow-runs?limi=1")).status_code == 400
        assert (await asked.http.post(f"{at}/pause")).status_code in (200, 201)

    with_server(tmp_path, check)


def test_a_store_that_cannot_be_read_just_now_is_no_fault_and_worth_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def locked(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("The store cannot be used: database is locked.")

    async def check(asked: Asked) -> None:
        assert (await asked.http.get("/api/flow-runs")).status_code == 200
        monkeypatch.setattr(ReadPool, "fetch", locked)
        monkeypatch.setattr(ReadPool, "fetch_text", locked)
        for address in ("/api/flow-runs", "/api/flow-runs/01890000-0000-7000-8000-000000000000/timeline", "/metrics"):
            answer = await asked.http.get(address)
            assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json"), address
            assert int(answer.headers["retry-after"]) > 0
        page = await asked.http.get("/runs", headers={"Accept": "text/html"})
        assert (page.status_code, "<main" in page.text) == (503, True)
        assert int(page.headers["retry-after"]) > 0

    with_server(tmp_path, check, server_require_key=False)


def test_who_reads_waits_for_nobody_who_changes_something(tmp_path: Path) -> None:
    async def check(asked: Asked) -> None:
        at = await deployed(asked)
        key = await asked.key("admin")
        async with asyncio.timeout(10), asked.parts.database.transaction() as session:
            await session.fetch("put_audit_record", at=0, actor="x", action="x", target="x", detail=None)
            for address in (at, "/api/deployments", "/api/work-pools", "/api/workers", "/api/concurrency-limits"):
                assert (await asked.http.get(address)).status_code == 200, address
            for address in ("/metrics", "/api/api-keys", "/api/audit", "/", "/deployments", "/limits", "/work-pools"):
                assert (await asked.http.get(address)).status_code == 200, address
        assert (await asked.http.get("/api/audit", headers=key)).json()["items"][0]["actor"] == "x"

    with_server(tmp_path, check, server_require_key=False)
