"""What is said of a machine whose processors others had, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import stolen


def test_the_share_of_the_time_since_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "stat"
    monkeypatch.setattr(stolen, "_STAT", stat)
    stat.write_text("cpu  100 0 50 800 10 0 5 500 0 0\ncpu0 1 2 3\n")
    counted = stolen.Stolen()
    assert counted.share() == 0.0, "no time has passed"
    stat.write_text("cpu  130 0 60 830 10 0 5 530 0 0\ncpu0 1 2 3\n")
    assert counted.share() == 0.3
    assert "30%" in stolen.said(counted.share())


def test_nothing_is_said_where_nothing_is_known_or_little_was_stolen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stolen, "_STAT", tmp_path / "there is none")
    assert stolen.Stolen().share() == 0.0
    assert stolen.said(0.0) == stolen.said(0.01) == ""
