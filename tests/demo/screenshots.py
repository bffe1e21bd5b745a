"""The pictures of the docs: the main pages over a store with a day in it, while something runs.

`python -m tests.demo.screenshots docs/images`
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import which
from typing import Final

from playwright.sync_api import Browser, Page, sync_playwright
from tests.runtime.server.serving import server_process

ROOT: Final = Path(__file__).parents[2]
ARGUMENTS: Final = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
WIDTH: Final = 1280
LIVE: Final = "import asyncio; from tests.demo import flows; asyncio.run(flows.index_documents(2000))"
SETTLED_MS: Final = 700


def taken(browser: Browser, url: str, folder: Path) -> None:
    """Take all of them."""
    page = _page(browser, "light")
    page.goto(url)
    page.locator("#running .progress").wait_for()
    _keep(page, folder / "dashboard.png", 860)
    page.locator("#trouble li:has(.is-failed) a.where").first.click()
    _keep(page, folder / "run-failed.png", 800)
    page.get_by_role("link", name="Graph").click()
    _keep(page, folder / "run-graph.png", 800)
    page.goto(f"{url}/runs")
    _keep(page, folder / "runs.png", 700)
    page.goto(f"{url}/deployments?q=daily")
    page.locator("[data-rows] a").first.click()
    _keep(page, folder / "deployment.png", 800)
    page.get_by_role("link", name="Custom run").click()
    _keep(page, folder / "custom-run.png", 560)
    dark = _page(browser, "dark")
    dark.goto(url)
    dark.locator("#running .progress").wait_for()
    _keep(dark, folder / "dashboard-dark.png", 860)
    dark.locator("#running a.where").first.click()
    dark.get_by_role("link", name="Logs").click()
    dark.locator("#log li").nth(20).wait_for()
    _keep(dark, folder / "run-logs-dark.png", 760)
    phone = browser.new_page(viewport={"width": 390, "height": 780}, color_scheme="light")
    phone.goto(f"{url}/runs")
    phone.wait_for_timeout(SETTLED_MS)
    phone.screenshot(path=folder / "phone.png")


def _page(browser: Browser, scheme: str) -> Page:
    context = browser.new_context(
        viewport={"width": WIDTH, "height": 800}, color_scheme="dark" if scheme == "dark" else "light"
    )
    return context.new_page()


def _keep(page: Page, path: Path, height: int) -> None:
    page.set_viewport_size({"width": WIDTH, "height": height})
    page.wait_for_timeout(SETTLED_MS)
    page.screenshot(path=path)
    page.set_viewport_size({"width": WIDTH, "height": 800})


def main(folder: Path) -> None:
    """Fill a store, serve it, look at it."""
    chromium = which("chromium")
    if chromium is None:
        print("Chromium is not installed: the pictures stay as they are.")
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "UPWELL_HOME": home, "UPWELL_JOURNAL": "on", "PYTHONPATH": str(ROOT)}
        fill = [sys.executable, "-m", "tests.demo.store", home]
        subprocess.run(fill, check=True, env=environment, cwd=ROOT, capture_output=True)
        live = subprocess.Popen([sys.executable, "-c", LIVE], env=environment, cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            with server_process(Path(home), UPWELL_JOURNAL="on") as server, sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
                taken(browser, server.url, folder)
                browser.close()
        finally:
            live.kill()
            live.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
