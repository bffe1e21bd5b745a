"""Batches as they cross a network: frames of a version, bounded in size, whose every row has the shape of its table.

Whoever receives a frame gets rows of these shapes, or is told what is wrong: nothing in a row is ever executed or
unpickled, and what could trip a reader later (a time that no calendar has, tags that are no list) is not let in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct, field

from upwell.core.errors import InvalidRequestError
from upwell.core.states import StateType
from upwell.journal.batch import KINDS, Batch
from upwell.journal.database import Row
from upwell.journal.processes import Process
from upwell.journal.spool import storable

VERSION: Final = 1
"""Of what is said here; whoever speaks a later one has to do without who speaks this one."""

MOST_BYTES: Final = 16 * 1024**2
"""Of one message."""

PART_BYTES: Final = 8 * 1024**2
"""Of the rows of one part, where a batch is too large to be sent in one message; and of one row."""

_HEAD_BYTES: Final = 4096
"""What may stand around a batch in a message."""

MOST_PARTS: Final = 1 << 20
"""A batch's number on the wire is its own times this, and the part's: so each part is written once, in order."""

_LARGEST: Final = 2**63 - 1
_LAST_MOMENT: Final = 253_370_764_800_000_000
"""The year 9999: later times are none that a calendar can show."""

LARGEST_SERIES: Final = 2**40
_LARGEST_COUNT: Final = 2**31 - 1

Id: TypeAlias = Annotated[str, Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")]
Name: TypeAlias = Annotated[str, Meta(max_length=10_000)]
Text: TypeAlias = Annotated[str, Meta(max_length=1_000_000)]
Micros: TypeAlias = Annotated[int, Meta(ge=0, le=_LAST_MOMENT)]
Key: TypeAlias = Annotated[int, Meta(ge=0, le=_LARGEST)]
Number: TypeAlias = Annotated[int, Meta(ge=0, lt=LARGEST_SERIES)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=_LARGEST_COUNT)]
_Base: TypeAlias = Annotated[str, Meta(pattern=r"^[0-9a-f]{19}\Z")]
_Digest: TypeAlias = Annotated[bytes, Meta(max_length=1_000)]
_Switch: TypeAlias = Annotated[int, Meta(ge=0, le=1)]
_State: TypeAlias = Annotated[str, Meta(pattern="^(" + "|".join(StateType) + r")\Z")]

_SHAPES: Final[dict[str, Any]] = {
    "flow_runs": tuple[
        Id, Name, Name, Name | None, _State, Name | None, Text | None, Micros, Micros | None, Micros | None,
        Micros | None, Count, Text | None, Text | None, Id | None, Id | None, Id, Id, Name | None, _Switch,
        Name | None, Name | None, bytes | None, bytes | None,
    ],
    "flow_run_states": tuple[Id, Micros, _State, Name | None, Text | None],
    "series": tuple[Key, _Base, Name, Id | None, Micros, Text | None, _Digest | None, Number, Id],
    "completed_runs": tuple[Key, Number, Micros, Micros, Micros, Text | None],
    "found_runs": tuple[Key, Number, Micros, Micros, Text | None, Text | None],
    "task_runs": tuple[
        Key, Number, Micros, Micros | None, Micros | None, _State, Name | None, Text | None, Count, Name | None,
        Id | None, Text | None, Text | None,
    ],
    "task_run_states": tuple[Key, Number, Micros, _State, Name | None, Text | None],
    "edges": tuple[Key, Number, Key, Number, Name | None],
    "results": tuple[Key, Number, bytes, _Digest | None],
    "durable_calls": tuple[Id, _Digest, Key, Number, Number],
    "cache_records": tuple[Name, Name, bytes, Micros, Micros | None, Id | None],
    "released_locks": tuple[Name, Name],
    "rolled_back_runs": tuple[Key, Number, Micros, _State, Name | None, Text | None, Count],
    "logs": tuple[Id | None, Id | None, Micros, Count, Name, Text],
}  # fmt: skip  # one line a few columns
"""What a row of each kind is made of; see `queries/writing.sql`."""

_TAGS: Final = {"flow_runs": 12, "series": 5, "task_runs": 11}
_PARAMETERS: Final = 13
"""Where a row has JSON: its tags, and the parameters of a flow run."""


class Sender(Struct, frozen=True):
    """A process as it says who it is."""

    id: Id
    host: Name
    pid: Annotated[int, Meta(ge=0, le=_LARGEST_COUNT)]
    pid_started: Name
    lease_seconds: Annotated[float, Meta(ge=1, le=86_400)]

    def process(self) -> Process:
        """The same as the store knows it."""
        return Process(self.id, self.host, self.pid, self.pid_started, self.lease_seconds)


class LeftOut(Struct):
    """Rows of a batch that were not written, and why the first one was not."""

    count: int = 0
    why: str | None = None

    def note(self, why: str, count: int = 1) -> None:
        """So many were left out, too."""
        self.count += count
        if self.why is None:
            self.why = why[:500]


def _struct_of_rows(name: str, shape_of: Callable[[str], Any]) -> Any:
    """A batch whose rows are of these shapes."""
    number = Annotated[int, Meta(ge=0, le=_LARGEST)]
    head: list[Any] = [("process_id", Id), ("process_key", Key), ("number", number, 0)]
    rows: list[Any] = [(kind, list.__class_getitem__(shape_of(kind)), field(default_factory=list)) for kind in KINDS]
    return msgspec.defstruct(name, [*head, *rows], forbid_unknown_fields=True)


_decode_batch: Final = msgspec.msgpack.Decoder(_struct_of_rows("CheckedRows", _SHAPES.__getitem__)).decode
_decode_raw_batch: Final = msgspec.msgpack.Decoder(_struct_of_rows("RawRows", lambda _: Raw)).decode
_ROW_DECODERS: Final = {kind: msgspec.msgpack.Decoder(shape).decode for kind, shape in _SHAPES.items()}


def read_batch(data: Raw, left_out: LeftOut) -> Batch:
    """The rows of a batch that came in, if they have the right shape; the others are noted.

    Raises:
        msgspec.MsgspecError: it is no batch.
    """
    try:
        rows = _decode_batch(data)
    except msgspec.ValidationError:
        raw = _decode_raw_batch(data)
        rows = Batch(raw.process_id, raw.process_key, raw.number)
        for kind in KINDS:
            setattr(rows, kind, list(_kept(kind, getattr(raw, kind), _ROW_DECODERS[kind], left_out)))
    batch = Batch(rows.process_id, rows.process_key, rows.number)
    for kind in KINDS:
        found: list[Row] = getattr(rows, kind)
        setattr(batch, kind, list(_kept(kind, found, _CHECKS[kind], left_out)) if kind in _CHECKS else found)
    return batch


def _kept(kind: str, rows: list[Any], look_at: Callable[[Any], Row], left_out: LeftOut) -> Iterator[Row]:
    for row in rows:
        try:
            seen = look_at(row)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            left_out.note(f"{kind}: {error}")
        else:
            yield seen


_decode_tags: Final = msgspec.json.Decoder(list[Name]).decode
_decode_parameters: Final = msgspec.json.Decoder(dict[str, Any]).decode


def _has_tags(place: int) -> Callable[[Row], Row]:
    def check(row: Row) -> Row:
        if row[place] is not None:
            _decode_tags(row[place])
        return row

    return check


_has_flow_run_tags: Final = _has_tags(_TAGS["flow_runs"])


def _is_flow_run(row: Row) -> Row:
    if row[_PARAMETERS] is not None:
        _decode_parameters(row[_PARAMETERS])
    return _has_flow_run_tags(row)


_CHECKS: Final[dict[str, Callable[[Row], Row]]] = {
    "flow_runs": _is_flow_run,
    "series": _has_tags(_TAGS["series"]),
    "task_runs": _has_tags(_TAGS["task_runs"]),
}


# --- messages -------------------------------------------------------------------------------------------------


class _Envelope(Struct, array_like=True):
    """What every message is in."""

    version: int
    message: Raw


_open_envelope: Final = msgspec.msgpack.Decoder(_Envelope).decode
_encode: Final = msgspec.msgpack.Encoder().encode


def pack(message: object) -> bytes:
    """A message, to be sent."""
    return _encode([VERSION, message])


def unpacker(kind: Any) -> Callable[[bytes], Any]:
    """Reads messages of a type.

    Raises (when it reads):
        InvalidRequestError: they are not, or of another version.
    """
    decode = msgspec.msgpack.Decoder(kind).decode

    def unpack(data: bytes) -> Any:
        try:
            envelope = _open_envelope(data)
            if envelope.version != VERSION:
                raise InvalidRequestError(
                    f"This is version {envelope.version} of the journal's protocol, and here is spoken {VERSION}: use "
                    "the same version of upwell on both sides."
                )
            return decode(envelope.message)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise InvalidRequestError(f"This is no message of the journal: {error}.") from error

    return unpack


# --- parts ----------------------------------------------------------------------------------------------------

_ORDER: Final = (
    "series", "durable_calls", "results", "edges", "task_run_states", "completed_runs", "found_runs", "task_runs",
    "logs", "flow_runs", "flow_run_states", "cache_records", "rolled_back_runs", "released_locks",
)  # fmt: skip  # a list of names
"""In which rows are sent where they are too many for one frame: nobody reads of an end before what led to it."""

assert sorted(_ORDER) == sorted(KINDS)


def parts(batch: Batch, left_out: LeftOut) -> Iterator[Raw]:
    """A batch as it is sent: in parts where it is too large, numbered so that the last one stands for the whole.

    A row that is too large for any part is noted.
    """
    batch = batch.by_rows()
    try:
        whole = _encode(_part(batch, MOST_PARTS - 1, _rows_of(batch)))
    except (UnicodeEncodeError, OverflowError):
        batch = storable(batch)
        whole = _encode(_part(batch, MOST_PARTS - 1, _rows_of(batch)))
    if len(whole) <= MOST_BYTES - _HEAD_BYTES:
        yield Raw(whole)
        return
    groups = _groups(batch, left_out)
    for place, rows in enumerate(groups):
        yield Raw(_encode(_part(batch, place if place < len(groups) - 1 else MOST_PARTS - 1, rows)))


def _part(batch: Batch, place: int, rows: dict[str, Any]) -> Batch:
    return Batch(batch.process_id, batch.process_key, batch.number * MOST_PARTS + place, **rows)


def whole_number(number: int) -> int:
    """The last batch that is written wholly where this is the last part that is."""
    whole, part = divmod(number, MOST_PARTS)
    return whole if part == MOST_PARTS - 1 else max(whole - 1, 0)


def _rows_of(batch: Batch) -> dict[str, list[Row]]:
    return {kind: getattr(batch, kind) for kind in KINDS}


def _groups(batch: Batch, left_out: LeftOut) -> list[dict[str, list[Row]]]:
    groups: list[dict[str, list[Row]]] = [{}]
    room = PART_BYTES
    for kind in _ORDER:
        for row in getattr(batch, kind):
            size = len(_encode(row))
            if size > PART_BYTES:
                left_out.note(f"{kind}: a row of {size:,} bytes is too large to be sent", 1)
                continue
            if size > room:
                groups.append({})
                room = PART_BYTES
            groups[-1].setdefault(kind, []).append(row)
            room -= size
    return groups
