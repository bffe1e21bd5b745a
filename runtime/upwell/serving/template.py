"""A template: a process that has imported a flow's code, and forks a child for each run of it, in a few milliseconds.

A child ends with its run, or stays for another where its pool or deployment allows several in one process. For jobs
that are about to be due children are forked before, and wait.

It has one thread, keeps no journal and runs no event loop, so that forking is safe; where the code itself has started
threads while it was imported, and on macOS, children are new interpreters. It ends when its worker has gone; its
children go on, for each is a process of the store's in its own right.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from msgspec.msgpack import encode

from upwell import serving
from upwell.composition import close_journal, is_remote
from upwell.core.definition import Definition
from upwell.core.deployments import Job
from upwell.core.lifecycle import describe
from upwell.engine.current import close_portal
from upwell.entrypoints import import_code, parse_entrypoint
from upwell.serving import wire
from upwell.serving.child import Exit, Turn, carry_out, end_process, find_definition, get_ready
from upwell.serving.rehearsal import rehearse
from upwell.settings import current as settings

LOOK_SECONDS: Final = 0.02
"""How long code that was found unchanged is taken to be so."""

STAY_SECONDS: Final = 30.0
"""How long a child stays for another run."""

PREPARED_AT_ONCE: Final = 2
"""So many children get ready at once: those who have a job already come first."""

_PRELOADED: Final = (
    "asyncio.runners", "ctypes", "encodings.ascii", "sqlite3", "upwell.flows", "upwell.journal.cache",
    "upwell.journal.cancel_watch", "upwell.journal.durable", "upwell.journal.journal", "upwell.journal.limit_store",
    "upwell.journal.log_lines", "upwell.journal.retention", "upwell.journal.sql_control", "upwell.journal.sqlite",
    "upwell.journal.store", "upwell.tasks", "uvloop",
)  # fmt: skip  # what every child needs: once, not in each

_PRELOADED_REMOTE: Final = ("httpx", "upwell.journal.remote_control", "upwell.journal.remote_store")
_PRELOADED_POSTGRES: Final = ("asyncpg", "upwell.journal.postgres")


def main(control: int, begun: int) -> int:
    """The life of a template. control: its end of the sockets. begun: the pipe of children that have begun."""
    serving.carries_out_jobs = True
    with closing(wire.Link(control)) as link:
        return _live(link, begun)


def _live(link: wire.Link, begun: int) -> int:
    messages = link.receive()
    if messages is None:
        return 0
    load = messages[0]
    assert isinstance(load, wire.Load)
    sys.path[:0] = [folder for folder in load.path if folder not in sys.path]
    try:
        import_code(parse_entrypoint(load.entrypoint), _folders(load))
    except BaseException as error:
        traceback.print_exc()
        link.send(wire.CannotLoad(f"The code of {load.entrypoint} could not be imported: {describe(error)}"))
        return 1
    with suppress(ConnectionError):
        Template(link, load, begun).serve(messages[1:])
    return 0


def _folders(load: wire.Load) -> list[Path] | None:
    return None if load.roots is None else [Path(root) for root in load.roots]


class _Child:
    """A process that was started here.

    process: of a new interpreter. link: to one that waits for its job, or may stay for other runs.
    """

    def __init__(self, process: subprocess.Popen[bytes] | None = None, link: socket.socket | None = None) -> None:
        self.process = process
        self.link = link
        self.gets_ready = False
        self.waits_since: float | None = None  # for a run

    def let_go(self) -> None:
        """It gets no other run, and ends."""
        self.waits_since = None
        if self.link is not None:
            self.link.close()
            self.link = None

    def takes(self, job: Job) -> bool:
        """Give it a job, if it waits for one and is still there."""
        if self.waits_since is None or self.link is None:
            return False
        try:
            self.link.sendall(wire.frame(wire.Start(job)))
        except OSError:
            return False
        self.waits_since = None
        return True


class Template:
    """The process, once its code is imported. begun: the pipe that its children inherit."""

    def __init__(self, link: wire.Link, load: wire.Load, begun: int) -> None:
        self._link = link
        self._load = load
        self._begun = begun
        self._children: dict[int, _Child] = {}
        self._files = {path: _stamp(path) for path in _files_of_code()}
        self._looked_at = time.monotonic()
        self._outdated = False
        self._found: dict[str, Definition] = {}
        self._to_prepare = 0
        self.why_cold = _why_cold(load)

    def serve(self, messages: list[wire.ToTemplate]) -> None:
        """Start and reap children, as the worker asks; until it has gone."""
        if self.why_cold is None:
            _warm_up()
            self.why_cold = _why_cold(self._load)
        wakeup, signalled = os.pipe()
        for descriptor in (wakeup, signalled):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)
        gc.collect()
        gc.freeze()  # the children share these pages as long as no collector touches them
        self._inherited = (wakeup, signalled)
        self._link.send(wire.Ready(self.why_cold))
        try:
            self._listen(messages, wakeup)
        finally:
            for child in self._children.values():
                child.let_go()

    def _listen(self, messages: list[wire.ToTemplate], wakeup: int) -> None:
        while True:
            for message in messages:
                if isinstance(message, wire.Start):
                    self._start(message)
                elif isinstance(message, wire.Prepare):
                    self._expect(message.jobs)
            self._prepare()
            ready = self._wait(wakeup)
            if wakeup in ready:
                _drain(wakeup)
                self._reap()
            for pid, child in self._children.items():
                if child.link is not None and child.link.fileno() in ready:
                    self._hear(pid, child)
            messages = []
            if self._link.fileno() in ready:
                received = self._link.receive()
                if received is None:
                    return
                messages = received

    def _wait(self, wakeup: int) -> set[int]:
        """The descriptors that have something to say; children that have stayed for too long are let go."""
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        poll.register(self._link.fileno(), select.POLLIN)
        waiting, now = False, time.monotonic()
        for child in self._children.values():
            if child.waits_since is not None and now - child.waits_since > STAY_SECONDS:
                child.let_go()
            if child.link is not None:
                poll.register(child.link, select.POLLIN)
                waiting = waiting or child.waits_since is not None
        return {descriptor for descriptor, _ in poll.poll(STAY_SECONDS * 1000 if waiting else None)}

    def _expect(self, jobs: int) -> None:
        """Have as many children wait as these jobs will need, besides those that do."""
        if self.why_cold is None and not self._is_outdated():
            there = sum(child.gets_ready or child.waits_since is not None for child in self._children.values())
            self._to_prepare = max(-(-jobs // self._load.runs) - there, 0)

    def _prepare(self) -> None:
        """Fork children for the jobs that are expected, a few at a time."""
        at_it = sum(child.gets_ready for child in self._children.values()) if self._to_prepare else 0
        while self._to_prepare and at_it < PREPARED_AT_ONCE:
            self._to_prepare -= 1
            at_it += 1
            self._fork(None)

    def _start(self, start: wire.Start) -> None:
        self._to_prepare = max(self._to_prepare - 1, 0)
        if self._is_outdated():
            self._link.send(wire.Outdated(start.job.flow_run_id))
        elif self.why_cold is not None:
            self._spawn(start.job)
        elif (pid := self._given_to(start.job)) is not None:
            self._link.send(wire.Started(start.job.flow_run_id, pid))
        else:
            self._fork(start.job)

    def _given_to(self, job: Job) -> int | None:
        """The child that waited and has the job now; None: none did."""
        return next((pid for pid, child in self._children.items() if child.takes(job)), None)

    def _hear(self, pid: int, child: _Child) -> None:
        """A child says that it waits, for its first run or another one; one that ends says nothing."""
        assert child.link is not None
        try:
            said = child.link.recv(1)
        except ConnectionError:
            said = b""
        if said:
            child.waits_since = time.monotonic()
            if not child.gets_ready:
                self._link.send(wire.Ended(pid, said[0]))
            child.gets_ready = False
        else:
            child.let_go()

    def _fork(self, job: Job | None) -> None:
        """Start a child for this job; None: for one that will come."""
        self._definition(self._load.entrypoint if job is None else job.entrypoint)
        ours, theirs = socket.socketpair() if job is None or self._load.runs > 1 else (None, None)
        pid = os.fork()
        if pid == 0:
            if ours is not None:
                ours.close()
            self._be_child(job, theirs)
        if theirs is not None:
            theirs.close()
        child = _Child(link=ours)
        child.gets_ready = job is None
        self._started(job, pid, child)

    def _definition(self, entrypoint: str) -> Definition | None:
        """The flow of a job; None if it cannot be found, and then the child says what is wrong."""
        definition = self._found.get(entrypoint)
        if definition is None:
            try:
                definition = self._found[entrypoint] = find_definition(entrypoint, _folders(self._load))
            except Exception:
                return None
        return definition

    def _started(self, job: Job | None, pid: int, child: _Child) -> None:
        self._children[pid] = child
        try:
            os.setpgid(pid, pid)  # whoever of both is first: the worker may want to kill it at once
        except OSError:
            pass
        if job is not None:
            self._link.send(wire.Started(job.flow_run_id, pid))

    def _be_child(self, job: Job | None, link: socket.socket | None) -> NoReturn:
        status: int = 1
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._link.close()
            for child in self._children.values():
                child.let_go()
            for descriptor in self._inherited:
                os.close(descriptor)
            atexit._clear()  # pyright: ignore[reportPrivateUsage]  # what was registered by the code as it was imported is the template's
            atexit.register(close_journal)
            _reseed()
            with nullcontext() if link is None else closing(wire.Link(link.detach())) as held:
                status = self._carry_out(job, held)
        except BaseException:
            traceback.print_exc()
        finally:
            end_process(status)
        raise AssertionError("unreachable")

    def _carry_out(self, job: Job | None, link: wire.Link | None) -> Exit:
        """In the child: carry out this job, and others as long as each leaves nothing behind; how the last one went."""
        turn, runs = Turn(Exit.DONE, leaves_nothing=True), 0
        if job is None:
            get_ready()
        while runs < self._load.runs and turn.leaves_nothing:
            job = job or _next_job(link, turn.exit)
            if job is None:
                break
            turn = carry_out(job, _folders(self._load), self._begun, self._definition(job.entrypoint))
            job, runs = None, runs + 1
        return turn.exit

    def _spawn(self, job: Job) -> None:
        """A child that is a new interpreter."""
        process = subprocess.Popen(
            [sys.executable, "-m", "upwell.serving.once", "-", str(self._begun)],
            stdin=subprocess.PIPE,
            pass_fds=[self._begun],
            process_group=0,
        )
        assert process.stdin is not None
        try:
            with process.stdin as stdin:
                stdin.write(encode((self._load, job)))
        except BrokenPipeError:
            pass  # it died at once, and is reaped
        self._started(job, process.pid, _Child(process))

    def _reap(self) -> None:
        """Tell how children ended; others that the user's code may have started are left alone."""
        for pid in list(self._children):
            try:
                found, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # somebody else has waited for it
                found, status = pid, 0
            if found:
                child = self._children.pop(pid)
                child.let_go()
                code = os.waitstatus_to_exitcode(status)
                if child.process is not None:
                    child.process.returncode = code
                self._link.send(wire.Ended(pid, code))

    def _is_outdated(self) -> bool:
        """Whether a file of the user's code has changed since it was imported."""
        now = time.monotonic()
        if not self._outdated and now - self._looked_at > LOOK_SECONDS:
            self._looked_at = now
            self._outdated = any(_stamp(path) != stamp for path, stamp in self._files.items())
        return self._outdated


def _next_job(link: wire.Link | None, status: Exit) -> Job | None:
    """In a child: say how the job before ended, and wait for another; None if there is none."""
    if link is None:
        return None
    sys.stdout.flush()
    try:
        os.write(link.fileno(), bytes([status]))
    except OSError:
        return None
    messages = link.receive()
    if messages is None:
        return None
    (start,) = messages
    assert isinstance(start, wire.Start)
    return start.job


def _warm_up() -> None:
    """Do once what every child would do: import what keeps a journal, read its queries, run a flow."""
    from upwell.journal.processes import this_host
    from upwell.journal.sql import Dialect, bulk_inserts, migrations, queries

    wanted = settings()
    is_postgres = (wanted.database_url or "").startswith("postgres")
    others = _PRELOADED_REMOTE if is_remote(wanted) else _PRELOADED_POSTGRES if is_postgres else ()
    for name in (*_PRELOADED, *others):
        try:
            importlib.import_module(name)
        except ImportError:
            pass
    this_host()
    for read in (queries, bulk_inserts, migrations):
        read(Dialect.POSTGRES if is_postgres else Dialect.SQLITE)
    rehearse()


def _why_cold(load: wire.Load) -> str | None:
    """Why this process must not be forked, if it must not."""
    if not load.forks:
        return "the job variable `warm` is false"
    if sys.platform == "darwin":
        return "macOS does not let processes be forked safely"
    close_portal()  # the code may have run a flow while it was imported
    close_journal()
    others = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    return f"importing it has started threads ({', '.join(others)})" if others else None


def _files_of_code() -> Iterator[str]:
    """The files of what was imported, but for the standard library, installed packages and upwell itself."""
    paths = sysconfig.get_paths()
    others = {os.path.realpath(paths[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    others |= {os.path.realpath(Path(__file__).parent.parent), os.path.realpath(sys.base_prefix + "/lib")}
    skipped = tuple(f"{folder}{os.sep}" for folder in others)
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and not os.path.realpath(file).startswith(skipped):
            yield file


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _reseed() -> None:
    """Python's own random numbers differ in each child; those of numpy are seen to here."""
    if numpy := sys.modules.get("numpy.random"):
        numpy.seed()


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """The descriptor that wakes the loop has told already."""


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 4096):
            pass
    except BlockingIOError:
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to decide
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
