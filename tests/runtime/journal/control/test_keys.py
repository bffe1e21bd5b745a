"""Keys to the API: shown once, found by their digest, never after their end; and the record of changes."""

from __future__ import annotations

import datetime as dt
from uuid import uuid4

import pytest
from tests.runtime.journal.control.conftest import Tell
from tests.runtime.journal.control.worlds import NOON, World

from upwell.core.errors import ConflictError, InvalidRequestError, NotFoundError

pytestmark = pytest.mark.parametrize("make_database", ["sqlite", "postgres"], indirect=True)
"""Not through a server: it keeps the record itself, and asks for a key as soon as there is one."""


def test_a_key_is_known_until_it_is_revoked_or_over(tell: Tell) -> None:
    async def story(world: World) -> None:
        control = world.control
        key, secret = await control.create_key("ci", "run", expires=NOON + dt.timedelta(hours=1))
        assert (key.name, key.scope, key.created, key.last_used) == ("ci", "run", NOON, None)
        assert secret.startswith(key.prefix)
        assert len(secret) > 40
        found = await control.find_key(secret)
        assert found is not None
        assert found.id == key.id
        assert [one.last_used for one in await control.keys()] == [NOON]
        for wrong in (secret[:-1], secret + "x", key.prefix, "", "upw_" + "ä" * 40, "x" * 10_000, str(key.id)):
            assert await control.find_key(wrong) is None
        with pytest.raises(ConflictError, match="revoke it"):
            await control.create_key("ci", "read")
        world.passes(3600)
        assert await control.find_key(secret) is None, "its time is over"
        other, other_secret = await control.create_key("ci", "admin")
        assert (await control.revoke_key(other.id)).revoked == world.now
        assert await control.find_key(other_secret) is None
        assert [one.id for one in await control.keys()] == [key.id, other.id]

    tell(story)


def test_the_key_itself_is_nowhere_in_the_store(tell: Tell) -> None:
    async def story(world: World) -> None:
        _, secret = await world.control.create_key("ci", "admin")
        rows = await world.database.fetch_text("SELECT id, name, scope, prefix, digest FROM api_keys")
        assert secret not in repr(rows)
        assert secret.encode() not in rows[0][4]

    tell(story)


def test_keys_that_cannot_be_are_refused(tell: Tell) -> None:
    async def story(world: World) -> None:
        create = world.control.create_key
        for refused in (
            create("", "read"),
            create("x", "root"),  # type: ignore[arg-type]
            create("x", "read", expires=NOON - dt.timedelta(days=1)),
            create("x", "read", expires=dt.datetime(2030, 1, 1)),
        ):
            with pytest.raises(InvalidRequestError):
                await refused
        with pytest.raises(NotFoundError):
            await world.control.revoke_key(uuid4())

    tell(story)


def test_the_record_of_changes_is_read_newest_first_in_pages(tell: Tell) -> None:
    async def story(world: World) -> None:
        for number in range(5):
            await world.control.audit("ada", "deployment.delete", f"report/{number}", None if number else "x" * 9000)
            world.passes(1)
        first = await world.control.audit_records(limit=3)
        rest = await world.control.audit_records(limit=3, after=first.next)
        assert [record.target for record in (*first, *rest)] == [f"report/{number}" for number in (4, 3, 2, 1, 0)]
        assert rest.next is None
        assert (first.items[0].actor, first.items[0].at) == ("ada", NOON + dt.timedelta(seconds=4))
        assert len(rest.items[-1].detail or "") == 2000

    tell(story)
