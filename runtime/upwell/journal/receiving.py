"""What a server takes from the processes that write through it: what is theirs, and nothing else.

A process belongs to the key that it has come in with. It may write of its own runs, and of those that it goes on with;
a row about somebody else's is left out, and that is said to it. Who may write at all is asked before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final
from uuid import UUID

from msgspec.json import encode

from upwell.core.errors import AccessError, InvalidRequestError
from upwell.journal.batch import KINDS, SERIES_BITS, Batch
from upwell.journal.database import Database, Row, Session
from upwell.journal.processes import Process
from upwell.journal.reader_records import random_part
from upwell.journal.store import Refused, Registered, SqlStore, check_alive, described, register
from upwell.journal.wire import LARGEST_SERIES, LeftOut

_SERIES_KEYS: Final = {
    "series": 0, "completed_runs": 0, "found_runs": 0, "task_runs": 0, "task_run_states": 0, "edges": 0, "results": 0,
    "rolled_back_runs": 0, "durable_calls": 2,
}  # fmt: skip  # a table
_FLOW_RUNS: Final = {"flow_runs": 0, "flow_run_states": 0, "series": 3, "durable_calls": 0}
_PROCESSES: Final = {"flow_runs": 17, "series": 8}
"""Where a row names a series, a flow run, and its process."""


class ReceivingStore(SqlStore):
    """The store as one request of a sender sees it, over a database that is open.

    owner: the name of the sender's key. is_trusted: it may write in the name of any process.
    """

    def __init__(self, database: Database, owner: str, is_trusted: bool) -> None:
        super().__init__(database)
        self._owner = owner
        self._is_trusted = is_trusted
        self._is_late = False
        self._of_others = LeftOut()
        self._refused = LeftOut()

    def note_left_out(self, left_out: LeftOut) -> None:
        """Add what of the batch was not written."""
        for found in (self._of_others, self._refused):
            if found.why is not None:
                left_out.note(found.why, found.count)

    async def open(self, process: Process) -> Registered:
        async with self.database.transaction() as session:
            await self._claim(session, process)
            return await register(session, process)

    async def close(self, process: Process) -> None:
        await self.check_owner(process.id)
        await self.end(process)

    async def renew(self, process: Process) -> None:
        await self.check_owner(process.id)
        await super().renew(process)

    async def state_of(self, process: Process) -> str | None:
        if not await self.database.fetch("process_owner", id=process.id):
            return None
        await self.check_owner(process.id)
        return await super().state_of(process)

    async def take_over(self, process: Process, batch: Batch) -> None:
        if process.id != batch.process_id:
            raise InvalidRequestError("The batch is of another process than is said.")
        async with self.database.transaction() as session:
            await self._claim(session, process)
        self._is_late = True
        await super().take_over(process, batch)

    async def check_owner(self, process_id: str) -> None:
        """Raises AccessError where the process is another's; nothing where it is unknown: that is found out later."""
        for owner, _ in await self.database.fetch("process_owner", id=process_id):
            self._check(process_id, owner)

    async def _claim(self, session: Session, process: Process) -> None:
        """Note whose process this is, if it is new."""
        await session.fetch("note_owned_process", owner=self._owner, **described(process))
        for owner, _ in await session.fetch("process_owner", id=process.id):
            self._check(process.id, owner)

    def _check(self, process_id: str, owner: str | None) -> None:
        if owner != self._owner and not self._is_trusted:
            raise AccessError(
                f"The process {process_id} has come in with another key than {self._owner!r}, and only that one, or "
                "one of the scope admin, may write in its name."
            )

    def report(self, refused: Refused) -> None:
        self._refused.note(f"{refused.first}: {refused.why}", refused.count)

    # --- what is whose --------------------------------------------------------------------------------------

    async def admitted(self, session: Session, batch: Batch) -> Batch:
        self._of_others = LeftOut()  # it may be asked again
        kept = Batch(
            batch.process_id, batch.process_key, batch.number, **{kind: getattr(batch, kind) for kind in KINDS}
        )
        key = await self._key_of(session, batch.process_id)
        if key != batch.process_key:
            raise InvalidRequestError(f"The series of process {batch.process_id} are not numbered as the store said.")
        for kind, place in _PROCESSES.items():
            self._leave_out(kept, kind, place, lambda found: found != batch.process_id, "another process's")
        await self._keep_own_flow_runs(session, kept)
        await self._keep_own_series(session, kept, key)
        await self._keep_lines_of_own_task_runs(session, kept)
        return kept

    async def own_rows(self, batch: Batch) -> Batch:
        """What of a batch may be written, to be written by somebody else."""
        async with self.database.transaction() as session:
            key = await self._key_of(session, batch.process_id)
            return await self.admitted(session, batch.numbered_from(key))

    async def _key_of(self, session: Session, process_id: str) -> int:
        """Where the series of a process of the sender's begin."""
        rows = await session.fetch("process_owner", id=process_id)
        if not rows:
            await check_alive(session, process_id)  # which says so
        owner, key = rows[0]
        self._check(process_id, owner)
        return int(key)

    def _leave_out(self, batch: Batch, kind: str, place: int, is_others: Callable[[Any], bool], why: str) -> None:
        """Keep the rows whose value at this place is nobody else's."""
        rows: list[Row] = getattr(batch, kind)
        kept = [row for row in rows if not is_others(row[place])]
        if len(kept) < len(rows):
            self._of_others.note(f"{kind}: {why}", len(rows) - len(kept))
            setattr(batch, kind, kept)

    async def _keep_own_flow_runs(self, session: Session, batch: Batch) -> None:
        named = {row[place] for kind, place in _FLOW_RUNS.items() for row in getattr(batch, kind)}
        named |= {row[0] for row in batch.logs}
        rows = await session.fetch(
            "flow_runs_of_others", ids=_json(named - {None}), process_id=batch.process_id, is_late=int(self._is_late)
        )
        others = {row[0] for row in rows}
        never_ours = {row[0] for row in rows if not row[1]}
        if not others:
            return
        for kind, place in _FLOW_RUNS.items():
            self._leave_out(batch, kind, place, others.__contains__, "of another's flow run")
        self._leave_out(batch, "logs", 0, never_ours.__contains__, "of another's flow run")

    async def _keep_own_series(self, session: Session, batch: Batch, process_key: int) -> None:
        keys = {row[place] for kind, place in _SERIES_KEYS.items() for row in getattr(batch, kind)}
        foreign = {key for key in keys if key >> SERIES_BITS != process_key}
        if foreign:
            rows = await session.fetch(
                "series_gone_on_with",
                keys=_json(map(str, foreign)),
                process_id=batch.process_id,
                is_late=int(self._is_late),
            )
            foreign -= {row[0] for row in rows}
            for kind, place in _SERIES_KEYS.items():
                self._leave_out(batch, kind, place, foreign.__contains__, "of another's task runs")
        if batch.series:
            near = await session.fetch("series_near", bases=_json({row[1] for row in batch.series}))
            taken = {base for base, *others in near for other in others if other and _are_near(base, other)}
            self._leave_out(batch, "series", 1, taken.__contains__, "ids that are another's")

    async def _keep_lines_of_own_task_runs(self, session: Session, batch: Batch) -> None:
        ids: set[str] = {row[1] for row in batch.logs if row[1] is not None}
        if not ids:
            return
        parts = {identity: f"{random_part(UUID(identity)):019x}" for identity in ids}
        others: set[str] = set()
        for part, base, submitted, process_id, now in await session.fetch(
            "series_of_parts", parts=_json(parts.values())
        ):
            if int(part, 16) - int(base, 16) < submitted and batch.process_id not in (process_id, now):
                others.add(part)
        if others:
            self._leave_out(batch, "logs", 1, lambda identity: parts.get(identity) in others, "of another's task run")


def _are_near(base: str, other: str) -> bool:
    """Whether two series would share ids if they grew as large as one may. Those of chance are never so near."""
    return abs(int(base, 16) - int(other, 16)) < LARGEST_SERIES


def _json(values: Iterable[str]) -> str:
    return encode(sorted(values)).decode()
