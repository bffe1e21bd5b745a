"""The same thing done to many flow runs: those that are named, or those that a filter lets through, the oldest first.

Each is done by itself, as if it had been asked for alone: what one refuses keeps no other from being done. It ends
after a while, however many there are; the answer says where to go on.
"""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import UUID

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


class SqlBulk(SqlJobs):
    """What is done to one flow run, done to many; see `control.Jobs.change_flow_runs`."""

    async def change_flow_runs(self, wanted: BulkSpec, *, by: str) -> BulkDone:
        if bool(wanted.ids) == wanted.has_filter:
            raise InvalidRequestError(
                f"{wanted.action.capitalize()} which runs? Say either their ids, or which by a filter: flow, state, "
                "tags, since, until, text, parent, deployment."
            )
        until = asyncio.get_running_loop().time() + MOST_SECONDS
        reader = Reader(self._database, self._database.place)
        items: list[BulkItem] = []
        following = wanted.after
        while True:
            most = min(PAGE_RUNS, wanted.limit - len(items))
            meant, following = await self._page(reader, wanted, following, most)
            items += [await self._done(run, wanted, by) for run in meant]
            if following is None or len(items) >= wanted.limit or asyncio.get_running_loop().time() > until:
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
        if wanted.dry_run or meant.refused is not None:
            return meant
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
    return FlowRunFilter(
        flow=wanted.flow,
        state=state,
        tags=wanted.tags,
        since=wanted.since,
        until=wanted.until,
        text=wanted.text,
        parent=wanted.parent,
        deployment=wanted.deployment,
        ahead=wanted.ahead,
        ended=_ENDED[wanted.action],
    )


async def _named(reader: Reader, run_id: UUID) -> BulkItem:
    try:
        run = await reader.flow_run(run_id)
    except UnknownRunError as error:
        return BulkItem(id=run_id, name=str(run_id), refused=str(error))
    return BulkItem(id=run_id, name=run.name, run=run)


__all__ = ["SqlBulk"]
