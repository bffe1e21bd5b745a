"""Log lines of runs: which logger they go to, and what a record knows about its run."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from upwell.engine.future import CURRENT_RUN
from upwell.engine.scope import CURRENT_SCOPE

TASK_RUNS = logging.getLogger("upwell.task_runs")
FLOW_RUNS = logging.getLogger("upwell.flow_runs")


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records carry their run as `run_kind` ("Task run") and `run_name`."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


def task_run_logger(run: Any) -> RunLogger:
    """The logger of a task run."""
    return RunLogger(TASK_RUNS, {"run_kind": "Task run", "run_name": run.name})


def flow_run_logger(flow_run: Any) -> RunLogger:
    """The logger of a flow run."""
    return RunLogger(FLOW_RUNS, {"run_kind": "Flow run", "run_name": flow_run.name})


def current_run_logger() -> RunLogger | None:
    """The logger of the run whose code this is; None outside of runs."""
    run = CURRENT_RUN.get()
    if run is not None:
        return task_run_logger(run)
    scope = CURRENT_SCOPE.get()
    if scope is not None and scope.flow_run is not None:
        return flow_run_logger(scope.flow_run)
    return None
