"""The same thing done to many flow runs: those that are named, or those that a filter lets through, the oldest first.

Each is done by itself, as if it had been asked for alone: what one refuses keeps no other from being done. It ends
after a while, however many there are; the answer says where to go on.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from msgspec.structs import replace

from upwell.core.bulk import BulkDone, BulkItem, BulkSpec
from upwell.core.errors import InvalidRequestError, UnknownRunError, UpwellError
from upwell.core.model import FlowRunRecord
from upwell.journal.job_claims import AWAITING_RESUME
from upwell.journal.jobs import SqlJobs
from upwell.journal.reader import FlowRunFilter, Reader
from upwell.journal.reader_pages import cursor, key_of

PAGE_RUNS: Final = 20
MOST_SECONDS: Final = 8.0
"""After that no further page is begun: whoever asks has not waited for too long yet."""

_ENDED: Final[dict[str, bool | None]] = {"cancel": False, "retry": True, "resume": False, "delete": None}
"""Whether those have ended that it is done to."""


_SAID: Final = tuple(name for name in FlowRunFilter.__struct_fields__ if name in BulkSpec.__struct_fields__)
"""What both say of runs, in the same words."""


class SqlBulk(SqlJobs):
    """What is done to one flow run, done to many; see `control.Jobs.change_flow_runs`."""

    async def change_flow_runs(self, wanted: BulkSpec, *, by: str) -> BulkDone:
        if bool(wanted.ids) == wanted.has_filter:
            raise InvalidRequestError(
                f"{wanted.action.capitalize()} which runs? Say either their ids, or which by a filter: flow, state, "
                "tags, since, until, text, parent, deployment."
            )
        from asyncio import get_running_loop  # here: who only reads a file has no event loop

        now = get_running_loop().time
        until = now() + MOST_SECONDS
        reader = Reader(self._database, self._database.place)
        items: list[BulkItem] = []
        following = wanted.after
        while True:
            most = min(PAGE_RUNS, wanted.limit - len(items))
            meant, following = await self._page(reader, wanted, following, most)
            items += [await self._done(run, wanted, by) for run in meant]
            if following is None or len(items) >= wanted.limit or now() > until:
                break
        refused = sum(item.refused is not None for item in items)
        done = 0 if wanted.dry_run else len(items) - refused
        return BulkDone(done=done, refused=refused, items=tuple(items), next=following)

    async def _page(
        self, reader: Reader, wanted: BulkSpec, after: str | None, most: int
    ) -> tuple[list[BulkItem], str | None]:
        """The next ones that are meant, and where those after them begin."""
        if not wanted.ids:
            page = await reader.flow_runs(_filter(wanted), "oldest", most, after)
            return [BulkItem(id=run.id, name=run.name, run=run) for run in page.items], page.next
        found = key_of(after, named=(int,))
        first = found[1][0] if found else 0
        end = first + most
        items = [await _named(reader, run_id) for run_id in wanted.ids[first:end]]
        return items, cursor("named", end) if end < len(wanted.ids) else None

    async def _done(self, meant: BulkItem, wanted: BulkSpec, by: str) -> BulkItem:
        if meant.refused is not None:
            return meant
        if wanted.dry_run:
            return _would_be(meant, wanted)
        try:
            run = await self._do(wanted, meant.id, by)
        except UpwellError as error:
            return BulkItem(id=meant.id, name=meant.name, refused=str(error), run=meant.run)
        return BulkItem(id=meant.id, name=meant.name, run=run)

    async def _do(self, wanted: BulkSpec, run_id: UUID, by: str) -> FlowRunRecord | None:
        if wanted.action == "cancel":
            return await self.request_cancel(run_id, by=by, reason=wanted.reason, grace_seconds=wanted.grace_seconds)
        if wanted.action == "retry":
            return await self.retry_flow_run(run_id)
        if wanted.action == "resume":
            return await self.resume_flow_run(run_id)
        await self.delete_flow_run(run_id)
        return None


def _filter(wanted: BulkSpec) -> FlowRunFilter:
    state = wanted.state
    if wanted.action == "resume" and state is None:
        state = AWAITING_RESUME
    said: dict[str, Any] = {name: getattr(wanted, name) for name in _SAID}
    said.update(state=state, ended=_ENDED[wanted.action])
    return FlowRunFilter(**said)


def _would_be(meant: BulkItem, wanted: BulkSpec) -> BulkItem:
    """What would become of a run that is named, as far as its state tells; a filter leaves out the others."""
    has_to_have_ended = _ENDED[wanted.action]
    if meant.run is None or has_to_have_ended in (None, meant.run.state.is_final()):
        return meant
    state = meant.run.state
    how = "has ended" if state.is_final() else "has not ended, but is"
    return replace(meant, refused=f"The flow run '{meant.name}' {how} {state.name}.")


async def _named(reader: Reader, run_id: UUID) -> BulkItem:
    try:
        run = await reader.flow_run(run_id)
    except UnknownRunError as error:
        return BulkItem(id=run_id, name=str(run_id), refused=str(error))
    return BulkItem(id=run_id, name=run.name, run=run)


__all__ = ["SqlBulk"]
