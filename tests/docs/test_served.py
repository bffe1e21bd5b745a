"""The script of the docs that serves its flow: it is started, asked for a run, and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from upwell import history
from upwell.composition import close_journal
from upwell.deployments import run_deployment
from upwell.exceptions import InvalidRequestError
from upwell.settings import temporary_settings

SCRIPT = Path(__file__).parents[2] / "docs/examples/served.py"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with temporary_settings(home=str(tmp_path), journal="on"):
        yield tmp_path
        close_journal()


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_a_served_script_carries_runs_out_until_it_is_stopped(home: Path) -> None:
    environment = {**os.environ, "UPWELL_HOME": str(home), "UPWELL_JOURNAL": "on", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, str(SCRIPT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=home,
        env=environment,
    ) as served:
        try:
            assert served.stdout is not None
            greeting = served.stdout.readline()
            assert greeting == "Your flow 'report' is being served and polling for scheduled runs!\n"
            said = [served.stdout.readline() for _ in range(4)]
            assert "'report/nightly': cron 0 3 * * * (Europe/Berlin)" in said[3]
            run = run_deployment("report/nightly", {"currency": "CHF"}, timeout=30)
            assert (run.state_type, run.flow_name) == ("COMPLETED", "report")
            assert [line.message for line in history.logs(run.id)][1] == "1000 CHF in 2 shops"
            with pytest.raises(InvalidRequestError, match="shops"):
                run_deployment("report/nightly", {"shops": "north"}, timeout=0)
            served.send_signal(signal.SIGINT)
            printed, _ = served.communicate(timeout=30)
        finally:
            served.kill()
    assert served.returncode == 0, printed
    assert "Traceback" not in printed
    ahead = history.flow_runs(flow="report", state="SCHEDULED").items
    assert not ahead  # it is paused while nobody serves it
