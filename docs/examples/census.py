"""A census of the standard library: thousands of real files through threads, processes and the event loop.

Each file is read on a thread and parsed in a process; each big package is imported once in an interpreter of
its own, started from the event loop. Some files cannot be parsed, and they are meant to be so: they fail with
their own SyntaxError, the rest goes on, and the report says which and why. Run it with `make demo`.

What a file holds is cached by its text: run it again, and nothing is parsed a second time. And the flow is durable:
kill it with -9 in the middle, run it again, and it goes on where it stopped.
"""

import ast
import asyncio
import io
import logging
import sys
import sysconfig
import time
import tokenize
import warnings
from asyncio.subprocess import PIPE
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import census_report

from upwell import allow_failure, flow, task, unmapped
from upwell.cache_policies import INPUTS, TASK_SOURCE

PACKAGES = 10  # so many of the biggest are imported
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COUNTED = (*FUNCTIONS, ast.ClassDef, ast.Import, ast.ImportFrom)


@dataclass
class Module:
    """What one file holds. `longest` is its longest function: lines and name."""

    lines: int
    functions: int
    hinted: int
    coroutines: int
    classes: int
    decorators: int
    imports: set[str]
    longest: tuple[int, str]


@dataclass
class Census:
    """All of it: what was measured by file name, what failed and why, and what imports cost in seconds."""

    modules: dict[str, Module]
    failed: dict[str, Exception]
    import_seconds: dict[str, float | Exception]
    slowest: list[tuple[float, str]]
    task_runs: int
    cached: int
    seconds: float


def is_worth_a_retry(task: Any, task_run: Any, state: Any) -> bool:
    """A disk may recover; a file that is no text will not."""
    return isinstance(state.result(raise_on_failure=False), OSError)


@task(retries=2, retry_delay_seconds=0.5, retry_condition_fn=is_worth_a_retry)
def read(path: Path) -> str:
    """A file's text, in the encoding that its first lines name."""
    raw = io.BytesIO(path.read_bytes())
    encoding, _ = tokenize.detect_encoding(raw.readline)
    return raw.getvalue().decode(encoding)


@task(task_runner="processes", task_run_name="measure {name}", cache_policy=INPUTS + TASK_SOURCE)
def measure(name: str, source: str) -> Module:
    """Parse a file and count what is in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the files' own style
        tree = ast.parse(source, name)
    nodes = [node for node in ast.walk(tree) if isinstance(node, COUNTED)]
    functions = [node for node in nodes if isinstance(node, FUNCTIONS)]
    lengths = [((node.end_lineno or node.lineno) - node.lineno + 1, node.name) for node in functions]
    return Module(
        lines=source.count("\n") + 1,
        functions=len(functions),
        hinted=sum(is_hinted(node) for node in functions),
        coroutines=sum(isinstance(node, ast.AsyncFunctionDef) for node in functions),
        classes=sum(isinstance(node, ast.ClassDef) for node in nodes),
        decorators=sum(len(getattr(node, "decorator_list", ())) for node in nodes),
        imports={name for node in nodes for name in imported(node)},
        longest=max(lengths, default=(0, "")),
    )


@task(timeout_seconds=20)
async def import_seconds(package: str, folder: Path) -> float:
    """How long a new interpreter takes to import a package; fails with what the interpreter said."""
    code = f"from time import perf_counter as now; began = now(); import {package}; print(now() - began)"
    command = (sys.executable, "-c", code)
    child = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, cwd=folder)
    try:
        printed, said = await child.communicate()
    finally:
        if child.returncode is None:  # cancelled, or out of time
            child.kill()
            await child.wait()
    if child.returncode:
        last_words = said.decode().strip() or f"It ended with {child.returncode}."
        raise ImportError(last_words.splitlines()[-1])
    return float(printed.split()[-1])


@task
def biggest(names: list[str], modules: list[Module | Exception]) -> list[str]:
    """The packages with the most lines."""
    lines: dict[str, int] = {}
    for name, module in zip(names, modules, strict=True):
        package, _, inside = name.partition("/")
        if inside and package.isidentifier() and isinstance(module, Module):
            lines[package] = lines.get(package, 0) + module.lines
    return sorted(lines, key=lambda package: -lines[package])[:PACKAGES]


@flow(durable=True)
def census(folder: Path) -> Census:
    """Read, measure and import what is in a folder."""
    began = time.perf_counter()
    slowest: list[tuple[float, str]] = []

    def note_time(task: Any, task_run: Any, state: Any) -> None:
        if task_run.start_time is not None:  # else its result was in the cache
            slowest.append(((state.timestamp - task_run.start_time).total_seconds(), task_run.name))

    paths = sorted(path for path in folder.rglob("*.py") if "site-packages" not in path.parts)
    names = [path.relative_to(folder).as_posix() for path in paths]
    sources = read.map(paths, progress=True)
    timed = measure.with_options(on_completion=[note_time])
    modules = timed.map(names, sources, progress=True)  # each waits for its own source
    packages = biggest.submit(names, allow_failure(modules)).result()
    # Interpreters that start together slow each other down: one at a time, and not in one burst.
    imports = import_seconds.map(packages, unmapped(folder), max_at_once=1, max_per_second=8, progress=True)

    measured = zip(names, modules, strict=True)
    return Census(
        modules={name: module.result() for name, module in measured if module.state.is_completed()},
        failed=dict(failures(names, sources)) | dict(failures(names, modules)),
        import_seconds=dict(zip(packages, imports.result(raise_on_failure=False), strict=True)),
        slowest=sorted(slowest, reverse=True)[:5],
        task_runs=len([*sources, *modules, *imports]) + 1,
        cached=sum(future.state.name == "Cached" for future in modules),
        seconds=time.perf_counter() - began,
    )


def failures(names: Sequence[str], futures: Sequence[Any]) -> Iterator[tuple[str, Exception]]:
    """The inputs whose own run failed, and why; one that never began shows the failure of its source."""
    for name, future in zip(names, futures, strict=True):
        if future.state.is_failed():
            yield name, future.result(raise_on_failure=False)


def is_hinted(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return function.returns is not None or any(argument.annotation is not None for argument in every)


def imported(node: ast.AST) -> list[str]:
    """The top-level modules that an import statement names; none for relative imports and other nodes."""
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module.partition(".")[0]]
    return []


if __name__ == "__main__":
    # The report at the end tells of each file that failed: the log need not show a traceback for each, too.
    logging.getLogger("upwell.task_runs").setLevel(logging.CRITICAL)
    try:
        census_report.show(census(Path(sysconfig.get_path("stdlib"))))
    except KeyboardInterrupt:
        sys.exit("Cancelled; nothing was left running.")
