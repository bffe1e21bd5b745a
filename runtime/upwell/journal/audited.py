"""What is changed in a store directly, kept in the record of changes in the words in which a server keeps it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from uuid import UUID

from upwell.core.bulk import BulkDone, BulkSpec
from upwell.core.deployments import (
    Deployment,
    DeploymentSpec,
    RunSpec,
    ScheduleSpec,
    WorkPool,
    WorkPoolSpec,
    WorkQueue,
)
from upwell.core.model import FlowRunRecord
from upwell.journal.api_keys import SqlKeys
from upwell.journal.control import Ref
from upwell.journal.control_part import now_micros
from upwell.journal.database import Database
from upwell.journal.limit_store import LimitChange, LimitRow, SqlLimits
from upwell.journal.reader_records import moment
from upwell.journal.sql_control import SqlControl


def notes_of_bulk(wanted: BulkSpec, done: BulkDone) -> Iterator[tuple[str, str, str | None]]:
    """What is to be recorded of many flow runs: for each to which it was done, the action, the run, and more of it."""
    for item in done.items:
        if item.refused is None and not wanted.dry_run:
            again = f"as {item.run.id}" if wanted.action == "retry" and item.run is not None else None
            yield f"{wanted.action} flow run", str(item.id), wanted.reason or again


class AuditedControl(SqlControl):
    """A store as somebody uses it who is no server, and is recorded as `actor`."""

    def __init__(self, database: Database, actor: str) -> None:
        super().__init__(database)
        self._actor = actor

    async def _note(self, action: str, target: object, detail: str | None = None) -> None:
        await self.audit(self._actor, action, str(target), detail)

    # --- deployments ----------------------------------------------------------------------------------------

    async def apply_deployment(self, wanted: DeploymentSpec) -> Deployment:
        applied = await super().apply_deployment(wanted)
        await self._note("apply deployment", applied.full_name)
        return applied

    async def delete_deployment(self, ref: Ref) -> None:
        found = await self.deployment(ref)
        await super().delete_deployment(ref)
        await self._note("delete deployment", found.full_name)

    async def pause_deployment(self, ref: Ref, paused: bool) -> Deployment:
        changed = await super().pause_deployment(ref, paused)
        await self._note("pause deployment" if paused else "resume deployment", changed.full_name)
        return changed

    async def put_schedule(self, ref: Ref, wanted: ScheduleSpec) -> Deployment:
        changed = await super().put_schedule(ref, wanted)
        await self._note("put schedule", changed.full_name, wanted.slug or wanted.expression)
        return changed

    async def set_schedule_active(self, ref: Ref, slug: str, active: bool) -> Deployment:
        changed = await super().set_schedule_active(ref, slug, active)
        await self._note("resume schedule" if active else "pause schedule", changed.full_name, slug)
        return changed

    async def delete_schedule(self, ref: Ref, slug: str) -> Deployment:
        changed = await super().delete_schedule(ref, slug)
        await self._note("delete schedule", changed.full_name, slug)
        return changed

    async def backfill(
        self, ref: Ref, slug: str, since: dt.datetime, until: dt.datetime, *, dry_run: bool = False
    ) -> list[dt.datetime]:
        ticks = await super().backfill(ref, slug, since, until, dry_run=dry_run)
        if not dry_run:
            await self._note("backfill", ref, f"{slug}: {len(ticks)} runs")
        return ticks

    # --- flow runs ------------------------------------------------------------------------------------------

    async def run_deployment(self, ref: Ref, wanted: RunSpec) -> FlowRunRecord:
        asked = moment(now_micros())
        made = await super().run_deployment(ref, wanted)
        if made.created >= asked:  # else it is one of its idempotency key, made before
            await self._note("run deployment", ref, f"{made.name} ({made.id})")
        return made

    async def fork_flow_run(self, flow_run_id: UUID, before: UUID | None = None) -> FlowRunRecord:
        made = await super().fork_flow_run(flow_run_id, before)
        await self._note("fork flow run", flow_run_id, f"as {made.id}")
        return made

    async def change_flow_runs(self, wanted: BulkSpec, *, by: str) -> BulkDone:
        done = await super().change_flow_runs(wanted, by=by)
        for action, target, detail in notes_of_bulk(wanted, done):
            await self._note(action, target, detail)
        return done

    # --- work pools -----------------------------------------------------------------------------------------

    async def put_work_pool(self, name: str, wanted: WorkPoolSpec) -> WorkPool:
        made = await super().put_work_pool(name, wanted)
        await self._note("put work pool", name)
        return made

    async def delete_work_pool(self, name: str) -> None:
        await super().delete_work_pool(name)
        await self._note("delete work pool", name)

    async def put_work_queue(self, pool: str, queue: WorkQueue) -> WorkPool:
        changed = await super().put_work_queue(pool, queue)
        await self._note("put work queue", f"{pool}/{queue.name}")
        return changed

    async def delete_work_queue(self, pool: str, name: str) -> WorkPool:
        changed = await super().delete_work_queue(pool, name)
        await self._note("delete work queue", f"{pool}/{name}")
        return changed


class AuditedLimits(SqlLimits):
    """The same of its limits."""

    def __init__(self, database: Database, actor: str) -> None:
        super().__init__(database)
        self._keys, self._actor = SqlKeys(database), actor

    async def create(self, limit: LimitRow) -> bool:
        if made := await super().create(limit):
            await self._keys.audit(self._actor, "put limit", limit.name, str(limit.slots))
        return made

    async def update(self, change: LimitChange) -> bool:
        if changed := await super().update(change):
            detail = None if change.slots is None else str(change.slots)
            await self._keys.audit(self._actor, "put limit", change.name, detail)
        return changed

    async def delete(self, name: str) -> bool:
        if deleted := await super().delete(name):
            await self._keys.audit(self._actor, "delete limit", name)
        return deleted


__all__ = ["AuditedControl", "AuditedLimits", "notes_of_bulk"]
