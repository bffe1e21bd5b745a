"""Where settings come from: the environment, `.env`, `upwell.toml`, `pyproject.toml`, and profiles, in this order.

Files are looked for in the current folder; one that is not there costs a look. In TOML a setting goes by its name, in
tables or without: `logging_level = "DEBUG"`, or `level = "DEBUG"` in `[logging]`, or `UPWELL_LOGGING_LEVEL = "DEBUG"`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from msgspec import Struct

from upwell.core.errors import ConfigurationError

PREFIX: Final = "UPWELL_"
DEFAULT_PROFILE: Final = "default"


class Given(Struct, frozen=True):
    """One value that a source gives.

    where: what people know it by, for messages (`UPWELL_PROGRESS`). source: which source that is (`.env`).
    """

    field: str
    value: Any
    where: str
    source: str = "environment"


Source = Callable[[Mapping[str, Given]], Iterable[Given]]
"""What a source gives, told what those before it gave, by field."""


def environment(_: Mapping[str, Given]) -> Iterator[Given]:
    """The variables of this process that begin with `UPWELL_`; an empty one counts as not set."""
    yield from _variables(os.environ, "", "environment")


def env_file(_: Mapping[str, Given]) -> Iterator[Given]:
    """`.env`: lines `UPWELL_LOGGING_LEVEL=DEBUG`; what is not upwell's is left alone."""
    text = _text_of(".env")
    if text is not None and PREFIX in text:
        yield from _variables(dict(_assignments(text)), " in .env", ".env")


def upwell_toml(_: Mapping[str, Given]) -> Iterator[Given]:
    """`upwell.toml`: the settings of a project."""
    text = _text_of("upwell.toml")
    if text is not None:
        yield from _tables(_parsed(text, "upwell.toml"), "upwell.toml")


def pyproject(_: Mapping[str, Given]) -> Iterator[Given]:
    """`[tool.upwell]` in `pyproject.toml`."""
    text = _text_of("pyproject.toml")
    if text is not None and "tool.upwell" in text:
        tools: Any = _parsed(text, "pyproject.toml").get("tool", {})
        yield from _tables(tools.get("upwell", {}), "pyproject.toml")


def profile(before: Mapping[str, Given]) -> Iterator[Given]:
    """The profile that is in use, of those in `profiles.toml` in `UPWELL_HOME`.

    Raises:
        ConfigurationError: there is no profile of the name that is wanted.
    """
    home = before.get("home")
    try:
        path = profiles_file(str(home.value) if home else None)
        profiles = Profiles.read(path)
    except PermissionError:  # it is not ours: the journal says so
        return
    wanted = before.get("profile")
    name = str(wanted.value) if wanted else profiles.active
    if name in profiles.settings:
        yield from _tables(profiles.settings[name], f"profile {name}", _PROFILES)
    elif wanted and name != DEFAULT_PROFILE:
        raise ConfigurationError(
            f"{wanted.where} is {name!r}, and {path} has no such profile. It has: "
            f"{', '.join(sorted(profiles.settings)) or 'none'}. `upwell profile create {name}` makes it."
        )


_PROFILES: Final = "profiles.toml"

SOURCES: Final[list[Source]] = [environment, env_file, upwell_toml, pyproject, profile]
"""Where settings come from; what an earlier source gives, a later one cannot change."""


def given_by(sources: Iterable[Source]) -> dict[str, Given]:
    """What all sources say together, by field.

    Raises:
        ConfigurationError: a file cannot be read.
    """
    given: dict[str, Given] = {}
    for source in sources:
        try:
            for item in list(source(given)):
                given.setdefault(item.field, item)
        except OSError as error:
            raise ConfigurationError(f"The settings cannot be read: {error}.") from error
    return given


# --- profiles -----------------------------------------------------------------------------------------------


class Profiles(NamedTuple):
    """Sets of settings, by name. active: the one in use where nobody says another (`UPWELL_PROFILE`)."""

    active: str
    settings: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Profiles:
        """Those of this file; none if it is not there.

        Raises:
            ConfigurationError: it cannot be understood. PermissionError: it may not be read.
        """
        text = _text_of(path)
        if text is None:
            return cls(DEFAULT_PROFILE, {})
        content = _parsed(text, str(path))
        profiles = content.get("profiles", {})
        if not isinstance(profiles, dict) or not all(isinstance(it, dict) for it in profiles.values()):  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
            raise ConfigurationError(f"{path} must hold a table for each profile, such as [profiles.default].")
        return cls(str(content.get("active", DEFAULT_PROFILE)), profiles)  # pyright: ignore[reportUnknownArgumentType]  # checked above


def profiles_file(home: str | None) -> str:
    """Where profiles are kept."""
    return os.path.join(os.path.expanduser(home or "~/.upwell"), _PROFILES)


# --- reading ------------------------------------------------------------------------------------------------


def _variables(values: Mapping[str, str], suffix: str, source: str) -> Iterator[Given]:
    for variable, text in values.items():
        if variable.startswith(PREFIX) and text.strip():
            yield Given(variable.removeprefix(PREFIX).lower(), text.strip(), variable + suffix, source)


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    """The lines `name=value` of a `.env`: quotes around a value, `export` before a name, and comments fall away."""
    for line in text.splitlines():
        name, is_one, value = line.strip().partition("=")
        if is_one and not name.startswith("#"):
            value = value.strip()
            bare = value[1:].partition(value[0])[0] if value[:1] in ("'", '"') else value.partition(" #")[0]
            yield name.removeprefix("export ").strip(), bare


def _tables(content: Mapping[str, Any], source: str, file: str | None = None) -> Iterator[Given]:
    for name, value in _flat(content):
        field = name.lower().removeprefix(PREFIX.lower())
        yield Given(field, value, f"{name} in {source}" + (f" ({file})" if file else ""), source)


def _flat(content: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}_")  # pyright: ignore[reportUnknownArgumentType]  # any table
        else:
            yield before + name, value


def _text_of(path: str | os.PathLike[str]) -> str | None:
    """The text of a file; None if there is none. What is no UTF-8 in it is replaced: it may not be ours to judge."""
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:  # pathlib takes longer to load than all this
            return file.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _parsed(text: str, name: str) -> dict[str, Any]:
    import tomllib  # here: most programs have no such file

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{name} is no valid TOML: {error}.") from error
