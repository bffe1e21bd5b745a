"""Changes `profiles.toml`; what people have written beside it stays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit import TOMLDocument

from upwell.core.errors import ConfigurationError, ConflictError, NotFoundError
from upwell.settings_sources import DEFAULT_PROFILE, SOURCES, Profiles, given_by, profile, profiles_file


def profiles_path() -> Path:
    """Where profiles are kept; what a profile itself says about that does not count."""
    home = given_by(source for source in SOURCES if source is not profile).get("home")
    return Path(profiles_file(str(home.value) if home else None))


class ProfilesFile:
    """The profiles, to be changed; `save` writes them."""

    def __init__(self) -> None:
        self.path = profiles_path()
        self.before = Profiles.read(self.path)  # says what is wrong with it, if anything is
        self._document: TOMLDocument = (
            tomlkit.parse(self.path.read_text()) if self.path.exists() else tomlkit.document()
        )

    @property
    def active(self) -> str:
        """The one in use where nobody says another."""
        return self.before.active

    @property
    def in_use(self) -> str:
        """The one in use now."""
        wanted = given_by(source for source in SOURCES if source is not profile).get("profile")
        return str(wanted.value) if wanted else self.active

    @property
    def profiles(self) -> dict[str, dict[str, Any]]:
        """The settings of each, by name. The default one is always there."""
        return {DEFAULT_PROFILE: {}} | self.before.settings

    def check_there(self, name: str) -> None:
        """Raises NotFoundError if there is no such profile."""
        if name not in self.profiles:
            raise NotFoundError(f"There is no profile {name!r}; there are: {', '.join(sorted(self.profiles))}.")

    def create(self, name: str, settings: dict[str, Any]) -> None:
        """Add a profile.

        Raises:
            ConflictError: there is one of that name. ConfigurationError: that is no name.
        """
        if name in self.profiles and (name != DEFAULT_PROFILE or name in self.before.settings):
            raise ConflictError(f"There is a profile {name!r} already.")
        if not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise ConfigurationError(f"{name!r} is no name for a profile: letters, digits, `-`, `_` and `.` are.")
        table = tomlkit.table()
        for variable, value in settings.items():
            table.add(variable, value)
        self._tables()[name] = table

    def delete(self, name: str) -> None:
        """Remove a profile.

        Raises:
            ConflictError: it is the active one. NotFoundError: there is none.
        """
        self.check_there(name)
        if name == self.active:
            raise ConflictError(f"The profile {name!r} is the active one: `upwell profile use` another one first.")
        self._tables().pop(name, None)

    def rename(self, name: str, new_name: str) -> None:
        """Give a profile another name; an active one stays so."""
        self.check_there(name)
        self.create(new_name, dict(self.profiles[name]))
        self._tables().pop(name, None)
        if self.active == name:
            self.use(new_name)

    def use(self, name: str) -> None:
        """Make it the active one."""
        self._document["active"] = name

    def set(self, name: str, variable: str, value: Any) -> None:
        """Set a setting in a profile, in place of what it says about it by any of its names."""
        self.unset(name, variable)
        if name not in self._tables():
            self.create(name, {})
        self._tables()[name][variable] = value

    def unset(self, name: str, variable: str) -> bool:
        """Have a profile say nothing about a setting; False if it did not."""
        table = self._tables().get(name, {})
        names = [key for key in table if key.upper().removeprefix("UPWELL_") == variable.removeprefix("UPWELL_")]
        for key in names:
            del table[key]
        return bool(names)

    def save(self) -> None:
        """Write it, for its owner only: there may be keys in it."""
        partial = self.path.with_name(f"{self.path.name}.{os.getpid()}.partial")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
                file.write(tomlkit.dumps(self._document))
            partial.replace(self.path)
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be written: {error.strerror or error}.") from error
        finally:
            partial.unlink(missing_ok=True)

    def _tables(self) -> Any:
        if "profiles" not in self._document:
            self._document["profiles"] = tomlkit.table(is_super_table=True)
        return self._document["profiles"]
