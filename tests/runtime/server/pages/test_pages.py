"""Every page is made, escapes what people wrote, holds nothing that is refused by a browser, and asks who may."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.runtime.server.serving import Asked, asking

from upwell import composition, flow, get_run_logger, task
from upwell.core.deployments import DeploymentSpec, RunSpec, ScheduleSpec, WorkPoolSpec
from upwell.server.pages.deployments import markdown
from upwell.settings import temporary_settings

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'{{7*7}}{% raw %}javascript:alert(1)"
INLINE = re.compile(r"<script(?![^>]*\ssrc=)|\son\w+=|\sstyle=|javascript:[^a]", re.I)
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def record(home: Path) -> None:
    """Runs whose every text is an attack."""

    @task(name="a-task", tags=[ATTACK])
    def one(text: str) -> str:
        get_run_logger().error(text)
        raise ValueError(text)

    @flow(name='it\'s "{{7*7}}"', flow_run_name='of "onerror=alert(1)"')
    def whole(text: str) -> None:
        one(text)

    with temporary_settings(home=str(home), journal="on"):
        with pytest.raises(ValueError, match="script"):
            whole(ATTACK)
        composition.close_journal()


async def furnish(asked: Asked) -> dict[str, UUID]:
    control = asked.parts.control
    await control.put_work_pool("pool", WorkPoolSpec(description=ATTACK))
    wanted = DeploymentSpec(
        flow_name="deployed",
        name="one",
        entrypoint="x.py:deployed",
        description=f"{ATTACK} [here](javascript:alert(1)) **bold**",
        tags=(ATTACK,),
        work_pool="pool",
        parameters={"text": ATTACK},
        parameter_schema={"type": "object", "properties": {"text": {"type": "string", "description": ATTACK}}},
        schedules=(ScheduleSpec(kind="cron", expression="0 6 * * *", slug="daily"),),
    )
    deployment = await control.apply_deployment(wanted)
    run = await control.run_deployment(deployment.id, RunSpec(tags=(ATTACK,)))
    await control.audit(ATTACK, ATTACK, ATTACK, ATTACK)
    return {"deployment": deployment.id, "run": run.id}


async def addresses(asked: Asked, ids: dict[str, UUID]) -> list[str]:
    runs = (await asked.http.get("/api/flow-runs")).json()["items"]
    tasks = (await asked.http.get("/api/task-runs")).json()["items"]
    found = ["/", "/?of=task_runs&hours=1", "/runs", "/runs?state=FAILED&q=script", "/task-runs", "/flows", "/login"]
    for run in runs:
        found += [
            f"/runs/{run['id']}?view={view}" for view in ("timeline", "graph", "logs", "tasks", "subflows", "details")
        ]
    found += [f"/task-runs/{item['id']}" for item in tasks]
    found += ["/flows/deployed", "/deployments", f"/deployments/{ids['deployment']}"]
    found += [f"/deployments/{ids['deployment']}/custom-run", "/work-pools", "/work-pools/pool", "/limits"]
    return [*found, "/settings", "/keys", "/audit", "/search?q=script", "/search?part=found&q=deploy", "/search?q="]


def on_pages(home: Path, check: Any) -> None:
    async def main() -> None:
        async with asking(home) as asked:
            ids = await furnish(asked)
            await check(asked, ids)

    asyncio.run(main())


def test_every_page_shows_what_people_wrote_as_text(tmp_path: Path) -> None:
    record(tmp_path)

    async def check(asked: Asked, ids: dict[str, UUID]) -> None:
        attacked = labelled = 0
        for address in await addresses(asked, ids):
            answer = await asked.http.get(address, headers={"Accept": "text/html"})
            assert answer.status_code == 200, address
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            assert "<script>alert" not in answer.text, address
            assert "<img src=x" not in answer.text, address
            assert '"49"' not in answer.text, address
            text = re.sub(r"title=\"[^\"]*\"|value=\"[^\"]*\"|content=\"[^\"]*\"|data-\w+=\"[^\"]*\"", "", answer.text)
            assert not [tag for tag in re.findall(r"<[a-z][^>]*>", text) if INLINE.search(tag)], address
            numbers = re.findall(r"<td class=\"shrink num\"([^>]*)>((?:<[^>]*>)*\d[^<a-z]*)<", answer.text)
            assert all("data-label" in given for given, _ in numbers), address  # on a phone there is no head to say it
            labelled += answer.text.count("data-label")
            attacked += "&lt;script&gt;alert(1)" in answer.text
        assert attacked > 12
        assert labelled > 5
        page = (await asked.http.get(f"/deployments/{ids['deployment']}")).text
        assert "<strong>bold</strong>" in page
        assert 'href="javascript' not in page

    on_pages(tmp_path, check)


def test_what_is_not_there_is_said_on_a_page(tmp_path: Path) -> None:
    async def check(asked: Asked, ids: dict[str, UUID]) -> None:
        nowhere = "01890000-0000-7000-8000-000000000000"
        for address in (
            f"/runs/{nowhere}",
            f"/task-runs/{nowhere}",
            f"/deployments/{nowhere}",
            "/flows/none",
            "/work-pools/none",
        ):
            answer = await asked.http.get(address, headers={"Accept": "text/html"})
            assert answer.status_code == 404, address
            assert "There is nothing here" in answer.text
        for address in ("/runs?since=soon", "/runs?deployment=x"):
            answer = await asked.http.get(address, headers={"Accept": "text/html"})
            assert answer.status_code in (400, 422), address
            assert "<main" in answer.text
        elsewhere = await asked.http.get("/nowhere", headers={"Accept": "text/html"})
        assert (elsewhere.status_code, "There is nothing here" in elsewhere.text) == (404, True)
        assert (await asked.http.get("/nowhere")).headers["content-type"] == "application/problem+json"
        assert (await asked.http.get("/runs?stat=FAILED")).status_code == 400
        assert (await asked.http.get("/static/x/../secret")).status_code in (401, 404)

    on_pages(tmp_path, check)


def test_what_does_not_fit_into_a_form_is_said_on_its_page(tmp_path: Path) -> None:
    schedule = "kind=interval&unit=minutes&every="
    refused = [
        ("schedules/add", f"{schedule}nan", "must be a number"),
        ("schedules/add", f"{schedule}inf", "must be a number"),
        ("schedules/add", f"{schedule}5&slug=mine", "There is a schedule mine already"),
        ("custom-run", "priority=%C2%B2", "must be a whole number"),
        ("custom-run", "start=at&at=9999-12-31T23:59&zone=America/New_York", "Say at which time"),
        ("custom-run", "start=at&at=0001-01-01T00:00&zone=Asia/Tokyo", "Say at which time"),
    ]

    async def check(asked: Asked, ids: dict[str, UUID]) -> None:
        control = asked.parts.control
        wanted = DeploymentSpec(flow_name="f", name="forms", entrypoint="f.py:f")
        made = (await control.apply_deployment(wanted)).id
        await control.put_schedule(made, ScheduleSpec(kind="interval", expression="60", slug="mine"))
        word = re.search(r'name="csrf_token" value="([^"]+)"', (await asked.http.get("/work-pools")).text)
        assert word is not None
        for address, body, said in refused:
            sent = f"csrf_token={word[1]}&{body}"
            answer = await asked.http.post(f"/deployments/{made}/{address}", content=sent, headers=FORM)
            assert (answer.status_code < 500, said in answer.text) == (True, True), (body, answer.text[-2000:])
        [schedule] = (await control.deployment(made)).schedules
        assert schedule.expression == "60"

    on_pages(tmp_path, check)


def test_what_is_not_there_is_not_made_by_a_page_that_is_out_of_date(tmp_path: Path) -> None:
    async def check(asked: Asked, ids: dict[str, UUID]) -> None:
        word = re.search(r'name="csrf_token" value="([^"]+)"', (await asked.http.get("/work-pools")).text)
        assert word is not None
        for address in ("none/pause", "none/change", "none/queue", "pool/unheard-of"):
            body = f"csrf_token={word[1]}&queue=q&template="
            answer = await asked.http.post(f"/work-pools/{address}", content=body, headers=FORM)
            assert answer.status_code == 404, address
        assert [pool.name for pool in await asked.parts.control.work_pools()] == ["pool"]
        noted = {record.action for record in await asked.parts.control.audit_records()}
        assert not noted & {"pause work pool", "unheard-of work pool"}

    on_pages(tmp_path, check)


def test_a_form_of_another_page_changes_nothing(tmp_path: Path) -> None:
    async def check(asked: Asked, ids: dict[str, UUID]) -> None:
        place = f"/deployments/{ids['deployment']}"
        for address in (f"{place}/pause", f"{place}/schedules/daily/delete", f"/runs/{ids['run']}/cancel", "/keys/new"):
            for body in ("", "csrf_token=guess"):
                answer = await asked.http.post(address, content=body, headers=FORM)
                assert answer.status_code == 403, address
        assert not (await asked.parts.control.deployment(ids["deployment"])).paused

    on_pages(tmp_path, check)


def test_a_run_is_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    async def check(asked: Asked, ids: dict[str, UUID]) -> None:
        whole = str(ids["run"])
        for text, is_found in ((whole[:8], True), (whole[:20].upper(), True), (whole, True), (whole[:7], False)):
            page = await asked.http.get("/search", params={"part": "found", "q": text})
            assert (f'href="/runs/{whole}"' in page.text) is is_found, text

    on_pages(tmp_path, check)


def test_a_key_that_may_look_sees_no_buttons_and_does_nothing(tmp_path: Path) -> None:
    async def check(asked: Asked, ids: dict[str, UUID]) -> None:
        reader = await asked.key("read")
        place = f"/deployments/{ids['deployment']}"
        page = await asked.http.get(place, headers=reader)
        assert page.status_code == 200
        assert "<form" not in page.text.split("<main", 1)[1].split("</main>")[0]
        for address in (f"{place}/run", f"{place}/pause", f"/runs/{ids['run']}/cancel", "/runs/bulk", "/limits/put"):
            assert (await asked.http.post(address, headers={**reader, **FORM})).status_code == 403, address
        for address in ("/keys", "/audit", f"{place}/custom-run"):
            assert (await asked.http.get(address, headers=reader)).status_code == 403, address

    on_pages(tmp_path, check)


def test_somebody_logs_in_looks_and_logs_out(tmp_path: Path) -> None:
    async def check(asked: Asked, ids: dict[str, UUID]) -> None:
        secret = (await asked.key("run"))["Authorization"].removeprefix("Bearer ")
        html = {"Accept": "text/html"}
        sent_away = await asked.http.get("/runs?state=FAILED", headers=html)
        assert sent_away.status_code == 303
        assert sent_away.headers["location"] == "/login?next=%2Fruns%3Fstate%3DFAILED"
        login = await asked.http.get(sent_away.headers["location"])
        assert login.status_code == 200
        for address in re.findall(r'(?:href|src)="(/static/[^"#]+)"', login.text):
            assert (await asked.http.get(address)).status_code == 200, address
        wrong = await asked.http.post("/login", data={"key": "wrong", "next": "/runs"})
        assert wrong.status_code == 403
        assert "not known" in wrong.text
        for target, leads in (
            ("/runs", "/runs"),
            ("//evil.example", "/"),
            ("https://evil.example", "/"),
            ("/\\evil", "/"),
        ):
            asked.http.cookies.clear()
            right = await asked.http.post("/login", data={"key": secret, "next": target})
            assert right.status_code == 303
            assert right.headers["location"] == leads
        cookie = right.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        page = await asked.http.get("/settings", headers=html)
        assert "run-key" in page.text
        token = re.search(r'name="csrf" content="([^"]+)"', page.text)
        assert token is not None
        assert (await asked.http.post("/logout", data={"csrf_token": token[1]})).status_code == 303
        assert (await asked.http.get("/settings", headers=html)).status_code == 303

    on_pages(tmp_path, check)


def test_a_description_asks_nobody_for_pictures() -> None:
    assert "<img" not in (said := markdown("![a chart](https://elsewhere.example/chart.png)"))
    assert 'href="https://elsewhere.example/chart.png"' in said


def test_a_paused_deployment_has_no_next_run(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as asked:
            ids = await furnish(asked)
            place = f"/deployments/{ids['deployment']}"
            assert "\u00b7 next" in (await asked.http.get(place)).text
            await asked.parts.control.pause_deployment(ids["deployment"], True)
            assert "\u00b7 next" not in (await asked.http.get(place)).text

    asyncio.run(main())


def test_a_flow_that_was_found_is_opened_whatever_its_name_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with asking(tmp_path) as asked:
            wanted = DeploymentSpec(flow_name="why? #1", name="d", entrypoint="x.py:why")
            made = await asked.parts.control.apply_deployment(wanted)
            await asked.parts.control.run_deployment(made.id, RunSpec())
            found = (await asked.http.get("/search?part=found&q=why")).text
            address = re.search(r'href="(/flows/[^"]*)"', found)
            assert address is not None
            assert "<h1>why? #1</h1>" in (await asked.http.get(address[1])).text

    asyncio.run(main())
