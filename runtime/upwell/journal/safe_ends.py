"""Ends of task runs that were written at once, each as a row that holds, as a message, what the tables are to hold.

The journal puts that there soon after, with everything else, and lets the row go. If the process dies before, whoever
declares it dead does.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from upwell.journal.batch import SERIES_BITS, Batch
from upwell.journal.database import Session
from upwell.journal.store import leave_out_what_others_do_now, write_rows

_encode: Final = msgspec.msgpack.Encoder().encode

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


def message_of(values: tuple[Any, ...]) -> bytes:
    """What is kept of one end, see `Facts`; or a part of it."""
    return _encode(values)


async def bring_in(session: Session, process_id: str, process_key: int) -> None:
    """Put the ends that a dead process has written into their tables, in an open transaction; its row is locked."""
    span = {"first": process_key << SERIES_BITS, "after": (process_key + 1) << SERIES_BITS}
    found = [_decode(facts) for (facts,) in await session.fetch("safe_ends_of", **span)]
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
    await session.fetch("forget_safe_ends", **span)
