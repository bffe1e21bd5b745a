"""`upwell config`: what is set, where, and to what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Struct

from upwell.cli.group import examples, group
from upwell.cli.output import UsageError, note, say, show
from upwell.settings import Settings, check_value, current, said_by_sources, variable_of

if TYPE_CHECKING:
    from cyclopts import Parameter

    from upwell.cli.options import Output
    from upwell.cli.profiles_file import ProfilesFile

app = group(
    "config",
    "upwell config view",
    "upwell config view --show-defaults -o json",
    "upwell config set logging_level=DEBUG",
    "upwell config set api_key=-",
    "upwell config unset UPWELL_LOGGING_LEVEL",
    more="A setting goes by its name, logging_level or UPWELL_LOGGING_LEVEL. Of the places that set it the first "
    "counts: the environment, .env, upwell.toml, [tool.upwell] in pyproject.toml, the profile.",
)


class Shown(Struct, frozen=True, kw_only=True):
    """One setting. source: where its value comes from."""

    setting: str
    value: Any
    source: str


@app.command
def view(
    *,
    show_defaults: bool = False,
    show_secrets: bool = False,
    output: Output = "table",
) -> None:
    """Show what is set, and where each value comes from.

    Args:
        show_defaults: What is not set anywhere, too.
        show_secrets: Keys and passwords as they are.
    """
    said = said_by_sources()
    shown: list[Shown] = []
    for field in Settings.__struct_fields__:
        if field in said:
            value, source = said[field].value, said[field].source
        elif show_defaults:
            value, source = getattr(Settings(), field), "default"
        else:
            continue
        value = value if show_secrets else without_secrets(field, value)
        shown.append(Shown(setting=variable_of(field), value=value, source=source))
    show(
        shown,
        [("setting", lambda it: it.setting), ("value", lambda it: it.value), ("from", lambda it: it.source)],
        output,
        none="Nothing is set: everything is as it is by default. `upwell config view --show-defaults` shows that.",
    )


@app.command
def validate() -> None:
    """Check what is set. Exits with 1, and says what is wrong, if something is."""
    current()
    unknown = [item for field, item in said_by_sources().items() if field not in Settings.__struct_fields__]
    for item in unknown:
        note(f"{item.where} is not a setting of upwell, and has no effect.")
    say("The settings can be used." if not unknown else "All other settings can be used.")


@app.command(
    name="set",
    epilogue=examples(
        "upwell config set api_url=http://127.0.0.1:4200/api",
        "upwell config set --profile production UPWELL_LOGGING_LEVEL=WARNING",
    ),
)
def set_(
    settings: Annotated[list[str], Parameter(help="NAME=VALUE; several may be given.")],
    /,
    *,
    profile: str | None = None,
) -> None:
    """Set settings in a profile.

    Args:
        profile: The profile; the one in use unless said.
    """
    file, name = _to_change(profile)
    for item in settings:
        setting, is_one, text = item.partition("=")
        if not is_one or not text.strip():
            raise UsageError(f"{item!r} must be NAME=VALUE; `upwell config unset {setting}` sets nothing any more.")
        field = field_of(setting)
        value = _asked_for(field) if text.strip() == "-" else text.strip()
        if value == text.strip() and field.endswith("_key"):
            note(f"Others on this machine may see a command's words: `upwell config set {setting}=-` asks for the key.")
        check_value(field, value)
        file.set(name, variable_of(field), value)
    file.save()
    for item in settings:
        field = field_of(item.partition("=")[0])
        say(f"{variable_of(field)} is set in the profile {name}.")
        _say_if_hidden(field, name)


@app.command
def unset(
    settings: Annotated[list[str], Parameter(help="Names of settings.")],
    /,
    *,
    profile: str | None = None,
) -> None:
    """Have a profile say nothing about settings any more.

    Args:
        profile: The profile; the one in use unless said.
    """
    file, name = _to_change(profile)
    for setting in settings:
        field = setting.strip().lower().removeprefix("upwell_")  # one that is no setting can be unset, too
        found = file.unset(name, variable_of(field))
        say(f"{variable_of(field)} {'is no longer set' if found else 'was not set'} in the profile {name}.")
    file.save()


def field_of(setting: str) -> str:
    """The field of a setting that goes by `logging_level` or `UPWELL_LOGGING_LEVEL`."""
    return setting.strip().lower().removeprefix("upwell_")


def without_secrets(field: str, value: Any) -> Any:
    """The value as anybody may see it."""
    if value is None:
        return None
    if field.endswith("api_key"):
        return "********"
    if field == "database_url":
        from urllib.parse import urlsplit

        parts = urlsplit(str(value))
        if parts.password:
            return str(value).replace(f":{parts.password}@", ":********@", 1)
    return value


def _to_change(profile: str | None) -> tuple[ProfilesFile, str]:
    """The file of profiles, and which of them is meant.

    Raises:
        NotFoundError: there is none of this name.
    """
    from upwell.cli.profiles_file import ProfilesFile  # here: who looks does without

    file = ProfilesFile()
    name = profile or file.in_use
    file.check_there(name)
    return file, name


def _asked_for(field: str) -> str:
    """A value that is not on the command line: typed unseen, or the first line of the input."""
    import getpass
    import sys

    text = getpass.getpass(f"{variable_of(field)}: ") if sys.stdin.isatty() else sys.stdin.readline()
    if not text.strip():
        raise UsageError(f"No value of {variable_of(field)} was given.")
    return text.strip()


def _say_if_hidden(field: str, name: str) -> None:
    found = said_by_sources().get(field)
    if found is not None and not found.source.startswith("profile"):
        note(f"It has no effect now: {found.where} comes before the profile {name}.")
