"""The pieces of rows: what they say, and that what people wrote stays text."""

from __future__ import annotations

import datetime as dt

from upwell.core.states import COMPLETED, FAILED, PENDING, RUNNING, State, StateType
from upwell.server.pages.charts import Bar
from upwell.server.pages.pieces import bar, counted, duration, exact_time, icon, named, state, strip, tags, when
from upwell.server.pages.timeline import Block, Row

NOW = dt.datetime(2026, 3, 29, 12, 0, 0, 250_999, tzinfo=dt.UTC)
ATTACK = "<script>\"'&{{7*7}}"
SAFE = "&lt;script&gt;&#34;&#39;&amp;{{7*7}}"


def test_what_people_wrote_is_text_in_every_piece() -> None:
    attacked = State(type=FAILED, name=ATTACK, message=ATTACK)
    run = Bar(id="x", kind="failed", title=ATTACK, x=0, y=0, width=1, height=1)
    row = Row(label="", href="", kind="", depth=0, style="run", blocks=[Block("failed", 0, 1, 0, 1, ATTACK)], took="")
    for piece, times in (
        (state(attacked), 2),
        (tags([ATTACK]), 1),
        (tags(["a", "b", ATTACK], most=1), 1),
        (named(ATTACK, ATTACK), 2),
        (named(100 * ATTACK, ""), 104),
        (strip([run]), 1),
        (row.drawn, 1),
    ):
        assert "<script" not in piece
        assert ATTACK not in piece
        assert piece.count(SAFE) == times, piece
    assert 'href="/runs?tag=%3Cscript%3E%22%27%26' in tags([ATTACK])
    assert "<" not in icon(ATTACK).partition("#")[2].partition('"')[0]


def test_a_state_shows_its_reason_cut_where_it_is_very_long() -> None:
    done = state(State(type=COMPLETED, name="Completed"))
    assert done.startswith('<span class="state is-completed"><svg')
    assert done.endswith(">Completed</span>")
    assert ' title="it broke"' in state(State(type=FAILED, name="Failed", message="it broke"))
    assert f' title="{"x" * 297}..."' in state(State(type=FAILED, name="Failed", message="x" * 400))
    assert "is-late large" in state(State(type=StateType.SCHEDULED, name="Late"), large=True)


def test_times_are_said_and_exact_by_pointing_at_them() -> None:
    start = NOW - dt.timedelta(seconds=90)
    title = "2026-03-29 11:58:30.250 UTC"
    assert when(start, NOW) == (
        f'<time datetime="2026-03-29T11:58:30.250999+00:00" title="{title}" data-ago>1 min ago</time>'
    )
    assert when(None, NOW) == ""
    elsewhere = start.astimezone(dt.timezone(dt.timedelta(hours=2)))
    assert 'title="2026-03-29 11:58:30.250 UTC"' in when(elsewhere, NOW)
    assert duration(start, NOW, NOW) == (
        '<span title="from 2026-03-29 11:58:30.250 UTC to 2026-03-29 12:00:00.250 UTC">1 min 30 s</span>'
    )
    assert "data-since>1 min 30 s</time>" in duration(start, None, NOW)
    assert exact_time(start) == f'<time datetime="2026-03-29T11:58:30.250999+00:00" data-moment>{title}</time>'
    assert duration(None, NOW, NOW) == duration(None, None, NOW) == '<span class="dim">–</span>'


def test_tags_are_in_order_and_the_others_are_counted() -> None:
    assert tags(frozenset({"b", "A", "c"})) == (
        '<a class="tag" href="/runs?tag=A">A</a> <a class="tag" href="/runs?tag=b">b</a> '
        '<a class="tag" href="/runs?tag=c">c</a> '
    )
    assert tags(["b", "A", "c"], "/task-runs", most=1) == (
        '<a class="tag" href="/task-runs?tag=A">A</a> <span class="dim" title="b, c">and 2 more</span>'
    )
    assert tags([]) == ""


def test_long_names_are_cut_and_whole_by_pointing_at_them() -> None:
    assert named("flow", "run") == '<span class="name">flow</span> <span class="dim">/ run</span>'
    long = "n" * 91
    assert f'<span class="dim" title="{long}">/ {"n" * 89}…</span>' in named("flow", long)


def test_a_bar_has_a_piece_for_each_state() -> None:
    counts = {FAILED: 1, PENDING: 0, COMPLETED: 1_000, RUNNING: 1}
    assert counted(counts) == "1,000 completed, 1 running, 1 failed"
    drawn = bar(counts, 1_002)
    assert f'aria-label="{counted(counts)}"' in drawn
    assert drawn.count("<rect") == 3
    assert '<rect class="is-completed" x="0%" width="99.8%"' in drawn
    assert '<rect class="is-failed" x="99.9%" width="0.1%"' in drawn
    assert 'class="bar thin"' in bar(counts, 1_002, thin=True)


def test_the_last_runs_are_told_by_their_number() -> None:
    run = Bar(id="x", kind="failed", title="", x=0, y=0, width=1, height=1)
    assert 'aria-label="The last run"' in strip([run])
    assert 'aria-label="The last 2 runs"' in strip([run, run])
