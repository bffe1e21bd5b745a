"""The benchmarks' arithmetic, and that every row runs; nothing here depends on how long anything takes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from benchmarks.__main__ import main
from benchmarks.harness import Result, Spread, alternate, measure, paired_ratio, spread
from benchmarks.rivals.environments import RIVALS
from benchmarks.rows import LOOPS, Measured, Rival, Row, Side, Unit
from benchmarks.table_of_rows import ROWS, rows_matching

from benchmarks import results

A_FEW = 10


def made_row(ours: list[float], theirs: list[float], most: float) -> Row:
    """A row whose sides say themselves how long they took, run after run."""

    def side(seconds: list[float]) -> Callable[[int], Measured]:
        left = iter(seconds)
        return lambda size: Measured(next(left))

    return Row(
        name="made",
        measures="nothing",
        leaves_out="everything",
        ours=Side("ours", side(ours)),
        rivals=(Rival("theirs", side(theirs), most=most),),
        size=4,
        quick_size=4,
        rounds=len(ours),
        warm_up=False,
        peak=False,
    )


def test_sides_run_in_turns_and_the_warm_up_is_not_counted() -> None:
    order: list[str] = []
    ticks = count()

    def side(name: str) -> Measured:
        order.append(name)
        return Measured(next(ticks))

    seconds = alternate([lambda: side("a"), lambda: side("b")], 2, warm_up=True)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert seconds == [[2.0, 4.0], [3.0, 5.0]]


def test_a_spread_is_median_and_quartiles_and_of_few_numbers_the_extremes() -> None:
    assert spread([5, 1, 3, 2, 4]) == Spread(3, 2, 4)
    assert spread([3, 1]) == Spread(2, 1, 3)
    assert spread([7]) == Spread(7, 7, 7)


def test_ratios_are_taken_within_each_round() -> None:
    assert paired_ratio([1, 10, 100], [2, 20, 200]) == Spread(0.5, 0.5, 0.5)


@pytest.mark.parametrize(("most", "met"), [(0.5, True), (0.49, False)])
def test_a_target_is_met_by_the_median_ratio_up_to_its_bound(most: float, met: bool) -> None:
    (result,) = measure(made_row([1.0, 1.0, 9.0], [2.0, 2.0, 2.0], most), 4)
    assert result.ratio == Spread(0.5, 0.5, 4.5)
    assert result.ours.median == 1.0 / 4 * 1e6
    assert result.met is met


def test_units_are_per_item_or_whole() -> None:
    assert Unit.MICROSECONDS.of(1.0, 10) == 1e5
    assert Unit.MILLISECONDS.of(1.0, 10) == 1000
    assert Unit.KIB.of(2048, 2) == 1
    assert Unit.MIB.of(2**20, 10) == 1


def test_results_come_back_from_their_file_and_name_no_place(tmp_path: Path) -> None:
    report = results.report(["map", "--quick"], measure(made_row([1.0], [2.0], 1.0), 4))
    path = results.save(report, tmp_path / "results")
    assert results.load(path) == report
    assert results.newest(path.parent) == path
    assert str(Path.cwd()) not in path.read_text()


def test_the_table_says_which_targets_are_missed() -> None:
    lines = results.table(measure(made_row([2.0], [1.0], 1.0), 4)).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[-1].endswith("|     <= 1 | NO   |")


def test_rows_are_chosen_by_the_beginning_of_their_names() -> None:
    assert [row.name for row in rows_matching(["map-10", "chain"])] == [
        "map-10k",
        "map-100k",
        "map-100k-raised",
        "map-100k-flow",
        "chain",
    ]
    with pytest.raises(ValueError, match="no row begins with 'mop'; there are: map-10k"):
        rows_matching(["mop"])
    assert main(["mop"]) == 2


def test_every_row_says_what_it_measures_and_has_a_name_of_its_own() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert all(row.measures and row.leaves_out for row in ROWS)


def test_every_rival_has_its_work_and_pinned_versions() -> None:
    folder = Path(results.__file__).parent / "rivals"
    for name, rival in RIVALS.items():
        assert (folder / f"with_{name}.py").exists()
        assert (folder / f"with_{rival.beside}.py").exists()
        assert all("==" in package for package in rival.packages)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_runs_at_a_small_size(row: Row) -> None:
    for loop in LOOPS if row.on_loops else LOOPS[:1]:
        found: list[Result] = measure(row, A_FEW, loop, rounds=1, peaks=False)
        assert len(found) == len(row.rivals) + (row.most is not None or not row.rivals)
        assert all(result.ours.median >= 0 for result in found)
