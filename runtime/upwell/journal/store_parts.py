"""What else a process asks of its store, beside writing to it: of a database, or of the server behind which it is."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from upwell.journal.cache_store import CacheStore
    from upwell.journal.durable_store import DurableStore
    from upwell.journal.limit_store import LimitStore
    from upwell.journal.remote_store import RemoteJournal
    from upwell.journal.results import StoredOutcome
    from upwell.journal.store import SqlStore, Store

# Imports are inside of the functions: most programs have no limits, no cache and no durable flows.


def cache_of(store: Store) -> CacheStore:
    """Its cache."""
    if (server := _server_of(store)) is not None:
        from upwell.journal.remote_parts import RemoteCache

        return RemoteCache(server)
    from upwell.journal.cache_store import SqlCache

    return SqlCache(_sql(store).database)


def limits_of(store: Store) -> LimitStore:
    """Its limits."""
    if (server := _server_of(store)) is not None:
        from upwell.journal.remote_parts import RemoteLimits

        return RemoteLimits(server)
    from upwell.journal.limit_store import SqlLimits

    return SqlLimits(_sql(store).database)


def durable_of(store: Store, process_id: str, most_crashes: int) -> DurableStore:
    """Its durable flow runs, for this process. most_crashes: one that has crashed so often is not resumed any more."""
    if (server := _server_of(store)) is not None:
        from upwell.journal.remote_parts import RemoteDurable

        return RemoteDurable(server, process_id)
    from upwell.journal.durable_store import SqlDurable

    return SqlDurable(_sql(store).database, process_id, most_crashes)


async def outcome_in(store: Store, run_id: UUID) -> StoredOutcome | None:
    """How a run of it ended; None if there is none."""
    if (server := _server_of(store)) is not None:
        from upwell.journal.remote_parts import remote_outcome

        return await remote_outcome(server, run_id)
    from upwell.journal.results import outcome_of

    return await outcome_of(_sql(store).database, run_id)


def _server_of(store: Store) -> RemoteJournal | None:
    return getattr(store, "server", None)


def _sql(store: Store) -> SqlStore:
    from upwell.journal.store import SqlStore

    if not isinstance(store, SqlStore):
        raise TypeError(f"{store!r} has no database")
    return store


__all__ = ["cache_of", "durable_of", "limits_of", "outcome_in"]
