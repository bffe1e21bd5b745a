"""Carries out one job in a new interpreter: where templates cannot be forked, and in containers."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from msgspec.msgpack import decode
from msgspec.structs import replace

from upwell import serving
from upwell.core.deployments import Job
from upwell.core.errors import UpwellError
from upwell.serving.child import carry_out, refuse
from upwell.serving.wire import Load

STDIN: Final = "-"


def main(source: str, begun: int | None = None) -> int:
    """Carry out the job in this file, which is removed, or from standard input."""
    serving.carries_out_jobs = True
    if source == STDIN:
        packed = sys.stdin.buffer.read()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
    else:
        packed = Path(source).read_bytes()
        Path(source).unlink(missing_ok=True)
    load, job = decode(packed, type=tuple[Load, Job])
    sys.path[:0] = [folder for folder in load.path if folder not in sys.path]
    roots = None if load.roots is None else [Path(root) for root in load.roots]
    if not load.pull_steps:
        return carry_out(job, roots, begun).exit
    from upwell.pull_steps import steps_from  # here: a new interpreter is to begin soon
    from upwell.serving.pulling import pull_here

    try:
        pulled = pull_here(steps_from(load.pull_steps), load.tokens)
    except UpwellError as error:
        return refuse(job, str(error)).exit
    job = replace(job, commit=pulled.commit, repository=pulled.repository)
    return carry_out(job, [Path(root) for root in pulled.roots], begun).exit


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:])))
