"""Who carries a job out: the seam, and processes of this machine. Containers have a file of their own."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeAlias
from uuid import UUID

from msgspec.structs import replace

from upwell.core.deployments import Job
from upwell.core.errors import ConfigurationError, SourceError
from upwell.pull_steps import VARIABLE as PULL_STEPS
from upwell.pull_steps import Step, steps_from
from upwell.serving import wire
from upwell.serving.child import Exit
from upwell.serving.job_templates import PROCESS_TEMPLATE, JobTemplate
from upwell.serving.logs import LOGGER
from upwell.serving.pulling import Pulled, Puller, check_that_steps_may_run
from upwell.serving.templates import CannotStart, Child, Recipe, TemplateGone, Templates, how_it_ended, recipe_of

MOST_TEMPLATE_DEATHS: Final = 3
"""So often a job is handed to another template, whose predecessor died."""


class How(Enum):
    """How carrying a job out has ended.

    DONE: its process has ended by itself: the store knows how the run ended. VOID: somebody else has it, or nobody.
    NOT_BEGUN: for a reason that may pass. REFUSED: it cannot be begun, now or later. DIED: its process was killed.
    """

    DONE = "done"
    VOID = "void"
    NOT_BEGUN = "not begun"
    REFUSED = "refused"
    DIED = "died"


class Carried(NamedTuple):
    """The same with what is to be said to people."""

    how: How
    message: str = ""


STOPS: Final = Carried(How.NOT_BEGUN, "its worker stops")

MayStart: TypeAlias = Callable[[], Awaitable[bool]]


class Carrier(Protocol):
    """Carries jobs out somewhere."""

    async def open(self, begun: Callable[[UUID], None]) -> None:
        """begun: called when a run has begun, or is found to be not to begin."""
        ...

    def use_template(self, template: dict[str, Any]) -> None:
        """From the next job on the pool's base job template is this.

        Raises:
            ConfigurationError: it cannot be used; the one before it stays.
        """
        ...

    def expect(self, jobs: Sequence[Job]) -> None:
        """These are about to be due, as far as can be seen: have ready what can be."""
        ...

    async def carry(self, job: Job, may_start: MayStart) -> Carried:
        """Start what carries this out, and wait until that has ended. Never raises but when it is cancelled.

        may_start: to be awaited before something is started, for not too many are to be at once; False: nothing is.
        """
        ...

    def kill(self, flow_run_id: UUID) -> None:
        """End what carries this out, at once and with all that it has started."""
        ...

    def preparing(self) -> Sequence[UUID]:
        """The runs that are waiting for their code, and have not been started."""
        ...

    def give_up(self, flow_run_id: UUID) -> None:
        """If it is still waiting for its code: do not start it."""
        ...

    async def tidy(self) -> None:
        """Let go of what has not been needed for a while; called now and then."""
        ...

    async def close(self) -> None:
        """Let go of everything. What is still carried out goes on."""
        ...


class _GivenUp(Exception):
    """A run is not to begin here any more, whose code was being fetched."""


class ProcessCarrier:
    """Processes of this machine, forked by templates.

    roots: folders outside of which no code is run; None: whatever the jobs name. Code that pull steps have fetched has
    its own. path: where imports look, too.
    own: where the flows are of these deployments, whatever the store says of them.
    """

    def __init__(
        self,
        template: JobTemplate,
        roots: tuple[str, ...] | None = None,
        path: tuple[str, ...] = (),
        own: Mapping[UUID, str] | None = None,
    ) -> None:
        self._own = own or {}
        self._template = template
        self._roots = roots
        self._path = path
        self._children: dict[UUID, Child] = {}
        self._puller: Puller | None = None
        self._pulling: dict[UUID, asyncio.Task[Pulled]] = {}
        self._in_use: list[Pulled] = []

    async def open(self, begun: Callable[[UUID], None]) -> None:
        self._begun, self._begun_by_children = os.pipe()
        os.set_blocking(self._begun, False)
        self._say_begun = begun
        self._templates = Templates(self._begun_by_children)
        asyncio.get_running_loop().add_reader(self._begun, self._hear_begun)

    def use_template(self, template: dict[str, Any]) -> None:
        self._template = JobTemplate(template, PROCESS_TEMPLATE)

    def expect(self, jobs: Sequence[Job]) -> None:
        recipes: dict[Recipe, list[Job]] = defaultdict(list)
        for job in map(self._as_own, jobs):
            try:
                configuration = self._template.configuration(job)
                if not steps_from(configuration.get(PULL_STEPS)):  # else only its start says which code it is
                    recipes[self._recipe(job, configuration, None)].append(job)
            except ConfigurationError as error:  # who starts it says so to people
                LOGGER.debug("Nothing is prepared for the run '%s': %s", job.name, error)
        for recipe, of_recipe in recipes.items():
            self._templates.prepare(recipe, of_recipe)

    def _as_own(self, job: Job) -> Job:
        if job.deployment_id is not None and job.deployment_id in self._own:
            return replace(job, entrypoint=self._own[job.deployment_id])
        return job

    async def carry(self, job: Job, may_start: MayStart) -> Carried:
        job = self._as_own(job)
        pulled: Pulled | None = None
        try:
            configuration = self._template.configuration(job)
            if steps := steps_from(configuration.get(PULL_STEPS)):
                pulled = await self._pull(job, steps, configuration.get("env") or {})
                self._in_use.append(pulled)
                job = replace(job, commit=pulled.commit, repository=pulled.repository)
            recipe = self._recipe(job, configuration, pulled)
            if not await may_start():
                return STOPS
            return await self._see_through(job, await self._start(recipe, job))
        except (CannotStart, ConfigurationError, SourceError, OSError) as error:
            return Carried(How.REFUSED, str(error) if pulled is None else f"{error} (The code is of {pulled}.)")
        except (TemplateGone, _GivenUp) as gone:
            return Carried(How.NOT_BEGUN, str(gone))
        finally:
            if pulled is not None:
                self._in_use.remove(pulled)

    async def _see_through(self, job: Job, child: Child) -> Carried:
        self._children[job.flow_run_id] = child
        try:
            await child.has_ended.wait()
        finally:
            if self._children.get(job.flow_run_id) is child:
                del self._children[job.flow_run_id]
        match child.status:
            case Exit.DONE:
                return Carried(How.DONE)
            case Exit.VOID:
                return Carried(How.VOID)
            case Exit.NOT_BEGUN:
                return Carried(How.NOT_BEGUN, "the store could not be asked whether it may begin")
            case status:
                return Carried(How.DIED, f"The process {child.pid} that carried this run out {how_it_ended(status)}.")

    def _recipe(self, job: Job, configuration: dict[str, Any], pulled: Pulled | None) -> Recipe:
        """What a template for this job is made of.

        Raises:
            ConfigurationError: a variable is not what it must be, or the code must not be run there.
        """
        roots, path = self._roots, self._path
        if pulled is not None:
            roots, path = pulled.roots, (*map(str, pulled.path), *path)
        recipe = recipe_of(job, roots, path, configuration)
        _check_folder(recipe)
        return recipe

    async def _pull(self, job: Job, steps: list[Step], env: dict[str, Any]) -> Pulled:
        check_that_steps_may_run()
        if self._puller is None:
            self._puller = Puller()
        folder = Path(self._roots[0] if self._roots else os.getcwd())
        pulling = asyncio.create_task(
            self._puller.pull(
                steps, folder, {str(name): str(value) for name, value in env.items() if value is not None}
            )
        )
        self._pulling[job.flow_run_id] = pulling
        try:
            await asyncio.wait([pulling])
            if pulling.cancelled():
                raise _GivenUp("it was not to begin any more when its code was fetched")
            return pulling.result()
        finally:
            pulling.cancel()
            if self._pulling.get(job.flow_run_id) is pulling:
                del self._pulling[job.flow_run_id]

    async def _start(self, recipe: Recipe, job: Job) -> Child:
        deaths = 0
        while True:
            try:
                return await self._templates.start(recipe, job)
            except TemplateGone as gone:
                deaths += 1
                if deaths == MOST_TEMPLATE_DEATHS:
                    raise gone

    def _hear_begun(self) -> None:
        heard = os.read(self._begun, wire.BEGUN_BYTES * 256)
        for start in range(0, len(heard), wire.BEGUN_BYTES):
            self._say_begun(UUID(bytes=heard[start : start + wire.BEGUN_BYTES]))

    def kill(self, flow_run_id: UUID) -> None:
        if (child := self._children.get(flow_run_id)) is not None:
            child.kill()
        self.give_up(flow_run_id)

    def preparing(self) -> Sequence[UUID]:
        return list(self._pulling)

    def give_up(self, flow_run_id: UUID) -> None:
        if (pulling := self._pulling.get(flow_run_id)) is not None:
            pulling.cancel()

    async def tidy(self) -> None:
        await self._templates.tidy()
        if self._puller is not None:
            await asyncio.to_thread(self._puller.tidy, list(self._in_use))

    async def close(self) -> None:
        await self._templates.close()
        for child in self._children.values():
            child.let_go()
        asyncio.get_running_loop().remove_reader(self._begun)
        os.close(self._begun)
        os.close(self._begun_by_children)


def _check_folder(recipe: Recipe) -> None:
    """Whether code may be run in this folder.

    Raises:
        ConfigurationError: it may not.
    """
    folder, roots = recipe.folder, recipe.roots
    if not Path(folder).is_dir():
        raise ConfigurationError(f"Its working_dir {folder} is no folder here.")
    if roots is not None and not any(Path(folder).resolve().is_relative_to(Path(root).resolve()) for root in roots):
        raise ConfigurationError(
            f"Its working_dir {folder} is outside of {', '.join(roots)}, where this worker runs code."
        )
