"""What people do with the pages, done with a real browser."""

from __future__ import annotations

import re
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Dialog, Page, Route, expect
from tests.runtime.server.pages.conftest import Visit, running
from tests.runtime.server.serving import Process, server_process

LARGEST_PAGE = 2_000_000
LINE_SECONDS = 0.5
TRIES = 10  # for others may want the machine just then

LIVE = """
import asyncio
from tests.demo import flows
asyncio.run(flows.index_documents({documents}))
"""
TALK = """
import time
from upwell import flow, get_run_logger
@flow(name="talk", flow_run_name="talker")
def talk():
    for number in range(600):
        get_run_logger().info("line %s at %.4f", number, time.time())
        time.sleep(0.1)
talk()
"""


def test_from_the_dashboard_to_a_failed_run_and_the_line_that_says_why(visit: Visit) -> None:
    page = visit.to("/")
    expect(page.locator(".tile.is-failed .number")).to_have_text("1")
    trouble = page.locator("#trouble li", has_text="SchemaError: column 'currency' is missing")
    trouble.get_by_role("link", name=re.compile("daily-sales")).click()
    expect(page.locator(".reason-box")).to_contain_text("SchemaError: column 'currency' is missing")
    page.get_by_role("link", name="Logs").click()
    page.get_by_label("Level").select_option("Errors")
    expect(page.locator("#log li").first).to_contain_text("Column 'currency' is missing in orders_online.csv")
    assert page.url.endswith("view=logs&level=40")
    page.get_by_label("Search the log").fill("agreed")
    expect(page.locator("#log mark").first).to_have_text("agreed")
    page.locator("#log .who").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("check-schema-0")


def test_a_run_with_parameters_that_do_not_fit_then_with_ones_that_do(visit: Visit) -> None:
    page = visit.to("/deployments?q=catalogue")
    page.get_by_role("link", name="catalogue").first.click()
    page.get_by_role("link", name="Custom run").click()
    page.get_by_label("products").fill("many")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("[aria-invalid=true]")).to_have_value("many")
    expect(page.locator(".field .error")).to_contain_text("'many' is no number")
    page.get_by_label("products").fill("2.5")
    page.get_by_role("button", name="Run").click()
    expect(page.locator(".field .error")).to_contain_text("2.5 is not of type 'integer'")
    page.get_by_label("products").fill("12")
    page.get_by_label("Name").fill("a-dozen")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("a-dozen")
    expect(page.locator("#head")).to_contain_text("Scheduled")
    expect(page.locator("aside")).to_contain_text("12")


def test_a_schedule_is_added_paused_and_resumed(visit: Visit) -> None:
    page = visit.to("/deployments?q=hourly-weather")
    page.get_by_role("link", name="hourly").first.click()
    page.get_by_text("Add a schedule").click()
    page.get_by_label("Minute, hour, day, month, day of the week").fill("61 * * * *")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("alert")).to_contain_text("'61 * * * *' cannot be read")
    page.get_by_label("Minute, hour, day, month, day of the week").fill("30 7 * * *")
    page.get_by_label("Time zone").fill("Asia/Kathmandu")
    page.get_by_label("Name").fill("at-breakfast")
    page.get_by_role("button", name="Add").click()
    schedule = page.locator(".schedule", has_text="at-breakfast")
    expect(schedule).to_contain_text("at 07:30 every day")
    expect(schedule).to_contain_text("Asia/Kathmandu")
    expect(schedule).to_contain_text("next in")
    schedule.get_by_role("button", name="Pause").click()
    expect(schedule).to_contain_text("paused")
    schedule.get_by_role("button", name="Resume").click()
    expect(schedule.get_by_role("button", name="Pause")).to_be_visible()
    expect(schedule).not_to_contain_text("paused")


def test_a_live_run_is_seen_progressing_and_is_cancelled(visit: Visit, home: Path) -> None:
    page = visit.to("/")
    page.evaluate("window.notReloaded = true")
    with running(home, LIVE.format(documents=4000)) as process:
        link = page.locator("#running").get_by_role("link", name=re.compile("index-documents"))
        expect(link).to_be_visible()
        assert page.evaluate("window.notReloaded")
        link.click()
        page.evaluate("window.notReloaded = true")
        first = _completed(page)
        page.wait_for_function(f"() => {_COMPLETED} > {first}")
        page.get_by_text("Cancel", exact=True).click()
        page.get_by_label("Why?").fill("enough was seen")
        page.get_by_role("button", name="Cancel this run").click()
        expect(page.locator("#head .state")).to_have_text("Cancelled")
        expect(page.locator("#reason-part")).to_contain_text("enough was seen")
        process.wait(timeout=15)


_COMPLETED = "Number(document.querySelector('#counts .legend .is-completed b')?.textContent ?? 0)"


def _completed(page: Page) -> int:
    page.wait_for_function(f"() => {_COMPLETED} > 0")
    return int(page.evaluate(_COMPLETED))


WAITS = """
import sys
from upwell import flow, task
@task
def step(number):
    return number
@flow(name="waits", flow_run_name="waiter")
def waits():
    sys.stdin.readline()
    step.map(range(3)).result()
    sys.stdin.readline()
waits()
"""


def test_what_was_not_there_when_a_page_was_opened_is_shown_when_it_comes(visit: Visit, home: Path) -> None:
    page = visit.to("/runs?q=waiter")
    with running(home, WAITS) as process:
        page.get_by_role("link", name=re.compile("waiter")).first.click()
        expect(page.get_by_role("heading", level=1)).to_have_text("waiter")
        expect(page.locator("#counts")).to_be_hidden()
        page.evaluate("window.notReloaded = true")
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        expect(page.locator("#counts .legend .is-completed b")).to_have_text("3")
        expect(page.get_by_role("link", name="Task runs")).to_contain_text("3")
        assert page.evaluate("window.notReloaded")


def test_the_first_run_of_all_is_shown_by_itself(visit: Visit, tmp_path: Path) -> None:
    with server_process(tmp_path) as server:
        visit.url = server.url
        page = visit.to("/")
        expect(page.locator("main")).to_contain_text("Nothing has run here yet")
        page.evaluate("window.notReloaded = true")
        with running(tmp_path, WAITS):
            expect(page.locator("#running")).to_contain_text("waiter")
            expect(page.locator("main")).not_to_contain_text("Nothing has run here yet")
        assert page.evaluate("window.notReloaded")
        page.goto("about:blank")  # it would complain about the server's end


def test_a_log_line_is_shown_within_half_a_second(visit: Visit, home: Path) -> None:
    page = visit.to("/runs?q=talker")
    with running(home, TALK):
        page.get_by_role("link", name=re.compile("talker")).first.click()
        page.get_by_role("link", name="Logs").click()
        expect(page.locator("#log li").nth(5)).to_be_visible()
        ten_lines = """() => new Promise((resolve) => {
                const delays = [];
                new MutationObserver((changes) => {
                    for (const change of changes) for (const line of change.addedNodes)
                        delays.push(Date.now() / 1000 - Number(line.textContent.split(" at ")[1]));
                    if (delays.length >= 10) resolve(delays);
                }).observe(document.querySelector("#log ol"), { childList: true });
            })"""
        assert any(sorted(page.evaluate(ten_lines))[5] < LINE_SECONDS for _ in range(TRIES))
        numbers = page.locator("#log .said").all_inner_texts()
        shown = [int(text.split()[1]) for text in numbers if text.startswith("line ")]
        assert shown == list(range(shown[0], shown[0] + len(shown)))  # each once, in order


FLOOD = """
import sys
from upwell import flow, get_run_logger
@flow(name="flood", flow_run_name="flooder")
def flood():
    get_run_logger().info("begins")
    sys.stdin.readline()
    for number in range(8_000):
        get_run_logger().info("line %s", number)
flood()
"""


_ENDED_WITHOUT_A_GAP = """() => {
    const said = [...document.querySelectorAll("#log .said")].map((line) => line.textContent);
    const numbers = said.filter((text) => text.startsWith("line ")).map((text) => Number(text.split(" ")[1]));
    const whole = numbers.every((number, place) => number === numbers[0] + place);
    return said.at(-1).startsWith("Finished in state") && whole && numbers.at(-1) === 7999;
}"""


def test_a_flood_of_lines_is_shown_to_its_end_without_a_gap(visit: Visit, home: Path) -> None:
    page = visit.to("/runs?q=flooder")
    with running(home, FLOOD) as process:
        page.get_by_role("link", name=re.compile("flooder")).first.click()
        page.get_by_role("link", name="Logs").click()
        expect(page.locator("#log")).to_contain_text("begins")
        expect(page.locator("html")).to_have_attribute("data-live", "on")
        assert process.stdin is not None
        process.stdin.close()
        # the stream may fill a gap that the page leaves first; and to show so many takes a slow machine a while
        page.wait_for_function(_ENDED_WITHOUT_A_GAP, polling=200, timeout=60_000)


FORKABLE = """
from pathlib import Path
from upwell import flow, task
here = Path(__file__).parent
@task
def step(word):
    with open(here / "ledger", "a") as file:
        file.write(word + " ")
    return word
@flow(durable=True, name="forkable")
def forkable():
    said = [step(word) for word in ("one", "two", "three")]
    if not (here / "repaired").exists():
        raise ValueError("not yet")
    return said
if __name__ == "__main__":
    forkable.serve("here")
"""


def test_a_failed_run_is_forked_as_a_whole_and_from_one_of_its_task_runs(
    visit: Visit, home: Path, tmp_path: Path
) -> None:
    script, ledger = tmp_path / "forkable.py", tmp_path / "ledger"
    script.write_text(FORKABLE)
    with running(home, f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')") as serving:
        page = visit.to("/deployments?q=forkable")
        while not page.get_by_role("button", name="Run").count():  # until it is served
            assert serving.poll() is None
            page.wait_for_timeout(200)
            page.reload()
        page.get_by_role("button", name="Run").click()
        failed = page.locator("#head .state")
        expect(failed).to_have_text("Failed")
        first = page.url
        (tmp_path / "repaired").touch()
        page.get_by_role("button", name="Fork").click()
        expect(page.get_by_text("This is the fork.")).to_be_visible()
        assert page.url != first
        expect(page.locator("#head .state")).to_have_text("Completed")
        assert ledger.read_text().split() == ["one", "two", "three"]
        page.goto(first + "?view=tasks")
        page.get_by_role("link", name="step-1").click()
        page.get_by_role("button", name="Fork from here").click()
        expect(page.locator("#head .state")).to_have_text("Completed")
        assert ledger.read_text().split()[3:] == ["two", "three"]


def test_who_comes_to_work_is_seen_without_reload(visit: Visit, home: Path, server: Process, tmp_path: Path) -> None:
    script = tmp_path / "comes_to_work.py"
    script.write_text(FORKABLE)
    visit.page.clock.install()
    page = visit.to("/work-pools")
    page.evaluate("window.notReloaded = true")
    with running(home, f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')") as process:
        while f'"pid":{process.pid},'.encode() not in server.get("/api/workers")[1]:
            assert process.poll() is None
            time.sleep(0.1)
        its_cell = page.locator("#workers td").filter(has_text=re.compile(rf"process {process.pid}\s*$"))
        page.clock.run_for(6_000)
        expect(its_cell).to_be_visible()
        assert page.evaluate("window.notReloaded")


MANY = """
import asyncio, datetime as dt
from upwell.composition import open_control
from upwell.core.deployments import DeploymentSpec, RunSpec
async def main():
    due = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    async with open_control() as control:
        made = await control.apply_deployment(DeploymentSpec(flow_name="bulky", name="d", entrypoint="b.py:b"))
        for number in range(60):
            await control.run_deployment(made.id, RunSpec(name=f"bulk-{number}", due=due))
asyncio.run(main())
"""


def test_all_runs_that_fit_a_filter_are_cancelled_at_once(visit: Visit, home: Path) -> None:
    with running(home, MANY) as making:
        assert making.wait(timeout=30) == 0
    page = visit.to("/runs?state=SCHEDULED&flow=bulky")
    page.locator("[data-choose]").first.check()
    bar = page.locator("[data-bulk]")
    expect(bar).to_contain_text("1 chosen")
    bar.get_by_label("all that fit this filter").check()
    expect(bar).to_contain_text("All chosen")
    asked: list[str] = []

    def say_yes(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.accept()

    page.once("dialog", say_yes)
    bar.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_have_text("60 of 60 to be cancelled.")
    assert asked == ["Cancel all runs that fit this filter?"]
    assert page.url.endswith("/runs?state=SCHEDULED&flow=bulky")
    expect(page.locator("#list")).to_contain_text("No run is like that")


def test_a_run_of_100_000_task_runs_is_light(visit: Visit, server: Process) -> None:
    page = visit.to("/flows/score-everything")
    page.locator("#list a.name, #list .what a").first.click()
    run = page.url
    expect(page.locator("#counts")).to_contain_text("100,000")
    for view in ("", "?view=graph", "?view=tasks", "?view=timeline&task=score"):
        status, body = server.get(run.removeprefix(server.url) + view)
        assert status == 200
        assert len(body) < LARGEST_PAGE
    page.goto(run)
    page.locator(".timeline .row.group a").click()
    expect(page.locator(".timeline .row.run")).to_have_count(250)
    page.get_by_role("link", name="Older").click()
    expect(page.locator(".timeline .row.run").first).to_contain_text("score-")


def test_everything_by_keyboard(visit: Visit) -> None:
    page = visit.to("/")
    page.keyboard.press("/")
    palette = page.get_by_role("dialog", name="Search")
    expect(palette.get_by_role("option").first).to_be_visible()
    page.keyboard.type("train")
    expect(palette.get_by_role("option").first).to_contain_text("train-forecast")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+k")
    page.keyboard.press("Control+a")
    page.keyboard.type("work po")
    expect(palette.get_by_role("option")).to_have_text(["Work pools"])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Work pools")
    page.keyboard.press("g")
    page.keyboard.press("r")
    expect(page.get_by_role("heading", level=1)).to_have_text("Flow runs")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.locator("[data-bulk]")).to_contain_text("1 chosen")
    target = page.locator("tr[data-chosen]").get_attribute("data-href")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{target}")
    page.keyboard.press("3")
    page.wait_for_url("**view=logs")


def test_keys_that_are_pressed_before_the_scripts_have_come_are_not_lost(visit: Visit) -> None:
    waiting: list[Route] = []
    visit.page.route("**/keys.js", lambda route: waiting.append(route))  # a bound method cannot be marked
    visit.page.goto(visit.url + "/runs", wait_until="commit")
    expect(visit.page.get_by_role("heading", level=1)).to_have_text("Flow runs")
    for key in ("j", "j", "x", "/"):
        visit.page.keyboard.press(key)
    visit.page.keyboard.type("train")
    waiting.pop().continue_()
    palette = visit.page.get_by_role("dialog", name="Search")
    expect(palette.get_by_role("combobox")).to_have_value("train")
    expect(palette.get_by_role("option").first).to_contain_text("train-forecast")
    expect(visit.page.locator("[data-bulk]")).to_contain_text("1 chosen")


def test_what_is_pressed_is_not_replaced_before_it_is_let_go(visit: Visit) -> None:
    """A press on one element and a release on another, in its place, are no click."""
    page = visit.page
    fetched: list[Route] = []
    page.route(visit.url + "/", lambda route: _hold_what_is_fetched(route, fetched))
    visit.to("/")
    while not fetched:
        page.wait_for_timeout(20)
    link = page.locator("#trouble").get_by_role("link", name=re.compile("daily-sales")).first
    link.hover()
    page.evaluate("window.pressedOn = document.querySelector('#trouble a')")
    page.mouse.down()
    with page.expect_response(visit.url + "/"):
        fetched[0].continue_()
    page.wait_for_timeout(200)  # what has come could be put in its place by now
    assert page.evaluate("window.pressedOn.isConnected")
    page.mouse.up()
    expect(page.locator(".reason-box")).to_be_visible()


def _hold_what_is_fetched(route: Route, held: list[Route]) -> None:
    """The first of it; the page may fetch more, which nobody would let go."""
    if route.request.resource_type == "fetch" and not held:
        held.append(route)
    else:
        route.continue_()


def test_what_is_chosen_typed_or_sent_before_the_scripts_have_come_counts(visit: Visit) -> None:
    page = visit.page

    @contextmanager
    def before_they_come(path: str) -> Generator[None]:
        waiting: list[Route] = []
        page.route("**/forms.js", lambda route: waiting.append(route))
        page.goto(visit.url + path, wait_until="commit")
        yield
        while not waiting:
            page.wait_for_timeout(20)
        waiting[0].continue_()
        page.unroute("**/forms.js")

    with before_they_come("/task-runs"):
        page.get_by_label("Flow", exact=True).select_option("hourly-weather")
    page.wait_for_url("**flow=hourly-weather**")
    with before_they_come("/flows"):
        page.get_by_label("Name of a flow").fill("weather")
    page.wait_for_url("**q=weather**")
    page.on("dialog", lambda dialog: dialog.dismiss())
    with page.expect_event("dialog"), before_they_come("/runs?q=hourly-weather&state=COMPLETED"):
        page.locator("[data-choose]").first.check()
        page.evaluate("document.querySelector('[data-bulk] button[data-confirm]').click()")
    assert page.url.endswith("/runs?q=hourly-weather&state=COMPLETED")


def test_the_login_page_works_by_itself(visit: Visit) -> None:
    page = visit.to("/login")
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Log in")).to_be_visible()


def test_a_page_says_when_its_session_has_ended(visit: Visit, tmp_path: Path) -> None:
    with server_process(tmp_path) as server:
        visit.url = server.url
        page = visit.to("/keys")
        page.locator("summary", has_text="New key").click()
        page.get_by_label("Name").fill("me")
        page.get_by_label("May").select_option("admin")
        page.get_by_role("button", name="Make it").click()
        key = page.locator("code.secret").inner_text()
        visit.to("/limits")
        expect(page.locator("html")).to_have_attribute("data-live", "on")
        asked = page.request.get(f"{server.url}/api/api-keys", headers={"Authorization": f"Bearer {key}"})
        (made,) = asked.json()
        page.request.delete(f"{server.url}/api/api-keys/{made['id']}", headers={"Authorization": f"Bearer {key}"})
        link = page.get_by_role("link", name="Session ended: log in")
        expect(link).to_be_visible()
        expect(link).to_have_attribute("href", "/login?next=%2Flimits")
        page.goto("about:blank")  # it would complain about the server's end
        visit.complaints.clear()  # what a browser says of an address that it may not see any more


def test_what_is_done_to_many(visit: Visit) -> None:
    page = visit.to("/runs?q=hourly-weather&state=COMPLETED")
    before = page.locator("[data-rows] tbody tr").count()
    page.locator("[data-choose]").nth(0).check()
    page.locator("[data-choose]").nth(1).check()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("status")).to_contain_text("2 of 2 deleted")
    assert "q=hourly-weather" in page.url
    expect(page.locator("[data-rows] tbody tr")).to_have_count(before - 2)


def test_every_list_can_be_addressed(visit: Visit) -> None:
    page = visit.to("/runs?state=FAILED&flow=daily-sales&since=7d")
    expect(page.locator("[aria-current=true]", has_text="Failed")).to_be_visible()
    expect(page.get_by_label("Flow", exact=True)).to_have_value("daily-sales")
    expect(page.locator("[data-rows] tbody tr")).to_have_count(1)
    page.goto(visit.url + "/runs")
    page.get_by_role("link", name="Older").click()
    assert "after=" in page.url
    page.reload()
    expect(page.get_by_role("link", name="First page")).to_be_visible()
