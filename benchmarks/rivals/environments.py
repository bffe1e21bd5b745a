"""Which rivals there are, in which versions, and the environments that they are installed in."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
INSTALL_SECONDS: Final = 600


@dataclass(frozen=True, slots=True)
class RivalPackage:
    """One rival.

    Args:
        packages: what pip installs.
        size: no-op tasks in one run; fewer for the slow ones, since the cost of one is what is compared.
        does: what the rival is made to do, for a reader of the table.
        beside: upwell's own side: coroutines, or the runner that does what the rival does.
    """

    packages: tuple[str, ...]
    size: int
    does: str
    beside: str = "upwell"


RIVALS: Final = {
    "aiometer": RivalPackage(("aiometer==1.0.0",), 20_000, "run_all"),
    "dask": RivalPackage(("dask[distributed]==2026.8.0",), 2_000, "distributed, in process", "upwell_threads"),
    "dbos": RivalPackage(("dbos==3.4.0",), 200, "steps of a workflow", "upwell_strict"),
    "joblib": RivalPackage(("joblib==1.6.0",), 20_000, "Parallel on threads", "upwell_threads"),
    "parsl": RivalPackage(("parsl==2026.10.26",), 2_000, "apps on threads", "upwell_threads"),
    "prefect": RivalPackage(("prefect==3.8.8", "fastapi==0.139.0"), 200, "a map in a flow", "upwell_tracked"),
    "ray": RivalPackage(("ray==2.60.0",), 2_000, "remote calls", "upwell_processes"),
    "taskiq": RivalPackage(("taskiq==0.13.0",), 5_000, "broker in memory"),
}


def interpreter(name: str) -> Path:
    """The rival's own Python; its environment is made when first asked for.

    Raises:
        RuntimeError: it cannot be installed here; says why.
    """
    home = FOLDER / f".venv-{name}"
    python = home / "bin" / "python"
    ready = home / ".ready"
    wanted = "\n".join(RIVALS[name].packages)
    if not ready.exists() or ready.read_text() != wanted:
        print(f"Installing {', '.join(RIVALS[name].packages)} ...", file=sys.stderr, flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(home)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *RIVALS[name].packages])
        ready.write_text(wanted)
    return python


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(str(error)) from error
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
