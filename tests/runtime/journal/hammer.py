"""A process that takes and gives back slots of one limit, again and again, and says so in a ledger that survives it."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from tests.runtime.journal.hosts import Host

from upwell.journal.postgres import PostgresDatabase
from upwell.journal.sqlite import SqliteDatabase


async def hammer(host: Host, ledger: int, number: int) -> None:
    """Each line: who, what (`+` before the first and `-` after the last moment in which it has the slot), which."""
    random_ = random.Random(os.getpid() * 100 + number)
    turn = 0
    while True:
        ticket = await host.take("db")
        turn += 1
        name = f"{number}.{turn}"
        os.write(ledger, f"{os.getpid()} + {name}\n".encode())
        await asyncio.sleep(random_.uniform(0.005, 0.03))
        os.write(ledger, f"{os.getpid()} - {name}\n".encode())
        host.give_back("db", ticket)


async def main(url: str, ledger_path: str, many: int) -> None:
    host = Host(lambda: PostgresDatabase(url) if "://" in url else SqliteDatabase(Path(url)))
    ledger = os.open(ledger_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    await asyncio.gather(*(hammer(host, ledger, number) for number in range(many)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
