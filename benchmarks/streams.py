"""Streams: very many inputs in constant memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from benchmarks.coroutines import noop
from benchmarks.rows import Rival, Row, Side, Unit

PART: Final = 100_000
"""Items of one map beside the stream: a map holds all its futures, a stream none."""


async def upwell_stream(size: int) -> int:
    count = 0
    async for _ in noop.stream(range(size)):
        count += 1
    return count


async def upwell_maps(size: int) -> int:
    count = 0
    for start in range(0, size, PART):
        count += len(await noop.map(range(start, min(size, start + PART))))
    return count


_COST = Row(
    name="stream-cost",
    measures=f"The cost of an item of a stream, beside that of maps of {PART:,} one after another.",
    leaves_out="Slow inputs and slow consumers; the stream in order, with its own window.",
    ours=Side("stream", upwell_stream),
    rivals=(Rival("map", upwell_maps, most=1.0),),
    size=10_000_000,
    quick_size=300_000,
    on_loops=True,
    rounds=1,
    warm_up=False,
    peak=False,
)

ROWS = [
    Row(
        name="stream-memory",
        measures="How far memory grows while a stream takes 10,000,000 inputs through a no-op coroutine.",
        leaves_out="Slow inputs and slow consumers.",
        ours=Side("stream", upwell_stream),
        size=10_000_000,
        quick_size=1_000_000,
        unit=Unit.MIB,
        most=30.0,
    ),
    _COST,
    replace(
        _COST,
        name="stream-cost-1m",
        measures="The same over 1,000,000 inputs, several times.",
        size=1_000_000,
        quick_size=100_000,
        rounds=3,
    ),
]
