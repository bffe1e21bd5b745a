"""What a durable flow run keeps of a lot's runs, as columns: what each is known by, and what it has returned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

SHORT: Final = 64
"""A result whose record takes no more bytes stands for itself."""

Dump = Callable[[object], bytes | None]


class KeptColumns:
    """Those of one lot, by place.

    keys: what the runs are known by in the next process. records: of what those have returned that have ended.
    dump: the record of the commonest results; None for any other.
    """

    def __init__(self, keys: list[Any], dump: Dump) -> None:
        self.keys = keys
        self.records: list[Any] = [None] * len(keys)
        self._dump = dump

    def put(self, place: int, value: object) -> bool:
        """The run there has returned this; False if it is none of the commonest results, and no column can hold it."""
        record = self._dump(value)
        if record is None or len(record) > SHORT:
            return False
        self.records[place] = record
        return True
