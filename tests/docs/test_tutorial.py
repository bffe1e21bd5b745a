"""The tutorial: its steps, and the program at its end, against the service that it comes with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.docs.test_pages import ROOT, check_page

EXAMPLES = ROOT / "docs/examples"


@contextmanager
def started(command: list[str], folder: Path, **variables: str) -> Generator[subprocess.Popen[str]]:
    """A program, interrupted at the end."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as program:
        try:
            yield program
            program.send_signal(signal.SIGINT)
            program.communicate(timeout=30)
        finally:
            program.kill()


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Where the weather is."""
    with started([sys.executable, "-u", str(EXAMPLES / "weather_service.py"), "0"], tmp_path) as service:
        assert service.stdout is not None
        yield service.stdout.readline().strip()


def test_its_steps_run_and_print_what_it_shows(url: str, tmp_path: Path) -> None:
    check_page(ROOT / "docs/tutorial.md", tmp_path, WEATHER_URL=url)


def test_its_program_is_served_and_started_by_command(url: str, tmp_path: Path) -> None:
    variables = {"WEATHER_URL": url, "UPWELL_HOME": str(tmp_path / "home"), "UPWELL_JOURNAL": "on"}

    def upwell(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "upwell.cli.main", *words],
            cwd=tmp_path,
            env={**os.environ, **variables, "COLUMNS": "120"},
            capture_output=True,
            text=True,
            timeout=60,
        )

    with started([sys.executable, "-u", str(EXAMPLES / "weather.py")], tmp_path, **variables) as served:
        assert served.stdout is not None
        assert "being served" in served.stdout.readline()
        run = upwell(
            "deployment", "run", "weather/hourly", "--param", 'cities=["Rome"]', "--param", "warm=10", "--watch"
        )
        assert run.returncode == 0, run.stdout + run.stderr
        assert "Completed" in run.stdout
        wrong = upwell("deployment", "run", "weather/hourly", "--param", "warm=very")
        assert wrong.returncode != 0
        assert "warm" in wrong.stdout + wrong.stderr
    assert (tmp_path / "weather.csv").read_text().count(",Rome,") == 1
    assert "weather" in upwell("flow-run", "ls").stdout
