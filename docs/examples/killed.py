"""A durable flow that is killed in the middle, and goes on: what was finished is not done again."""

import os
import signal
import subprocess
import sys
import time

from upwell import flow, task


@task
def square(x: int) -> int:
    print("squaring", x)
    return x * x


@flow(durable=True)
def squares() -> list[int]:
    first = square.map([1, 2, 3]).result()
    time.sleep(0.5)  # by now that is safe
    if "die" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)
    return [*first, square(4)]


if __name__ == "__main__":
    if "again" in sys.argv or "die" in sys.argv:
        print(squares())
    else:
        for word in ("die", "again"):
            subprocess.run([sys.executable, "-u", __file__, word])
