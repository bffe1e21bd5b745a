"""How many workers a pool has when nobody says."""

from __future__ import annotations

from typing import Any

import pytest

from upwell.core.errors import ConfigurationError
from upwell.settings import temporary_settings
from upwell_runners.processes import ProcessPoolTaskRunner
from upwell_runners.threads import ThreadPoolTaskRunner


def test_the_settings_say_how_many_workers_a_pool_has_unless_it_is_told() -> None:
    with temporary_settings(tasks_runner_thread_pool_max_workers=3, tasks_runner_process_pool_max_workers=5):
        assert ThreadPoolTaskRunner().max_workers == 3
        assert ProcessPoolTaskRunner().max_workers == 5
        assert ThreadPoolTaskRunner(max_workers=7).max_workers == 7
        assert ProcessPoolTaskRunner(max_workers=7).max_workers == 7


@pytest.mark.parametrize("runner", [ThreadPoolTaskRunner, ProcessPoolTaskRunner])
def test_a_number_of_workers_that_cannot_be_is_refused(runner: Any) -> None:
    for wrong, error in (
        (0, ConfigurationError),
        (-1, ConfigurationError),
        ("3", TypeError),
        (1.5, TypeError),
        (True, TypeError),
    ):
        with pytest.raises(error, match="max_workers"):
            runner(max_workers=wrong)
