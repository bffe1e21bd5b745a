"""From rows to records: exact to the microsecond, and with the ids that the engine has given."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from upwell.core.ids import RANDOM_BITS, uuid7
from upwell.core.states import FAILED, StateType
from upwell.journal.reader_records import moment, random_part, spans_of_runs, tags_of, task_run_id, uuid_or_none

MICROS = st.integers(0, 4_102_444_800_000_000)
"""Until the year 2100."""
RANDOM = st.integers(0, (1 << RANDOM_BITS) - 1)
FLOW_RUN = "01a2001f-5e03-73ab-bd7f-7bf7080e6241"


@given(MICROS, RANDOM, st.integers(0, 1_000_000))
def test_the_id_of_a_run_is_that_which_it_was_given(created: int, random: int, number: int) -> None:
    run_id = task_run_id(f"{random:019x}", created, number)
    assert run_id == uuid7((created + 0.5) / 1e6, random + number)
    assert random_part(run_id) == (random + number) % (1 << RANDOM_BITS)
    assert run_id.version == 7


@given(MICROS, MICROS, st.none() | MICROS, st.sampled_from(StateType), RANDOM)
def test_spans_say_what_rows_say(created: int, started: int, ended: int | None, kind: StateType, random: int) -> None:
    series = [(7, f"{random:019x}", "fetch", FLOW_RUN), (8, f"{random:019x}", "parse", FLOW_RUN)]
    rows = [(7, 3, created, started, ended, kind.value, None, None), (8, 0, created, None, None, "FAILED", "X", "null")]
    first, second = spans_of_runs(rows, series)
    assert (first.id, first.name) == (task_run_id(f"{random:019x}", created, 3), "fetch-3")
    assert (first.state_type, first.state_name) == (kind, kind.value.capitalize())
    assert (first.flow_run_id, first.is_flow_run) == (UUID(FLOW_RUN), False)
    assert (first.created, first.start_time) == (moment(created), moment(started))
    assert first.end_time == (None if ended is None else moment(ended))
    assert (second.name, second.state_type, second.state_name) == ("null", FAILED, "X")
    assert (second.start_time, second.end_time) == (None, None)


def test_what_many_rows_have_alike_is_read_once() -> None:
    assert tags_of('["api","slow"]') == {"api", "slow"}
    assert tags_of('["api","slow"]') is tags_of('["api","slow"]')
    assert tags_of(None) == tags_of("") == frozenset()
    assert uuid_or_none(FLOW_RUN) == UUID(FLOW_RUN)
    assert uuid_or_none(None) is None
