"""`upwell run`: a flow of a file, here and now."""

from __future__ import annotations

from typing import Any

from cyclopts import App

from upwell.cli.exits import FAILED
from upwell.cli.output import UsageError, examples, say
from upwell.cli.values import Param, Params, Tag, parameters_of

app = App(
    name="run",
    help_epilogue=examples(
        "upwell run flows.py:etl",
        "upwell run flows.py:etl --param day=2026-01-31 --param limit=5",
        "upwell run my.package.flows:etl --params '{\"limit\": 5}' --tag test",
        "upwell run flows.py:etl --params @parameters.json",
    ),
)


@app.default
def run_flow(entrypoint: str, /, *, param: Param = [], params: Params = None, tag: Tag = []) -> int:  # noqa: B006  # cyclopts reads the default
    """Run a flow, here and now. Exits with 0 if it completed, else with 1.

    Args:
        entrypoint: Where the flow is: path/to/file.py:flow or package.module:flow.
    """
    from upwell.context import tags
    from upwell.core.errors import ParameterBindError, ParameterTypeError
    from upwell.core.parameter_schema import parameter_schema
    from upwell.entrypoints import load_flow

    flow = load_flow(entrypoint)
    parameters = flow._definition.parameters  # pyright: ignore[reportPrivateUsage]  # one library
    wanted = parameters_of(param, params, parameter_schema(parameters, flow.description))
    try:
        parameters.bind((), wanted)
        if flow._definition.options.validate_parameters:  # pyright: ignore[reportPrivateUsage]  # one library
            parameters.validate(wanted, f"Flow {flow.name!r}")
    except (ParameterBindError, ParameterTypeError) as error:
        raise UsageError(str(error)) from error
    with tags(*tag):
        ended, message = _run(flow, wanted)
    say(f"{flow.name}: {ended}" + (f": {message}" if message else ""))
    return 0 if ended == "Completed" else FAILED


def _run(flow: Any, wanted: dict[str, Any]) -> tuple[str, str | None]:
    """The name of the state in which it ended, and what is said about it."""
    import asyncio
    import inspect

    answer = flow(**wanted, return_state=True)
    if inspect.isgenerator(answer) or inspect.isasyncgen(answer):
        return _exhaust(answer)
    if inspect.isawaitable(answer):

        async def awaited() -> Any:
            return await answer

        answer = asyncio.run(awaited())
    return "Completed" if answer.is_completed() else answer.name, answer.message


def _exhaust(answer: Any) -> tuple[str, str | None]:
    """Run a generator flow to its end; what it yields is nobody's."""
    import asyncio

    async def iterate() -> None:
        async for _ in answer:
            pass

    try:
        if hasattr(answer, "__aiter__"):
            asyncio.run(iterate())
        else:
            for _ in answer:
                pass
    except Exception as error:
        return "Failed", f"{type(error).__name__}: {error}"
    return "Completed", None
