"""Peak memory of one side: a process of its own runs it once, and says how far its memory grew.

Measured is the growth of the high-water mark of resident memory over what the process had before, after the
same work on a handful of items (so imports and first uses do not count). Child processes are not counted.
A process of its own, since memory that an earlier run has left would be used again and hide the growth.
"""

from __future__ import annotations

import gc
import io
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path
from typing import Final

from benchmarks.rows import Setting

HANDFUL: Final = 10
_STATUS: Final = Path("/proc/self/status")


def peak_in_child(row: str, side: int, setting: Setting) -> int:
    """Bytes that one run of this side of the row needs at its peak.

    Raises:
        subprocess.CalledProcessError: the run failed; what it said stands on stderr.
    """
    command = [sys.executable, "-m", "benchmarks.memory", row, str(side), str(setting.size), setting.loop]
    root = Path(__file__).parents[1]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=root)
    return int(answer.stdout.split()[-1])


def growth(row: str, side: int, setting: Setting) -> int:
    """The same in this process, in bytes; meaningful once a process."""
    from benchmarks.table_of_rows import row_named  # it reaches everything, and is needed in the child only

    work = row_named(row).sides[side]
    with redirect_stderr(io.StringIO()):
        with work.open(Setting(HANDFUL, setting.loop)) as run:
            run()
        with work.open(setting) as run:
            gc.collect()
            before = _resident("VmRSS")
            run()
    return max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    """Bytes resident now (VmRSS) or at most so far (VmHWM); where there is no /proc, the latter for both."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    import resource  # not there on Windows, where memory cannot be measured this way

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    print(growth(sys.argv[1], int(sys.argv[2]), Setting(int(sys.argv[3]), sys.argv[4])))
