"""Entry points: told so that the flow is found again, and followed nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import upwell.flows
from upwell import flow
from upwell.core.errors import ConfigurationError
from upwell.entrypoints import entrypoint_of, flow_names, is_flow, load_flow, parse_entrypoint

FLOW = "from upwell import flow\n@flow\ndef {name}(): return {value!r}\n"


pytestmark = pytest.mark.usefixtures("own_modules")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project: a script with a neighbour, a package, two files of one name, and a file outside."""
    root = tmp_path / "project"
    files = {
        "b1_script.py": "from b1_neighbour import value\n" + FLOW.replace("{value!r}", "value").format(name="main"),
        "b1_neighbour.py": "value = 'of the neighbour'\n",
        "b1_package/__init__.py": "",
        "b1_package/inner/__init__.py": "",
        "b1_package/inner/etl.py": "from ..values import value\n" + FLOW.format(name="etl", value=1),
        "b1_package/values.py": "value = 1\n",
        "one/b1_same.py": FLOW.format(name="same", value="one"),
        "two/b1_same.py": FLOW.format(name="same", value="two"),
        "json.py": FLOW.format(name="shadow", value="not the standard library"),
        "with-dash.py": FLOW.format(name="dashed", value="dashed"),
        "broken.py": "raise ZeroDivisionError('at import')\n",
        "broken-too.py": "raise ZeroDivisionError('at import')\n",
        "plain.py": "def no_flow(): ...\n",
        "methods.py": "from upwell import flow\nclass Shop:\n    @flow\n    @staticmethod\n    def sell(): return 5\n",
        "../outside.py": FLOW.format(name="outside", value="outside"),
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(root)
    return root


@pytest.mark.parametrize(
    ("entrypoint", "result"),
    [
        ("b1_script.py:main", "of the neighbour"),
        ("b1_script:main", "of the neighbour"),
        ("./b1_script.py:main", "of the neighbour"),
        ("b1_package/inner/etl.py:etl", 1),
        ("b1_package.inner.etl:etl", 1),
        ("json.py:shadow", "not the standard library"),
        ("with-dash.py:dashed", "dashed"),
        ("methods.py:Shop.sell", 5),
    ],
)
def test_a_flow_is_found_by_file_and_by_module(root: Path, entrypoint: str, result: Any) -> None:
    assert load_flow(entrypoint, [root])() == result
    assert upwell.flows.load_flow_from_entrypoint is load_flow  # its name in Prefect
    assert load_flow(entrypoint, [root]) is load_flow(entrypoint, [root])  # imported once


def test_a_file_and_its_module_are_one(root: Path) -> None:
    assert load_flow("b1_package/inner/etl.py:etl", [root]) is load_flow("b1_package.inner.etl:etl", [root])
    assert load_flow(f"{root}/b1_script.py:main") is load_flow("b1_script.py:main", [root])


def test_two_files_of_one_name_are_two(root: Path) -> None:
    assert load_flow("one/b1_same.py:same")() == "one"
    assert load_flow("two/b1_same.py:same")() == "two"
    assert load_flow("one/b1_same.py:same")() == "one"


@pytest.mark.parametrize(
    "entrypoint",
    [
        "../outside.py:outside",
        "{parent}/outside.py:outside",
        "link.py:outside",
        "one/../../outside.py:outside",
        "os:getcwd",
    ],
)
def test_nothing_outside_of_the_roots_is_imported(root: Path, entrypoint: str) -> None:
    (root / "link.py").symlink_to(root.parent / "outside.py")
    with pytest.raises(ConfigurationError, match="nothing else may be run"):
        load_flow(entrypoint.format(parent=root.parent), [root])
    with pytest.raises(ConfigurationError, match="nothing else may be run"):
        load_flow(entrypoint.format(parent=root.parent), [])


def test_a_module_of_an_installed_package_stands_outside(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="no module 'pytest'"):
        load_flow("pytest:main", [root])


def test_without_roots_anything_is_imported(root: Path) -> None:
    assert load_flow("../outside.py:outside")() == "outside"


@pytest.mark.parametrize(
    ("entrypoint", "words"),
    [
        ("nowhere.py:main", "no file nowhere.py"),
        ("b1_nowhere:main", "no module 'b1_nowhere'"),
        ("b1_package.nowhere:main", "no module 'b1_package.nowhere'"),
        ("b1_script.py:mian", "it has: main"),
        ("plain.py:anything", "no flow at all"),
        ("plain.py:no_flow", "is no flow"),
    ],
)
def test_what_is_not_there_is_said(root: Path, entrypoint: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        load_flow(entrypoint)


@pytest.mark.parametrize("file", ["broken.py", "broken-too.py"])
def test_what_importing_raises_is_the_users_own(root: Path, file: str) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="at import"):
            load_flow(f"{file}:main")


@pytest.mark.parametrize(
    "text", ["", "flow", ":flow", "file.py:", "file.py:a b", "file.py:a()", "my file.txt:flow", "a b:flow", "a..b:flow"]
)
def test_what_is_no_entry_point_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"path/to/file.py:flow|neither a file"):
        parse_entrypoint(text)


# --- told ---------------------------------------------------------------------------------------------------


@flow
def here() -> str:
    return "here"


renamed = here.with_options(name="renamed")


def test_a_flow_tells_where_it_stands(root: Path) -> None:
    found = load_flow("b1_package/inner/etl.py:etl", [root])
    assert entrypoint_of(found) == "b1_package.inner.etl:etl"
    assert entrypoint_of(found, root) == "b1_package/inner/etl.py:etl"
    with pytest.raises(ConfigurationError, match="outside of"):
        entrypoint_of(found, root / "one")


def test_a_flow_of_another_name_than_its_functions_is_found_by_that(root: Path) -> None:
    (root / "b1_renamed.py").write_text(FLOW.format(name="first", value=1) + "second = first.with_options(name='x')\n")
    second = load_flow("b1_renamed.py:second", [root])
    assert entrypoint_of(second) == "b1_renamed:second"
    assert load_flow(entrypoint_of(second)) is second


def test_a_file_to_which_no_import_leads_is_named_by_its_path(root: Path) -> None:
    found = load_flow("with-dash.py:dashed", [root])
    assert entrypoint_of(found) == f"{root}/with-dash.py:dashed"
    assert entrypoint_of(found, root) == "with-dash.py:dashed"


def test_a_flow_that_no_name_leads_to_is_refused() -> None:
    @flow
    def inside() -> None: ...

    with pytest.raises(ConfigurationError, match="at the top of a module"):
        entrypoint_of(inside)


@pytest.mark.parametrize("as_module", [False, True])
def test_a_script_tells_its_file_or_its_module(root: Path, as_module: bool) -> None:
    script = root / "b1_package/script.py"
    script.write_text(
        FLOW.format(name="main", value=1) + "from upwell.entrypoints import *\nprint(entrypoint_of(main))\n"
    )
    command = [sys.executable, "-m", "b1_package.script"] if as_module else [sys.executable, "b1_package/script.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, env=os.environ)
    assert done.stdout.strip() == ("b1_package.script:main" if as_module else f"{script}:main")


def test_a_flow_of_an_interpreters_prompt_is_refused() -> None:
    code = FLOW.format(name="main", value=1) + "from upwell.entrypoints import *\nentrypoint_of(main)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert "put it into a .py file" in done.stderr


def test_what_is_a_flow_is_known() -> None:
    assert is_flow(here)
    assert not is_flow(here.fn)
    assert not is_flow(None)
    assert set(flow_names(sys.modules[__name__])) >= {"here", "renamed"}
