"""A project: a folder with an `upwell.yaml` that says which deployments there are to be, as `upwell deploy` makes them.

```yaml
name: shop
deployments:
  - name: nightly
    entrypoint: flows/etl.py:etl
    parameters: {day: yesterday}
    schedules:
      - {cron: "0 3 * * *", timezone: Europe/Berlin}
    work_pool: {name: default, type: process}
```
"""
# The annotations below are read at run time, to check the file.

import ast
import datetime as dt
import difflib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

import msgspec
from msgspec import Struct, field
from msgspec.structs import asdict

from upwell.core.deployments import Catchup, Deployment, DeploymentSpec, Schedule, WhenFull, WorkPoolSpec
from upwell.core.errors import ConfigurationError, MissingExtraError, NotFoundError
from upwell.deployments import (
    ConcurrencyLimitConfig,
    DeploymentKeywords,
    RunnerDeployment,
    is_of_new_queue,
    to_deployment,
)
from upwell.entrypoints import load_flow, parse_entrypoint
from upwell.pull_steps import steps_from
from upwell.schedules import Schedule as WantedSchedule

if TYPE_CHECKING:
    from upwell.journal.control import Control

FILE_NAME: Final = "upwell.yaml"

_Text: TypeAlias = str | int | float
"""What YAML makes of a version such as `1.0`."""


# --- the file -----------------------------------------------------------------------------------------------


class ScheduleEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of `cron`, `interval` (seconds) and `rrule`; see `upwell.schedules`."""

    cron: str | None = None
    interval: float | None = None
    rrule: str | None = None
    timezone: str | None = None
    anchor_date: Any = None
    active: bool = True
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    slug: str | None = None
    catchup: Catchup = "latest"
    max_late_seconds: float | None = None

    def schedule(self) -> WantedSchedule:
        fields = asdict(self)
        fields["anchor_date"] = _moment(self.anchor_date)
        return WantedSchedule(**fields)


def _moment(said: Any) -> dt.datetime | None:
    """What YAML makes of a day or a time, or a text of one."""
    if isinstance(said, dt.date) and not isinstance(said, dt.datetime):
        return dt.datetime.combine(said, dt.time())
    if said is None or isinstance(said, dt.datetime):
        return said
    try:
        return dt.datetime.fromisoformat(said)
    except (TypeError, ValueError):
        raise ConfigurationError(f"anchor_date must be like 2026-01-31 or 2026-01-31T09:00:00, not {said!r}.") from None


class PoolEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose workers carry the runs out. type: the pool is made, of this type, if there is none of the name."""

    name: str
    type: str | None = None
    work_queue_name: str | None = None
    job_variables: dict[str, Any] = field(default_factory=dict[str, Any])


class DeploymentEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A deployment as the file has it. What it does not say is as the flow says it.

    pull: its pull steps, in place of those that the file has for all.
    """

    name: str
    entrypoint: str
    description: str | None = None
    version: _Text | None = None
    tags: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    schedule: ScheduleEntry | None = None
    schedules: tuple[ScheduleEntry, ...] | None = None
    paused: bool | None = None
    concurrency_limit: int | ConcurrencyLimitConfig | None = None
    when_full: WhenFull | None = None
    work_pool: PoolEntry | None = None
    pull: list[dict[str, Any]] | None = None


class ProjectFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. pull: steps before each run. definitions: whatever YAML's anchors are to be hung on."""

    name: str | None = None
    deployments: tuple[DeploymentEntry, ...] = ()
    pull: list[dict[str, Any]] | None = None
    definitions: Any = None


class Project(Struct, frozen=True, kw_only=True):
    """A project's folder, and what its file says. pull: steps of those deployments that say none themselves."""

    root: Path
    file: Path
    name: str
    entries: tuple[DeploymentEntry, ...]
    pull: list[dict[str, Any]] | None = None

    def deployments(self, names: Iterable[str] = ()) -> list[RunnerDeployment]:
        """The deployments of these names (`nightly`, or `etl/nightly`), or all, their flows imported.

        Raises:
            ConfigurationError: there is none of a name; a flow is not found, or stands outside of the project.
        """
        wanted = list(names)
        found = [(entry, self._deployment(entry)) for entry in self.entries if not wanted or _is_among(entry, wanted)]
        for name in wanted:
            if not any(name in (it.name, it.full_name) for _, it in found):
                known = ", ".join(entry.name for entry in self.entries) or "none"
                raise ConfigurationError(f"{self.file} has no deployment {name!r}; it has: {known}.")
        return [it for _, it in found if not wanted or it.name in wanted or it.full_name in wanted]

    def _deployment(self, entry: DeploymentEntry) -> RunnerDeployment:
        entrypoint = parse_entrypoint(entry.entrypoint)
        if entrypoint.is_file:
            path = (self.root / entrypoint.where).resolve()
            if path.is_relative_to(self.root):
                entrypoint = entrypoint._replace(where=path.relative_to(self.root).as_posix())
        flow = load_flow(str(entrypoint), [self.root])
        schedules = entry.schedules if entry.schedule is None else (entry.schedule, *(entry.schedules or ()))
        pool = entry.work_pool
        keywords: dict[str, Any] = {
            "schedules": None if schedules is None else [it.schedule() for it in schedules],
            "version": None if entry.version is None else str(entry.version),
            "pull_steps": self.pull if entry.pull is None else entry.pull,
            **{name: getattr(entry, name) for name in _AS_THEY_ARE},
        }
        return to_deployment(
            flow,
            entry.name,
            entrypoint=str(entrypoint),
            work_pool_name=None if pool is None else pool.name,
            work_queue_name=None if pool is None else pool.work_queue_name,
            job_variables=None if pool is None else pool.job_variables,
            **cast("DeploymentKeywords", keywords),
        )


_AS_THEY_ARE: Final = ("description", "tags", "parameters", "paused", "concurrency_limit", "when_full")


def _is_among(entry: DeploymentEntry, names: Sequence[str]) -> bool:
    """Whether a name may mean this one: of `flow/deployment` the flow is known when it is loaded."""
    return any(name == entry.name or name.endswith(f"/{entry.name}") for name in names)


def find_project(start: Path | None = None) -> Path:
    """The nearest `upwell.yaml`, here or above.

    Raises:
        ConfigurationError: there is none.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    raise ConfigurationError(f"There is no {FILE_NAME} in {here} or above it; `upwell init` writes one.")


def load_project(file: Path | None = None) -> Project:
    """What a project's file says, checked; the nearest one's unless a file is given. No flow is imported yet.

    Raises:
        ConfigurationError: it cannot be read; says where and why. MissingExtraError: PyYAML is not installed.
    """
    file = (file or find_project()).resolve()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}.") from error
    try:
        said = msgspec.convert(_with_environment(_parsed(file, text), file), ProjectFile, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{file}: {_explained(str(error))}") from None
    except RecursionError:
        raise ConfigurationError(f"{file}: something in it holds itself, or it goes too deep.") from None
    names = [(entry.entrypoint, entry.name) for entry in said.deployments]
    for entrypoint, name in names:
        if names.count((entrypoint, name)) > 1:
            raise ConfigurationError(f"{file} has two deployments {name!r} of {entrypoint}.")
    _check_steps(file, said)
    return Project(
        root=file.parent, file=file, name=said.name or file.parent.name, entries=said.deployments, pull=said.pull
    )


def _check_steps(file: Path, said: ProjectFile) -> None:
    for whose, steps in (("", said.pull), *((f" of the deployment {it.name!r}", it.pull) for it in said.deployments)):
        try:
            steps_from(steps)
        except ConfigurationError as error:
            raise ConfigurationError(f"{file}: `pull`{whose}: {error}") from None


def _parsed(file: Path, text: str) -> Any:
    try:
        import yaml  # here: few programs read one
    except ImportError as error:
        raise MissingExtraError(
            f"{FILE_NAME} needs PyYAML, which is not installed: pip install 'upwell[server]'."
        ) from error
    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{file} is not valid YAML: {error}") from error


_FROM_ENVIRONMENT: Final = re.compile(r"\{\{\s*\$(\w+)\s*\}\}")


def _with_environment(said: Any, file: Path) -> Any:
    """The same with each `{{ $NAME }}` in its texts replaced by that variable of the environment."""

    def value_of(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise ConfigurationError(f"{file} asks for the environment variable {match[1]}, which is not set.")
        return os.environ[match[1]]

    if isinstance(said, str):
        return _FROM_ENVIRONMENT.sub(value_of, said)
    holder: Any = said
    if isinstance(said, list):
        return [_with_environment(it, file) for it in holder]
    if isinstance(said, dict):
        return {name: _with_environment(it, file) for name, it in holder.items()}
    return said


_NOT_HERE: Final = {
    "build": "upwell builds nothing: build an image as you build others, and name it in work_pool.job_variables.image",
    "push": "upwell pushes nothing: push images as you push others",
    "triggers": "there are no triggers",
    "enforce_parameter_schema": "parameters are always checked; `@flow(validate_parameters=False)` takes any",
}
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(\w+)`(?: - at `\$\.?(.*)`)?")


def _explained(message: str) -> str:
    """What msgspec says, for people."""
    unknown = _UNKNOWN.match(message)
    if unknown is None:
        return message.replace("`$.", "`").replace("`$`", "the file") + "."
    name, where = unknown[1], unknown[2] or ""
    if name in _NOT_HERE:
        return f"`{name}`: {_NOT_HERE[name]}."
    place = re.split(r"\W+", where)
    kinds: dict[str, type[Struct]] = {"schedule": ScheduleEntry, "schedules": ScheduleEntry, "work_pool": PoolEntry}
    kind = next((kinds[part] for part in place if part in kinds), DeploymentEntry if where else ProjectFile)
    near = difflib.get_close_matches(name, kind.__struct_fields__, n=1)
    hint = f"Did you mean `{near[0]}`?" if near else f"It has: {', '.join(kind.__struct_fields__)}."
    return f"there is no `{name}`{f' in {where}' if where else ''}. {hint}"


# --- making it so -------------------------------------------------------------------------------------------


class Change(Struct, frozen=True, kw_only=True):
    """What became of one deployment. details: for people, `schedule 0 3 * * *: added`."""

    deployment: Deployment
    what: Literal["created", "changed", "unchanged"]
    details: tuple[str, ...] = ()


async def apply_project(project: Project, control: "Control", names: Iterable[str] = ()) -> list[Change]:
    """Make the store be as the project says, for these deployments or all; what has changed by that.

    All are checked before the first one is stored. Schedules are matched by slug; where a deployment says nothing of
    schedules those that are there stay, and `schedules: []` removes them.
    """
    wanted = project.deployments(names)
    types = {entry.work_pool.name: entry.work_pool.type for entry in project.entries if entry.work_pool is not None}
    for pool in {it.spec.work_pool for it in wanted if it.spec.work_pool is not None}:
        if types[pool] is not None:
            await _ensure_pool(control, pool, cast("str", types[pool]))
    return [await _apply(control, it.spec) for it in wanted]


async def _ensure_pool(control: "Control", name: str, kind: str) -> None:
    try:
        found = await control.work_pool(name)
    except NotFoundError:
        await control.put_work_pool(name, WorkPoolSpec(kind=kind))
        return
    if found.kind != kind:
        raise ConfigurationError(f"The work pool {name!r} is of type {found.kind!r}, and {FILE_NAME} says {kind!r}.")


async def _apply(control: "Control", spec: DeploymentSpec) -> Change:
    new_queue = await is_of_new_queue(control, spec)
    made = (f"work queue {spec.work_queue} of {spec.work_pool}: made",) if new_queue else ()
    try:
        before = await control.deployment(f"{spec.flow_name}/{spec.name}")
    except NotFoundError:
        return Change(deployment=await control.apply_deployment(spec), what="created", details=made)
    after = await control.apply_deployment(spec)
    details = (*_differences(before, after), *made)
    return Change(deployment=after, what="changed" if details else "unchanged", details=details)


_NOT_COMPARED: Final = ("id", "schedules", "created", "updated")


def _differences(before: Deployment, after: Deployment) -> Iterator[str]:
    for name in Deployment.__struct_fields__:
        old, new = getattr(before, name), getattr(after, name)
        if name not in _NOT_COMPARED and old != new:
            yield name if isinstance(new, dict) else f"{name}: {old!r} -> {new!r}"
    were = {schedule.slug: schedule for schedule in before.schedules}
    are = {schedule.slug: schedule for schedule in after.schedules}
    for slug in sorted(were.keys() | are.keys()):
        if slug not in are:
            yield f"schedule {slug}: removed"
        elif slug not in were:
            yield f"schedule {slug}: added"
        elif _said(were[slug]) != _said(are[slug]):
            yield f"schedule {slug}: changed"


def _said(schedule: Schedule) -> dict[str, Any]:
    """What somebody wanted of a schedule, without how far it has come."""
    return {name: it for name, it in asdict(schedule).items() if name not in ("id", "last_tick", "next_tick")}


# --- a new one ----------------------------------------------------------------------------------------------

_SKIPPED: Final = frozenset({"node_modules", "site-packages", "build", "dist", "tests", "venv", "env", "__pycache__"})
_MOST_FILES: Final = 2_000
_HEAD: Final = """\
# What `upwell deploy` makes so. Then `upwell worker start --pool default` carries the runs out.
name: {name}

deployments:
"""
_ENTRY: Final = """\
  - name: {name}
    entrypoint: {entrypoint}
    # parameters: {{}}
    # tags: []
    # schedules:
    #   - cron: "0 3 * * *"
    #     timezone: Europe/Berlin
    # concurrency_limit: 1
    work_pool:
      name: default
      type: process
"""
_NONE_FOUND: Final = "  []\n  # " + _ENTRY.format(name="nightly", entrypoint="flows/etl.py:etl")[4:].replace(
    "\n    ", "\n  #   "
)


def init_project(folder: Path | None = None, name: str | None = None) -> Path:
    """Write an `upwell.yaml` with a deployment for each flow that stands at the top of a file of the folder.

    Nothing is imported for that. Returns the file.

    Raises:
        ConfigurationError: there is one already, or it cannot be written.
    """
    folder = (folder or Path.cwd()).resolve()
    file = folder / FILE_NAME
    entries = [_ENTRY.format(name=entrypoint.partition(":")[2].replace("_", "-"), entrypoint=entrypoint)
               for entrypoint in sorted(flows_in(folder))]  # fmt: skip
    text = _HEAD.format(name=msgspec.json.encode(name or folder.name).decode())
    text += "\n".join(entries) if entries else _NONE_FOUND
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(text)
    except FileExistsError:
        raise ConfigurationError(f"{file} is there already.") from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error}.") from error
    return file


def flows_in(folder: Path) -> Iterator[str]:
    """The entry points of the functions that are decorated with `@flow`, read from the files' text."""
    for number, path in enumerate(_python_files(folder)):
        if number >= _MOST_FILES:
            return
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(map(_is_flow, node.decorator_list)):
                yield f"{path.relative_to(folder).as_posix()}:{node.name}"


def _python_files(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(it for it in folders if it not in _SKIPPED and not it.startswith("."))
        folders[:] = [it for it in folders if not (Path(place) / it / "pyvenv.cfg").exists()]
        yield from (Path(place) / it for it in sorted(files) if it.endswith(".py"))


def _is_flow(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (isinstance(called, ast.Name) and called.id == "flow") or (
        isinstance(called, ast.Attribute) and called.attr == "flow"
    )


__all__ = ["Change", "Project", "apply_project", "find_project", "flows_in", "init_project", "load_project"]
