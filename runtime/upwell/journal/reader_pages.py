"""Pages of runs along an index: which rows a filter keeps, in which order, and where the next page begins.

A page is asked for by the key of the row before it, never by how many rows to skip. Everything a user says is a bound
parameter; what is put into the text of a query comes from this package alone.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from upwell.core.errors import InvalidRequestError
from upwell.core.ids import LEAST_DIGITS, ids_beginning
from upwell.core.states import COMPLETED, NAMES, StateType
from upwell.journal.database import Session

MOST_ITEMS: Final = 1_000
"""Of one page."""

LAST: Final = 1 << 62
"""After every number of a run."""

Key = tuple[Any, ...]


class Condition(NamedTuple):
    """What a filter asks of one column. and_so: what follows from it, said for the sake of a partial index."""

    column: str
    test: str
    and_so: str = ""

    def text(self) -> str:
        """So that an index may be used for it."""
        return f"{self.column} {self.test}{self.and_so}"

    def unindexed(self) -> str:
        """So that no index is: another one leads to the rows."""
        return f"({self.column} || '') {self.test}"


class Order(NamedTuple):
    """Newest first, or oldest first."""

    direction: str
    beyond: str  # how a row that comes later in this order compares

    def comes_before(self, key: Key, other: Key) -> bool:
        return key > other if self.beyond == "<" else key < other

    def sorted(self, rows: Iterable[Any], key: Any) -> list[Any]:
        return sorted(rows, key=key, reverse=self.beyond == "<")


_ORDERS: Final = {"newest": Order("DESC", "<"), "oldest": Order("ASC", ">")}


def order_of(name: str) -> Order:
    """The order of this name.

    Raises:
        InvalidRequestError: there is none.
    """
    try:
        return _ORDERS[name]
    except KeyError:
        raise InvalidRequestError(f"order is {name!r}, and must be 'newest' or 'oldest'.") from None


def checked_limit(limit: int) -> int:
    """How many items a page shall have.

    Raises:
        InvalidRequestError: too many, or none.
    """
    if not 1 <= limit <= MOST_ITEMS:
        raise InvalidRequestError(
            f"limit is {limit}, and must be from 1 to {MOST_ITEMS:,}; ask for the next page with `after`."
        )
    return limit


# --- cursors ------------------------------------------------------------------------------------------------


def cursor(kind: str, *key: Any) -> str:
    """Where the next page begins, as text to be handed out."""
    return base64.urlsafe_b64encode(msgspec.json.encode((kind, *key))).decode().rstrip("=")


def key_of(text: str | None, **kinds: tuple[type, ...]) -> tuple[str, Key] | None:
    """The kind and the key that a cursor stands for. kinds: which are known here, and what is in the key of each.

    Raises:
        InvalidRequestError: it is no cursor of these.
    """
    if text is None:
        return None
    try:
        kind, *key = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if tuple(map(type, key)) == kinds[kind]:
            return kind, tuple(key)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise InvalidRequestError(
        f"after is {text!r}, and must be the `next` of a page that was asked for with the same filters."
    )


# --- filters ------------------------------------------------------------------------------------------------


def state_condition(alias: str, state: StateType | str, parameters: dict[str, Any]) -> Condition:
    """Runs in a state of this type (`FAILED`) or of this name (`TimedOut`); of those known here in any case."""
    if state.upper() in StateType.__members__:
        parameters["state"] = state.upper()
        and_so = "" if state.upper() == COMPLETED.value else f" AND {alias}.state <> 'COMPLETED'"
        return Condition(f"{alias}.state", "= :state", and_so)
    parameters["state_name"] = next((name for name in NAMES if name.lower() == state.lower()), state)
    return Condition(f"{alias}.state_name", "= :state_name")


class Times(NamedTuple):
    """A span of time, in microseconds; None is no bound."""

    since: int | None
    until: int | None


def times_of(since: dt.datetime | None, until: dt.datetime | None) -> Times:
    """The span in which runs were created; `until` itself is not in it."""
    first = None if since is None else micros_of(since, "since")
    return Times(first, None if until is None else micros_of(until, "until"))


class Bounds(NamedTuple):
    """Where a page begins and where it cannot reach; on either side one bound, for an index takes one."""

    beyond: bool  # whether it begins after the key
    conditions: tuple[str, ...]

    @classmethod
    def of(cls, alias: str, times: Times, order: Order, after: Key | None, parameters: dict[str, Any]) -> Bounds:
        """The bounds of a page of runs that were created in this span of time, after this key."""
        parameters.update(since=times.since, until=times.until)
        newest_first = order.beyond == "<"
        near = times.until if newest_first else times.since
        beyond = after is not None and (near is None or not order.comes_before((after[0],), (near,)))
        conditions: list[str] = []
        if times.since is not None and (newest_first or not beyond):
            conditions.append(f"{alias}.created >= :since")
        if times.until is not None and (not newest_first or not beyond):
            conditions.append(f"{alias}.created < :until")
        return cls(beyond, tuple(conditions))


def micros_of(moment: dt.datetime, name: str) -> int:
    """A moment as the store has it.

    Raises:
        InvalidRequestError: it says no time zone.
    """
    if moment.tzinfo is None:
        raise InvalidRequestError(f"{name} is {moment}, which says no time zone: add tzinfo, such as datetime.UTC.")
    return (moment - _EPOCH) // _MICROSECOND


def id_text(given: UUID | str) -> str:
    """An id as the store has it.

    Raises:
        InvalidRequestError: it is no UUID.
    """
    try:
        return str(given if isinstance(given, UUID) else UUID(given))
    except (ValueError, AttributeError, TypeError):
        raise InvalidRequestError(
            f"{given!r} is no id: ids are UUIDs, such as 01a2001f-5e03-73ab-bd7f-7bf7080e6241."
        ) from None


def ids_between(beginning: str) -> dict[str, str]:
    """The first and the last id that begin so, as the store has them.

    Raises:
        InvalidRequestError: no id does, or it is too short.
    """
    between = ids_beginning(beginning)
    if between is None:
        raise InvalidRequestError(
            f"{beginning!r} is no beginning of an id: it must be at least {LEAST_DIGITS} of its digits."
        )
    return {"first": str(between[0]), "last": str(between[1])}


def pattern_of(text: str) -> str:
    """The LIKE pattern, with `ESCAPE '!'`, for what contains this text in capitals or not."""
    escaped = text.lower().replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return f"%{escaped}%"


async def distinct(session: Session, table: str, column: str) -> list[str]:
    """All values in an indexed column of few values, by leaps along its index."""
    rows = await session.fetch_text(
        f"""WITH RECURSIVE leap(value) AS (
            SELECT min({column}) FROM {table} WHERE {column} IS NOT NULL
            UNION ALL
            SELECT (SELECT min({column}) FROM {table} WHERE {column} > leap.value) FROM leap
            WHERE leap.value IS NOT NULL
        ) SELECT value FROM leap WHERE value IS NOT NULL"""
    )
    return [row[0] for row in rows]


async def tag_sets(session: Session, table: str, tags: Sequence[str]) -> list[str]:
    """The sets of tags, as the store has them, that hold all of these."""
    wanted = set(tags)
    return [text for text in await distinct(session, table, "tags") if wanted <= set(msgspec.json.decode(text))]


def checked_tags(tags: Iterable[str] | None) -> list[str]:
    """The tags that a run must have."""
    if isinstance(tags, str):
        raise InvalidRequestError(f"tags is {tags!r}, and must be several: tags=[{tags!r}].")
    return sorted(set(tags or ()))


def json_text(values: Iterable[Any]) -> str:
    """Several values as one parameter, for `json_each`."""
    return msgspec.json.encode(list(values)).decode()


_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)
