"""`upwell doctor`: what is wrong with this installation, and what to do about it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from msgspec import Struct

from upwell.cli.exits import FAILED
from upwell.cli.group import group
from upwell.cli.output import say, show, size_text
from upwell.core.errors import UpwellError
from upwell.settings import Settings, current, said_by_sources

if TYPE_CHECKING:
    from upwell.cli.options import Output
    from upwell.journal.database import Database

app = group(
    "doctor",
    "upwell doctor",
    "upwell doctor --thorough",
    "upwell doctor -o json",
)

Verdict: TypeAlias = Literal["well", "mind", "wrong"]

LEAST_FREE_BYTES: Final = 1024**3
LEAST_SHARED_BYTES: Final = 128 * 1024**2
LEAST_OPEN_FILES: Final = 1024
CHECKED_BYTES: Final = 256 * 1024**2
"""A larger file is looked through only if that is asked for."""

NETWORK_FILE_SYSTEMS: Final = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs"}
RUNNERS: Final = ("concurrent", "threads", "processes", "sequential")


class Finding(Struct, frozen=True, kw_only=True):
    """What was looked at, and how it is. advice: what to do about it."""

    verdict: Verdict
    what: str
    found: str
    advice: str | None = None


@app.default
def examine(*, thorough: bool = False, output: Output = "table") -> int:
    """Say what is wrong with this installation, and what to do about it. Exits with 1 if something is.

    Args:
        thorough: Look through a large SQLite file, too.
    """
    findings = list(_findings(thorough))
    if output == "json":
        show(findings, [], output)
    else:
        marks = {"well": "ok", "mind": "mind", "wrong": "WRONG"}
        show(
            findings,
            [
                ("", lambda it: marks[it.verdict]),
                ("what", lambda it: it.what),
                ("found", lambda it: it.found + (f"\n-> {it.advice}" if it.advice else "")),
            ],
            output,
        )
        wrong = sum(it.verdict == "wrong" for it in findings)
        say("")
        say("All is well." if not wrong else f"{wrong} of {len(findings)} are wrong.")
    return FAILED if any(it.verdict == "wrong" for it in findings) else 0


def _findings(thorough: bool) -> Iterator[Finding]:
    yield _python()
    yield _extras()
    yield _task_runners()
    settings = _settings()
    yield settings
    if settings.verdict == "wrong":
        return
    yield from _home()
    yield from asyncio.run(_database(thorough))
    yield from _spool()
    yield from _limits_of_the_machine()
    yield from asyncio.run(_server())


# --- the installation ---------------------------------------------------------------------------------------


def _python() -> Finding:
    import platform

    from upwell import __version__

    found = f"upwell {__version__}, Python {platform.python_version()} at {sys.executable}"
    return Finding(verdict="well", what="installation", found=found)


def _extras() -> Finding:
    extras = {"server": "litestar", "postgres": "asyncpg", "docker": "docker"}
    there = [extra for extra, module in extras.items() if find_spec(module) is not None]
    missing = sorted(set(extras) - set(there))
    advice = f"If you need one: pip install 'upwell[{missing[0]}]'" if missing else None
    return Finding(verdict="well", what="extras", found=", ".join(there) or "none", advice=advice)


def _task_runners() -> Finding:
    from upwell.engine.registry import runner_class

    failed: list[str] = []
    for name in RUNNERS:
        try:
            runner_class(name)
        except Exception as error:
            failed.append(f"{name}: {error}")
    if failed:
        advice = "Install upwell again: pip install --force-reinstall upwell"
        return Finding(verdict="wrong", what="task runners", found="; ".join(failed), advice=advice)
    return Finding(verdict="well", what="task runners", found=", ".join(RUNNERS))


def _settings() -> Finding:
    try:
        current()
        said = said_by_sources()
    except UpwellError as error:
        advice = "`upwell config view` says where values come from."
        return Finding(verdict="wrong", what="settings", found=str(error), advice=advice)
    unknown = [item.where for field, item in said.items() if field not in Settings.__struct_fields__]
    if unknown:
        found = f"no settings of upwell: {', '.join(unknown)}"
        return Finding(verdict="mind", what="settings", found=found, advice="docs/settings.md lists those there are.")
    sources = sorted({item.source for item in said.values()})
    return Finding(verdict="well", what="settings", found=f"from {', '.join(sources)}" if sources else "the defaults")


# --- where things are kept ----------------------------------------------------------------------------------


def _home() -> Iterator[Finding]:
    from upwell.composition import home

    try:
        folder = home()
    except RuntimeError as error:
        yield Finding(verdict="wrong", what="home", found=str(error), advice="Set UPWELL_HOME to a folder.")
        return
    place = next(part for part in (folder, *folder.parents) if part.exists())
    if not os.access(place, os.W_OK):
        advice = "Set UPWELL_HOME to a folder that can be written."
        yield Finding(verdict="wrong", what="home", found=f"{folder} cannot be written", advice=advice)
        return
    if place == folder and folder.stat().st_mode & 0o077 and folder.stat().st_uid == os.getuid():
        advice = f"chmod 700 {folder}"
        yield Finding(verdict="mind", what="home", found=f"others can look into {folder}", advice=advice)
    else:
        yield Finding(verdict="well", what="home", found=str(folder) if place == folder else f"{folder}, not made yet")
    free = shutil.disk_usage(place).free
    verdict: Verdict = "well" if free >= LEAST_FREE_BYTES else "mind"
    bound = None if verdict == "well" else "UPWELL_RETENTION_BYTES bounds what is kept."
    yield Finding(verdict=verdict, what="disk", found=f"{size_text(free)} are free at {place}", advice=bound)


async def _database(thorough: bool) -> list[Finding]:
    from upwell.composition import make_database
    from upwell.journal.sqlite import SqliteDatabase

    settings = current()
    if settings.journal != "on":
        found = f"UPWELL_JOURNAL is {settings.journal}: nothing is kept"
        return [Finding(verdict="mind", what="database", found=found)]
    try:
        database = make_database(read_only=True)
        if isinstance(database, SqliteDatabase):
            if not database.path.exists():
                return [Finding(verdict="well", what="database", found=f"{database.path}, not made yet")]
            if kind := _network_file_system(database.path):
                advice = "SQLite is not safe there with several machines: use a local disk, or PostgreSQL."
                return [
                    Finding(verdict="mind", what="database", found=f"{database.path} is on {kind}", advice=advice),
                    await _contents(database, thorough),
                ]
        return [await _contents(database, thorough)]
    except (UpwellError, ImportError) as error:
        return [Finding(verdict="wrong", what="database", found=str(error))]


async def _contents(database: Database, thorough: bool) -> Finding:
    from upwell.journal.maintenance import problems_in, size_of
    from upwell.journal.sql import newest_schema

    await database.open()
    try:
        size = await size_of(database)
        looked_through = thorough or size.bytes <= CHECKED_BYTES
        problems = await problems_in(database) if looked_through else []
    finally:
        await database.close()
    found = f"{size.place}: {size.flow_runs:,} flow runs, {size.task_runs:,} task runs, {size_text(size.bytes)}"
    newest = newest_schema()
    if problems:
        advice = "Bring it back from a copy, or move it away to begin with a new one."
        return Finding(verdict="wrong", what="database", found=f"damaged: {'; '.join(problems)}", advice=advice)
    if size.schema > newest:
        found = f"{size.place} was written by a newer upwell (schema {size.schema}, this one knows {newest})"
        return Finding(verdict="wrong", what="database", found=found, advice="Update upwell.")
    if size.schema < newest:
        advice = "`upwell database upgrade`, or whoever writes next, brings it up to date."
        return Finding(verdict="mind", what="database", found=f"{found}; of an older version", advice=advice)
    return Finding(verdict="well", what="database", found=found)


def _network_file_system(path: Path) -> str | None:
    """The kind of file system that a file is on, if it is another machine's."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return None
    under = [(len(mount[1]), mount[2]) for mount in mounts if path.resolve().is_relative_to(mount[1])]
    kind = max(under)[1] if under else ""
    return kind if kind in NETWORK_FILE_SYSTEMS else None


def _spool() -> Iterator[Finding]:
    from upwell.composition import home

    files = [path for path in (home() / "spool").rglob("*") if path.is_file()]
    if files:
        found = f"{size_text(sum(path.stat().st_size for path in files))} in {len(files)} files wait to be written"
        advice = "The store was away while something ran; the next process that records brings them in."
        yield Finding(verdict="mind", what="spool", found=found, advice=advice)


# --- the machine --------------------------------------------------------------------------------------------


def _limits_of_the_machine() -> Iterator[Finding]:
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < LEAST_OPEN_FILES:
        yield Finding(verdict="mind", what="open files", found=f"at most {files}", advice="ulimit -n 4096")
    shared = Path("/dev/shm")
    if shared.exists() and (free := shutil.disk_usage(shared).free) < LEAST_SHARED_BYTES:
        advice = "Large values between processes take it; in a container: docker run --shm-size=1g"
        yield Finding(verdict="mind", what="shared memory", found=f"{size_text(free)} are free", advice=advice)


async def _server() -> list[Finding]:
    settings = current()
    findings: list[Finding] = []
    if settings.api_url is not None:
        findings.append(await _api(settings))
    from upwell.servers import server_status

    status = await asyncio.to_thread(server_status)
    if status.info is not None:
        verdict: Verdict = "well" if status.answers else "wrong"
        found = f"{status.info.url} (pid {status.info.pid}) {'answers' if status.answers else 'does not answer'}"
        advice = None if status.answers else f"See {status.log}; `upwell server stop` ends it."
        findings.append(Finding(verdict=verdict, what="server", found=found, advice=advice))
    return findings


async def _api(settings: Settings) -> Finding:
    from upwell.journal.remote_client import ApiClient

    client = ApiClient(settings.api_url or "", settings.api_key, timeout_seconds=5)
    try:
        await client.request("GET", "/deployments", query={"limit": 1})
    except (UpwellError, ImportError) as error:
        advice = "Start it (`upwell server start`), or correct UPWELL_API_URL and UPWELL_API_KEY."
        return Finding(verdict="wrong", what="API", found=str(error), advice=advice)
    finally:
        await client.close()
    return Finding(verdict="well", what="API", found=f"{settings.api_url} answers")
