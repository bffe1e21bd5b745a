"""`Flow.from_source`: a flow whose code is elsewhere, fetched here once to look at it, and by workers for each run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from upwell.engine.steps import run_apart
from upwell.entrypoints import load_flow, parse_entrypoint
from upwell.pull_steps import Step
from upwell.runner.storage import Storage, step_of
from upwell.serving.pulling import Pulled, Puller

if TYPE_CHECKING:
    from upwell.flows import Flow


class Origin(NamedTuple):
    """Where a flow is from. entrypoint: from the folder that the step leads to."""

    entrypoint: str
    step: Step


def flow_from_source(source: str | os.PathLike[str] | Storage, entrypoint: str) -> Flow[..., Any]:
    """What `Flow.from_source` returns."""
    step = _checked(source, entrypoint)
    return _flow_of(run_apart(_pulled(step)), entrypoint, step)


async def aflow_from_source(source: str | os.PathLike[str] | Storage, entrypoint: str) -> Flow[..., Any]:
    """The same in async code."""
    step = _checked(source, entrypoint)
    return _flow_of(await _pulled(step), entrypoint, step)


def _checked(source: str | os.PathLike[str] | Storage, entrypoint: str) -> Step:
    parse_entrypoint(entrypoint)
    return step_of(source)


async def _pulled(step: Step) -> Pulled:
    return await Puller().pull([step], Path.cwd())


def _flow_of(pulled: Pulled, entrypoint: str, step: Step) -> Flow[..., Any]:
    flow = load_flow(entrypoint, [Path(root) for root in pulled.roots]).with_options()
    flow.origin = Origin(entrypoint, step)
    return flow
