"""parsl: python apps on local threads, and their results."""

from contextlib import contextmanager
from tempfile import TemporaryDirectory

import parsl
from parsl.config import Config
from parsl.executors.threads import ThreadPoolExecutor


@parsl.python_app
def noop(number):
    return number


@contextmanager
def opened():
    with (
        TemporaryDirectory() as folder,
        parsl.load(Config(executors=[ThreadPoolExecutor(label="threads")], run_dir=folder, usage_tracking=0)),
    ):
        yield lambda size: [future.result() for future in [noop(number) for number in range(size)]]
