"""`upwell api-key`: keys to the server's API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upwell.cli.asking import ACTOR, control
from upwell.cli.group import group
from upwell.cli.listing import first_items
from upwell.cli.output import UsageError, confirm, note, say, say_json, show
from upwell.cli.times import at, now, span
from upwell.core.deployments import Scope
from upwell.core.errors import NotFoundError

if TYPE_CHECKING:
    from upwell.cli.options import Limit, Output, Yes
    from upwell.core.deployments import ApiKey
    from upwell.journal.control import Control

app = group(
    "api-key",
    "upwell api-key create laptop --scope admin",
    "upwell api-key create dashboard --scope read --expires 90d",
    "upwell api-key ls",
    "upwell api-key revoke laptop",
    more="Scopes: read looks; run starts, cancels and writes runs, too; admin changes everything.",
)


@app.command
async def create(name: str, /, *, scope: Scope = "run", expires: str | None = None, output: Output = "table") -> None:
    """Make a key, and print it: it is not kept, and cannot be shown again.

    Args:
        name: What it is called: whose it is, or what for.
        scope: read, run or admin.
        expires: After so long (90d), or at a date.
    """
    until = None if expires is None else at(expires) if "-" in expires else now() + span(expires)
    async with control() as asked:
        key, secret = await asked.create_key(name, scope, until)
        await asked.audit(ACTOR, "create key", name, f"scope {scope}")
    if output == "json":
        say_json({"key": secret, "record": key})
        return
    note(f"The key {name} of scope {scope}; keep it now, it is not shown again:")
    say(secret)


@app.command(reads=True)
async def ls(*, output: Output = "table") -> None:
    """List keys; what they are is not kept."""
    async with control() as asked:
        keys = await asked.keys()
    show(
        keys,
        [
            ("name", lambda it: it.name),
            ("scope", lambda it: it.scope),
            ("begins with", lambda it: it.prefix),
            ("state", _state),
            ("created", lambda it: it.created),
            ("expires", lambda it: it.expires),
            ("last used", lambda it: it.last_used),
            ("id", lambda it: it.id),
        ],
        output,
        none="There is no key. A server that others can reach needs one: `upwell api-key create NAME --scope admin`.",
    )


@app.command
async def revoke(key: str, /, *, yes: Yes = False) -> None:
    """Have a key open nothing any more.

    Args:
        key: Its name, or its id.
    """
    async with control() as asked:
        found = await _find(asked, key)
        confirm(f"Revoke the key {found.name}?", yes)
        await asked.revoke_key(found.id)
        await asked.audit(ACTOR, "revoke key", found.name)
    say(f"The key {found.name} is revoked.")


@app.command(reads=True)
async def audit(*, limit: Limit = 50, output: Output = "table") -> None:
    """Show who changed what, the newest first."""
    async with control() as asked:
        records = await first_items(lambda n, after: asked.audit_records(limit=n, after=after), limit)
    show(
        records,
        [
            ("at", lambda it: it.at),
            ("who", lambda it: it.actor),
            ("what", lambda it: it.action),
            ("of", lambda it: it.target),
            ("detail", lambda it: it.detail),
        ],
        output,
        none="Nothing was changed through the API.",
    )


async def _find(asked: Control, wanted: str) -> ApiKey:
    keys = [key for key in await asked.keys() if wanted in (key.name, str(key.id))]
    live = [key for key in keys if key.revoked is None]
    if len(live) > 1:
        raise UsageError(f"There are {len(live)} keys {wanted!r}: say which by its id, `upwell api-key ls` shows it.")
    if not keys:
        raise NotFoundError(f"There is no key {wanted!r}. `upwell api-key ls` lists them.")
    return (live or keys)[0]


def _state(key: ApiKey) -> str:
    if key.revoked is not None:
        return "revoked"
    return "expired" if key.expires is not None and key.expires <= now() else "in use"
