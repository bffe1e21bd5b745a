"""Settings become parts: which database a URL names."""

from __future__ import annotations

from pathlib import Path

import pytest

from upwell.composition import make_database, sqlite_file
from upwell.core.errors import ConfigurationError
from upwell.settings import Settings


@pytest.mark.parametrize(
    "url", ["mysql://host/name", "sqlite://file.db", "sqlite+aiosqlite:///file.db", "postgresql+asyncpg://host/name"]
)
def test_a_database_of_a_kind_that_is_not_known_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"must be sqlite:///path/to/file\.db or postgresql://"):
        make_database(Settings(database_url=url))


@pytest.mark.parametrize("url", ["sqlite:///:memory:", ":memory:", "sqlite:///", "sqlite:////var/lib/upwell/"])
def test_a_url_that_names_no_file_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"names no file.*UPWELL_JOURNAL=memory"):
        make_database(Settings(database_url=url))


def test_a_file_may_be_named_by_its_path_alone() -> None:
    for url in ("sqlite:////var/lib/my.db", "/var/lib/my.db"):
        assert sqlite_file(Settings(database_url=url)) == Path("/var/lib/my.db")
    assert sqlite_file(Settings(home="/var/lib/upwell")) == Path("/var/lib/upwell/upwell.db")
    assert sqlite_file(Settings(database_url="postgresql://user@host/name")) is None
