"""`upwell server`: start, find and stop the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from upwell.cli.exits import FAILED
from upwell.cli.group import group
from upwell.cli.output import say, say_json

if TYPE_CHECKING:
    from cyclopts import Parameter

    from upwell.cli.options import Output

app = group(
    "server",
    "upwell server start",
    "upwell server start --background",
    "upwell server start --host 0.0.0.0 --port 8080",
    "upwell server status",
    "upwell server stop",
    more="The pages are at http://127.0.0.1:4200, the API below /api, its schema at /api/openapi.json.",
)


@app.command
def start(
    *,
    host: str | None = None,
    port: int | None = None,
    background: Annotated[bool, Parameter(name=("--background", "-b"))] = False,
    services: Annotated[bool, Parameter(negative="--no-services")] = True,
) -> None:
    """Start the server, until Ctrl-C.

    Args:
        host: The address to answer on (UPWELL_SERVER_HOST). Any but a loopback one needs an API key to exist.
        port: The port (UPWELL_SERVER_PORT); 0 is any that is free.
        background: Return when it answers; `upwell server stop` ends it.
        services: Have the scheduler and what else looks after runs go on in this server.
    """
    from upwell.servers import run_server, start_in_background

    if not background:
        run_server(host=host, port=port, services=services)
        return
    info = start_in_background(host=host, port=port, services=services)
    say(f"The server answers at {info.url} (pid {info.pid}). `upwell server stop` ends it.")


@app.command
def status(*, output: Output = "table") -> int:
    """Say whether a server of this UPWELL_HOME runs, and answers. Exits with 1 if it does not."""
    from upwell.servers import server_status

    found = server_status()
    if output == "json":
        url = found.info.url if found.info else None
        say_json({"running": found.info is not None, "answers": found.answers, "url": url, "server": found.info})
    elif found.info is None:
        say("No server runs. `upwell server start` starts one.")
    elif found.answers:
        say(f"The server answers at {found.info.url} (pid {found.info.pid}).")
    else:
        say(f"A server runs (pid {found.info.pid}), and does not answer at {found.info.url}; see {found.log}.")
    return 0 if found.answers else FAILED


@app.command
def stop() -> None:
    """Stop the server of this UPWELL_HOME. What runs elsewhere goes on."""
    from upwell.servers import stop_server

    info = stop_server()
    say("No server runs." if info is None else f"The server at {info.url} has ended.")
