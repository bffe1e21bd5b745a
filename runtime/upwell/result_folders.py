"""A folder of large results that is a store's own: whose it is stands in it, so that what is old can go."""

from __future__ import annotations

from pathlib import Path

from upwell.filesystems import LocalFileSystem
from upwell.journal.sweeping import mark_folder


class StoreFolder(LocalFileSystem):
    """A folder of results of one store, which says so before anything is written there."""

    def __init__(self, basepath: Path, store: str) -> None:
        super().__init__(basepath)
        self._store = store
        self._is_marked = False

    def write(self, key: str, data: bytes) -> None:
        if not self._is_marked:
            mark_folder(self.basepath, self._store)
            self._is_marked = True
        super().write(key, data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoreFolder) and (other.basepath, other._store) == (self.basepath, self._store)

    def __hash__(self) -> int:
        return hash((self.basepath, self._store))


__all__ = ["StoreFolder"]
