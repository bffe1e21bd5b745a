"""What can be set from outside of the code: every setting, its default, and where values come from.

Each setting is a field of `Settings`, and the variable `UPWELL_` with the field's name in capitals sets it:
`UPWELL_LOGGING_LEVEL=DEBUG` is `logging_level="DEBUG"`. Files and profiles set it, too (`settings_sources.py`). Nothing
is read before something asks for it.
"""
# The annotations below are read at run time, to check values and to explain them.

import logging
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Annotated, Any, Final, Literal, TypeAlias

from msgspec import Meta, Struct, ValidationError, convert
from msgspec.structs import asdict

from upwell.core.errors import ConfigurationError
from upwell.settings_sources import PREFIX, SOURCES, Given, given_by

MOST_SECONDS: Final = 315_360_000
"""The longest delay that can be set: ten years, in seconds."""

_Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=MOST_SECONDS)]
_Whole: TypeAlias = Annotated[int, Meta(ge=0)]
_Positive: TypeAlias = Annotated[int, Meta(ge=1)]

Level: TypeAlias = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"],
    Meta(description="DEBUG, INFO, WARNING, ERROR or CRITICAL"),
]
Names: TypeAlias = Annotated[tuple[str, ...], Meta(description="names with commas between them")]
Switch: TypeAlias = Annotated[bool, Meta(description="true or false")]
OptionalSwitch: TypeAlias = Annotated[bool | None, Meta(description="true or false")]
Count: TypeAlias = Annotated[_Whole, Meta(description="a whole number, 0 or more")]
OptionalCount: TypeAlias = Annotated[_Whole | None, Meta(description="a whole number, 0 or more")]
Size: TypeAlias = Annotated[_Positive, Meta(description="a whole number, 1 or more")]
OptionalSize: TypeAlias = Annotated[_Positive | None, Meta(description="a whole number, 1 or more")]
Delay: TypeAlias = Annotated[_Seconds, Meta(description="a number of seconds, 0 or more")]
Delays: TypeAlias = Annotated[
    _Seconds | tuple[_Seconds, ...],
    Meta(description="a number of seconds, 0 or more, or several with commas between them"),
]
OptionalName: TypeAlias = Annotated[str | None, Meta(description="the name of an installed task runner")]
OptionalProfile: TypeAlias = Annotated[str | None, Meta(description="the name of a profile")]
OptionalPath: TypeAlias = Annotated[str | None, Meta(description="a folder")]
SerializerName: TypeAlias = Annotated[str, Meta(description="the name of a serializer, such as msgpack or json")]
OptionalUrl: TypeAlias = Annotated[str | None, Meta(description="sqlite:///path or postgresql://user@host/name")]
_Url: TypeAlias = Annotated[str, Meta(pattern=r"^https?://[^/]")]
ApiUrl: TypeAlias = Annotated[_Url | None, Meta(description="like http://127.0.0.1:4200/api")]
ApiKey: TypeAlias = Annotated[str | None, Meta(description="an API key")]
Address: TypeAlias = Annotated[str, Meta(description="an address or a host's name")]
Port: TypeAlias = Annotated[int, Meta(ge=0, le=65_535, description="a port, 0 to 65535")]
JournalMode: TypeAlias = Annotated[Literal["on", "memory", "off"], Meta(description="on, memory or off")]
Synchronous: TypeAlias = Annotated[Literal["NORMAL", "FULL"], Meta(description="NORMAL or FULL")]
Lease: TypeAlias = Annotated[float, Meta(ge=1, le=MOST_SECONDS, description="a number of seconds, 1 or more")]


class Settings(Struct, frozen=True, kw_only=True):
    """Every setting, with its default. `current()` gives those in force."""

    logging_level: Level = "INFO"
    """The least severe log lines of upwell and its runs that are shown."""

    logging_extra_loggers: Names = ()
    """Loggers of other libraries that are shown on the console too, with the run that they speak for."""

    logging_colors: OptionalSwitch = None
    """Colours on the console; unless said: on a terminal that has them, and where NO_COLOR is not set."""

    logging_log_prints: Switch = False
    """Whether `print` goes to the log of a run where neither it nor one around it says so (`log_prints`)."""

    task_default_retries: Count = 0
    """How often a failed task run is tried again if its task does not say; read at decoration."""

    task_default_retry_delay_seconds: Delays = 0.0
    """Seconds before each retry of a task run (the last one repeats) if its task does not say."""

    flow_default_retries: Count = 0
    """How often a failed flow run is tried again if its flow does not say; read at decoration."""

    flow_default_retry_delay_seconds: Delay = 0.0
    """Seconds before each retry of a flow run if its flow does not say."""

    task_default_task_runner: OptionalName = None
    """The task runner where neither the task, the flow nor the runtime says one; unless set, `concurrent`."""

    tasks_runner_thread_pool_max_workers: OptionalSize = None
    """How many threads a pool of threads has at most; unless said, the runner's own default."""

    tasks_runner_process_pool_max_workers: OptionalSize = None
    """How many processes a pool of processes has at most; unless said, one for each processor."""

    progress: OptionalSwitch = None
    """A progress bar for each map and stream that does not say; unless set, only where `progress=True`."""

    gc_threshold: OptionalCount = None
    """Python's garbage collector looks at young objects after so many new ones while a runtime that owns its
    process is at work, and as before afterwards; a higher number is faster for very many runs and takes more
    memory. Unless set, the collector is left alone."""

    profile: OptionalProfile = None
    """The profile to use, of those in `profiles.toml` in `UPWELL_HOME`; unless set, the active one there."""

    home: OptionalPath = None
    """Where upwell keeps what it keeps: the database, stored results, what is spooled. Unless set, `~/.upwell`."""

    database_url: OptionalUrl = None
    """The database of the journal: `sqlite:///path/to/file.db` or `postgresql://user@host/name`. Unless set, the file
    `upwell.db` in `UPWELL_HOME`."""

    journal: JournalMode = "on"
    """Whether what runs is recorded: `on`; `memory`, gone with the process; or `off`, which records nothing."""

    journal_flush_seconds: Delay = 0.05
    """How long something that has happened may wait to be written; the end of a flow does not wait, nor do thousands of
    task runs."""

    database_synchronous: Synchronous = "NORMAL"
    """What a SQLite file survives: `NORMAL` the death of the process, `FULL` a loss of power too."""

    durable_resume: Switch = True
    """Whether calling a durable flow goes on with a run of the very same call whose process has died, if there is one;
    else it is a new run, and `upwell.resume` goes on with the old one."""

    durable_max_crashes: Size = 5
    """How often a durable flow run may crash before it is not resumed by itself any more, and ends Crashed."""

    lease_seconds: Lease = 30.0
    """A process that gives no sign of life for so long is taken to be dead, and its runs crashed; where it can be
    seen that it is there, or is not, that counts instead."""

    results_persist_by_default: Switch = False
    """Whether results are stored where neither the task nor a flow around says so (`persist_result`)."""

    results_default_serializer: SerializerName = "msgpack"
    """What turns results into bytes where nobody says (`result_serializer`)."""

    results_local_storage_path: OptionalPath = None
    """The folder of results that are too large for the database. Unless set, `results` in `UPWELL_HOME`."""

    tasks_refresh_cache: Switch = False
    """Whether cached results are computed anew where the task does not say (`refresh_cache`)."""

    tasks_default_no_cache: Switch = False
    """Whether tasks whose results are persisted, and that name no cache policy, are not cached."""

    retention_days: OptionalCount = 30
    """How long finished runs are kept in the journal; 0 is for ever. Of the three limits the one met first counts;
    what has not finished is never removed."""

    retention_rows: OptionalCount = 5_000_000
    """How many task runs are kept in the journal, the newest; 0 is any number."""

    retention_bytes: OptionalCount = 4 * 1024**3
    """How large the journal's database may grow before the oldest finished runs are removed; 0 is any size."""

    retention_audit_days: OptionalCount = 365
    """How long is kept who changed what; 0 is for ever."""

    api_url: ApiUrl = None
    """The server to work through, such as `http://127.0.0.1:4200/api`; unless set, the store is used directly."""

    api_key: ApiKey = None
    """The key to that server."""

    server_host: Address = "127.0.0.1"
    """The address that a server answers on. Any but a loopback one needs an API key to exist."""

    server_port: Port = 4200
    """The port that a server answers on."""

    server_hosts: Names = ()
    """Names that a server is reached by, beside its address: what requests may name as their Host."""

    server_require_key: OptionalSwitch = None
    """Whether a server on a loopback address asks for a key, too; unless set, once an API key has ever been made."""

    worker_pull: Switch = True
    """Whether workers carry out the pull steps of deployments, which fetch code, and run it, from where they say."""

    late_seconds: Delay = 15.0
    """How long after its time a scheduled run that has not begun is called Late."""


def current() -> Settings:
    """The settings in force; read once, when first asked for.

    Raises:
        ConfigurationError: a value cannot be used; names all that cannot, and what is allowed.
    """
    return _current if _current is not None else _read_once()


get_current_settings = current
"""The name that Prefect's users know."""


@contextmanager
def temporary_settings(**updates: Any) -> Generator[Settings]:
    """Change settings while the code inside runs, for the whole process: `temporary_settings(progress=True)`.

    Raises:
        ConfigurationError: an unknown setting, or a value that cannot be used.
    """
    global _current
    before = current()
    unknown = [name for name in updates if name not in Settings.__struct_fields__]
    if unknown:
        raise ConfigurationError(_unknown(unknown[0], unknown[0], str))
    given = [Given(name, value, name) for name, value in updates.items()]
    changed = _checked(given, asdict(before), strict=True)
    _current = changed
    try:
        yield changed
    finally:
        _current = before


def said_by_sources() -> dict[str, Given]:
    """What each field that is set somewhere is set to, as it is written there, and where; by field. Reads anew.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    return given_by(SOURCES)


def check_value(field: str, text: str) -> Any:
    """The value of this setting that a text means.

    Raises:
        ConfigurationError: no such setting, or not a value of it.
    """
    if field not in Settings.__struct_fields__:
        raise ConfigurationError(_unknown(field, variable_of(field), variable_of))
    return getattr(_checked([Given(field, text, variable_of(field))], {}, strict=False), field)


def variable_of(field: str) -> str:
    """The environment variable that sets this field."""
    return PREFIX + field.upper()


def page_of_flow_run(flow_run_id: object) -> str | None:
    """The address at which people can look at a flow run; None where no server is known."""
    server = current().api_url
    return None if server is None else f"{server.rstrip('/').removesuffix('/api')}/runs/{flow_run_id}"


# --- reading ------------------------------------------------------------------------------------------------

_current: Settings | None = None
_reading = threading.Lock()
_logger = logging.getLogger("upwell.settings")


def _read_once() -> Settings:
    global _current
    with _reading:
        if _current is None:
            given = given_by(SOURCES)
            known = [item for item in given.values() if item.field in Settings.__struct_fields__]
            _current = _checked(known, {}, strict=False)
            _report_unknown(item for item in given.values() if item.field not in Settings.__struct_fields__)
        return _current


def _checked(given: Iterable[Given], others: dict[str, Any], *, strict: bool) -> Settings:
    values, faults = dict(others), list[str]()
    for item in given:
        value = item.value if strict else _as_written(item.field, item.value)
        try:
            checked = convert({item.field: value}, Settings, strict=strict)
        except ValidationError:
            allowed = Settings.__annotations__[item.field].__metadata__[-1].description
            faults.append(f"{item.where} is {item.value!r}, and must be {allowed}.")
        else:
            values[item.field] = getattr(checked, item.field)
    if faults:
        raise ConfigurationError(" ".join(faults))
    for field in _PATHS & values.keys():
        values[field] = _absolute(values[field])
    return Settings(**values)


_PATHS: Final = frozenset({"home", "results_local_storage_path", "database_url"})


def _absolute(path: str | None) -> str | None:
    """A path, or the URL of a SQLite file, as it is to be understood wherever the program goes later."""
    start = "sqlite:///" if path is not None and path.startswith("sqlite:///") else ""
    if path is None or (not start and "://" in path):
        return path
    import os  # as elsewhere: here most programs say none

    return start + os.path.abspath(os.path.expanduser(path.removeprefix(start)))


_WORDS: Final = {"yes": "true", "on": "true", "no": "false", "off": "false", "none": "null"}


def _as_written(field: str, value: Any) -> Any:
    """A text as people write it, in the form in which it is checked."""
    if not isinstance(value, str):
        return value
    kind = Settings.__annotations__[field]
    if kind is Level:
        return value.upper()
    if kind is Names or (kind is Delays and "," in value):
        return [part.strip() for part in value.strip("[]() ").split(",") if part.strip()]
    if kind is JournalMode:
        return value.lower()
    if kind is Synchronous:
        return value.upper()
    if kind in (Switch, OptionalSwitch):
        return _WORDS.get(value.lower(), value)
    return value


_READ_ELSEWHERE: Final = frozenset({"crash_at", "job"})
"""What `upwell.testing` and `upwell.runtime` read."""


def _report_unknown(unknown: Iterable[Given]) -> None:
    for item in unknown:
        if item.field in _READ_ELSEWHERE:
            continue
        import multiprocessing  # only now: few have a variable that nobody knows

        if multiprocessing.parent_process() is None:  # a worker's parent has said it already
            _logger.warning("%s", _unknown(item.field, item.where, variable_of))


def _unknown(field: str, where: str, shown: Callable[[str], str]) -> str:
    import difflib

    near = difflib.get_close_matches(field, Settings.__struct_fields__, n=1, cutoff=0.5)
    hint = f" Did you mean {shown(near[0])}?" if near else ""
    return f"{where} is not a setting of upwell, and has no effect.{hint}"
