"""The command line as a whole: help everywhere, nothing loaded in vain, exit codes, completion, pipes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App
from tests.runtime.cli.conftest import Upwell

from upwell.cli.app import make_app

ROOT = Path(__file__).parents[3]
UPWELL = Path(sys.executable).with_name("upwell")


def commands(app: App | None = None, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """All groups and commands there are."""
    app = app or make_app()
    for name in app:
        if not name.startswith("-"):
            yield (*before, name)
            yield from commands(app[name], (*before, name))


def leaves() -> list[tuple[str, ...]]:
    everything = set(commands())
    return sorted(it for it in everything if not any(other[:-1] == it for other in everything))


# --- help ---------------------------------------------------------------------------------------------------


def test_every_command_has_help_with_examples_and_says_what_its_options_are(upwell: Upwell) -> None:
    for command in sorted(set(commands())):
        done = upwell(*command, "--help")
        assert (done.code, "Usage: upwell " + " ".join(command) in done.out) == (0, True)
        assert "Examples:\n\n    upwell " in done.out, command
        options = re.findall(r"^│ (?:\* +)?(--?[a-z]\S*|[A-Z][A-Z-]+)(?: .*?)?  +(\S.*)│$", done.out, re.M)
        missing = [name for name, text in options if text.strip().startswith("[")]
        assert missing == [], f"{missing} of {command} are not explained"


def test_every_listing_speaks_json() -> None:
    listings = [it for it in leaves() if it[-1] in ("ls", "inspect")]
    assert len(listings) > 15
    for command in listings:
        app = make_app()
        for name in command:
            app = app[name]
        assert app.default_command is not None
        assert "output" in app.default_command.__annotations__, command


def test_every_command_is_in_the_docs() -> None:
    text = (ROOT / "docs/cli.md").read_text()
    named = {f"upwell {' '.join(command)}" for command in leaves()}
    assert [name for name in sorted(named) if not re.search(rf"`{re.escape(name)}[ `]", text)] == []


def test_every_command_in_the_docs_exists() -> None:
    known = {f"upwell {' '.join(command)}" for command in commands()}
    for page in (ROOT / "docs").glob("*.md"):
        for said in re.findall(r"^\$ (upwell [a-z][a-z -]*[a-z])(?= |$)", page.read_text(), re.M):
            words = said.split()
            assert any(" ".join(words[:n]) in known for n in range(2, len(words) + 1)), f"{page.name}: {said}"


# --- words --------------------------------------------------------------------------------------------------


def test_versions(upwell: Upwell) -> None:
    import upwell as library

    assert upwell("--version").out.strip() == library.__version__
    assert upwell("version", "-o", "json").json["upwell"] == library.__version__
    assert upwell().out == upwell("--help").out


@pytest.mark.parametrize("words", [["nonsense"], ["flow-run", "nonsense"], ["flow-run", "logs"], ["version", "more"]])
def test_what_is_not_understood_is_exit_code_2(upwell: Upwell, words: list[str]) -> None:
    done = upwell(*words)
    assert (done.code, done.out) == (2, "")
    assert "Error" in done.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_for_each_shell(upwell: Upwell, shell: str) -> None:
    script = upwell("completion", shell).out
    for command in ("flow-run", "work-pool", "--follow"):
        assert command in script or command.lstrip("-") in script


def test_completion_is_for_the_shell_in_use(upwell: Upwell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/bash")
    script = upwell("completion").out
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    monkeypatch.setenv("SHELL", "/bin/nonsense")
    assert upwell("completion").code == 2


def test_a_question_is_answered_at_a_terminal(upwell: Upwell, monkeypatch: pytest.MonkeyPatch) -> None:
    upwell("work-pool", "create", "p")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    answer = "n"

    def ask(_: str) -> str:
        return answer

    monkeypatch.setattr("builtins.input", ask)
    assert (upwell("work-pool", "delete", "p").code, len(upwell("work-pool", "ls", "-o", "json").json)) == (2, 1)
    answer = "y"
    assert (upwell("work-pool", "delete", "p").code, upwell("work-pool", "ls", "-o", "json").json) == (0, [])


def test_tables_on_a_terminal_are_drawn(
    upwell: Upwell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    upwell("profile", "create", "[red]x".replace("[red]", ""))
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    drawn = upwell("profile", "ls").out
    assert "────" in drawn
    assert "default" in drawn


# --- processes ----------------------------------------------------------------------------------------------


def process(folder: Path, *words: str, code: str | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code] if code else [str(UPWELL), *words]
    environment = {**os.environ, "UPWELL_HOME": str(folder.parent / "home"), "UPWELL_JOURNAL": "on"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        ("['version']", {"asyncio", "rich", "litestar", "httpx", "upwell.history", "upwell.flows"}),
        ("['--help']", {"asyncio", "litestar", "httpx", "upwell.history", "upwell.cli.flow_run"}),
        ("['flow-run', 'ls']", {"rich", "litestar", "httpx", "upwell.flows", "upwell.journal.journal", "cronsim"}),
        ("['deployment', 'ls']", {"rich", "litestar", "httpx", "upwell.flows", "cronsim", "dateutil", "docker"}),
    ],
)
def test_a_command_loads_what_it_needs_and_no_more(folder: Path, words: str, unwanted: set[str]) -> None:
    code = f"import sys; from upwell.cli.main import main; main({words}); print(sorted({unwanted} & set(sys.modules)))"
    out, err = process(folder, code=code).communicate(timeout=30)
    assert out.splitlines()[-1:] == ["[]"], out + err


def test_who_reads_may_stop_reading(folder: Path) -> None:
    shell = f"{UPWELL} config view --show-defaults | head -1"
    environment = {**os.environ, "UPWELL_HOME": str(folder.parent / "home")}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1)


def test_ctrl_c_ends_a_command(folder: Path) -> None:
    (folder / "long.py").write_text(
        "import time\nfrom upwell import flow\n\n@flow\ndef long():\n"
        "    print('begun', flush=True)\n    time.sleep(60)\n"
    )
    running = process(folder, "run", "long.py:long")
    assert running.stdout is not None
    assert running.stdout.readline() == "begun\n"
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=20)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    listed = process(folder, "flow-run", "ls", "-o", "json")
    assert '"CRASHED"' in (found := listed.communicate(timeout=20)[0]) or '"CANCELLED"' in found, found


def test_without_the_extra_it_says_how_to_get_it(folder: Path) -> None:
    code = "import sys; sys.modules['cyclopts'] = None; from upwell.cli.main import main; sys.exit(main(['version']))"
    without = process(folder, code=code)
    _, err = without.communicate(timeout=20)
    assert (without.returncode, err) == (1, "The command line needs cyclopts: pip install 'upwell[server]'\n")
