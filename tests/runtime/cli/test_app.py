"""The command line as a whole: help everywhere, nothing loaded in vain, exit codes, completion, pipes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cyclopts import App
from tests.runtime.cli.conftest import UPWELL, Upwell, process

from upwell.cli.app import make_app
from upwell.cli.tables import draw

ROOT = Path(__file__).parents[3]


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


def test_an_interpreter_without_its_scripts_has_the_command_line_as_a_module() -> None:
    told = subprocess.run([sys.executable, "-m", "upwell", "version"], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("upwell ")


# --- help ---------------------------------------------------------------------------------------------------


def test_every_command_has_help_with_examples_and_says_what_its_options_are(upwell: Upwell) -> None:
    for command in sorted(set(commands())):
        done = upwell(*command, "--help")
        assert (done.code, "Usage: upwell " + " ".join(command) in done.out) == (0, True)
        assert "Examples:\n\n    upwell " in done.out, command
        options = re.findall(r"^│ (?:\* +)?(--?[a-z]\S*|[A-Z][A-Z-]+)(?: .*?)?  +(\S.*)│$", done.out, re.M)
        missing = [name for name, text in options if text.strip().startswith("[")]
        assert missing == [], f"{missing} of {command} are not explained"


def test_examples_are_whole_at_the_usual_width(upwell: Upwell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command in sorted(set(commands())):
        examples = upwell(*command, "--help").out.partition("Examples:\n\n")[2].partition("\n\n")[0]
        assert all(line.startswith("    ") for line in examples.rstrip().splitlines()), examples


def groups() -> list[tuple[str, ...]]:
    return sorted({command[:-1] for command in commands() if len(command) > 1})


@pytest.mark.parametrize("group", groups(), ids=" ".join)
def test_pages_that_list_commands_are_as_cyclopts_would_draw_them(
    upwell: Upwell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], group: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    page = upwell(*group, "--help").out
    make_app().help_print(group)
    drawn = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines())
    first = drawn.index("╭─ Run and look") if not group else 0  # there, cyclopts says options first
    assert drawn[first : drawn.rindex("╯")] in page
    assert upwell(*group).out == upwell("-h", *group).out == page


def test_the_front_page_fits_a_narrow_terminal(upwell: Upwell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert [line for line in upwell("--help").lines if len(line) > 40 and not line.startswith("    upwell ")] == []


@pytest.mark.parametrize("columns", ["0", "1", "2"])
def test_help_ends_in_the_narrowest_terminal(upwell: Upwell, columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert "RUN" in upwell("explain", "--help").out
    assert "RUN" in upwell("explain").err


@pytest.mark.parametrize(("terminal", "no_color", "colored"), [(1, "", True), (1, "1", False), (0, "", False)])
def test_the_front_page_is_in_colors_on_a_terminal_that_has_some(
    upwell: Upwell, monkeypatch: pytest.MonkeyPatch, terminal: int, no_color: str, colored: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: bool(terminal), raising=False)
    assert ("\x1b[36m" in upwell("--help").out) is colored


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
    assert upwell().out == upwell("--help").out == upwell("-h").out
    assert upwell("--help", "flow", "ls").out == upwell("flow", "ls", "-h").out
    assert upwell("flow", "ls", "--version").code == 2
    assert (upwell("--profile").code, "wants a name" in upwell("--profile").err) == (2, True)


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
    answer: str | None = None

    def ask(_: str) -> str:
        if answer is None:  # Ctrl-D
            raise EOFError
        return answer

    monkeypatch.setattr("builtins.input", ask)
    for answer in (None, "n", ""):  # noqa: B007  # `ask` says it
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


NAMED = ["id", "flow", "name", "state", "took"]
RUN = [("01a20184-1a87-7ea0-af31-7a2184a85f34", ""), ("etl", ""), ("cheery-hippo", ""), ("Completed", ""), ("1 s", "")]


@pytest.mark.parametrize(
    ("width", "shown"), [(80, NAMED), (60, NAMED[1:]), (40, NAMED[1:]), (30, NAMED[1:4]), (20, NAMED[1:4])]
)
def test_where_there_is_little_room_ids_are_left_out_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int, shown: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    draw(NAMED, [RUN])
    title, _, *lines = capsys.readouterr().out.splitlines()
    assert title.split() == shown
    assert max(map(len, lines)) <= width
    if width > 20:
        assert "cheery-hippo  Completed" in lines[0]


def test_a_long_text_does_not_drive_other_columns_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    draw(["state", "since", "why"], [[("Failed", ""), ("04:21:53", ""), ("word " * 30, "")]])
    assert "since" in capsys.readouterr().out


# --- processes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        ("['version']", {"cyclopts", "asyncio", "rich", "msgspec", "importlib.metadata", "upwell.core.states"}),
        ("['--help']", {"cyclopts", "asyncio", "rich", "msgspec", "upwell.history", "upwell.cli.flow_run"}),
        ("['version', '-o', 'json']", {"asyncio", "rich", "importlib.metadata", "upwell.core.states"}),
        ("['flow-run', '--help']", {"cyclopts", "inspect", "asyncio", "msgspec", "sqlite3", "upwell.settings"}),
        ("['deployment', 'schedule']", {"cyclopts", "asyncio", "sqlite3", "upwell.settings"}),
        ("['deployment', 'run', '--help']", {"asyncio", "msgspec", "sqlite3", "upwell.history", "upwell.settings"}),
        ("['flow-run', 'ls']", {"cyclopts", "asyncio", "ssl", "rich", "upwell.flows", "upwell.journal.journal"}),
        ("['flow-run', 'ls', '-n', '5']", {"asyncio", "aiosqlite", "ssl", "rich", "upwell.flows"}),
        ("['task-run', 'ls', '-o', 'json']", {"asyncio", "aiosqlite", "ssl", "rich", "upwell.journal.liveness"}),
        ("['deployment', 'ls']", {"rich", "litestar", "httpx", "upwell.flows", "cronsim", "dateutil", "docker"}),
    ],
)
def test_a_command_loads_what_it_needs_and_no_more(folder: Path, words: str, unwanted: set[str]) -> None:
    code = f"import sys; from upwell.cli.main import main; main({words}); print(sorted({unwanted} & set(sys.modules)))"
    out, err = process(folder, code=code).communicate(timeout=30)
    assert out.splitlines()[-1:] == ["[]"], out + err


def in_the_shell(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "UPWELL_HOME": str(folder.parent / "home")}
    shell = ["bash", "-o", "pipefail", "-c", line]
    return subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", ["config view --show-defaults", "config --help", "--help"])
def test_who_reads_may_stop_reading(folder: Path, words: str) -> None:
    done = in_the_shell(folder, f"{UPWELL} {words} | head -1")
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1)


@pytest.mark.parametrize("buffered", ["", "PYTHONUNBUFFERED=1 "])
def test_who_stops_reading_does_not_change_how_a_flow_ended(folder: Path, buffered: str) -> None:
    done = in_the_shell(folder, f"{buffered}{UPWELL} run flows.py:etl -p n=14 2>&1 | true; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 1


def test_who_stops_reading_does_not_change_how_a_flow_that_was_watched_had_ended(folder: Path) -> None:
    assert in_the_shell(folder, f"{UPWELL} run flows.py:etl -p n=14").returncode == 1
    run = "$(upwell flow-run ls -o json | python -c 'import json, sys; print(json.load(sys.stdin)[0][\"id\"])')"
    run = run.replace("upwell", str(UPWELL)).replace("python", sys.executable)
    watched = f"env -u PYTHONUNBUFFERED {UPWELL} flow-run watch {run}"
    done = in_the_shell(folder, f"{watched} | true; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stderr) == (1, "")


def test_there_may_be_no_output_and_no_room_for_it(folder: Path) -> None:
    assert (done := in_the_shell(folder, f"{UPWELL} version >&-")).returncode == 0, done.stderr
    assert in_the_shell(folder, f"{UPWELL} nonsense >&- 2>&-").returncode == 2
    done = in_the_shell(folder, f"{UPWELL} version > /dev/full")
    assert (done.returncode, done.stderr) == (
        1,
        "Error: The output cannot be written: No space left on device.\n",
    )


def test_an_output_need_not_have_a_sign_for_every_character(folder: Path) -> None:
    assert in_the_shell(folder, f"{UPWELL} work-pool create 'größe 🎉'").returncode == 0
    done = in_the_shell(folder, f"PYTHONIOENCODING=ascii {UPWELL} work-pool ls")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"gr\xf6\xdfe \U0001f389" in done.stdout
    done = in_the_shell(folder, f"PYTHONIOENCODING=ascii {UPWELL} work-pool ls -o json")
    assert [pool["name"] for pool in json.loads(done.stdout)] == ["größe 🎉"]


@contextmanager
def begun_slowly(upwell: Upwell, folder: Path) -> Generator[subprocess.Popen[str]]:
    """A run that goes on; it is killed at the end."""
    (folder / "slow.py").write_text(
        "import time\nfrom upwell import flow, get_run_logger\n\n@flow(flow_run_name='slow')\ndef slow():\n"
        "    get_run_logger().warning('begun')\n    time.sleep(60)\n"
    )
    running = process(folder, "run", "slow.py:slow")
    while "begun" not in upwell("flow-run", "logs", "slow").out:
        time.sleep(0.05)
    try:
        yield running
    finally:
        running.kill()
        running.communicate(timeout=20)


DEPLOYED = """
import asyncio
from upwell.composition import open_control
from upwell.core.deployments import DeploymentSpec
async def main():
    async with open_control() as control:
        await control.apply_deployment(DeploymentSpec(flow_name="slow", name="d", entrypoint="slow.py:slow"))
asyncio.run(main())
"""


@pytest.mark.parametrize("output", ["env -u PYTHONUNBUFFERED", "env PYTHONUNBUFFERED=1"])
def test_what_follows_a_run_ends_when_nobody_reads_it_any_more(upwell: Upwell, folder: Path, output: str) -> None:
    """Although nothing happens that it could tell."""
    deploying = process(folder, code=DEPLOYED)
    deploying.communicate(timeout=60)
    with begun_slowly(upwell, folder):
        for words in ("flow-run logs slow --follow", "flow-run watch slow", "deployment run slow/d --watch"):
            done = in_the_shell(folder, f"timeout 30 {output} {UPWELL} {words} | head -1")
            assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 1), words


@pytest.mark.parametrize("words", ["logs slow --follow", "watch slow"])
def test_ctrl_c_ends_what_follows_a_run(upwell: Upwell, folder: Path, words: str) -> None:
    with begun_slowly(upwell, folder):
        following = process(folder, "flow-run", *words.split())
        assert following.stdout is not None
        assert following.stdout.readline()
        following.send_signal(signal.SIGINT)
        _, err = following.communicate(timeout=20)
        assert (following.returncode, err) == (130, "Interrupted.\n")
    assert upwell("flow-run", "watch", "slow").code == 1  # nobody but who watches sees that it is dead
    assert "CRASHED" in upwell("flow-run", "ls", "-o", "json").out


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


def test_ctrl_c_while_a_command_is_loaded_is_no_traceback(upwell: Upwell, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pressed:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == "upwell.cli.commands":
                raise KeyboardInterrupt

    monkeypatch.setattr(sys, "meta_path", [Pressed, *sys.meta_path])
    monkeypatch.delitem(sys.modules, "upwell.cli.commands")
    assert upwell("--version") == (130, "", "Interrupted.\n")


def test_without_the_extra_it_says_how_to_get_it(folder: Path) -> None:
    code = (
        "import sys; sys.modules['cyclopts'] = None; from upwell.cli.main import main; sys.exit(main(['flow', '-x']))"
    )
    without = process(folder, code=code)
    _, err = without.communicate(timeout=20)
    assert (without.returncode, err) == (1, "The command line needs cyclopts: pip install 'upwell[server]'\n")
