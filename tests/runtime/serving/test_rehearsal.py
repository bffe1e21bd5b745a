"""What a template does before it forks leaves nothing behind that its children, or who looks on, would see."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
from pathlib import Path

import pytest

from upwell import settings
from upwell.composition import close_journal
from upwell.engine.console import ensure_configured
from upwell.history import History
from upwell.serving.rehearsal import rehearse
from upwell.settings import temporary_settings


async def runs() -> int:
    async with History() as history:
        return len((await history.flow_runs()).items)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("api_url", [None, "http://127.0.0.1:9/api"])
def test_it_leaves_no_run_no_file_no_thread_and_no_line(
    tmp_path: Path, temporary: Path, caplog: pytest.LogCaptureFixture, api_url: str | None
) -> None:
    close_journal()
    with temporary_settings(home=str(tmp_path), journal="on", logging_level="DEBUG", api_url=api_url):
        before, threads = settings.current(), threading.enumerate()
        ensure_configured()
        rehearse()
        assert settings.current() is before
        assert threading.enumerate() == threads
        assert list(temporary.iterdir()) == []
        assert caplog.text == ""
        with temporary_settings(api_url=None):
            assert asyncio.run(runs()) == 0


def test_where_it_cannot_be_done_it_is_left_out(temporary: Path, caplog: pytest.LogCaptureFixture) -> None:
    temporary.rmdir()
    with caplog.at_level(logging.DEBUG, "upwell.serving"):
        rehearse()
    assert "a flow could not be run before" in caplog.text
