"""The first code of a new process: makes the parent's modules importable, then becomes a child or a fork server.

Run as a script with the number of its socket's descriptor. Nothing of upwell is imported before `sys.path` is
as it is in the parent, and the parent's main module is not run again.
"""

import marshal
import os
import signal
import sys


def boot(descriptor: int) -> None:
    role, sys.path[:] = marshal.loads(sys.stdin.buffer.read())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if role == "child":
        from upwell_runners.processes.child import serve
    else:
        from upwell_runners.processes.fork_server import serve
    serve(descriptor)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to decide
    boot(int(sys.argv[1]))
