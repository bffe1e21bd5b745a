"""`@task`: a function whose calls are runs, with states, retries, timeouts and limits."""

from __future__ import annotations

from typing import Any

from upwell.core.definition import Definition
from upwell.core.options import TaskOptions
from upwell.core.parameters import Parameters
from upwell.core.retries import RetryPolicy
from upwell.engine.current import current_scope
from upwell.engine.inline import inline_life, inline_run
from upwell.engine.steps import live_async, live_blocking
from upwell.engine.submit import map_over, submit


class Task:
    def __init__(self, fn: Any) -> None:
        self.fn = fn
        self._d = Definition(fn, fn.__name__, TaskOptions(), Parameters(fn), RetryPolicy(), self)

    def __call__(self, *a: Any, **k: Any) -> Any:
        run = inline_run(self._d, a, k, None)
        if self._d.kind.is_async:
            async def go():
                await live_async(inline_life(run))
                return run.result()
            return go()
        live_blocking(inline_life(run))
        return run.result()

    def submit(self, *a: Any, **k: Any) -> Any:
        return submit(current_scope(), self._d, a, k)

    def map(self, *a: Any, **k: Any) -> Any:
        return map_over(current_scope(), self._d, a, k)
