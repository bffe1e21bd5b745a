"""Runs programs of others to their end: no shell, no terminal, bounded in time and in what they say."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from upwell.core.errors import SourceError

MOST_SAID: Final = 64 * 1024
"""Bytes of what a program says; of more the end is kept."""

_CHUNK: Final = 1 << 16


class Ended(NamedTuple):
    """How a program ended, and what it said."""

    status: int
    out: str
    err: str


async def run_program(
    arguments: Sequence[str], *, folder: Path, env: Mapping[str, str], timeout_seconds: float
) -> Ended:
    """Run a program, and wait until it has ended. It is killed, with all it has started, when its time is over.

    Raises:
        SourceError: it could not be started, or did not end in time.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            cwd=folder,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a group of its own, so that nothing of it is left when it is killed
        )
    except FileNotFoundError as error:
        what = folder if error.filename == str(folder) else arguments[0]
        raise SourceError(f"There is no {what} here.") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{arguments[0]} could not be started: {error}.") from None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(timeout_seconds):
            out, err = await asyncio.gather(_end_of(process.stdout), _end_of(process.stderr))
            status = await process.wait()
    except TimeoutError:
        raise SourceError(f"{arguments[0]} had not ended after {timeout_seconds:g} seconds, and was killed.") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return Ended(status, out, err)


async def _end_of(stream: asyncio.StreamReader) -> str:
    said = bytearray()
    while chunk := await stream.read(_CHUNK):
        said += chunk
        del said[:-MOST_SAID]
    return said.decode(errors="replace")
