"""A task runner of one's own: it executes attempts in a `ThreadPoolExecutor` that is there already."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from upwell import flow, task
from upwell.core.lifecycle import Outcome, OutcomeKind
from upwell.task_runners import Attempt, RunnerHost


class ExecutorTaskRunner:
    """Executes attempts in an executor that somebody else owns, and closes."""

    coroutines_on_loop = True  # coroutine functions do not come here
    max_at_once: int | None = None  # the executor has a queue of its own

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor
        self._futures: dict[Attempt, Future[None]] = {}

    def open(self, host: RunnerHost) -> None:
        self._host = host

    def start(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            self._futures[attempt] = self._executor.submit(self._execute, attempt)

    def _execute(self, attempt: Attempt) -> None:
        self._host.started(attempt)  # its timeout counts from here
        outcome = self._host.execute(attempt)  # calls the function in its context; never raises
        self._futures.pop(attempt, None)
        self._host.finished(attempt, outcome)  # a second report is ignored

    def interrupt(self, attempt: Attempt, kind: OutcomeKind, error: BaseException) -> None:
        future = self._futures.pop(attempt, None)
        if future is not None:
            future.cancel()  # if it has not begun; else its thread goes on unseen
        self._host.finished(attempt, Outcome(kind, error, str(error)))

    def blocked(self, attempt: Attempt) -> None:
        """The attempt waits for another run. An executor cannot lend its thread meanwhile."""

    def unblocked(self, attempt: Attempt) -> None:
        """The wait is over."""

    async def close(self) -> None:
        """Nothing to release: the executor is not ours."""


@task
def where(n: int) -> str:
    return f"{n} in {threading.current_thread().name}"


if __name__ == "__main__":
    with ThreadPoolExecutor(1, thread_name_prefix="mine") as executor:

        @flow(task_runner=ExecutorTaskRunner(executor))
        def main() -> list[str]:
            return where.map(range(2)).result()

        print(main())
