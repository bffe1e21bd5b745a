"""The pieces that stand in each row of a page. As macros of templates they take ten times as long, which adds up.

What a template makes is escaped by itself; here each text that is not our own is, by `escape`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Final
from urllib.parse import urlencode

from markupsafe import Markup, escape

from upwell.core.states import State, StateType
from upwell.server.pages.assets import asset
from upwell.server.pages.charts import Bar
from upwell.server.pages.shown import STATE_ORDER, ago, exact, kind_of, number, seconds_between, several, took

KEPT: Final = 1024
"""How many pieces of each kind are remembered that many rows have alike."""

MOST_TITLE: Final = 300
"""Characters of a reason that one sees by pointing at a state."""

MOST_NAME: Final = 90
_LEEWAY: Final = 5


def url(path: str, **query: object) -> str:
    """An address with the parts of its query that say something."""
    said = {name: value for name, value in query.items() if value not in (None, "", False, (), [])}
    return f"{path}?{urlencode(said, doseq=True)}" if said else path


@lru_cache(KEPT)
def icon(name: str) -> Markup:
    """A picture of our own."""
    return Markup(f'<svg class="icon" aria-hidden="true"><use href="{asset("icons.svg")}#{escape(name)}"/></svg>')


def state(state: State, large: bool = False) -> Markup:
    """A state with its picture, and why it is so."""
    reason = _cut(state.message, MOST_TITLE, "...", _LEEWAY) if state.message else ""
    return _state(kind_of(state), state.name, reason, large)


@lru_cache(KEPT)
def _state(kind: str, name: str, reason: str, large: bool) -> Markup:
    title = f' title="{escape(reason)}"' if reason else ""
    return Markup(f'<span class="state is-{kind}{" large" if large else ""}"{title}>{icon(kind)}{escape(name)}</span>')


def when(moment: dt.datetime | None, now: dt.datetime) -> Markup:
    """How long ago that was."""
    if moment is None:
        return _NOTHING
    return Markup(f'<time datetime="{moment.isoformat()}" title="{exact(moment)}" data-ago>{ago(moment, now)}</time>')


def exact_time(moment: dt.datetime) -> Markup:
    """The moment to the millisecond. The pages' scripts put the reader's own zone in the place of UTC."""
    return Markup(f'<time datetime="{moment.isoformat()}" data-moment>{exact(moment)}</time>')


def duration(start: dt.datetime | None, end: dt.datetime | None, now: dt.datetime) -> Markup:
    """How long something took, or has taken until now."""
    if start is None:
        return _NEVER
    if end is not None:
        length = took(seconds_between(start, end))
        return Markup(f'<span title="from {exact(start)} to {exact(end)}">{length}</span>')
    length = took(seconds_between(start, now))
    return Markup(f'<time datetime="{start.isoformat()}" title="since {exact(start)}" data-since>{length}</time>')


def tags(names: Collection[str], path: str = "/runs", most: int | None = None) -> Markup:
    """Tags, each with the way to what has it. most: so many; the others are counted."""
    return _tags(tuple(names), path, most) if names else _NOTHING


@lru_cache(KEPT)
def _tags(names: tuple[str, ...], path: str, most: int | None) -> Markup:
    known = sorted(names, key=str.lower)
    shown = [f'<a class="tag" href="{escape(url(path, tag=name))}">{escape(name)}</a> ' for name in known[:most]]
    if most is not None and len(known) > most:
        others = escape(", ".join(known[most:]))
        shown.append(f'<span class="dim" title="{others}">and {len(known) - most} more</span>')
    return Markup("".join(shown))


def named(first: str, second: str) -> Markup:
    """A run by the names of its flow and its own."""
    return Markup(f'<span class="name"{_whole(first)}</span> <span class="dim"{_whole(second, "/ ")}</span>')


def _whole(name: str, before: str = "") -> str:
    """A name, cut if it is very long; then one sees all of it by pointing at it."""
    title = f' title="{escape(name)}"' if len(name) > MOST_NAME else ""
    return f"{title}>{before}{escape(_cut(name, MOST_NAME, '…', 0))}"


def counted(counts: Mapping[StateType, int]) -> str:
    """`1,000 completed, 2 failed`."""
    return ", ".join(f"{number(counts[kind])} {kind_of(kind)}" for kind in STATE_ORDER if counts.get(kind))


def bar(counts: Mapping[StateType, int], total: int, thin: bool = False) -> Markup:
    """How many of all are in which state: a piece of a bar for each."""
    pieces: list[str] = []
    x: float = 0
    for kind in STATE_ORDER:
        if runs := counts.get(kind):
            width, look = 100 * runs / total, kind_of(kind)
            pieces.append(
                f'<rect class="is-{look}" x="{round(x, 3)}%" width="{round(width, 3)}%" height="100%">'
                f"<title>{number(runs)} {look}</title></rect>"
            )
            x += width
    label = f'class="bar{" thin" if thin else ""}" role="img" aria-label="{counted(counts)}"'
    return Markup(f"<svg {label}>{''.join(pieces)}</svg>")


def strip(runs: Sequence[Bar]) -> Markup:
    """The last runs of something: height is how long they took, colour is how they ended."""
    bars = [
        f'<a href="/runs/{run.id}" tabindex="-1" aria-hidden="true"><rect class="is-{run.kind}" x="{run.x}%" '
        f'y="{run.y}%" width="{run.width}%" height="{run.height}%" rx="1"><title>{escape(run.title)}</title></rect></a>'
        for run in runs
    ]
    label = f"The last {several(len(runs), 'run')}" if len(runs) > 1 else "The last run"
    return Markup(f'<svg class="strip" role="group" aria-label="{label}">{"".join(bars)}</svg>')


def _cut(text: str, most: int, end: str, leeway: int) -> str:
    """The beginning of a text that is longer, and that there is more."""
    return text if len(text) <= most + leeway else text[: most - len(end)] + end


_NOTHING: Final = Markup()
_NEVER: Final = Markup('<span class="dim">–</span>')

__all__ = ["bar", "counted", "duration", "exact_time", "icon", "named", "state", "strip", "tags", "url", "when"]
