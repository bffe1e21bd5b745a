"""Pages do what hands expect of them: nothing typed is lost, menus close, the way back and the focus are kept."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, Route, expect
from tests.runtime.server.pages.conftest import Visit, running
from tests.runtime.server.pages.test_browser import WAITS


def test_what_is_typed_while_a_filter_is_applied_is_not_lost(visit: Visit) -> None:
    page = visit.to("/runs")
    field = page.get_by_label("Name of a run or flow")
    field.click()
    pages = page.evaluate("history.length")
    with held(page, "**/runs?q=hourly") as asked:
        page.keyboard.type("hourly")
        while not asked:
            page.wait_for_timeout(20)
        page.keyboard.type("-weather")
    page.wait_for_url("**/runs?q=hourly-weather")
    expect(page.locator("[data-rows] tbody tr", has_text="sync-source")).to_have_count(0)
    expect(field).to_have_value("hourly-weather")
    expect(field).to_be_focused()
    expect(page.get_by_role("link", name="Failed", exact=True)).to_have_attribute(
        "href", re.compile("q=hourly-weather")
    )
    assert page.evaluate("history.length") == pages


@contextmanager
def held(page: Page, address: str) -> Generator[list[Route]]:
    """The routes of what is asked there; they go on at the end."""
    waiting: list[Route] = []
    let_go = False

    def hold(route: Route) -> None:
        if let_go:
            route.continue_()
        else:
            waiting.append(route)

    page.route(address, hold)
    yield waiting
    let_go = True
    for route in waiting:
        route.continue_()


def test_a_filter_of_the_log_goes_on_without_a_new_page(visit: Visit) -> None:
    page = visit.to("/runs?state=FAILED")
    page.locator(".what > a").first.click()
    page.get_by_role("link", name="Logs").click()
    page.evaluate("window.notReloaded = true")
    page.get_by_label("Search the log").fill("currency")
    page.wait_for_url("**q=currency")
    expect(page.locator("#log mark").first).to_have_text("currency")
    page.get_by_label("Search the log").fill("")
    expect(page.locator("#log")).to_contain_text("Beginning flow run")
    assert "q=" not in page.url
    assert page.evaluate("window.notReloaded")


def test_enter_opens_what_was_typed_and_not_what_was_found_before(visit: Visit) -> None:
    page = visit.to("/")
    page.keyboard.press("/")
    palette = page.get_by_role("dialog", name="Search")
    expect(palette.get_by_role("option").first).to_be_visible()
    with held(page, "**/search?part=found&q=w*"):
        page.keyboard.type("work po")
        page.keyboard.press("Enter")
    page.wait_for_url("**/work-pools")


def test_the_choice_among_what_was_found_is_told_to_who_cannot_see_it(visit: Visit) -> None:
    page = visit.to("/")
    page.keyboard.press("/")
    field = page.get_by_role("combobox", name="Search")
    options = page.get_by_role("dialog", name="Search").get_by_role("option")
    expect(options.nth(1)).to_be_visible()
    page.keyboard.press("ArrowDown")
    expect(options.nth(1)).to_have_attribute("aria-selected", "true")
    expect(field).to_have_attribute("aria-activedescendant", str(options.nth(1).get_attribute("id")))


def test_the_way_back_shows_the_filter_as_it_was(visit: Visit) -> None:
    page = visit.to("/runs")
    page.get_by_label("Flow", exact=True).select_option("hourly-weather")
    page.wait_for_url("**flow=hourly-weather")
    page.go_back()
    page.wait_for_url("**/runs")
    expect(page.get_by_label("Flow", exact=True)).to_have_value("")


def test_a_menu_is_closed_by_escape_and_by_a_click_beside_it(visit: Visit) -> None:
    page = visit.to("/limits")
    menu = page.locator("details.menu")
    opener = menu.locator("summary")
    opener.click()
    page.get_by_label("Name").fill("kept")
    page.keyboard.press("Escape")
    expect(menu).not_to_have_attribute("open", "")
    expect(opener).to_be_focused()
    opener.click()
    expect(page.get_by_label("Name")).to_have_value("kept")
    page.get_by_role("heading", level=1).click()
    expect(menu).not_to_have_attribute("open", "")


LONG = """
from upwell import flow
@flow(name="long-winded")
def long():
    raise ValueError("a long reason " * 700)
try:
    long()
except ValueError:
    pass
"""


def test_a_page_opens_at_its_top_however_long_its_reason_is(visit: Visit, home: Path) -> None:
    with running(home, LONG) as process:
        assert process.wait(timeout=30) == 0
    visit.page.set_viewport_size({"width": 1280, "height": 300})
    page = visit.to("/flows/long-winded")
    page.locator(".what > a").first.click()
    expect(page.locator("html")).to_have_attribute("data-live", "on")  # so the scripts have come
    assert page.evaluate("scrollY") == 0
    page.set_viewport_size({"width": 1280, "height": 800})
    expect(page.get_by_role("link", name="Timeline")).to_be_in_viewport()


def test_a_list_that_is_refreshed_leaves_the_focus_where_it_is(visit: Visit, home: Path) -> None:
    page = visit.to("/runs")
    expect(page.locator("html")).to_have_attribute("data-live", "on")
    value = page.locator("[data-choose]").nth(2).get_attribute("value")
    box = page.locator(f"[data-choose][value='{value}']")
    box.focus()
    page.evaluate("window.before = document.activeElement")
    with running(home, WAITS):
        expect(page.locator("#list")).to_contain_text("waiter")
    assert not page.evaluate("window.before.isConnected")
    expect(box).to_be_focused()


def test_what_changed_while_a_menu_was_open_is_shown_when_it_is_closed(visit: Visit, home: Path) -> None:
    page = visit.to("/runs?q=patient")
    with running(home, WAITS.replace("waiter", "patient")) as process:
        page.get_by_role("link", name=re.compile("patient")).first.click()
        expect(page.locator("#head .state")).to_have_text("Running")
        page.get_by_text("Cancel", exact=True).click()
        process.communicate(b"\n\n", timeout=30)
        expect(page.locator("#story")).to_contain_text("Completed")
        expect(page.locator("#head .state")).to_have_text("Running")
        page.keyboard.press("Escape")
        expect(page.locator("#head .state")).to_have_text("Completed")


def test_a_backfill_that_is_refused_says_why_and_keeps_what_was_filled_in(visit: Visit) -> None:
    page = visit.to("/deployments?q=hourly-weather")
    page.get_by_role("link", name="hourly").first.click()
    page.locator(".schedule summary").first.click()
    page.get_by_label("From (UTC)").fill("2026-11-22T10:00")
    page.get_by_label("To (UTC)").fill("2026-11-21T10:00")
    page.get_by_role("button", name="Only count").click()
    expect(page.get_by_role("alert")).to_contain_text("it ends before it begins")
    expect(page.get_by_label("From (UTC)")).to_have_value("2026-11-22T10:00")
    page.get_by_label("From (UTC)").fill("2026-11-21T09:00")
    page.get_by_role("button", name="Only count").click()
    expect(page.get_by_role("status")).to_contain_text("1 run would be made")
