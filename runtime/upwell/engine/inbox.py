"""The way to the thread of a loop: whole things go into an inbox, and one wake-up serves all that is in it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from upwell.core.errors import RuntimeClosedError
from upwell.engine.scope import EngineSeam


class Inbox(EngineSeam):
    """The half of an engine that other threads use. Made on the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._inbox: deque[Callable[[], None]] = deque()
        self._inbox_due = False
        self._thread = threading.get_ident()

    def on_loop_thread(self) -> bool:
        """Whether the caller is on the loop's thread while the loop runs."""
        return threading.get_ident() == self._thread

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call this on the loop's thread, in order; many calls wake the loop once. From any thread."""
        self._inbox.append(callback)
        if not self._inbox_due:
            self._inbox_due = True
            try:
                self.loop.call_soon_threadsafe(self._take_inbox)
            except RuntimeError as error:  # the loop is closed
                self._inbox_due = False  # so that the next one is told, too
                self._inbox.clear()
                raise RuntimeClosedError(
                    "The runtime's event loop has ended, so nothing can be handed to it any more. "
                    "Start work only while the flow, or the `async with Runtime()` block, is open."
                ) from error

    def perform(self, callback: Callable[[], None]) -> None:
        """Call this on the loop's thread: now, if this is it. From any thread."""
        if self.on_loop_thread():
            callback()
        else:
            self.call_soon(callback)

    def _take_inbox(self) -> None:
        self._inbox_due = False
        inbox = self._inbox
        while inbox:
            inbox.popleft()()
