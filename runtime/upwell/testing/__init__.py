"""Test your flows: time that jumps, cancellation at every await, leaks, and a suite for task runners."""

from upwell.testing.cancellation import cancel_everywhere
from upwell.testing.clock import DeadlockError, VirtualClock, run_virtual, virtual_clock
from upwell.testing.conformance import TaskRunnerConformance
from upwell.testing.leaks import LeakError, no_leaks

__all__ = [
    "DeadlockError",
    "LeakError",
    "TaskRunnerConformance",
    "VirtualClock",
    "cancel_everywhere",
    "no_leaks",
    "run_virtual",
    "virtual_clock",
]
