"""Ray: remote calls on a local cluster with one worker for each processor, and their results."""

import os
from contextlib import contextmanager

import ray


@contextmanager
def opened():
    ray.init(num_cpus=os.cpu_count(), include_dashboard=False, logging_level="ERROR", log_to_driver=False)

    @ray.remote
    def noop(number):
        return number

    try:
        yield lambda size: ray.get([noop.remote(number) for number in range(size)])
    finally:
        ray.shutdown()
