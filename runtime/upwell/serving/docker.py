"""Carries jobs out in containers, through the Docker SDK: one container a job, which is removed when it has ended.

The job is put into the container as a file before it is started, so that no parameter is seen from outside. The
container must have upwell and the flow's code installed, and reach the store: `UPWELL_API_URL`, or a database. Pull
steps are carried out inside of it.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

from msgspec.msgpack import encode

from upwell.core.deployments import Job
from upwell.core.errors import ConfigurationError, MissingExtraError, SourceError
from upwell.pull_steps import VARIABLE as PULL_STEPS
from upwell.pull_steps import as_written, steps_from
from upwell.serving.carriers import STOPS, Carried, How, MayStart
from upwell.serving.child import Exit
from upwell.serving.job_templates import PULL_STEPS_PROPERTY, JobTemplate
from upwell.serving.logs import LOGGER
from upwell.serving.pulling import check_that_steps_may_run, tokens_of
from upwell.serving.templates import how_it_ended
from upwell.serving.wire import Load
from upwell.settings import current as settings
from upwell.settings import variable_of

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

JOB_FILE: Final = "/upwell-job"
"""Where a container finds its job."""

LABEL: Final = "upwell.flow-run-id"
KILL_SIGNAL: Final = 128
"""What a container's exit code is above the number of the signal that has ended it."""

DOCKER_TEMPLATE: Final[dict[str, Any]] = {
    "job_configuration": {
        name: f"{{{{ {name} }}}}"
        for name in (
            *("image", "env", "command", "volumes", "network", "memory", "cpus", "working_dir", "auto_remove"),
            PULL_STEPS,
        )
    },
    "variables": {
        "type": "object",
        "properties": {
            "image": {"type": "string", "title": "Image", "description": "The image, with upwell and the code in it."},
            "env": {
                "type": "object",
                "title": "Environment",
                "additionalProperties": {"type": "string"},
                "default": {},
            },
            "command": {
                "type": "array",
                "title": "Command",
                "description": "What runs the job: `python -m upwell.serving.once FILE` unless said.",
                "items": {"type": "string"},
            },
            "volumes": {
                "type": "array",
                "title": "Volumes",
                "description": "Like /here:/there:ro.",
                "items": {"type": "string"},
                "default": [],
            },
            "network": {"type": "string", "title": "Network"},
            "memory": {"type": "string", "title": "Memory", "description": "At most, such as 512m."},
            "cpus": {"type": "number", "title": "Processors"},
            "working_dir": {"type": "string", "title": "Working directory"},
            "auto_remove": {
                "type": "boolean",
                "title": "Remove",
                "description": "Remove containers that have ended.",
                "default": True,
            },
            "pull_steps": PULL_STEPS_PROPERTY,
        },
        "required": ["image"],
    },
}
"""That of pools of type `docker` that say none."""


class DockerCarrier:
    """Containers of one Docker engine: that of the environment (`DOCKER_HOST`), unless a client is given.

    Raises:
        MissingExtraError: the SDK is not installed. ConfigurationError: the engine does not answer.
    """

    def __init__(self, template: dict[str, Any], client: DockerClient | None = None) -> None:
        self._template = JobTemplate(template, DOCKER_TEMPLATE)
        self._client = client or _client()
        self._containers: dict[UUID, Container] = {}
        self._to_be_killed: set[UUID] = set()

    async def open(self, begun: Callable[[UUID], None]) -> None:
        self._begun = begun

    def use_template(self, template: dict[str, Any]) -> None:
        self._template = JobTemplate(template, DOCKER_TEMPLATE)

    async def carry(self, job: Job, may_start: MayStart) -> Carried:
        from docker.errors import DockerException  # here, as below: few workers have Docker

        if not await may_start():
            return STOPS

        try:
            container = await asyncio.to_thread(self._start, job)
        except (DockerException, ConfigurationError, SourceError, OSError) as error:
            return Carried(How.REFUSED, f"Its container could not be started: {error}")
        self._containers[job.flow_run_id] = container
        self._begun(job.flow_run_id)
        if job.flow_run_id in self._to_be_killed:
            await asyncio.to_thread(_kill, container)
        try:
            status = await self._wait(container)
        finally:
            self._containers.pop(job.flow_run_id, None)
            self._to_be_killed.discard(job.flow_run_id)
        await asyncio.to_thread(self._remove, container, job)
        return _carried(status, container.name or "")

    def _start(self, job: Job) -> Container:
        """Make the container, give it its job, and start it."""
        said = self._template.configuration(job)
        image = said.get("image")
        if not image:
            raise ConfigurationError("No image is said: give the deployment or the work pool the job variable `image`.")
        self._see_that_there_is(image)
        steps = steps_from(said.get(PULL_STEPS))
        if steps:
            check_that_steps_may_run()
        options: dict[str, Any] = {
            "environment": {**_environment(), **said.get("env", {})},
            "volumes": said.get("volumes") or None,
            "network": said.get("network"),
            "mem_limit": said.get("memory"),
            "nano_cpus": int(float(said["cpus"]) * 1e9) if said.get("cpus") else None,
            "working_dir": said.get("working_dir"),
        }
        container = self._client.containers.create(
            image,
            command=said.get("command") or ["python", "-m", "upwell.serving.once", JOB_FILE],
            labels={LABEL: str(job.flow_run_id)},
            init=True,  # so that what it leaves behind is reaped
            **{name: value for name, value in options.items() if value is not None},
        )
        load = Load(job.entrypoint, None, [], pull_steps=[as_written(step) for step in steps], tokens=tokens_of(steps))
        try:
            put_file = cast("Callable[[str, bytes], bool]", container.put_archive)  # pyright: ignore
            put_file("/", _as_archive(encode((load, job))))
            container.start()
        except BaseException:
            container.remove(force=True)
            raise
        return container

    def _see_that_there_is(self, image: str) -> None:
        from docker.errors import ImageNotFound

        try:
            self._client.images.get(image)
        except ImageNotFound:
            LOGGER.info("Pulling the image %s", image)
            self._client.images.pull(image)

    async def _wait(self, container: Container) -> int | None:
        """Its exit code, once it has ended; None if nobody knows."""
        from docker.errors import DockerException, NotFound
        from requests.exceptions import RequestException

        while True:
            try:
                return int((await asyncio.to_thread(container.wait, timeout=60))["StatusCode"])
            except NotFound:
                return None
            except (DockerException, RequestException) as error:  # the engine is away, or it takes its time
                LOGGER.debug("The container %s is waited for again", container.name, exc_info=error)
                await asyncio.sleep(1)

    def _remove(self, container: Container, job: Job) -> None:
        from docker.errors import DockerException

        if self._template.configuration(job).get("auto_remove", True):
            try:
                container.remove(force=True)
            except DockerException as error:
                LOGGER.debug("The container %s could not be removed", container.name, exc_info=error)

    def kill(self, flow_run_id: UUID) -> None:
        container = self._containers.get(flow_run_id)
        self._to_be_killed.add(flow_run_id)
        if container is not None:
            asyncio.get_running_loop().run_in_executor(None, _kill, container)

    def expect(self, jobs: Sequence[Job]) -> None:
        """A container is started for its run alone."""

    def preparing(self) -> Sequence[UUID]:
        return ()  # containers prepare themselves

    def give_up(self, flow_run_id: UUID) -> None:
        """There is nothing to give up."""

    async def tidy(self) -> None:
        """Nothing is kept warm."""

    async def close(self) -> None:
        await asyncio.to_thread(self._client.close)


def _client() -> DockerClient:
    try:
        from docker import from_env
        from docker.errors import DockerException
    except ImportError as error:
        raise MissingExtraError("Workers of type docker need the Docker SDK: pip install 'upwell[docker]'.") from error
    try:
        client = from_env()
        client.ping()
    except DockerException as error:
        raise ConfigurationError(
            f"The Docker engine does not answer: {error}. Is it running, and does DOCKER_HOST say where?"
        ) from error
    return client


def _kill(container: Container) -> None:
    from docker.errors import DockerException

    try:
        container.kill()
    except DockerException as error:  # it has ended
        LOGGER.debug("The container %s could not be killed", container.name, exc_info=error)


def _carried(status: int | None, name: str) -> Carried:
    match status:
        case Exit.DONE:
            return Carried(How.DONE)
        case Exit.VOID:
            return Carried(How.VOID)
        case Exit.NOT_BEGUN:
            return Carried(How.NOT_BEGUN, "the store could not be asked whether it may begin")
        case _:
            code = None if status is None else KILL_SIGNAL - status if status > KILL_SIGNAL else status
            return Carried(How.DIED, f"The container {name} that carried this run out {how_it_ended(code)}.")


def _environment() -> dict[str, str]:
    """The settings by which a container finds the store of its worker."""
    wanted = settings()
    said = {"api_url": wanted.api_url, "api_key": wanted.api_key, "database_url": wanted.database_url}
    return {variable_of(name): value for name, value in said.items() if value}


def _as_archive(content: bytes) -> bytes:
    """An archive of one file, to be put into a container."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        facts = tarfile.TarInfo(JOB_FILE.lstrip("/"))
        facts.size, facts.mode = len(content), 0o600
        archive.addfile(facts, io.BytesIO(content))
    return packed.getvalue()
