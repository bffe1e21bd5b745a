"""taskiq: tasks sent to its in-memory broker, all at once, and their results awaited."""

import asyncio
from contextlib import contextmanager

from taskiq import InMemoryBroker

broker = InMemoryBroker(max_stored_results=1_000_000)


@broker.task
async def noop(number: int) -> int:
    return number


async def run_all(size):
    sent = [await noop.kiq(number) for number in range(size)]
    return [(await task.wait_result(check_interval=0.001)).return_value for task in sent]


@contextmanager
def opened():
    with asyncio.Runner() as runner:
        runner.run(broker.startup())
        yield lambda size: runner.run(run_all(size))
        runner.run(broker.shutdown())
