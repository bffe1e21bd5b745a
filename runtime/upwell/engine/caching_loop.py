"""How submitted runs go through the cache: all that became ready in one turn of the loop are looked up together."""

# An isinstance check cannot say what a generic future holds, and here nobody needs to know.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from itertools import compress, takewhile
from operator import attrgetter
from typing import Any, Final

from upwell.core.lifecycle import RAISED, RETURNED, Outcome
from upwell.core.results import ResultRecord, StoredValue
from upwell.engine.caching import (
    Cache,
    Computation,
    Found,
    Keeping,
    cache_in,
    found_under,
    is_quick,
    key_of,
    keys_of,
    log_lost,
    record_result,
    staged_for,
    stored,
)
from upwell.engine.clock import clock
from upwell.engine.future import RunFuture
from upwell.engine.staging import failed, stage
from upwell.engine.steps import Life, live_async

Run = RunFuture[Any]
Conclude = Callable[[Run, Outcome, float], None]

SLICE_SECONDS: Final = 0.002
"""How long the loop is kept from other work."""

GROUP: Final = 2_000
"""How many keys are looked up together."""

PART: Final = 128
"""And made together: a fraction of that slice, where they are simple."""

PARTS_SKIPPED: Final = 15
"""After a part of which nothing was found at once, for how many more that is not tried."""

_CALL_OF: Final = attrgetter("call")

EndFound = Callable[[Sequence[Run], Sequence[Any], Sequence[str], float], None]
"""Ends runs of one call with the values that were found, messages that say where, and the time."""


class Caching:
    """The runs of one engine on their way through the cache; used on its loop's thread.

    compute, refuse, found: the ways on which a run leaves it: it is to be run; its flow run is being stopped; it has a
    value.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        compute: Callable[[Run], None],
        refuse: Callable[[Run], None],
        found: EndFound,
        post: Callable[[Callable[[], None]], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._loop = loop
        self._run, self._refuse, self._found = compute, refuse, found
        self._post = post
        self._spawn = spawn
        self._entered: deque[Run] = deque()
        self._refreshing: set[Run] = set()  # those to be computed although there may be a result
        self._due = False
        self._latest_call = 0  # its id only: a Call must not be part of a cycle
        self._parts_to_skip = 0
        self._groups: dict[Cache, list[Computation]] = {}
        self._answers: deque[Found] = deque()
        self._others: deque[tuple[Run, str, ResultRecord]] = deque()  # what runs have that waited for another
        self._answers_due = False
        self._held: dict[Run, Computation] = {}

    # --- looking up -------------------------------------------------------------------------------------

    def enter(self, runs: Sequence[Run]) -> None:
        """Runs of one call are ready: look their results up."""
        runs[0].call.scope.live.update(runs)
        self._entered.extend(runs)
        if not self._due:
            self._due = True
            self._loop.call_soon(self._look_up)

    def _refresh(self, run: Run) -> None:
        """A run has a result that cannot be used, or is not to be."""
        self._refreshing.add(run)
        self.enter((run,))

    def _look_up(self) -> None:
        """Make the keys, for a slice of time, and ask for their records."""
        self._due = False
        entered, now_of = self._entered, clock().time
        until = now_of() + SLICE_SECONDS
        while entered and now_of() < until:
            part = self._next_of_one_call()
            cache, keys = cache_in(part[0].call.scope), keys_of(part)
            if keys is not None:
                part, keys = self._without_those_found(part, keys, cache)
            for place, run in enumerate(part):
                self._ask(run, cache, None if keys is None else keys[place])
                if keys is None and now_of() >= until:  # a key may take any time
                    entered.extendleft(reversed(part[place + 1 :]))
                    break
        if entered:
            self._due = True
            self._loop.call_soon(self._look_up)
        else:
            groups, self._groups = self._groups, {}
            for cache, group in groups.items():
                if group:
                    cache.claim(group, self._told)

    def _next_of_one_call(self) -> list[Run]:
        """Some runs of one call; those that are to be looked up next."""
        entered = self._entered
        part = [entered.popleft() for _ in range(min(PART, len(entered)))]
        call = part[0].call
        if len(set(map(_CALL_OF, part))) > 1:
            ours = list(takewhile(lambda run: run.call is call, part))
            entered.extendleft(reversed(part[len(ours) :]))
            return ours
        return part

    def _without_those_found(self, part: list[Run], keys: list[str], cache: Cache) -> tuple[list[Run], list[str]]:
        """End those whose records can be had at once; the others are asked for."""
        call = part[0].call
        keeping: Keeping = call.keeping
        if id(call) != self._latest_call:
            self._latest_call, self._parts_to_skip = id(call), 0
        if self._parts_to_skip or keeping.refresh or keeping.known is not None or call.scope.stop_reason is not None:
            self._parts_to_skip = max(0, self._parts_to_skip - 1)
            return part, keys
        found = cache.find(keys)
        if not found:
            self._parts_to_skip = PARTS_SKIPPED
            return part, keys
        refreshing, computed = self._refreshing, cache.computed_of(keys)
        taken = [
            record is not None and record.data is not None and run not in refreshing and key not in computed
            for run, key, record in zip(part, keys, found, strict=True)
        ]
        if all(taken):
            self._take_many(part, keys, found)
            return [], []
        self._take_many(list(compress(part, taken)), list(compress(keys, taken)), list(compress(found, taken)))
        others = [not one for one in taken]
        return list(compress(part, others)), list(compress(keys, others))

    def _ask(self, run: Run, cache: Cache, key: str | None) -> None:
        """Have a run's result looked up. key: if it is known by now."""
        call = run.call
        if run.done:
            return
        if call.scope.stop_reason is not None:
            self._refuse(run)
            return
        key = key or key_of(run)
        if key is None:
            self._compute(run, None)
            return
        refresh = call.keeping.refresh or run in self._refreshing
        computation, is_own = cache.begin(key, run, call.keeping, refresh)
        if is_own:
            group = self._groups.setdefault(cache, [])
            group.append(computation)
            if len(group) >= GROUP:
                self._groups[cache] = []
                cache.claim(group, self._told)
        elif (known := staged_for(run, computation)) is not None:
            self._others.append((run, key, known))
            self._answer_soon()
        else:
            cache.wait_for(computation, partial(self._waited, run, key))

    # --- answers; these two from any thread ----------------------------------------------------------------

    def _told(self, found: Sequence[Found]) -> None:
        self._answers.extend(found)
        self._answer_soon()

    def _waited(self, run: Run, key: str, record: ResultRecord | None) -> None:
        """The run that computed the same has ended."""
        if record is None or run.call.keeping.refresh or run in self._refreshing:
            self._post(partial(self.enter, (run,)))
        else:
            self._others.append((run, key, record))
            self._answer_soon()

    def _answer_soon(self) -> None:
        if not self._answers_due:
            self._answers_due = True
            self._post(self._take_answers)

    # --- on the loop again --------------------------------------------------------------------------------

    def _take_answers(self) -> None:
        self._answers_due = False
        answers, others, now_of = self._answers, self._others, clock().time
        now = now_of()
        until = now + SLICE_SECONDS
        to_read: list[tuple[Run, str, Computation | None, ResultRecord]] = []
        while (answers or others) and now < until:
            computation: Computation | None
            record: ResultRecord | None
            if answers:
                computation, record = answers.popleft()
                run, key = computation.holder, computation.key
            else:
                run, key, record = others.popleft()
                computation = None
            if record is None:
                self._compute(run, computation)
            elif run.done:
                if computation is not None:
                    computation.cache.end(computation, record)
            elif record.data is None:
                to_read.append((run, key, computation, record))
            else:
                self._take(run, key, computation, record, now)
            now = now_of()
        if to_read:
            self._spawn(self._read(to_read))
        if (answers or others) and not self._answers_due:
            self._answers_due = True
            self._loop.call_soon(self._take_answers)

    def _compute(self, run: Run, computation: Computation | None) -> None:
        """There is no result: the run is to compute it."""
        if run.done:
            if computation is not None:
                computation.cache.give_up(computation)
            return
        run.call.scope.live.discard(run)
        self._refreshing.discard(run)
        if computation is not None:
            self._held[run] = computation
        if run.call.scope.stop_reason is not None:
            self._refuse(run)
        else:
            self._run(run)

    def _take(self, run: Run, key: str, computation: Computation | None, record: ResultRecord, now: float) -> None:
        """There is a result that needs no file."""
        keeping: Keeping = run.call.keeping
        try:
            value = keeping.results.get(record) if keeping.in_memory else StoredValue(keeping.results.get, record)
        except Exception as error:
            self._is_lost(run, computation, error)
        else:
            if computation is not None:
                computation.cache.end(computation, record)
            self._found((run,), (value,), (found_under(key),), now)

    def _take_many(self, runs: list[Run], keys: list[str], records: Sequence[Any]) -> None:
        """The same for runs of one call that nobody else waits for."""
        if not runs:
            return
        keeping: Keeping = runs[0].call.keeping
        now = clock().time()
        try:
            values = keeping.results.get_many(records) if keeping.in_memory else None
        except Exception:  # it will be seen which
            for run, key, record in zip(runs, keys, records, strict=True):
                if not run.done:
                    self._take(run, key, None, record, now)
            return
        if values is None:
            values = [StoredValue(keeping.results.get, record) for record in records]
        self._found(runs, values, list(map(found_under, keys)), now)

    async def _read(self, to_read: list[tuple[Run, str, Computation | None, ResultRecord]]) -> None:
        """Read results from files, on a thread."""
        for run, key, computation, record in to_read:
            keeping: Keeping = run.call.keeping
            try:
                if keeping.in_memory:
                    value = await asyncio.to_thread(keeping.results.get, record)
                elif await asyncio.to_thread(keeping.results.exists, record):
                    value = StoredValue(keeping.results.get, record)
                else:
                    raise FileNotFoundError(record.where)
            except Exception as error:
                self._is_lost(run, computation, error)
            else:
                if computation is not None:
                    computation.cache.end(computation, record)
                if not run.done:
                    self._found((run,), (value,), (found_under(key),), clock().time())

    def _is_lost(self, run: Run, computation: Computation | None, error: Exception) -> None:
        """A result was cached and cannot be had any more: the same as if there were none."""
        log_lost(run, error)
        if computation is None:
            self._refresh(run)
        else:
            computation.refresh = True
            computation.cache.claim([computation], self._told)

    # --- after an attempt -----------------------------------------------------------------------------------

    def keep(self, run: Run, outcome: Outcome, now: float, conclude: Conclude) -> None:
        """A run ends with this outcome: store its value, if it has one, and let it end."""
        computation = self._held.pop(run, None)
        if outcome.kind is not RETURNED:
            failed(run, computation)
            conclude(run, outcome, now)
        elif not run.call.keeping.persists:
            self._stage(run, computation, outcome, None, now, conclude)
        elif is_quick(run, outcome.value):
            try:
                record = stored(run, outcome.value)
            except Exception as error:
                self._was_not_kept(run, computation, error, now, conclude)
            else:
                self._was_kept(run, computation, outcome, record, now, conclude)
        else:
            run.call.scope.live.discard(run)
            self._spawn(self._keep_slowly(run, computation, outcome, now, conclude))

    async def _keep_slowly(
        self, run: Run, computation: Computation | None, outcome: Outcome, now: float, conclude: Conclude
    ) -> None:
        try:
            record = await asyncio.to_thread(stored, run, outcome.value)
        except Exception as error:
            self._was_not_kept(run, computation, error, now, conclude)
        else:
            self._was_kept(run, computation, outcome, record, now, conclude)

    def _was_kept(
        self,
        run: Run,
        computation: Computation | None,
        outcome: Outcome,
        record: ResultRecord,
        now: float,
        conclude: Conclude,
    ) -> None:
        record_result(run, record)
        keeping: Keeping = run.call.keeping
        if not keeping.in_memory:
            outcome.value = StoredValue(keeping.results.get, record)
        self._stage(run, computation, outcome, record, now, conclude)

    def _stage(
        self,
        run: Run,
        computation: Computation | None,
        outcome: Outcome,
        record: ResultRecord | None,
        now: float,
        conclude: Conclude,
    ) -> None:
        """Let others have the result, at once or when the transaction around is committed; then let the run end."""
        hooks = stage(run, computation, record)
        if hooks is None:
            conclude(run, outcome, now)
        else:
            self._spawn(self._conclude_after(hooks, run, outcome, now, conclude))

    async def _conclude_after(
        self, hooks: Life[None], run: Run, outcome: Outcome, now: float, conclude: Conclude
    ) -> None:
        await live_async(hooks)
        conclude(run, outcome, now)

    def _was_not_kept(
        self, run: Run, computation: Computation | None, error: Exception, now: float, conclude: Conclude
    ) -> None:
        """A value that was to be stored and cannot be is a failure of the run."""
        failed(run, computation)
        conclude(run, Outcome(RAISED, error), now)
