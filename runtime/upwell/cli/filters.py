"""Which runs are meant, where they are not named one by one: as options say it, in the words of the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from upwell.cli.lookup import ref
from upwell.cli.times import ago_or_at

if TYPE_CHECKING:
    import datetime as dt

    from upwell.cli.options import WhichFlowRuns, WhichRuns


class RunFilter(TypedDict, total=False):
    """What `History.task_runs` and others are given."""

    flow: str | None
    state: str | None
    tags: tuple[str, ...]
    since: dt.datetime | None
    until: dt.datetime | None
    text: str | None


class FlowRunFilter(RunFilter, total=False):
    """What `History.flow_runs` and `BulkSpec` are given."""

    deployment: str | None


def run_filter(which: WhichRuns | None) -> RunFilter:
    """What the options say; nothing where none was given.

    Raises:
        UsageError: one of them is no moment.
    """
    if which is None:
        return {}
    return {
        "flow": which.flow,
        "state": which.state,
        "tags": which.tag,
        "since": ago_or_at(which.since),
        "until": ago_or_at(which.until),
        "text": which.text,
    }


def flow_run_filter(which: WhichFlowRuns | None) -> FlowRunFilter:
    """The same for flow runs.

    Raises:
        UsageError: one of them is no moment, or no deployment.
    """
    if which is None:
        return {}
    deployment = None if which.deployment is None else str(ref(which.deployment))
    return {**run_filter(which), "deployment": deployment}
