"""A PostgreSQL server of the test session's own: made when the first test needs it, gone with the session."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

START_SECONDS: Final = 60

_numbers = count(1)

_WATCH: Final = """(
while kill -0 "$1" && [ -d "$2" ]; do sleep 1; done
if [ -d "$2" ]; then kill -QUIT "$(head -1 "$2/data/postmaster.pid")"; sleep 1; rm -r "$2"; fi
) >/dev/null 2>&1 </dev/null &"""
"""A shell's: what is left to do if the session is killed is to stop the server at once, and to remove its folder."""


class NoPostgres(Exception):
    """There is no PostgreSQL on this machine."""


class PostgresServer:
    """A server in a folder of its own, reached through a Unix socket there."""

    def __init__(self, folder: Path, options: str) -> None:
        self._folder = folder
        self._options = f"-k {folder} -c listen_addresses= -c max_connections=100 {options}"
        self._programs = _programs()
        self._user = _unprivileged()

    def start(self) -> None:
        """Start it; it is no child of this process."""
        if self._user:
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        self._call("initdb", "-D", self._data, "-A", "trust", "-U", "upwell", "-E", "UTF8", "--locale=C", "--no-sync")
        log = str(self._folder / "log")
        self._call("pg_ctl", "-D", self._data, "-l", log, "-o", self._options, "-w", "start")

    def stop(self) -> None:
        """Stop it at once."""
        self._call("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def restart(self) -> None:
        """Stop it at once, as if it had crashed, and start it again."""
        self._call("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "restart")

    def url(self, database: str, user: str = "upwell") -> str:
        return f"postgresql://{user}@/{database}?host={self._folder}"

    @contextmanager
    def database(self) -> Generator[str]:
        """The URL of a new, empty database."""
        name = f"test_{next(_numbers)}"
        asyncio.run(self.execute(f"CREATE DATABASE {name}"))
        try:
            yield self.url(name)
        finally:
            asyncio.run(self.execute(f"DROP DATABASE {name} WITH (FORCE)"))

    async def execute(self, statement: str, database: str = "postgres") -> list[Any]:
        """One statement, as the server's owner."""
        import asyncpg

        connection: asyncpg.Connection[Any] = await asyncpg.connect(self.url(database))
        try:
            return await connection.fetch(statement)
        finally:
            await connection.close()

    def dump(self, url: str) -> str:
        """A database as SQL, by `pg_dump`."""
        return self._call("pg_dump", "--inserts", "--no-owner", "--no-comments", "-d", url)

    def watch(self) -> None:
        """Have it stopped even if this process is killed."""
        command = ["/bin/sh", "-c", _WATCH, "watch", str(os.getpid()), str(self._folder)]
        subprocess.run(command, check=True, start_new_session=True)

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _call(self, program: str, *arguments: str) -> str:
        output = self._folder / "output"  # a file, for a server that is started here would keep a pipe open
        with output.open("w") as file:
            done = subprocess.run(
                [self._programs / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd="/",
                timeout=START_SECONDS,
                user=self._user.pw_uid if self._user else None,
                group=self._user.pw_gid if self._user else None,
                extra_groups=[] if self._user else None,
            )
        said = output.read_text()
        if done.returncode:
            raise RuntimeError(f"{program} {' '.join(arguments)} has failed: {said}")
        return said


@contextmanager
def postgres_server(options: str = "") -> Generator[PostgresServer]:
    """A server that is there for as long as the code inside runs, with these options of the program `postgres`.

    Raises:
        NoPostgres: it is not installed.
    """
    _programs()
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short, for the path of a socket must be
    server = PostgresServer(folder, options)
    try:
        server.start()
        server.watch()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    """Where its programs are. Debian keeps those of the server apart."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    by_version = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not by_version:
        raise NoPostgres("PostgreSQL's `initdb` is not installed: nothing that needs a server is tested.")
    return by_version[-1].parent


def _unprivileged() -> pwd.struct_passwd | None:
    """Whom to run it as, if not as oneself: the server refuses to be run by root."""
    if os.geteuid() != 0:
        return None
    users = {user.pw_name: user for user in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in users:
            return users[name]
    raise NoPostgres("The tests are run by root, and there is no user to run PostgreSQL as.")
