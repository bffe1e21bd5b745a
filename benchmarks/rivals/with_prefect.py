"""Prefect: a flow that maps an async task; against the temporary server that it starts for itself."""

import os
from contextlib import contextmanager
from tempfile import TemporaryDirectory

_HOME = TemporaryDirectory(ignore_cleanup_errors=True)
os.environ["PREFECT_HOME"] = _HOME.name
os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"
os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "120"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"

from prefect import flow, task  # noqa: E402  # it reads the environment when it is imported


@task
async def noop(number):
    return number


@flow
def run_all(size: int):
    return [future.result() for future in noop.map(range(size))]


@contextmanager
def opened():
    yield run_all
