"""Task runner `sequential`: one run at a time, in the order in which they become ready."""

from __future__ import annotations

from upwell_runners.threads import ThreadPoolTaskRunner


class SequentialTaskRunner(ThreadPoolTaskRunner):
    """Coroutine functions run on the runtime's loop, sync functions on a thread; never two at once."""

    coroutines_on_loop = True
    max_at_once = 1

    def __init__(self) -> None:
        super().__init__(max_workers=1)
