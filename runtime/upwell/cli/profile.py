"""`upwell profile`: sets of settings, of which one is in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Struct

from upwell.cli.config import without_secrets
from upwell.cli.group import group
from upwell.cli.output import confirm, say, say_json, show
from upwell.cli.profiles_file import ProfilesFile
from upwell.settings import variable_of

if TYPE_CHECKING:
    from cyclopts import Parameter

    from upwell.cli.options import Output, ProfileName, Yes

app = group(
    "profile",
    "upwell profile create production",
    "upwell config set --profile production api_url=https://upwell.example.com/api",
    "upwell profile use production",
    "upwell --profile production flow-run ls",
    more="Profiles are kept in profiles.toml in UPWELL_HOME. UPWELL_PROFILE says which is in use, else the file.",
)


class Profile(Struct, frozen=True, kw_only=True):
    """A profile. active: in use where nobody says another. settings: how many."""

    name: str
    active: bool
    settings: dict[str, Any]


@app.command
def ls(*, output: Output = "table") -> None:
    """List profiles."""
    file = ProfilesFile()
    profiles = [
        Profile(name=name, active=name == file.active, settings=_shown(settings))
        for name, settings in sorted(file.profiles.items())
    ]
    show(
        profiles,
        [
            ("name", lambda it: it.name),
            ("active", lambda it: "active" if it.active else ""),
            ("settings", lambda it: len(it.settings)),
        ],
        output,
    )


@app.command
def inspect(name: str | None = None, /, *, output: Output = "table") -> None:
    """Show what a profile sets.

    Args:
        name: The profile; the one in use unless said.
    """
    file = ProfilesFile()
    wanted = name or file.in_use
    file.check_there(wanted)
    found = _shown(file.profiles[wanted])
    if output == "json":
        say_json(Profile(name=wanted, active=wanted == file.active, settings=found))
        return
    show(
        found.items(),
        [("setting", lambda it: it[0]), ("value", lambda it: it[1])],
        output,
        none=f"The profile {wanted} sets nothing.",
    )


@app.command
def create(name: ProfileName, /, *, from_: str | None = None) -> None:
    """Make a profile.

    Args:
        from_: A profile to copy.
    """
    file = ProfilesFile()
    if from_ is not None:
        file.check_there(from_)
    file.create(name, dict(file.profiles[from_]) if from_ is not None else {})
    file.save()
    say(f"The profile {name} is made. `upwell profile use {name}` uses it.")


@app.command
def use(name: ProfileName, /) -> None:
    """Make a profile the active one."""
    file = ProfilesFile()
    file.check_there(name)
    file.use(name)
    file.save()
    say(f"The profile {name} is the active one.")
    if file.in_use not in (name, file.active):
        say(f"UPWELL_PROFILE is {file.in_use}, and comes before it.")


@app.command
def rename(name: ProfileName, new_name: Annotated[str, Parameter(help="Its new name.")], /) -> None:
    """Give a profile another name."""
    file = ProfilesFile()
    file.rename(name, new_name)
    file.save()
    say(f"The profile {name} is now {new_name}.")


@app.command
def delete(name: ProfileName, /, *, yes: Yes = False) -> None:
    """Delete a profile."""
    file = ProfilesFile()
    file.check_there(name)
    confirm(f"Delete the profile {name}?", yes)
    file.delete(name)
    file.save()
    say(f"The profile {name} is deleted.")


def _shown(settings: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        field = key.lower().removeprefix("upwell_")
        found[variable_of(field)] = without_secrets(field, value)
    return found
