"""Task runner `processes`: attempts in a pool of child processes."""

from upwell_runners.processes.pool import ProcessPoolTaskRunner

__all__ = ["ProcessPoolTaskRunner"]
