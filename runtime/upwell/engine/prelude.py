"""What is done around a run just before it starts: its name from its arguments, its `on_running` hooks."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

from upwell.core.names import render_name
from upwell.engine.future import CURRENT_RUN, RunFuture
from upwell.engine.logs import task_run_logger


def name_run(run: RunFuture[Any]) -> None:
    """Give the run the name that its `task_run_name` makes; a template that fails is logged and the default stays."""
    template = run.call.definition.options.run_name
    if template is None or run.own_name is not None:
        return
    context = copy_context() if run.call.context is None else run.call.context.copy()
    context.run(CURRENT_RUN.set, run)  # a function may ask where it is
    try:
        run.own_name = context.run(render_name, template, run.parameters())
    except Exception:
        task_run_logger(run).exception("The run keeps its default name, for its task_run_name failed")
