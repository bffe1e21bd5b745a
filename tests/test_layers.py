"""The layers: imports point one way, function-level ones counted, and nowhere is a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {
    ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
    for root in (ROOT / "runtime", ROOT / "runners")
    for path in root.rglob("*.py")
}

CORE, SETTINGS, ENGINE, JOURNAL, SERVER, FACE, CLI = range(7)
ENGINE_PARTS_OF_THE_SERVER = {"upwell.engine.clock", "upwell.engine.loggers"}
NOT_IN_CORE = {"asyncio", "threading", "multiprocessing", "time", "os", "sqlite3", "signal", "socket"}


def layer_of(module: str) -> int:
    """Which layer a module of `upwell` stands in."""
    if module.startswith("upwell.core"):
        return CORE
    if module in ("upwell.settings", "upwell.settings_sources"):
        return SETTINGS
    if module.startswith("upwell.engine"):
        return ENGINE
    if module.startswith("upwell.journal"):
        return JOURNAL
    if f"{module}.".startswith("upwell.server."):
        return SERVER
    if module.startswith("upwell.cli") or module == "upwell.__main__":
        return CLI
    return FACE


def imports_of(module: str) -> set[str]:
    """All modules that a module imports, wherever it does so, but for what only type checkers read."""
    tree = ast.parse(SOURCES[module].read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & SOURCES.keys()
            if not names <= SOURCES.keys():
                found.add(node.module)
    return found


def ours(module: str) -> set[str]:
    return {name for name in imports_of(module) if name in SOURCES and name != module}


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_imports_point_towards_the_core(module: str) -> None:
    for imported in ours(module):
        if module.startswith("upwell_runners"):
            continue
        assert not imported.startswith("upwell_runners"), f"{module} must not import {imported}"
        assert layer_of(imported) <= layer_of(module), f"{module} must not import {imported}"


@pytest.mark.parametrize("module", sorted(name for name in SOURCES if layer_of(name) == SERVER))
def test_the_server_reads_and_writes_the_store_and_knows_no_engine(module: str) -> None:
    assert not {name for name in ours(module) if layer_of(name) == ENGINE} - ENGINE_PARTS_OF_THE_SERVER


@pytest.mark.parametrize("module", sorted(name for name in SOURCES if layer_of(name) == CORE))
def test_the_core_knows_no_asyncio_clock_files_or_threads(module: str) -> None:
    assert not NOT_IN_CORE & {name.partition(".")[0] for name in imports_of(module)}


def test_no_import_circle() -> None:
    graph = {module: ours(module) for module in SOURCES}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module not in done:
            for imported in sorted(graph[module]):
                visit(imported, (*way, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_files_and_functions_stay_readable(module: str) -> None:
    text = SOURCES[module].read_text()
    assert text.count("\n") <= 500
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 62, f"{node.name} is too long"
