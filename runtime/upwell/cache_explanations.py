"""Why a call would, or would not, take its result from the cache: what `Task.explain_cache` answers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from upwell.cache_policies import NO_CACHE, HashError, KeyPart, explain
from upwell.core.definition import Definition
from upwell.engine.caching import CacheRow, cache_in
from upwell.engine.clock import clock
from upwell.engine.current import scope_of_direct_call
from upwell.engine.submit import FINDER, is_completed, resolved
from upwell.persistence import ResultPlan, result_plan


class CacheExplanation(Struct, frozen=True, kw_only=True):
    """Whether a call would find its result in the cache, and why; `print` it.

    key: what the result is cached under; None: it would not be cached. parts: what the key is made of.
    stored, stored_by, expires: of the result that is there, if there is one: when, by which task run, until when.
    """

    task: str
    hit: bool
    why: str
    key: str | None = None
    parts: tuple[KeyPart, ...] = ()
    stored: dt.datetime | None = None
    stored_by: str | None = None
    expires: dt.datetime | None = None

    def __str__(self) -> str:
        lines = [f"{self.task}: {'hit' if self.hit else 'miss'}: {self.why}"]
        if self.key is not None:
            lines.append(f"  key: {self.key}")
        for part in self.parts:
            counts = part.error or (f"{part.what} {part.digest}" if part.digest else part.what)
            lines.append(f"    {part.name}: {counts}")
        if self.stored is not None:
            by = f" by task run {self.stored_by}" if self.stored_by else ""
            lines.append(f"  stored: {self.stored:%Y-%m-%d %H:%M:%S %Z}{by}")
            lines.append(f"  expires: {f'{self.expires:%Y-%m-%d %H:%M:%S %Z}' if self.expires else 'never'}")
        return "\n".join(lines)


def explain_cache(definition: Definition, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> CacheExplanation:
    """Whether a direct call with these arguments, here and now, would find its result in the cache.

    Raises:
        ParameterBindError: the arguments do not fit.
    """
    inputs = definition.parameters.bind(args, kwargs)
    scope = scope_of_direct_call()
    plan = result_plan(definition, scope)
    name = definition.name
    why = _not_looked_up(definition, plan) or _not_known(inputs)
    if why is not None or plan is None or plan.policy is None:
        return CacheExplanation(task=name, hit=False, why=str(why))
    inputs = {argument: resolved(value) for argument, value in inputs.items()}
    parts = tuple(explain(plan.policy, plan.context, inputs, plan.flow_parameters))
    try:
        key = plan.key_for(plan.context, inputs)
    except HashError as error:
        return CacheExplanation(task=name, hit=False, why=str(error), parts=parts)
    if key is None:
        why = f"its policy {plan.policy!r} gives this call no key"
        if plan.is_local:
            why += ": outside of a flow run there is no run whose results could be found again"
        return CacheExplanation(task=name, hit=False, why=why, parts=parts)
    row = cache_in(scope).row(key)
    hit, why = _judged(plan, row)
    return CacheExplanation(
        task=name,
        hit=hit,
        why=why,
        key=key,
        parts=parts,
        stored=_moment(row.created) if row else None,
        stored_by=row.task_run_id if row else None,
        expires=_moment(row.expires) if row and row.expires else None,
    )


def _not_looked_up(definition: Definition, plan: ResultPlan | None) -> str | None:
    """Why no run of this task takes its result from the cache."""
    if definition.options.cache_policy == NO_CACHE or (plan is not None and plan.policy is None):
        return "its policy says that nothing is cached (NO_CACHE)"
    if plan is None:
        return "its results are not persisted, so none can be found; give it a cache_policy, or persist_result=True"
    return None


def _not_known(inputs: Mapping[str, Any]) -> str | None:
    """Why it cannot be said what the inputs are: futures count by their results."""
    for argument, value in inputs.items():
        for found in FINDER.find(value):
            if not found.future.is_done():
                return f"argument {argument!r} is, or holds, a future that has not ended: what counts is its result"
            if not (found.allow_failure or is_completed(found.future)):
                return f"argument {argument!r} is, or holds, a future that did not complete: the run would not begin"
    return None


def _judged(plan: ResultPlan, row: CacheRow | None) -> tuple[bool, str]:
    if row is None:
        return False, "it was never computed, or is kept no more"
    if row.expires is not None and row.expires <= clock().time():
        return False, "what was computed has expired"
    if plan.refresh:
        return False, "it is there, and is to be computed anew (refresh_cache)"
    try:
        if not plan.results.exists(row.record):
            return False, f"it was computed, and its file is gone: {row.record.where}"
    except Exception as error:
        return False, f"it was computed, and cannot be read: {error}"
    return True, "its result is there"


def _moment(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)
