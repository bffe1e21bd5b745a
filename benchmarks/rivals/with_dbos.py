"""DBOS: a workflow of steps, each in its SQLite file before the next begins."""

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from dbos import DBOS


@DBOS.step()
def noop(number):
    return number


@DBOS.workflow()
def run_all(size: int):
    return [noop(number) for number in range(size)]


@contextmanager
def opened():
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = f"sqlite:///{Path(folder) / 'dbos.db'}"
        DBOS(config={"name": "benchmark", "system_database_url": file, "log_level": "ERROR", "run_admin_server": False})
        DBOS.launch()
        yield run_all
        DBOS.destroy()
