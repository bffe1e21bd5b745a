"""A service's own registry is told what runs in its process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from upwell import flow, metrics, task
from upwell.composition import close_journal, flush_journal
from upwell.core.errors import ConfigurationError
from upwell.settings import temporary_settings


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[CollectorRegistry]:
    registry = CollectorRegistry()
    with temporary_settings(journal="on", home=str(tmp_path)):
        measured = metrics.register(registry)
        yield registry
        measured.unregister()
        close_journal()
    assert list(registry.collect()) == []


@task
def half(n: int) -> float:
    return 10 / n


@flow
def halves(numbers: list[int]) -> None:
    half.map(numbers).wait()


def test_runs_are_counted_once_by_what_became_of_them(registry: CollectorRegistry) -> None:
    halves([1, 2, 5])
    with pytest.raises(ZeroDivisionError):
        half(0)
    flush_journal()

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert value("upwell_task_runs_total", state="COMPLETED") == 3
    assert value("upwell_task_runs_total", state="FAILED") == 1
    assert value("upwell_flow_runs_ended_total", flow="halves", state="COMPLETED") == 1
    assert value("upwell_task_run_seconds_count") == 4
    assert value("upwell_flow_run_seconds_count", flow="halves") == 1
    assert (value("upwell_journal_rows_total") or 0) >= 6
    assert (value("upwell_journal_flush_seconds_count") or 0) >= 1
    assert value("upwell_journal_waiting") == 0


def test_a_process_is_measured_once(registry: CollectorRegistry) -> None:
    with pytest.raises(ConfigurationError, match="unregister"):
        metrics.register(registry)
