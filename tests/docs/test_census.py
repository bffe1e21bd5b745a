"""The demo: a census of a small folder with what real ones have: modules, a broken file, and no text."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
WIDE = {**os.environ, "COLUMNS": "120", "UPWELL_JOURNAL": "on"}
CODE = """
import logging, os, sys
from pathlib import Path
sys.path.insert(0, {examples!r})
if __name__ == "__main__":
    import census, census_report
    logging.getLogger("upwell.task_runs").setLevel(logging.CRITICAL)
    census_report.show(census.census(Path({folder!r})))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    package = tmp_path / "library" / "animals"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import os\n\n\ndef cat(x: int) -> int:\n    return x\n")
    (package / "broken.py").write_text('print "hello"\n')
    (package / "latin.py").write_bytes(b"# \xe9\n")
    broken = tmp_path / "library" / "plants"
    broken.mkdir()
    (broken / "__init__.py").write_text("import no_such_module\n")
    return tmp_path / "library"


def run_census(tmp_path: Path, folder: Path, *, rich: bool = True) -> str:
    script = tmp_path / "script.py"
    blocked = "" if rich else "import sys; sys.modules['rich'] = None\n"
    script.write_text(blocked + CODE.format(examples=str(EXAMPLES), folder=str(folder)))
    env = {**WIDE, "UPWELL_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("rich", [True, False])
def test_the_census_counts_what_can_be_read_and_says_why_the_rest_cannot(
    tmp_path: Path, folder: Path, rich: bool
) -> None:
    printed = run_census(tmp_path, folder, rich=rich)
    assert "2 files failed, each with its own error" in printed
    assert "SyntaxError: Missing parentheses in call to 'print'" in printed
    assert "SyntaxError: invalid or missing encoding declaration" in printed
    assert "No module named" in printed  # what importing the package said
    assert "11 task runs in " in printed
    assert "0 found in the cache" in printed


def test_a_second_census_parses_nothing_again(tmp_path: Path, folder: Path) -> None:
    run_census(tmp_path, folder)
    assert "2 found in the cache" in run_census(tmp_path, folder)


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_in_the_middle_of_the_census_ends_it_cleanly(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / "census.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**WIDE, "UPWELL_HOME": str(tmp_path / "home")},
    ) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if "measure" in line:
                break
        time.sleep(0.3)  # let it get into its stride: what is interrupted is another process
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        printed, said = running.communicate(timeout=30)
    assert running.returncode == 1
    assert "Cancelled; nothing was left running." in said
    assert "Cancelled " in said
    assert "task run(s)" in said
    assert "Traceback" not in said
    assert printed == ""
    with pytest.raises(ProcessLookupError):
        os.killpg(running.pid, 0)
