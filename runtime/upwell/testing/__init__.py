"""Test your flows: time that jumps, cancellation and death at each place, stores that fail, suites for own parts."""

from upwell.testing.cancellation import cancel_everywhere
from upwell.testing.clock import DeadlockError, VirtualClock, run_virtual, virtual_clock
from upwell.testing.conformance import TaskRunnerConformance
from upwell.testing.crash_points import CRASH_POINTS, crash_point, install_crash_points
from upwell.testing.crashing_store import Fault, FaultyDatabase
from upwell.testing.databases import DatabaseConformance
from upwell.testing.leaks import LeakError, no_leaks
from upwell.testing.simulation import SimulatedProcess, Simulation, simulate

__all__ = [
    "CRASH_POINTS",
    "DatabaseConformance",
    "DeadlockError",
    "Fault",
    "FaultyDatabase",
    "LeakError",
    "SimulatedProcess",
    "Simulation",
    "TaskRunnerConformance",
    "VirtualClock",
    "cancel_everywhere",
    "crash_point",
    "install_crash_points",
    "no_leaks",
    "run_virtual",
    "simulate",
    "virtual_clock",
]
