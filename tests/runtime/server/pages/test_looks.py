"""How the pages look, in a real browser: at every width, in the light and in the dark."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect
from tests.runtime.server.pages.conftest import Visit, running
from tests.runtime.server.pages.test_browser import MANY


def test_the_whole_of_it_fits_a_phone(visit: Visit, home: Path) -> None:
    visit.page.set_viewport_size({"width": 390, "height": 844})
    page = visit.to("/")
    addresses = ["/", "/runs", "/flows", "/deployments", "/work-pools", "/limits", "/settings", "/keys", "/audit"]
    for address in addresses:
        visit.to(address)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, address


SPILLS = """() => {
    for (const shut of document.querySelectorAll("details.adding")) shut.open = true;
    const right = (part) => part.getBoundingClientRect().right;
    return [...document.querySelectorAll(".card :is(input, select, textarea, button)")]
        .filter((part) => part.checkVisibility({ contentVisibilityAuto: true }) && !part.closest(".sheet"))
        .filter((part) => right(part) > right(part.closest(".card")) + 1).map((part) => part.outerHTML);
}"""


def test_no_form_is_wider_than_its_card(visit: Visit, home: Path) -> None:
    with running(home, POOL) as making:
        assert making.wait(timeout=30) == 0
    page = visit.to("/deployments?q=hourly-weather")
    deployment = page.get_by_role("link", name="hourly").first.get_attribute("href")
    for width in (1280, 1100, 390):
        page.set_viewport_size({"width": width, "height": 800})
        for address in (deployment, f"{deployment}/custom-run", "/work-pools", "/work-pools/pool", "/limits", "/keys"):
            visit.to(str(address))
            assert page.evaluate(SPILLS) == [], (address, width)


POOL = """
import asyncio
from upwell.composition import open_control
from upwell.core.deployments import WorkPoolSpec
async def main():
    async with open_control() as control:
        await control.put_work_pool("pool", WorkPoolSpec())
asyncio.run(main())
"""


def test_names_of_any_length_leave_pages_as_wide_as_they_are(visit: Visit, home: Path) -> None:
    code = MANY.replace("bulky", "l" * 190).replace("range(60)", "range(1)").replace('name="d"', 'name="n" * 190')
    with running(home, code + FAILS) as making:
        assert making.wait(timeout=30) == 0
    for width in (1280, 390):
        visit.page.set_viewport_size({"width": width, "height": 800})
        for path in ("/", "/runs", "/flows", "/deployments", "/work-pools", "/search?q=lll"):
            page = visit.to(path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)


FAILS = """
from upwell import flow
from upwell.core.deployments import WorkPoolSpec
async def more():
    async with open_control() as control:
        await control.put_work_pool("p" * 150, WorkPoolSpec())
asyncio.run(more())
@flow(name="long-" * 40, flow_run_name="long-" * 40)
def long():
    raise ValueError("x" * 500)
try:
    long()
except ValueError:
    pass
"""


AUDITED = """
import asyncio
from upwell.composition import open_control
async def main():
    async with open_control() as control:
        for actor in ("root on a-machine", "a" * 64):
            await control.audit(actor, "work-queue-paused", "p" * 150 + "/" + "q" * 40, "from 3 to 5, " * 12)
asyncio.run(main())
"""

SCROLLS_SIDEWAYS = """() => [...document.querySelectorAll("*")]
    .filter((part) => ["auto", "scroll"].includes(getComputedStyle(part).overflowX))
    .filter((part) => part.scrollWidth > part.clientWidth).map((part) => part.outerHTML.slice(0, 200))"""


def test_the_audit_record_fits_a_phone(visit: Visit, home: Path) -> None:
    with running(home, AUDITED) as making:
        assert making.wait(timeout=60) == 0
    visit.page.set_viewport_size({"width": 390, "height": 844})
    page = visit.to("/audit")
    records = page.locator("tr", has_text="work-queue-paused")
    expect(records).to_have_count(2)
    for cell in records.locator("td").all():
        expect(cell).to_be_visible()
        box = cell.bounding_box()
        assert box is not None
        assert 0 <= box["x"] <= box["x"] + box["width"] <= 390, cell.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate(SCROLLS_SIDEWAYS) == []


def test_light_and_dark(visit: Visit) -> None:
    page = visit.to("/")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(ground)
    page.keyboard.press("t")
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark  # the server knows, so that nothing flashes
    page.keyboard.press("t")
    assert page.evaluate(ground) == light


CONTRAST = """(scheme) => {
    document.documentElement.dataset.theme = scheme;
    const probe = document.body.appendChild(document.createElement("i"));
    const painter = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const light = (color) => {
        probe.style.color = color;
        painter.fillStyle = getComputedStyle(probe).color;
        painter.fillRect(0, 0, 1, 1);
        const parts = [...painter.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => part / 255);
        const [r, g, b] = parts.map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const contrast = (one, other) => {
        const [dark, bright] = [light(one), light(other)].sort((a, b) => a - b);
        return (bright + 0.05) / (dark + 0.05);
    };
    const texts = ["text", "muted", "faint", "accent", "accent-strong", "completed", "running", "failed", "crashed",
                   "cancelled", "pending", "scheduled", "late", "paused"];
    const found = [];
    for (const text of texts) for (const ground of ["ground", "surface", "raised", "sunk", "hover"])
        found.push([`${text} on ${ground}`, contrast(`var(--${text})`, `var(--${ground})`)]);
    for (const state of texts.slice(5)) found.push([`${state} on its own`,
        contrast(`var(--${state})`, `color-mix(in srgb, var(--${state}) 12%, var(--surface))`)]);
    found.push(["on accent", contrast("var(--on-accent)", "var(--accent)")]);
    found.push(["where one is", contrast("var(--accent-strong)", "var(--accent-soft)")]);
    return found;
}"""


def test_text_stands_out_from_its_ground(visit: Visit) -> None:
    page = visit.to("/settings")
    for scheme in ("light", "dark"):
        weak = {name: round(value, 2) for name, value in page.evaluate(CONTRAST, scheme) if value < 4.5}
        assert weak == {}, scheme
