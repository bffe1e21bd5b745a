"""Which logger is whose: of task runs, of flow runs, and of the run whose code is running here."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from typing import Any, Final

from upwell.engine.elsewhere import ELSEWHERE
from upwell.engine.future import CURRENT_RUN, RunFuture
from upwell.engine.loggers import RunLogger
from upwell.engine.scope import CURRENT_SCOPE

TASK_RUNS: Final = logging.getLogger("upwell.task_runs")
FLOW_RUNS: Final = logging.getLogger("upwell.flow_runs")
_DISCARDED: Final = logging.Logger("upwell.discarded")  # known to no one, so nobody enables it
_DISCARDED.disabled = True

DISABLED: Final[ContextVar[bool]] = ContextVar("upwell_run_logger_disabled", default=False)
"""Whether run loggers discard what they are given, here."""


def task_run_logger(run: Any) -> RunLogger:
    """The logger of a task run, live or a record of it."""
    return RunLogger(TASK_RUNS, _facts_of_task_run, run)


def flow_run_logger(flow_run: Any) -> RunLogger:
    """The logger of a flow run."""
    return RunLogger(FLOW_RUNS, _facts_of_flow_run, flow_run)


def current_run_logger() -> RunLogger | None:
    """The logger of the run whose code this is; None outside of runs."""
    if DISABLED.get():
        return RunLogger(_DISCARDED)
    run = CURRENT_RUN.get()
    if run is not None:
        return task_run_logger(run)
    scope = CURRENT_SCOPE.get()
    if scope is not None and scope.flow_run is not None:
        return flow_run_logger(scope.flow_run)
    if ELSEWHERE.get() is not None:
        return RunLogger(TASK_RUNS)  # the process that holds the run's record adds who it is
    return None


class RunFilter(logging.Filter):
    """Lets every record pass, and tells those of other libraries' loggers which run they speak for."""

    def filter(self, record: logging.LogRecord) -> bool:
        if hasattr(record, "run_name") or record.name.partition(".")[0] == "upwell":
            return True
        run = CURRENT_RUN.get()
        scope = CURRENT_SCOPE.get()
        if run is not None:
            record.__dict__.update(_facts_of_task_run(run))
        elif scope is not None and scope.flow_run is not None:
            record.__dict__.update(_facts_of_flow_run(scope.flow_run))
        return True


def _facts_of_task_run(run: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {"run_kind": "Task run", "run_name": run.name, "task_run_name": run.name}
    if isinstance(run, RunFuture):
        facts |= {"task_run_id": str(run.task_run_id), "task_name": run.call.definition.name}
        flow_run = run.call.scope.flow_run
        if flow_run is not None:
            facts |= _names_of_flow_run(flow_run)
    else:
        facts |= {"task_run_id": str(run.id), "task_name": run.task_name}
        if run.flow_run_id is not None:
            facts |= {"flow_run_id": str(run.flow_run_id), "flow_run_name": run.flow_run_name}
    return facts


def _facts_of_flow_run(flow_run: Any) -> dict[str, Any]:
    return {"run_kind": "Flow run", "run_name": flow_run.name, **_names_of_flow_run(flow_run)}


def _names_of_flow_run(flow_run: Any) -> dict[str, Any]:
    return {"flow_run_id": str(flow_run.id), "flow_run_name": flow_run.name, "flow_name": flow_run.flow_name}
