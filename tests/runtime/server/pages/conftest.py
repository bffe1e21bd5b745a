"""A browser, and a server over a store in which a day of flows has run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path
from shutil import copytree, which
from typing import Final

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from tests.runtime.server.serving import Process, server_process

ROOT: Final = Path(__file__).parents[4]
ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PATIENCE_MS: Final = 30_000
expect.set_options(timeout=PATIENCE_MS)


class Visit:
    """One page, and what it must not do: complain, or ask anybody else."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.url = url
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self._hear(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._asked(request.url))

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and "422 (Unprocessable" not in text:  # a form that was refused
            self.complaints.append(text)

    def _asked(self, url: str) -> None:
        if not url.startswith(self.url):
            self.complaints.append(f"asked {url}")

    def to(self, path: str) -> Page:
        """Go there."""
        self.page.goto(self.url + path)
        return self.page


def environment(home: Path) -> dict[str, str]:
    """What a process of these tests is given."""
    return {**os.environ, "UPWELL_HOME": str(home), "UPWELL_JOURNAL": "on", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which flows have run for a day, and a run of 100,000 task runs.

    It is made by whoever needs it first of the processes that share out the tests.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "day"
    with folder.with_suffix(".lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not folder.exists():
            making = folder.with_suffix(".making")
            making.mkdir()
            command = [sys.executable, "-m", "tests.demo.store", str(making), "100000"]
            subprocess.run(command, check=True, env=environment(making), cwd=ROOT, capture_output=True, timeout=120)
            making.rename(folder)
    return folder


@pytest.fixture(scope="module")
def home(day: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, of a module's own: its tests change what is there."""
    return copytree(day, tmp_path_factory.mktemp("pages"), dirs_exist_ok=True)


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Process]:
    with server_process(home) as process:
        yield process


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed: apt-get install chromium, or `make browser`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, server: Process) -> Iterator[Visit]:
    """A page in a window of its own. Whatever it complains about fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 860}, color_scheme="light")
    visit = Visit(context, server.url)
    yield visit
    context.close()
    assert visit.complaints == []


@contextmanager
def running(home: Path, code: str) -> Generator[subprocess.Popen[bytes]]:
    """A program that runs flows in this store beside the test."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment(home),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
