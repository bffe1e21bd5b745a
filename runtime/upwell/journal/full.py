"""Deployments that have as many runs under way as they may, and do not let what is due wait."""

from __future__ import annotations

from upwell.core.deployments import DEFAULT_GRACE_SECONDS
from upwell.core.states import CANCELLED
from upwell.journal.control_part import end_run, firsts
from upwell.journal.database import Session

_ACTOR = "its deployment"


async def see_to_full(session: Session, deployment_id: str, concurrency: int, when_full: str, now: int) -> int:
    """Cancel what is due, or what is under way, as the deployment says; it is locked. How many runs."""
    due = firsts(await session.fetch("jobs_due_of_deployment", deployment_id=deployment_id, now=now))
    under_way = await session.fetch("jobs_under_way_of_deployment", deployment_id=deployment_id)
    free = concurrency - len(under_way)
    if when_full == "cancel_new":
        message = f"Its deployment has as many runs under way as it may ({concurrency}), and cancels new ones."
        too_many = due[max(free, 0) :]
        for one in too_many:
            await end_run(session, one, now, CANCELLED.value, message)
        return len(too_many)
    ending = sum(bool(is_asked) for _, is_asked in under_way)
    needed = min(len(due), concurrency) - free - ending
    oldest = [run_id for run_id, is_asked in under_way if not is_asked][: max(needed, 0)]
    for one in oldest:
        await session.fetch(
            "put_cancel_request",
            id=one,
            now=now,
            actor=_ACTOR,
            reason=f"a newer run is due, and it may have {concurrency} at once",
            grace=int(DEFAULT_GRACE_SECONDS * 1e6),
        )
    return len(oldest)
