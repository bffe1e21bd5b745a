"""Carries out the runs of deployments: who claims them, the processes that they run in, their cancellation."""

carries_out_jobs: bool = False
"""Whether this process is a template or a child: then a script that serves its flows does not do so once more."""
