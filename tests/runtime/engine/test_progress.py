"""Progress bars: what a person sees on a terminal, what a file gets, and that nothing garbles them."""

from __future__ import annotations

import io
import logging
import os
import pty
import re
import sys
import threading
from collections.abc import Generator

import pytest

from upwell.engine import progress, progress_lines, terminal
from upwell.engine.console import ConsoleHandler
from upwell.engine.prints import take_print_over
from upwell.engine.progress import Board, ProgressHandle
from upwell.engine.progress_lines import Counts, duration, plain_lines, summary

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen:
    """A pseudo-terminal, and what a person would see on it."""

    _MARK = "\x1b[9999m"
    _row = 0

    def __init__(self) -> None:
        self._ours, theirs = pty.openpty()
        self.stream = open(theirs, "w", encoding="utf-8")  # noqa: SIM115  # closed below
        self.lines = [""]

    def look(self) -> list[str]:
        """The lines on it now; understands only what a bar uses: \\r, \\n, erase line, cursor up, colours."""
        self.stream.write(self._MARK)
        self.stream.flush()
        seen = b""
        while not seen.endswith(self._MARK.encode()):  # a terminal passes on what is written when it likes
            seen += os.read(self._ours, 65536)
        new = seen.decode().removesuffix(self._MARK)
        for part in re.split(r"(\r|\n|\x1b\[[0-9;?]*[A-Za-z])", new):
            if part == "\n":
                self._row += 1
                if self._row == len(self.lines):
                    self.lines.append("")
            elif part == "\x1b[2K":
                self.lines[self._row] = ""
            elif part == "\x1b[1A":
                self._row -= 1
            elif part and part != "\r" and not ESCAPE.fullmatch(part):
                self.lines[self._row] += part
        return [line.rstrip() for line in self.lines]

    def close(self) -> None:
        self.stream.close()
        os.close(self._ours)


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Counter:
    done = failed = 0

    def read(self) -> int:
        return self.done

    def read_failed(self) -> int:
        return self.failed


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Generator[Screen]:
    monkeypatch.setenv("TERM", "xterm")
    made = Screen()
    yield made
    terminal.set_foot(None)
    made.close()


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("rich", "rich.console", "rich.progress_bar", "rich.table", "rich.text"):
        monkeypatch.setitem(sys.modules, module, None)


def test_a_plain_line_says_how_far_how_fast_and_how_long() -> None:
    bar = Counts("parse", 1234, 5000, 0, 812.0, 1.5)
    assert plain_lines([bar], 200) == ["parse  1,234/5,000   24% [=====>                  ]  812/s  0:00:05 left"]
    assert plain_lines([bar._replace(failed=3)], 200)[0].endswith("0:00:05 left  3 failed")
    assert plain_lines([bar], 20) == ["parse  1,234/5,000 "]


def test_lines_stay_true_at_their_edges() -> None:
    assert plain_lines([Counts("empty", 0, 0, 0, None, 0.0)], 99)[0].startswith("empty  0/0  100% [====")
    assert plain_lines([Counts("more", 12, 10, 0, 2.5, 60.0)], 99)[0].endswith("2.5/s  0:00:00 left")
    assert plain_lines([Counts("endless", 1234, None, 0, 10.0, 3725.0)], 99) == ["endless  1,234  10/s  1:02:05"]
    assert summary(Counts("parse", 5000, 5000, 2, 812.0, 6.2, True)) == (
        "parse  5,000/5,000 in 0:00:06, 812/s, 2 failed"
    )
    assert duration(59.7) == "0:01:00"


@pytest.mark.usefixtures("without_rich")
def test_on_a_terminal_one_line_is_drawn_again_and_again_and_stays_when_over(screen: Screen, time: Time) -> None:
    counter = Counter()
    board = Board(screen.stream, time, sampled=False)
    bar = board.add("parse", 200, counter.read, counter.read_failed)
    for counter.done in (0, 50, 100):
        board.tick()
        time.now += 1
    assert screen.look() == ["parse  100/200   50% [============>           ]  50/s  0:00:02 left"]
    counter.done, counter.failed = 150, 3
    bar.close()
    bar.close()
    assert screen.look() == ["parse  150/200   75% [==================>     ]  50/s  0:00:03  3 failed", ""]
    assert not terminal.has_foot()


@pytest.mark.usefixtures("without_rich")
def test_a_bar_whose_total_is_reached_closes_itself(screen: Screen, time: Time) -> None:
    counter = Counter()
    board = Board(screen.stream, time, sampled=False)
    board.add("parse", 2, counter.read)
    board.tick()
    counter.done, time.now = 2, 101.0
    board.tick()
    assert screen.look() == ["parse  2/2  100% [========================]  2.0/s  0:00:01", ""]
    assert not terminal.has_foot()
    board.tick()
    assert len(screen.look()) == 2


@pytest.mark.usefixtures("without_rich")
def test_several_bars_share_the_bottom_and_leave_it_one_by_one(screen: Screen, time: Time) -> None:
    first, second = Counter(), Counter()
    board = Board(screen.stream, time, sampled=False)
    board.add("first", 4, first.read)
    two = board.add("second", None, second.read)
    board.tick()
    first.done, second.done, time.now = 4, 7, 101.0
    board.tick()
    titles = [line.split()[0] for line in screen.look()]
    assert titles == ["first", "second"]
    assert "100%" in screen.look()[0]
    board.tick()
    assert [line.split()[0] for line in screen.look()] == ["first", "second"]
    two.close()
    assert screen.look()[1:] == ["second  7  7.0/s  0:00:01", ""]


def test_rich_draws_where_it_is_installed_from_the_second_look_on(screen: Screen, time: Time) -> None:
    counter = Counter()
    board = Board(screen.stream, time, sampled=False)
    bar = board.add("[b]parse[/b]", 1000, counter.read, counter.read_failed)
    board.tick()
    assert "[>" in screen.look()[0]
    counter.done, counter.failed, time.now = 400, 2, 101.0
    board.tick()
    (line,) = screen.look()
    assert "━" in line
    assert line.startswith("[b]parse[/b]")
    for part in ("400/1,000", "40%", "400/s", "0:00:02 left", "2 failed"):
        assert part in line
    bar.close()
    assert [bool(line) for line in screen.look()] == [True, False]


def test_an_endless_bar_is_drawn_by_rich_too(screen: Screen, time: Time) -> None:
    counter = Counter()
    board = Board(screen.stream, time, sampled=False)
    bar = board.add("stream", None, counter.read)
    board.tick()
    board.tick()
    counter.done = 9
    bar.close()
    assert screen.look()[0].split()[:2] == ["stream", "9"]


def test_log_lines_and_prints_appear_above_the_bar(screen: Screen, time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = Counter()
    board = Board(screen.stream, time, sampled=False)
    bar = board.add("parse", 10, counter.read)
    board.tick()
    monkeypatch.setattr(sys, "stderr", screen.stream)
    monkeypatch.setattr(sys, "stdout", screen.stream)
    monkeypatch.setattr(logging.root, "handlers", [])
    take_print_over()
    ConsoleHandler(colors=False).handle(logging.makeLogRecord({"name": "x", "msg": "a line", "levelname": "INFO"}))
    print("a print", end="")
    lines = screen.look()
    assert lines[0].endswith("| INFO    | x - a line")
    assert lines[1] == "a print"
    assert lines[2].startswith("parse   0/10")
    assert len(lines) == 3
    bar.close()
    monkeypatch.undo()


def test_what_is_no_terminal_gets_a_line_at_the_beginning_and_one_at_the_end(time: Time) -> None:
    out = io.StringIO()
    counter = Counter()
    board = Board(out, time, sampled=False)
    with board.add("parse", 5000, counter.read, counter.read_failed):
        with board.add("stream\nof things", None, counter.read):
            for _ in range(5):
                board.tick()
        counter.done, counter.failed, time.now = 5000, 3, 106.0
        board.tick()
    assert out.getvalue().splitlines() == [
        "parse: 5,000 to do",
        "stream of things: to do",
        "stream of things  0 in 0:00:00",
        "parse  5,000/5,000 in 0:00:06, 833/s, 3 failed",
    ]


def test_a_counter_that_fails_takes_its_bar_away_and_no_other(
    screen: Screen, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    counter = Counter()

    def broken() -> int:
        raise KeyError("gone")

    board = Board(screen.stream, time, sampled=False)
    board.add("broken", 10, broken)
    good = board.add("good", 10, counter.read)
    board.tick()
    assert [line.split()[0] for line in screen.look()] == ["good"]
    good.close()
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_terminal_that_went_away_hurts_nobody(screen: Screen, time: Time) -> None:
    counter = Counter()
    out = open(os.dup(screen.stream.fileno()), "w")  # noqa: SIM115  # closed in the middle
    board = Board(out, time, sampled=False)
    bar = board.add("parse", 10, counter.read)
    board.tick()
    out.close()
    board.tick()
    bar.close()
    assert not terminal.has_foot()


def test_a_thread_looks_at_the_counters_and_ends_with_the_last_bar() -> None:
    looked = threading.Event()

    def read() -> int:
        looked.set()
        return 1 if looked.is_set() else 0

    out = io.StringIO()
    board = Board(out)
    board.add("parse", 1, read)
    thread = board.sampler
    assert thread is not None
    thread.join(10)
    assert not thread.is_alive()
    assert out.getvalue().splitlines()[1].startswith("parse  1/1 in ")


def test_bars_can_be_opened_and_closed_from_many_threads() -> None:
    out = io.StringIO()
    board = Board(out)

    def work(number: int) -> None:
        for _ in range(20):
            board.add(f"bar-{number}", None, lambda: 1).close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(out.getvalue().splitlines()) == 4 * 20 * 2
    if (sampler := board.sampler) is not None:
        sampler.join(10)
    assert board.sampler is None


def test_the_end_of_the_process_draws_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    bar = progress.with_progress("parse", 10, lambda: 4)
    assert isinstance(bar, ProgressHandle)
    assert repr(bar) == "<ProgressHandle 'parse' 4/10>"
    progress.BOARD.close_all()
    if (sampler := progress.BOARD.sampler) is not None:
        sampler.join(10)
    assert capsys.readouterr().err.splitlines()[1].startswith("parse   4/10 in 0:00:00")


def test_the_width_of_what_is_no_terminal_is_a_guess() -> None:
    assert progress_lines.terminal_width(io.StringIO()) == 80
