"""The command: `python -m benchmarks.rivals [names] [--rounds 5]`.

Measured is the cost of one no-op task in a map (or the nearest that the rival has) with all results taken, on
a warm runtime. Each side lives in a process and environment of its own, and they run in turns. Left out are
start-up, and everything that a rival does and that was not asked for here: machines beyond one, a broker, a
data base. A rival that cannot be installed or does not run is named with the reason, and skipped.
"""

from __future__ import annotations

import argparse
import select
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final, Self

from benchmarks import results
from benchmarks.harness import Result, paired_ratio, spread
from benchmarks.rivals.environments import FOLDER, RIVALS, interpreter

ANSWER_SECONDS: Final = 180


class Contender:
    """A process that runs tasks when told to, and says how long they took."""

    def __init__(self, name: str, python: Path) -> None:
        self._name = name
        self._said = TemporaryFile()  # noqa: SIM115  # `close` closes it
        self._process = subprocess.Popen(
            [str(python), "-P", str(FOLDER / "serve.py"), f"with_{name}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
        )
        try:
            self._answer()
        except RuntimeError:
            self.close()
            raise

    def seconds(self, size: int) -> float:
        """Of one run of so many tasks.

        Raises:
            RuntimeError: it failed, or took too long.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"%d\n" % size)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: reading its answer says so
        return float(self._answer())

    def _answer(self) -> bytes:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_SECONDS)
        answer = self._process.stdout.readline() if ready else b""
        if not answer:
            self._process.kill()
            self._process.wait()
            self._said.seek(0)
            last = self._said.read().decode(errors="replace").strip().rpartition("\n")[2]
            what = "ended" if ready else f"was silent for {ANSWER_SECONDS} seconds"
            raise RuntimeError(f"{self._name} {what}; the last that it said: {last or 'nothing'}")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process: politely, then not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._said.close()


def compare(name: str, rounds: int) -> Result:
    """One rival beside upwell, at the same number of tasks.

    Raises:
        RuntimeError: the rival cannot be installed, or does not run.
    """
    rival = RIVALS[name]
    python = interpreter(name)
    ours: list[float] = []
    theirs: list[float] = []
    with Contender(name, python) as other, Contender(rival.beside, Path(sys.executable)) as upwell:
        for counted in [False, *[True] * rounds]:
            ours_seconds, theirs_seconds = upwell.seconds(rival.size), other.seconds(rival.size)
            if counted:
                ours.append(ours_seconds / rival.size * 1e6)
                theirs.append(theirs_seconds / rival.size * 1e6)
    return Result(
        row="rivals",
        loop="asyncio",
        size=rival.size,
        rounds=rounds,
        unit="us/item",
        ours=spread(ours),
        rival=f"{rival.packages[0].partition('==')[0].partition('[')[0]}: {rival.does}",
        theirs=spread(theirs),
        ratio=paired_ratio(ours, theirs),
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rivals", description="Upwell beside other runtimes.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(RIVALS)}; else all")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(RIVALS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(RIVALS)}")
    print("\n".join(results.header()), flush=True)
    found: list[Result] = []
    for name in options.names or RIVALS:
        try:
            found.append(compare(name, options.rounds))
        except RuntimeError as error:
            print(f"| {name} was skipped: {error}", flush=True)
            continue
        print(results.line(found[-1]), flush=True)
    packages = [package for rival in RIVALS.values() for package in rival.packages]
    report = results.report(arguments, found, module="benchmarks.rivals", packages=packages)
    path = results.save(report, (results.LOCAL if options.names else results.FOLDER) / "rivals")
    print(f"\nKept in {path.relative_to(FOLDER.parents[1])}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
