"""Values of classes of `__main__`, as data: read with the reader's own `__main__`, or with what came along.

Beside such a value stands, once for each class: its name in `__main__`, its kind, its fields, and the class by
value, for readers that do not have it. A reader that has the class needs nothing but its name. If its fields have
changed since, what was stored is fitted to them, or an error says which field it is.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary

from upwell.core.packing_classes import class_kind
from upwell.core.packing_fields import MakeDefault, added_fields, fields_of
from upwell.core.packing_kinds import (
    MAIN,
    Code,
    DeserializationError,
    Kind,
    find_class,
    find_in_main,
)

MAX_COPY_BYTES = 64 * 1024
"""A class by value larger than this holds data of its module, and is not put beside each value."""

_copies: WeakKeyDictionary[type, bytes | None] = WeakKeyDictionary()


class Entry(NamedTuple):
    """What is stored of a class. copy: the class by value; None: only a reader that has it can read the value."""

    name: str
    code: int
    fields: list[str]
    copy: bytes | None


class Met:
    """The classes of `__main__` that were met in one value, as it is packed.

    kinds: the kind of each; None: it is left to pickle.
    """

    def __init__(self) -> None:
        self.kinds: dict[type, Kind | None] = {}
        self._entries: dict[str, Entry] = {}

    def add(self, cls: type, kind: Kind) -> Kind | None:
        """The kind that carries `cls`: the one given, but where nobody would find the class by its name."""
        name, copy = cls.__qualname__, _copy_of(cls)
        has_reader = copy is not None or find_in_main(name) is cls
        if not has_reader or name in self._entries:  # there: another class of that name
            self.kinds[cls] = None
            return None
        self._entries[name] = Entry(name, kind.code, list(fields_of(cls)), copy)
        self.kinds[cls] = kind
        return kind

    def entries(self) -> list[Entry]:
        """What is to be stored beside the value."""
        return list(self._entries.values())


def _copy_of(cls: type) -> bytes | None:
    """The class by value, as it was when first asked for: making it takes longer than packing a value."""
    if cls not in _copies:
        from upwell.core import packing_pickle  # only now: it imports pickle and cloudpickle

        try:
            copy = packing_pickle.dumps(cls)
        except Exception:  # one of its methods uses a lock, say; readers that have the class need no copy
            copy = b""
        _copies[cls] = copy if 0 < len(copy) <= MAX_COPY_BYTES else None
    return _copies[cls]


class Classes:
    """The classes of `__main__` that a stored value names, as its reader has them.

    as_stored: all are in the reader's `__main__`, with the fields that they had.
    """

    def __init__(self, entries: Iterable[Iterable[Any]]) -> None:
        self._entries: dict[str, Entry] = {}
        self._classes: dict[str, Any] = {}
        self._added: dict[str, dict[str, MakeDefault]] = {}
        self.as_stored = True
        for entry in (Entry(*parts) for parts in entries):
            cls = find_in_main(entry.name)
            if not isinstance(cls, type):
                cls = _read_copy(entry)
                self.as_stored = False
            kind = class_kind(cls)
            if kind is None or kind.code != entry.code:
                raise DeserializationError(
                    f"{MAIN}.{entry.name} is a class of another kind than when the value was stored; "
                    "name it otherwise, or compute the value again"
                )
            if list(fields_of(cls)) != entry.fields:
                self._added[entry.name] = added_fields(cls, entry.fields)
                self.as_stored = False
            self._entries[entry.name], self._classes[entry.name] = entry, cls

    def find(self, module: str, qualname: str) -> Any:
        """As `find_class`, with these classes in the place of those of `__main__`."""
        return self._classes[qualname] if module == MAIN else find_class(module, qualname)

    def fitted(self, code: int, body: list[Any]) -> list[Any]:
        """The body of a value's extension, with the fields that its class has now."""
        module, name, content, *rest = body
        if module != MAIN or name not in self._added:
            return body
        added = self._added[name]
        if code in (Code.STRUCT, Code.NAMEDTUPLE):
            stored = dict(zip(self._entries[name].fields, content, strict=True))
            fields = fields_of(self._classes[name])
            content = [stored[field] if field in stored else added[field]() for field in fields]
        elif code == Code.RECORD:
            content = _with_attributes(content, {field: make() for field, make in added.items()})
        elif code == Code.EXCEPTION:  # its content is `args`; attributes come next
            rest[0] = {field: make() for field, make in added.items()} | (rest[0] or {})
        return [module, name, content, *rest]


def _with_attributes(state: Any, added: dict[str, Any]) -> Any:
    """The state of a record, with attributes added; a state of the class's own making is left to it."""
    if isinstance(state, dict):
        return added | cast("dict[str, Any]", state)
    if isinstance(state, tuple):
        attributes, slots = cast("tuple[dict[str, Any] | None, dict[str, Any]]", state)
        return attributes, added | slots
    return state


def _read_copy(entry: Entry) -> Any:
    """The class that came along, for a reader that does not have it."""
    if entry.copy is None:
        raise DeserializationError(
            f"stored data names {MAIN}.{entry.name}, which this program does not have; read it with the script that "
            "wrote it, or define the class in a module that both import"
        )
    import pickle  # only now: data needs no pickle

    return pickle.loads(entry.copy)
