"""What the tests of processes share: what lies in shared memory."""

from __future__ import annotations

import os


def shared_now() -> set[str]:
    """The blocks in shared memory, but for what servers of databases and locks of other tests have there."""
    return {name for name in os.listdir("/dev/shm") if not name.startswith(("PostgreSQL.", "sem.mp-"))}
