"""What this process runs, for Prometheus, in a service's own registry: `upwell.metrics.register()`.

Nothing is measured before that. What is counted is what the journal has written, so a run is counted once, whoever
looks; where nothing is recorded (`UPWELL_JOURNAL=off`) nothing is counted. A server has measures of its own, at
`/metrics`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from upwell import composition
from upwell.core.errors import ConfigurationError
from upwell.journal.journal import OBSERVERS
from upwell.journal.sql import Dialect, bulk_inserts

if TYPE_CHECKING:
    from upwell.journal.batch import Batch
    from upwell.journal.database import Row

RUN_SECONDS: Final = (0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0)
FLUSH_SECONDS: Final = (0.001, 0.005, 0.02, 0.05, 0.2, 1.0, 5.0)


def register(registry: CollectorRegistry = REGISTRY) -> Metrics:
    """Measure this process from now on, and tell this registry; `unregister()` of what is returned ends it.

    Raises:
        ConfigurationError: it is measured already.
    """
    return Metrics(registry)


class Metrics(Collector):
    """The measures of one process; see `register`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        global _registered
        if _registered is not None:
            raise ConfigurationError("This process is measured already: call `unregister()` of what `register` gave.")
        self._registry = registry
        self._task_runs = Counter(
            "upwell_task_runs", "Task runs that have ended, by type of state.", ["state"], registry=registry
        )
        self._task_seconds = Histogram(
            "upwell_task_run_seconds",
            "From its start to its end.",
            buckets=RUN_SECONDS,
            registry=registry,
        )
        self._flow_runs = Counter(
            "upwell_flow_runs_ended", "Flow runs that have ended.", ["flow", "state"], registry=registry
        )
        self._flow_seconds = Histogram(
            "upwell_flow_run_seconds",
            "From its start to its end.",
            ["flow"],
            buckets=RUN_SECONDS,
            registry=registry,
        )
        self._flush_seconds = Histogram(
            "upwell_journal_flush_seconds", "Of one write to the store.", buckets=FLUSH_SECONDS, registry=registry
        )
        self._rows = Counter("upwell_journal_rows", "Rows that were written to the store.", registry=registry)
        registry.register(self)
        OBSERVERS.append(self._observe)
        _registered = self

    def unregister(self) -> None:
        """Measure nothing any more."""
        global _registered
        if _registered is self:
            _registered = None
            OBSERVERS.remove(self._observe)
            for measure in (*self._measures(), self):
                self._registry.unregister(measure)

    def collect(self) -> Iterable[Metric]:
        """What waits to be written just now."""
        waiting = GaugeMetricFamily("upwell_journal_waiting", "What was recorded, and is not written yet.")
        waiting.add_metric([], _waiting())
        return [waiting]

    def _measures(self) -> tuple[Collector, ...]:
        return (
            self._task_runs,
            self._task_seconds,
            self._flow_runs,
            self._flow_seconds,
            self._flush_seconds,
            self._rows,
        )

    def _observe(self, batch: Batch, seconds: float) -> None:
        """On the journal's thread, after each write."""
        self._flush_seconds.observe(seconds)
        self._rows.inc(batch.size())
        batch = batch.by_rows()
        for query, rows in (("put_completed_runs", batch.completed_runs), ("put_task_runs", batch.task_runs)):
            for row in map(_named(query), rows):
                if row["ended"] is not None:
                    self._task_runs.labels(row.get("state", "COMPLETED")).inc()
                    _observe_seconds(self._task_seconds, row)
        for row in map(_named("put_flow_runs"), batch.flow_runs):
            if row["ended"] is not None:
                self._flow_runs.labels(row["flow"], row["state"]).inc()
                _observe_seconds(self._flow_seconds.labels(row["flow"]), row)


_registered: Metrics | None = None


def _observe_seconds(histogram: Histogram, row: dict[str, Any]) -> None:
    if row["started"] is not None:
        histogram.observe(max(0.0, (row["ended"] - row["started"]) / 1e6))


def _named(query: str) -> Any:
    """Makes of a row its values by column."""
    columns = [name for name in bulk_inserts(Dialect.SQLITE)[query].row if name.isidentifier()]

    def named(row: Row) -> dict[str, Any]:
        return dict(zip(columns, row, strict=True))

    return named


def _waiting() -> int:
    kept = composition.journal_kept()
    if kept is None:
        return 0
    recorder = kept[1].recorder
    lists = (recorder.ends, recorder.begun, recorder.logs, recorder.flow_moves)
    return sum(map(len, lists)) + recorder.waiting


__all__ = ["Metrics", "register"]
