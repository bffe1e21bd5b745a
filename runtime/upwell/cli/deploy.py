"""`upwell deploy`: the deployments of upwell.yaml, made so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from upwell.cli.asking import control
from upwell.cli.group import group
from upwell.cli.output import note, say, say_json

if TYPE_CHECKING:
    from cyclopts import Parameter

    from upwell.cli.options import Output

app = group(
    "deploy",
    "upwell deploy",
    "upwell deploy nightly etl/hourly",
    "upwell deploy --file flows/upwell.yaml",
    more="`upwell init` writes an upwell.yaml. `upwell worker start --pool default` carries the runs out.",
)


@app.default
async def deploy_project(
    names: Annotated[tuple[str, ...], Parameter(help="Deployments; all unless said.")] = (),
    /,
    *,
    file: Path | None = None,
    output: Output = "table",
) -> None:
    """Make the deployments of upwell.yaml what it says: new ones are added, others changed.

    Args:
        file: The upwell.yaml; the one in this folder, or above it, unless said.
    """
    from upwell.project import apply_project, load_project

    project = load_project(file)
    async with control() as asked:
        changes = await apply_project(project, asked, names)
    if output == "json":
        say_json(changes)
        return
    if not changes:
        note("The upwell.yaml has no deployment. `upwell init` writes one for each flow in the files of a folder.")
    for change in changes:
        say(f"{change.deployment.full_name}: {change.what}")
        for detail in change.details:
            say(f"  {detail}")
    pools = sorted({it.deployment.work_pool for it in changes if it.deployment.work_pool is not None})
    for pool in pools:
        say(f"Their runs are carried out by: upwell worker start --pool {pool}")
