"""Pages that stay open show what others change, by themselves, in a real browser."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect
from tests.runtime.server.pages.conftest import Visit, running
from tests.runtime.server.serving import server_process

CHANGE = """
import asyncio
from upwell.composition import open_control
from upwell.concurrency.sync import create_limit, update_limit
from upwell.core.deployments import DeploymentSpec, ScheduleSpec
async def change():
    async with open_control() as control:
        {change}
asyncio.run(change())
"""


def changed(home: Path, change: str) -> None:
    """Somebody else has changed the store; the server is not told."""
    with running(home, CHANGE.format(change=change)) as process:
        assert process.wait(timeout=60) == 0


def after(page: Page, seconds: int) -> None:
    """So much time passes on a page whose clock is ours."""
    expect(page.locator("html")).to_have_attribute("data-live", "on")
    page.clock.run_for(seconds * 1000)


def test_the_head_and_the_schedules_of_a_deployment_are_true_by_themselves(visit: Visit, home: Path) -> None:
    spec = 'DeploymentSpec(flow_name="changing", name="d", entrypoint="c.py:c")'
    changed(home, f"await control.apply_deployment({spec})")
    visit.page.clock.install()
    page = visit.to("/deployments?q=changing")
    page.get_by_role("link", name="changing").first.click()
    expect(page.locator("#head")).to_contain_text("Ready")
    expect(page.locator("#scheduled")).to_contain_text("It runs when somebody starts it")
    page.evaluate("window.notReloaded = true")
    changed(home, 'await control.pause_deployment("changing/d", True)')
    after(page, 16)
    expect(page.locator("#head .state")).to_have_text("Paused")
    schedule = 'ScheduleSpec(kind="cron", expression="30 7 * * *", slug="at-breakfast")'
    changed(home, f'await control.put_schedule("changing/d", {schedule})')
    after(page, 16)
    expect(page.locator("#scheduled")).to_contain_text("at 07:30 every day")
    changed(home, 'await control.set_schedule_active("changing/d", "at-breakfast", False)')
    after(page, 16)
    expect(page.locator("#scheduled .schedule")).to_contain_text("paused")
    assert page.evaluate("window.notReloaded")


def test_limits_are_true_by_themselves(visit: Visit, home: Path) -> None:
    visit.page.clock.install()
    page = visit.to("/limits")
    page.evaluate("window.notReloaded = true")
    changed(home, 'create_limit("database-of-live", 3)')
    after(page, 6)
    limit = page.locator("#limits tr", has_text="database-of-live")
    expect(limit).to_contain_text("0 of 3")
    changed(home, 'update_limit("database-of-live", slots=5, active=False)')
    after(page, 6)
    expect(limit).to_contain_text("0 of 5")
    expect(limit).to_contain_text("off")
    assert page.evaluate("window.notReloaded")


ENDS_BADLY = """
from upwell import flow
class Abort(BaseException):
    pass
@flow(name="ends-badly", flow_run_name="{name}")
def ends_badly():
    raise {error}
try:
    ends_badly()
except BaseException:
    pass
"""


def test_the_failed_tile_leaves_crashes_out(visit: Visit, tmp_path: Path) -> None:
    """Its number is that of the list to which it leads."""
    for name, error in (("failed", "ValueError"), ("crashed", "Abort"), ("crashed-too", "Abort")):
        with running(tmp_path, ENDS_BADLY.format(name=name, error=error)) as process:
            assert process.wait(timeout=60) == 0
    with server_process(tmp_path) as server:
        visit.url = server.url
        page = visit.to("/")
        tile = page.locator(".tile.is-failed")
        expect(tile.locator(".number")).to_have_text("1")
        expect(tile.locator(".more")).to_have_text("in 24 hours, and 2 crashed")
        tile.click()
        expect(page.locator("[data-rows] tbody tr")).to_have_count(1)
        expect(page.locator("[data-rows] tbody tr")).to_contain_text("failed")
        page.goto("about:blank")  # it would complain about the server's end
