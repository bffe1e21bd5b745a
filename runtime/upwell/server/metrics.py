"""What Prometheus is told at `/metrics`: how the store stands, and how the server itself does."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from litestar import Response, get
from litestar.types import ControllerRouterHandler, Message, Send
from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from upwell.journal.measures import Measures, measures
from upwell.server import auth
from upwell.server.api.asked import Request
from upwell.server.parts import Parts, parts_of

LAG_SECONDS: Final = 1.0
"""How often it is seen whether the loop keeps its time."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LAGS: Final = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0)
_TIMES: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0, 10.0)


class ServerMetrics:
    """The measures of one server, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
        self.flow_runs = Gauge(
            "upwell_flow_runs", "Flow runs that have not ended, by type of state.", ["state"], registry=registry
        )
        self.recent = Gauge(
            "upwell_flow_runs_last_day",
            "Flow runs made in the last day, by type of state.",
            ["state"],
            registry=registry,
        )
        self.jobs = Gauge("upwell_jobs", "Jobs by what they do: waiting, due, under_way.", ["state"], registry=registry)
        self.wait = Gauge("upwell_job_longest_wait_seconds", "Of the job that has been due longest.", registry=registry)
        self.processes = Gauge("upwell_processes", "Processes that give signs of life.", registry=registry)
        self.slots = Gauge("upwell_limit_slots", "Slots of a concurrency limit.", ["limit"], registry=registry)
        self.taken = Gauge("upwell_limit_slots_taken", "Slots that are in use.", ["limit"], registry=registry)
        self.waiting = Gauge("upwell_limit_waiting", "Wishes that stand in line.", ["limit"], registry=registry)
        self.listeners = Gauge("upwell_stream_listeners", "Who listens to changes.", registry=registry)
        self.lag = Histogram(
            "upwell_server_loop_lag_seconds", "How late the server's event loop is.", buckets=_LAGS, registry=registry
        )
        self.requests = Histogram(
            "upwell_server_request_seconds",
            "How long requests take, by method and kind of answer.",
            ["method", "status"],
            buckets=_TIMES,
            registry=registry,
        )

    async def read(self, parts: Parts) -> None:
        """Look at the store."""
        self._tell(await measures(parts.session))
        for gauge in (self.slots, self.taken, self.waiting):
            gauge.clear()
        for limit in await parts.limits.in_use():
            self.slots.labels(limit.name).set(limit.slots)
            self.taken.labels(limit.name).set(limit.taken)
            self.waiting.labels(limit.name).set(limit.waiting)
        self.listeners.set(parts.hub.listeners)

    def _tell(self, found: Measures) -> None:
        self.flow_runs.clear()
        self.recent.clear()
        for state, number in found.open_flow_runs.items():
            self.flow_runs.labels(state).set(number)
        for state, number in found.recent_flow_runs.items():
            self.recent.labels(state).set(number)
        self.jobs.labels("waiting").set(found.waiting_jobs)
        self.jobs.labels("due").set(found.due_jobs)
        self.jobs.labels("under_way").set(found.jobs_under_way)
        self.wait.set(found.longest_wait_seconds)
        self.processes.set(found.processes)

    def timed(self, scope: Any, send: Send) -> Send:
        """Sends, and notes how long it took until there was an answer."""
        began = time.perf_counter()
        method = scope.get("method", "")

        async def send_timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = method if method in METHODS else "other"
                seconds = time.perf_counter() - began
                self.requests.labels(known, f"{message['status'] // 100}xx").observe(seconds)
            await send(message)

        return send_timed

    async def watch_the_loop(self) -> None:
        """See how late the loop is, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            self.lag.observe(max(0.0, loop.time() - due))


@get("/metrics", opt=auth.READ, include_in_schema=False)
async def metrics(request: Request) -> Response[bytes]:
    """For Prometheus."""
    told: ServerMetrics = request.app.state.metrics
    await told.read(parts_of(request))
    return Response(generate_latest(told.registry), media_type=CONTENT_TYPE_LATEST)


def metrics_routes() -> list[ControllerRouterHandler]:
    """The routes of this file."""
    return [metrics]
