"""`upwell run`: a flow of a file, here and now."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from upwell.cli.group import group
from upwell.cli.output import UsageError
from upwell.cli.values import parameters_of

if TYPE_CHECKING:
    from upwell.cli.options import Param, Params, Tag

app = group(
    "run",
    "upwell run flows.py:etl",
    "upwell run flows.py:etl --param day=2026-01-31 --param limit=5",
    "upwell run my.package.flows:etl --params '{\"limit\": 5}' --tag test",
    "upwell run flows.py:etl --params @parameters.json",
)


@app.default
def run_flow(entrypoint: str, /, *, param: Param = (), params: Params = None, tag: Tag = ()) -> int:
    """Run a flow, here and now. Exits with 0 if it completed, else with 1.

    Args:
        entrypoint: Where the flow is: path/to/file.py:flow or package.module:flow.
    """
    from upwell.cli.here import carry_out, find_flow
    from upwell.context import tags
    from upwell.core.errors import ParameterBindError, ParameterTypeError
    from upwell.core.parameter_schema import parameter_schema

    flow = find_flow(entrypoint)
    definition = flow._definition  # pyright: ignore[reportPrivateUsage]  # one library
    parameters = definition.parameters
    wanted = parameters_of(param, params, parameter_schema(parameters, flow.description))
    try:
        parameters.bind((), wanted)
        if definition.options.validate_parameters:
            parameters.validate(wanted, f"Flow {flow.name!r}")
    except (ParameterBindError, ParameterTypeError) as error:
        raise UsageError(str(error)) from error
    if not definition.kind.is_generator:  # whose end is seen by who takes what it yields
        wanted["return_state"] = True
    with tags(*tag):
        return carry_out(flow.name, partial(flow, **wanted))
