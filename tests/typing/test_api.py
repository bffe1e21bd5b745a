"""The types that users see: `api.py` is checked by both type checkers, as strictly as they can."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

API = Path(__file__).with_name("api.py")
HOUSE = Path(__file__).parents[2]


def check(*command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command, str(API)], cwd=HOUSE, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed")
def test_mypy_sees_the_types_that_are_promised() -> None:
    check("mypy", "--strict", "--warn-unused-ignores")


@pytest.mark.skipif(find_spec("pyright") is None, reason="pyright is not installed")
def test_pyright_sees_the_types_that_are_promised() -> None:
    check("pyright")
