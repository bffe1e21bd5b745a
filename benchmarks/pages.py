"""The pages of a very large flow run: what one costs the server, from its question to the last byte."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, Final

import httpx

from benchmarks.history import best_of_three, filled
from benchmarks.rows import Measured, Row, Run, Setting, Side, Unit
from upwell.composition import make_database
from upwell.journal.database import Database
from upwell.server.app import create_app
from upwell.server.pages import graph
from upwell.server.parts import open_parts
from upwell.settings import Settings, temporary_settings

VIEWS: Final = ("timeline", "graph", "tasks", "timeline&task=crunch")
LAYERS: Final = 250


@contextmanager
def _slowest_view(setting: Setting) -> Generator[Run]:
    """The slowest page of the largest flow run of a store of so many task runs."""
    store, folder = filled(setting.size)

    async def measure() -> Measured:
        settings = Settings(home=folder.name, retention_days=None)

        def make(*, read_only: bool) -> Database:
            return make_database(settings, read_only=read_only, on_a_thread=True)

        async with open_parts(make, settings) as parts:
            transport: Any = httpx.ASGITransport(create_app(parts))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:4200") as client:

                def question(view: str) -> Callable[[], Any]:
                    return lambda: client.get(f"/runs/{store.large}?view={view}")

                times = [await best_of_three(question(view)) for view in VIEWS]
        return Measured(max(times))

    with temporary_settings(home=folder.name, journal="off"):
        yield lambda: asyncio.run(measure())


def _draw(layers: int) -> None:
    """A graph whose edges pass by many others."""
    boxes = {f"n{i}": graph.Box(label=f"n{i}", note="", kind="completed", href="/", states={}) for i in range(layers)}
    edges = {(f"n{i}", f"n{i + 1}"): 1 for i in range(layers - 1)}
    edges |= {(f"n{i // 2}", f"n{i}"): 1 for i in range(3, layers)}
    graph.laid_out(boxes, edges, grouped=False)


_LEFT_OUT: Final = "the way to the browser, and what that does; reading the file from the disk"

ROWS: Final = [
    Row(
        name="page-of-large-run",
        measures="a flow run of 100,000 task runs: the slowest of its timeline, graph, list, and one task's runs",
        leaves_out=_LEFT_OUT,
        ours=Side("upwell", _slowest_view),
        most=1_000.0,
        size=1_000_000,
        quick_size=50_000,
        unit=Unit.MILLISECONDS,
        rounds=3,
        peak=False,
    ),
    Row(
        name="page-graph-layout",
        measures="laying out a graph of 250 boxes in a row, with edges across half of it",
        leaves_out="asking for it, and drawing it",
        ours=Side("upwell", _draw),
        most=1_000.0,
        size=LAYERS,
        quick_size=50,
        unit=Unit.MILLISECONDS,
        rounds=3,
        peak=False,
    ),
]
