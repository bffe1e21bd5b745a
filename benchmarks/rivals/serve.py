"""Runs one contender's work when told to: a script for the contender's own interpreter, stdlib only.

`serve.py with_dask` opens `with_dask.opened()`, and prints "ready" when it is warm; then, for each number on
its stdin, it runs that many tasks and prints the seconds that took. What the contender prints goes to stderr.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import time
from pathlib import Path

WARM_UP = 10


def main(name: str) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.path.append(str(Path(__file__).parent))
    module = importlib.import_module(name)
    with module.opened() as run:
        run(WARM_UP)
        print("ready", file=answers)
        for line in sys.stdin:
            size = int(line)
            gc.collect()
            start = time.perf_counter()
            results = run(size)
            seconds = time.perf_counter() - start
            if list(results) != list(range(size)):
                raise SystemExit(f"{name} gave wrong results")
            print(seconds, file=answers)


if __name__ == "__main__":
    main(sys.argv[1])
