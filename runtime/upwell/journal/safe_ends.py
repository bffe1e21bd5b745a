"""Ends of task runs that were written at once, each as a message of what the tables are to hold.

The journal puts that there soon after, with everything else, and says with it up to which number. If the process dies
before, whoever declares it dead brings in the others.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from upwell.journal.batch import SERIES_BITS, Batch
from upwell.journal.database import Database, Session, StoreUnavailable
from upwell.journal.end_log import fence, log_beside
from upwell.journal.sql import Dialect
from upwell.journal.store import leave_out_what_others_do_now, write_rows

message_of: Final = msgspec.msgpack.Encoder().encode
"""What is kept of one end, as a tuple, see `Facts`; or of a part of it."""

_SUBMITTED: Final = 7
"""Where a row of `series` says how many runs there are."""


class Facts(msgspec.Struct, array_like=True):
    """The rows of one end.

    series: may be as it was at an earlier end. submitted: what it says of that now.
    is_short: the task run's is one of `completed_runs`.
    """

    series: tuple[Any, ...]
    submitted: int
    is_short: bool
    run: tuple[Any, ...]
    record: bytes
    durable_key: bytes | None


_decode: Final = msgspec.msgpack.Decoder(Facts).decode


async def bring_in(database: Database, session: Session, process_id: str, process_key: int) -> None:
    """Put the ends that a dead process has written into their tables, in an open transaction; its row is locked.

    Those that are there already, or were, stay as they are: such a run may have been rolled back since.

    Raises:
        StoreUnavailable: its log cannot be read now.
    """
    known = await session.fetch("ends_in_tables", id=process_id)
    if not known:
        return
    in_tables = int(known[0][0])
    noted = [one for one in await _log_of(database, session, process_id, process_key) if one[0] > in_tables]
    first, after = process_key << SERIES_BITS, (process_key + 1) << SERIES_BITS
    rows = await session.fetch("safe_ends_of", first=first + in_tables + 1, after=after)
    found = [_decode(facts) for facts in (*(facts for (facts,) in rows), *(facts for _, facts in noted))]
    if not found:
        return
    series = {facts.series[0]: (*facts.series[:_SUBMITTED], facts.submitted, *facts.series[_SUBMITTED + 1 :])
              for facts in found}  # fmt: skip  # the last says how many there are
    batch = Batch(
        process_id,
        process_key,
        series=list(series.values()),
        completed_runs=[facts.run for facts in found if facts.is_short],
        task_runs=[facts.run for facts in found if not facts.is_short],
        results=[(*facts.run[:2], facts.record, facts.durable_key) for facts in found],
    )
    await leave_out_what_others_do_now(session, batch)
    await write_rows(session, batch)
    await session.fetch("forget_safe_ends", first=first, after=after)
    if noted:
        await session.fetch("put_ends_in_tables", id=process_id, ends=noted[-1][0])


async def _log_of(database: Database, session: Session, process_id: str, process_key: int) -> list[tuple[int, bytes]]:
    path = await store_file(database, session)
    if path is None:
        return []
    try:
        return fence(log_beside(path, process_key), process_id)
    except OSError as error:
        raise StoreUnavailable(f"The ends that a dead process has noted cannot be read: {error}.") from error


async def remove_log(database: Database, process_key: int) -> None:
    """What the log of a dead process has is in the tables, for good. What cannot be removed now, retention does."""
    path = await store_file(database, database)
    if path is not None:
        with suppress(OSError):
            log_beside(path, process_key).unlink()


async def store_file(database: Database, session: Session) -> Path | None:
    """The SQLite file that is the store, if it is one; asked of this session."""
    if database.dialect is not Dialect.SQLITE:
        return None
    path = (await session.fetch_text("PRAGMA database_list"))[0][2]
    return Path(path) if path else None
