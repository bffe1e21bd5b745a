"""The command: `python -m benchmarks [names] [--quick] [--loop uvloop] [--table] [--list] [--readme]`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks import results
from benchmarks.harness import Result, measure
from benchmarks.rows import LOOPS, Row
from benchmarks.stolen import Stolen, said
from benchmarks.table_of_rows import rows_matching

QUICK_ROUNDS: Final = 3
README: Final = Path(__file__).parent / "README.md"
CPU_HELP: Final = (
    "count this process's time on a processor, not the time of the day: for a machine that others keep busy; only for "
    "rows that work in one process and never wait"
)
PARTS: Final = {"benchmarks": "table", "benchmarks.rivals": "rivals"}
"""The parts of the README, by the command whose results stand there."""


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    if options.table or options.readme:
        _show(results.load(options.file or results.newest()), into_readme=options.readme)
        return 0
    try:
        rows = rows_matching(options.names)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if options.list:
        for row in rows:
            print(f"{row.name}\n    {row.measures}\n    Leaves out: {row.leaves_out}")
        return 0
    partial = bool(options.names or options.quick or options.loop or options.no_peaks or options.cpu)
    found: list[Result] = []
    stolen = Stolen()
    try:
        _run(rows, options, found)
    except KeyboardInterrupt:
        partial = True
    path = results.save(results.report(arguments, found, stolen.share()), results.LOCAL if partial else results.FOLDER)
    missed = [result for result in found if result.met is False]
    print(f"\n{len(missed)} of {sum(result.met is not None for result in found)} targets missed.", end=" ")
    print(f"Kept in {path.relative_to(results.FOLDER.parent.parent)}")
    print(said(stolen.share()))
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What upwell costs, beside its rivals.")
    parser.add_argument("names", nargs="*", help="rows to run, by name or its beginning; else all")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller sizes, no peak memory")
    parser.add_argument("--loop", choices=LOOPS, help="one event loop only")
    parser.add_argument("--cpu", action="store_true", help=CPU_HELP)
    parser.add_argument("--no-peaks", action="store_true", help="leave out the peak memory of timed rows")
    parser.add_argument("--list", action="store_true", help="say what each row measures and leaves out")
    parser.add_argument("--table", action="store_true", help="show results kept before, and run nothing")
    parser.add_argument("--readme", action="store_true", help="put results kept before into benchmarks/README.md")
    parser.add_argument("--file", type=Path, help="the results to show; else the newest")
    return parser.parse_args(arguments)


def _run(rows: list[Row], options: argparse.Namespace, found: list[Result]) -> None:
    clock = time.process_time if options.cpu else time.perf_counter
    print("\n".join(results.header()), flush=True)
    for row in rows:
        loops = ([options.loop] if options.loop else LOOPS) if row.on_loops else LOOPS[:1]
        for loop in loops:
            size = row.quick_size if options.quick else row.size
            rounds = min(row.rounds, QUICK_ROUNDS) if options.quick else row.rounds
            peaks = not (options.quick or options.no_peaks)
            try:
                measured = measure(row, size, loop, rounds, peaks=peaks, clock=clock)
            except Exception as error:
                print(f"| {row.name} failed on {loop}: {error!r}", flush=True)
                continue
            found += measured
            for result in measured:
                print(results.line(result), flush=True)


def _show(report: results.Report, *, into_readme: bool) -> None:
    about = report.machine
    versions = ", ".join(f"{name} {number}" for name, number in about.versions.items())
    text = (
        f"{report.date}, {about.python}, {about.system}, {about.processor}, {about.cores} cores; {versions}; "
        f"`{report.command}`. {said(report.stolen)}\n\n{results.table(report.results)}\n"
    )
    if not into_readme:
        print(text)
        return
    part = PARTS[report.command.split()[2]]
    begin, end = f"<!-- {part}: begin -->\n", f"<!-- {part}: end -->"
    before, _, rest = README.read_text().partition(begin)
    README.write_text(f"{before}{begin}{text}{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
