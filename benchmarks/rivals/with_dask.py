"""Dask distributed: `Client.map` and `gather` on a scheduler and worker threads in this process."""

from contextlib import contextmanager

from dask.distributed import Client


def noop(number):
    return number


@contextmanager
def opened():
    with Client(processes=False, dashboard_address=None) as client:
        yield lambda size: client.gather(client.map(noop, range(size), pure=False))
