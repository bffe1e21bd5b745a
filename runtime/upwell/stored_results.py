"""Results of runs of any process, by the run's id, out of the journal that this process keeps."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from upwell.composition import open_recorder
from upwell.core.errors import ConfigurationError, MissingResult
from upwell.core.results import ResultRecord, not_kept
from upwell.engine.recorder import Recorder
from upwell.engine.steps import run_apart
from upwell.journal.results import StoredOutcome
from upwell.journal.store_parts import outcome_in
from upwell.persistence import default_store
from upwell.results import ResultNotFound, ResultStore

__all__ = ["result_of", "result_of_async"]


def result_of(run_id: UUID | str, store: ResultStore | None = None) -> Any:
    """The result of a task run or flow run, of this process or another, whose result was stored.

    Args:
        run_id: the run's id.
        store: what has stored it, where the record does not say: in a store of one's own, or signed.

    Raises:
        MissingResult: there is no such run, it has not completed, or its result was not stored; its subclasses say
            that what was stored is gone (ResultNotFound), damaged, expired, or not to be trusted.
        ConfigurationError: no journal is kept, or `run_id` is no UUID.
    """
    return run_apart(result_of_async(run_id, store))


async def result_of_async(run_id: UUID | str, store: ResultStore | None = None) -> Any:
    """The same, to await."""
    identity, recorder = _uuid(run_id), _recorder()
    await _written(recorder)

    def ask(store: Any) -> Any:
        return outcome_in(store, identity)

    found: StoredOutcome | None = await asyncio.wrap_future(recorder.journal.ask(ask))
    if found is None:
        raise MissingResult(
            f"There is no run {identity} in the journal. Was it recorded in another one (UPWELL_HOME, "
            "UPWELL_DATABASE_URL), or is it too old to be kept?"
        )
    if found.state != "COMPLETED":
        why = f": {found.message}" if found.message else "."
        raise MissingResult(f"{found.name!r} has no result: it is {found.state_name or found.state}{why}")
    if found.record is None and found.cache_key is not None:
        raise ResultNotFound(
            f"{found.name!r} took its result from the cache, where another has taken its place since, or none. "
            "Run again to compute it anew."
        )
    if found.record is None:
        raise not_kept(found.name)
    return await asyncio.to_thread(_read, recorder, found.record, store)


def _read(recorder: Recorder, data: bytes, store: ResultStore | None) -> Any:
    if store is None and data[:1] != ResultRecord.FIRST_BYTE:
        return recorder.journal.kept.load(data)
    return (store or default_store()).get(ResultRecord.from_bytes(data))


async def _written(recorder: Recorder) -> None:
    """What this process has done is in the journal, too."""
    loop = asyncio.get_running_loop()
    written: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        loop.call_soon_threadsafe(lambda: None if written.done() else written.set_result(None))

    recorder.journal.when_written(tell)
    await written


def _recorder() -> Recorder:
    recorder = open_recorder()
    if recorder is None:
        raise ConfigurationError("No journal is kept (UPWELL_JOURNAL=off), so no results can be found in it.")
    return recorder


def _uuid(run_id: UUID | str) -> UUID:
    try:
        return run_id if isinstance(run_id, UUID) else UUID(run_id)
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigurationError(f"{run_id!r} is not the id of a run: it must be a UUID.") from error
