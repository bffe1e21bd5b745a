"""The worker's side of templates: starts them, keeps them warm, has them fork a child for each job, and ends them.

A template is known by its code, its environment and its folder. One whose code has changed, that has died or that has
had nothing to do for a while is replaced when it is next needed. Children are in nobody's keeping but their own: one
whose template has died goes on, and its end is seen through a descriptor of its process.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

from upwell.core.deployments import Job
from upwell.core.errors import ConfigurationError
from upwell.entrypoints import parse_entrypoint
from upwell.serving import wire
from upwell.serving.logs import LOGGER

MOST_TEMPLATES: Final = 8
"""How many are kept; beyond that those that were needed longest ago end, once they have no children."""

IDLE_SECONDS: Final = 600.0
"""For so long a template is kept that nobody needs."""

END_SECONDS: Final = 5.0
"""How long a template may take to end that was told to, or whose socket has closed."""

POLL_SECONDS: Final = 0.25
"""How often is looked at a child whose end nobody tells, where there are no descriptors of processes."""


class CannotStart(Exception):
    """The code cannot be imported, so no run of it can begin; the message is for people."""


class TemplateGone(Exception):
    """It has died, or its code has changed: another one must be asked. The message says how it died, if it did."""


class Recipe(NamedTuple):
    """What a template is made of. roots: see `entrypoints.load_flow`. env: besides the worker's own, sorted."""

    where: str
    roots: tuple[str, ...] | None
    env: tuple[tuple[str, str], ...]
    folder: str
    path: tuple[str, ...] = ()
    warm: bool = True
    runs: int = 1


class Child:
    """The process of one job, which is the first of its group. status: how that ended; None: nobody knows."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None
        self.has_ended = asyncio.Event()
        self._descriptor = _open_process(pid)

    def ended(self, status: int | None) -> None:
        self.status = status
        self.has_ended.set()
        self.let_go()

    def let_go(self) -> None:
        """Close its descriptor."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)

    def kill(self) -> None:
        """Kill it, with all that it has started."""
        if not self.has_ended.is_set():
            for kill in (os.killpg, os.kill):  # the second, for it may have been started before it had a group
                try:
                    kill(self.pid, signal.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    pass

    async def watch_alone(self) -> None:
        """See its end where no template tells of it any more."""
        if self._descriptor is not None:
            asyncio.get_running_loop().add_reader(self._descriptor, self.ended, None)
            return
        while _is_there(self.pid):  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(POLL_SECONDS)
        self.ended(None)


class Template:
    """One template process. last_used: by the loop's clock."""

    def __init__(self, recipe: Recipe, entrypoint: str, begun: int) -> None:
        self.recipe = recipe
        self.is_usable = True
        self.last_used = asyncio.get_running_loop().time()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._starting: dict[UUID, asyncio.Future[Child]] = {}
        self._children: dict[int, Child] = {}
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "upwell.serving.template", str(theirs.fileno()), str(begun)],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), begun],
                cwd=recipe.folder,
                env={**os.environ, **dict(recipe.env)},
                start_new_session=True,
            )
        roots = None if recipe.roots is None else list(recipe.roots)
        self._load = wire.Load(entrypoint, roots, list(recipe.path), recipe.warm, recipe.runs)
        self._ours = ours
        self._listening = asyncio.create_task(self._listen(ours))

    @property
    def is_idle(self) -> bool:
        return not self._starting and not self._children

    async def start(self, job: Job) -> Child:
        """Have a child started for this job.

        Raises:
            CannotStart: the code cannot be imported. TemplateGone: ask another one.
        """
        await asyncio.shield(self._ready)
        if not self.is_usable:
            raise TemplateGone
        self.last_used = asyncio.get_running_loop().time()
        started: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._starting[job.flow_run_id] = started
        self._writer.write(wire.frame(wire.Start(job)))
        return await started

    def prepare(self, jobs: int) -> None:
        """Have children wait for so many jobs, if it has imported its code by now."""
        if self.is_usable and self._ready.done():
            self._writer.write(wire.frame(wire.Prepare(jobs)))

    async def end(self) -> None:
        """Have it end; children that it has go on alone."""
        self.is_usable = False
        with suppress(OSError):  # it is closed
            self._ours.shutdown(socket.SHUT_RDWR)  # and not a cancellation: its process is to be waited for
        await asyncio.wait([self._listening])

    async def _listen(self, ours: socket.socket) -> None:
        reader, self._writer = await asyncio.open_connection(sock=ours)
        try:
            self._writer.write(wire.frame(self._load))
            while (message := await wire.read_from_template(reader)) is not None:
                self._hear(message)
        finally:
            self.is_usable = False
            self._writer.close()
            await self._has_gone(await self._wait_for_process())

    def _hear(self, message: wire.FromTemplate) -> None:
        match message:
            case wire.Ready(why_cold):
                if why_cold is not None:
                    LOGGER.info("Runs of %s begin in new interpreters: %s", self.recipe.where, why_cold)
                self._ready.set_result(None)
            case wire.CannotLoad(text):
                self._ready.set_exception(CannotStart(text))
            case wire.Outdated(flow_run_id):
                if self.is_usable:
                    LOGGER.info("The code of %s has changed, and is imported anew", self.recipe.where)
                self.is_usable = False
                _fail(self._starting.pop(flow_run_id, None), TemplateGone())
            case wire.Started(flow_run_id, pid):
                child = self._children[pid] = Child(pid)
                started = self._starting.pop(flow_run_id, None)
                if started is not None and not started.done():
                    started.set_result(child)
            case wire.Ended(pid, status):
                if (found := self._children.pop(pid, None)) is not None:
                    found.ended(status)

    async def _wait_for_process(self) -> int:
        """How the process ended, whose socket has closed."""
        until = asyncio.get_running_loop().time() + END_SECONDS
        while (status := self._process.poll()) is None:
            if asyncio.get_running_loop().time() > until:
                self._process.kill()
            await asyncio.sleep(0.01)
        return status

    async def _has_gone(self, status: int) -> None:
        if not self._ready.done():
            died = f"the process that was to import {self.recipe.where} {how_it_ended(status)}"
            self._ready.set_exception(TemplateGone(died) if status < 0 else CannotStart(died))
        self._ready.exception()  # maybe nobody asks
        for started in self._starting.values():
            _fail(started, TemplateGone(f"the process that was to start it {how_it_ended(status)}"))
        self._starting.clear()
        children, self._children = list(self._children.values()), {}
        await asyncio.gather(*(child.watch_alone() for child in children))


class Templates:
    """Those that a worker has. begun: the pipe that children inherit."""

    def __init__(self, begun: int) -> None:
        self._begun = begun
        self._usable: dict[Recipe, Template] = {}
        self._retired: set[Template] = set()

    def prepare(self, recipe: Recipe, jobs: Sequence[Job]) -> None:
        """These are about to be due: have their code imported, and children wait for them where it has been."""
        template = self._usable.get(recipe)
        if template is None:
            self._usable[recipe] = Template(recipe, jobs[0].entrypoint, self._begun)
        else:
            template.prepare(len(jobs))

    async def start(self, recipe: Recipe, job: Job) -> Child:
        """Have a child started for this job.

        Raises:
            CannotStart: the code cannot be imported. TemplateGone: the template has died; another try may succeed.
        """
        template = self._usable.get(recipe)
        if template is None or not template.is_usable:
            self._retire(template)
            template = self._usable[recipe] = Template(recipe, job.entrypoint, self._begun)
        try:
            return await template.start(job)
        except CannotStart:
            self._retire(self._usable.pop(recipe, None))
            raise

    async def tidy(self) -> None:
        """End those that nobody has needed for a while, or that are too many."""
        now = asyncio.get_running_loop().time()
        by_use = sorted(self._usable.values(), key=lambda template: template.last_used)
        for position, template in enumerate(by_use):
            is_one_too_many = len(by_use) - position > MOST_TEMPLATES
            if template.is_idle and (is_one_too_many or now - template.last_used > IDLE_SECONDS):
                self._retire(self._usable.pop(template.recipe))
        for template in [template for template in self._retired if template.is_idle]:
            self._retired.discard(template)
            await template.end()

    async def close(self) -> None:
        """End all of them."""
        templates = [*self._usable.values(), *self._retired]
        self._usable, self._retired = {}, set()
        await asyncio.gather(*(template.end() for template in templates))

    def _retire(self, template: Template | None) -> None:
        if template is not None:
            template.is_usable = False
            self._retired.add(template)


def how_it_ended(status: int | None) -> str:
    """The exit status of a process in words; negative for signals, None where it is not known."""
    if status is None:
        return "has gone, and nobody knows how"
    if status >= 0:
        return f"exited with code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was killed by {name}{' (out of memory?)' if -status == signal.SIGKILL else ''}"


def recipe_of(job: Job, roots: tuple[str, ...] | None, path: tuple[str, ...], configuration: dict[str, Any]) -> Recipe:
    """What the template of this job is made of. configuration: the job's variables, in their place.

    Raises:
        ConfigurationError: one of them is not what it must be.
    """
    env: dict[str, Any] = configuration.get("env") or {}
    return Recipe(
        parse_entrypoint(job.entrypoint).where,
        roots,
        tuple(sorted((str(name), str(value)) for name, value in env.items() if value is not None)),
        str(Path(roots[0] if roots else os.getcwd(), configuration.get("working_dir") or "")),
        path,
        configuration.get("warm", True) is not False,
        _runs_per_process(configuration.get("runs_per_process", 1)),
    )


def _runs_per_process(wanted: Any) -> int:
    if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
        raise ConfigurationError(f"Its runs_per_process is {wanted!r}, and must be a whole number of 1 or more.")
    return wanted


def _fail(future: asyncio.Future[Any] | None, error: Exception) -> None:
    if future is not None and not future.done():
        future.set_exception(error)


def _open_process(pid: int) -> int | None:
    """A descriptor that can be read once the process has ended; None where there are none, or it has."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
