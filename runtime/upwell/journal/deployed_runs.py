"""The runs of deployments: made with a job each, their parameters checked, and taken back if they have not begun."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

import msgspec

from upwell.core.deployments import Deployment
from upwell.core.errors import InvalidRequestError, MissingExtraError
from upwell.core.names import run_name
from upwell.core.shown import HIDDEN, is_secret, shown_parameters
from upwell.journal.control_part import add_states, at, firsts, ids_json, json_of, new_id
from upwell.journal.database import Session

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

MOST_PARAMETERS: Final = 512 * 1024
"""Characters of the parameters of one run, as JSON."""

MOST_FAULTS: Final = 20
"""That are told of at once."""

MOST_SAID: Final = 300
"""Characters of each."""


class NewRun(NamedTuple):
    """A run that is to be. due, latest: in microseconds. Its other fields are those of RunSpec."""

    due: int
    parameters: dict[str, Any]
    latest: int | None = None
    schedule_slug: str | None = None
    name: str | None = None
    tags: tuple[str, ...] = ()
    idempotency_key: str | None = None
    priority: int = 0
    work_queue: str | None = None
    job_variables: Mapping[str, Any] | None = None
    parent_flow_run_id: UUID | None = None
    parent_task_run_id: UUID | None = None
    root_flow_run_id: UUID | None = None


async def put_runs(session: Session, deployment: Deployment, runs: Sequence[NewRun], now: int) -> list[str]:
    """Make these runs, but for those whose idempotency key has one; the ids of the others. The deployment is locked."""
    ids = sorted(new_id() for _ in runs)  # so that runs which are listed by age, and are of one age, are in their order
    made = dict(zip(ids, sorted(runs, key=lambda run: run.due), strict=True))
    if not made:
        return []
    await session.insert("put_deployed_runs", [_flow_run_row(one, deployment, run, now) for one, run in made.items()])
    there = firsts(await session.fetch("those_there", ids=ids_json(made)))
    await session.insert("put_jobs", [_job_row(one, deployment, made[one], now) for one in there])
    await add_states(session, [(one, now, "SCHEDULED", None, _message(made[one], now)) for one in there])
    return there


def _message(run: NewRun, now: int) -> str:
    return f"To begin at {at(run.due)}." if run.due > now else "To begin as soon as somebody takes it."


def _flow_run_row(identity: str, deployment: Deployment, run: NewRun, now: int) -> tuple[Any, ...]:
    tags = sorted({*deployment.tags, *run.tags})
    return (
        identity, deployment.flow_name, run.name or run_name(random.getrandbits(32)), deployment.version,
        _message(run, now), now, run.due, json_of(tags) if tags else None,
        json_of(_for_people(run.parameters, deployment.parameter_schema)) if run.parameters else None,
        _text(run.parent_flow_run_id), _text(run.parent_task_run_id),
        _text(run.root_flow_run_id) or _text(run.parent_flow_run_id) or identity,
        str(deployment.id), run.idempotency_key, deployment.entrypoint,
    )  # fmt: skip  # one line a few columns


def _job_row(identity: str, deployment: Deployment, run: NewRun, now: int) -> tuple[Any, ...]:
    return (
        identity, str(deployment.id), run.schedule_slug, run.due, run.latest, max(run.due, now), run.priority,
        deployment.work_pool,
        run.work_queue or deployment.work_queue, checked_json(run.parameters),
        json_of({**deployment.job_variables, **(run.job_variables or {})}),
    )  # fmt: skip  # one line a few columns


def _text(identity: UUID | None) -> str | None:
    return None if identity is None else str(identity)


async def take_back(session: Session, flow_run_ids: Sequence[str]) -> None:
    """Let runs that have not begun never have been; their jobs are locked."""
    if flow_run_ids:
        ids = ids_json(flow_run_ids)
        for query in ("take_back_jobs", "take_back_flow_run_states", "take_back_flow_runs"):
            await session.fetch(query, ids=ids)


# --- parameters ---------------------------------------------------------------------------------------------


def checked_json(parameters: Mapping[str, Any]) -> str:
    """Parameters as they are stored.

    Raises:
        InvalidRequestError: they cannot be said in JSON, or are too large.
    """
    text = json_of(parameters)
    if len(text) > MOST_PARAMETERS:
        raise InvalidRequestError(
            f"The parameters have {len(text):,} characters as JSON, and may have {MOST_PARAMETERS:,}: store what is "
            "large elsewhere, and give its address."
        )
    return text


def check_parameters(parameters: Mapping[str, Any], schema: Mapping[str, Any], *, partly: bool = False) -> None:
    """Whether these fit the schema. partly: others may be given later.

    Raises:
        InvalidRequestError: they do not; names each that does not.
    """
    value = msgspec.json.decode(checked_json(parameters))
    try:
        msgspec.msgpack.encode(value)  # as they go from process to process
    except OverflowError:
        raise InvalidRequestError(
            "The parameters hold a whole number that does not fit in 64 bits: give it as text."
        ) from None
    if not schema:
        return
    rules = {key: rule for key, rule in schema.items() if not (partly and key == "required")}
    validator = _validator(rules)
    try:
        faults = sorted(validator.iter_errors(value), key=lambda fault: [str(part) for part in fault.path])
    except Exception as error:  # of many types: a reference that leads nowhere, a pattern that is none
        raise InvalidRequestError(f"The schema of the parameters cannot be followed: {error}.") from error
    if faults:
        said = "; ".join(_said(fault) for fault in faults[:MOST_FAULTS])
        raise InvalidRequestError(f"The parameters do not fit: {said}.")


def check_schema(schema: Mapping[str, Any]) -> None:
    """Whether it is a JSON schema.

    Raises:
        InvalidRequestError: it is none.
    """
    checked_json(schema)
    if schema:
        _validator(schema)


def _validator(schema: Mapping[str, Any]) -> Any:
    try:
        from jsonschema import Draft202012Validator, FormatChecker  # here: few programs have deployments
        from jsonschema.exceptions import SchemaError
        from referencing import Registry
    except ImportError as error:
        raise MissingExtraError(
            "Parameters are checked by jsonschema, which is not installed: pip install 'upwell[server]'."
        ) from error
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise InvalidRequestError(f"The schema of the parameters is no JSON schema: {error.message}.") from error
    formats = FormatChecker(())
    for name, reads in _FORMATS.items():
        formats.checks(name, raises=ValueError)(reads)
    return Draft202012Validator(schema, registry=Registry(), format_checker=formats)  # which fetches nothing


def _is_moment(value: object) -> bool:
    """Whether a text is a date, with a time or without: which of both it must be, the flow knows better.

    Raises:
        ValueError: it is none.
    """
    return not isinstance(value, str) or bool(dt.datetime.fromisoformat(value))


def _is_uuid(value: object) -> bool:
    """The same of ids."""
    return not isinstance(value, str) or bool(UUID(value))


_FORMATS: Final[dict[str, Callable[[object], bool]]] = {
    "date": _is_moment,
    "date-time": _is_moment,
    "uuid": _is_uuid,
}
"""Those that a mistake is likely in; others let anything through."""


def _said(fault: ValidationError) -> str:
    path = [str(part) for part in fault.path]
    rule = fault.schema
    hidden = any(map(is_secret, path)) or (isinstance(rule, Mapping) and rule.get("format") == "password")
    said = "it is not as it must be" if hidden else fault.message[:MOST_SAID]
    return f"{'.'.join(path)}: {said}" if path else said


def _for_people(parameters: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, str]:
    """What is shown of them: bounded, secrets left out."""
    shown = shown_parameters(parameters)
    for name in shown:
        if _is_hidden(schema, name):
            shown[name] = HIDDEN
    return shown


def _is_hidden(schema: Any, name: str) -> bool:
    """Whether the schema says that this is a secret; nobody has checked what is in a schema."""
    try:
        rule = schema["properties"][name]
        return bool(rule.get("format") == "password" or rule.get("writeOnly"))
    except (KeyError, TypeError, AttributeError):
        return False
