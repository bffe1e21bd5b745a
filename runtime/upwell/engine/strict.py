"""What a strict flow waits for: everything that has ended is safe in the store before anything else begins.

The end of a direct call is written at once where the store can do that, by the thread in which it happened, and nobody
has to wait for the journal. Whatever else happens is waited for until the journal says that it is safe.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol


class EndWriter(Protocol):
    """Writes the ends of task runs at once, in the thread in which they happen. From any thread."""

    @property
    def written(self) -> int:
        """The number of the last end."""
        ...

    def record(self, run: Any, record: bytes, key: bytes | None) -> bool:
        """Record a run that has ended, and write that now; whether it was, and is safe. record: of its result."""
        ...

    def are_in_tables(self, number: int) -> None:
        """The store has the ends up to this one where it has everything: they need not be kept here any more."""
        ...

    def abandon(self) -> None:
        """Write nothing: this is the child of a fork, and the writer is the parent's."""
        ...

    def close(self) -> None:
        """Write nothing any more; what is not in the tables yet is kept until it is."""
        ...


class Ends:
    """What has happened in the strict flow runs that record in one journal, and whether all of it is safe.

    open_writer: how ends can be written at once; None, or an answer of None: they cannot. Asked for once.
    """

    def __init__(self) -> None:
        self.open_writer: Callable[[], EndWriter | None] | None = None
        self.writer: EndWriter | None = None
        self._lock = threading.Lock()
        self._happened = self._safe = 0
        self._latest: EndWriter | None = None  # which may be closed, and wait until the tables have everything

    def flow_run_begins(self) -> None:
        """The first flow run needs the writer."""
        with self._lock:
            if self.writer is None and self.open_writer is not None:
                self.writer = self._latest = self.open_writer()
                self.open_writer = None
        self.note()

    def note(self) -> None:
        """Something has happened that is not safe yet; it is in the recorder."""
        with self._lock:
            self._happened += 1

    @property
    def written(self) -> int:
        """The number of the last end that was written at once."""
        return 0 if self._latest is None else self._latest.written

    def are_in_tables(self, number: int) -> None:
        """The journal has written the ends up to this one to the store's tables."""
        if self._latest is not None:
            self._latest.are_in_tables(number)

    def are_safe(self) -> bool:
        """Whether nothing has to be waited for."""
        return self._safe == self._happened

    def happened(self) -> int:
        """How much has happened until now: for `became_safe`, when the journal has said so."""
        return self._happened

    def became_safe(self, happened: int) -> None:
        """So much is safe."""
        with self._lock:
            self._safe = max(self._safe, happened)

    def abandon(self) -> None:
        """This is the child of a fork: the writer is the parent's; a thread that is not here may hold the lock."""
        self._lock = threading.Lock()
        self.writer = self.open_writer = None
        if self._latest is not None:
            self._latest.abandon()

    def close(self) -> None:
        """Whatever happens from here on is the journal's alone."""
        with self._lock:
            writer, self.writer, self.open_writer = self.writer, None, None
        if writer is not None:
            writer.close()
