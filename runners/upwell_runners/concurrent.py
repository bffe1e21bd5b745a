"""Task runner `concurrent`, the default: coroutines on the loop, sync functions on threads."""

from __future__ import annotations

from upwell_runners.threads import ThreadPoolTaskRunner


class ConcurrentTaskRunner(ThreadPoolTaskRunner):
    """Coroutine functions run on the runtime's loop, all at once; sync functions on up to `max_workers` threads."""

    coroutines_on_loop = True
