"""How many workers a pool has when nobody says."""

from __future__ import annotations

from upwell.settings import temporary_settings
from upwell_runners.processes import ProcessPoolTaskRunner
from upwell_runners.threads import ThreadPoolTaskRunner


def test_the_settings_say_how_many_workers_a_pool_has_unless_it_is_told() -> None:
    with temporary_settings(tasks_runner_thread_pool_max_workers=3, tasks_runner_process_pool_max_workers=5):
        assert ThreadPoolTaskRunner().max_workers == 3
        assert ProcessPoolTaskRunner().max_workers == 5
        assert ThreadPoolTaskRunner(max_workers=7).max_workers == 7
        assert ProcessPoolTaskRunner(max_workers=7).max_workers == 7
