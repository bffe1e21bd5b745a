"""Processes that work through a server: each says in a line where it is, and goes on when it is told to."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from upwell import flow, task
from upwell.composition import flush_journal

RUNS = 200


def say(line: str) -> None:
    print(line, flush=True)


async def wait() -> None:
    """Until somebody says something."""
    await asyncio.to_thread(sys.stdin.readline)


@task
async def echo(number: int) -> int:
    return number


@flow
async def in_rounds(rounds: int) -> None:
    """Maps, once for each line that it is told."""
    for number in range(rounds):
        say(f"round {number}")
        await wait()
        for future in echo.map(range(RUNS)):
            await future


@flow(log_prints=True)
async def short() -> None:
    print("a line")
    await echo(1)


@flow
async def endless() -> None:
    flush_journal()
    say("ready")
    await asyncio.sleep(600)


@task(persist_result=True)
async def step(number: int) -> int:
    say(f"step {number}")
    return number * 10


@flow(durable=True, persist_result=True)
async def steady(x: int) -> int:
    done = [await step(number) for number in range(x)]
    if sys.argv[2:] == ["die"]:
        flush_journal()
        os.kill(os.getpid(), signal.SIGKILL)
    return sum(done) + await step(99)


def main(life: str) -> Any:
    lives: dict[str, Any] = {
        "rounds": lambda: in_rounds(4),
        "short": short,
        "endless": endless,
        "steady": lambda: steady(2),
    }
    return asyncio.run(lives[life]())


if __name__ == "__main__":
    say(f"ended {main(sys.argv[1])}")
