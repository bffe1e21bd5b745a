"""joblib: `Parallel` over `delayed` calls on threads, with its own batching."""

from contextlib import contextmanager

from joblib import Parallel, delayed


def noop(number):
    return number


@contextmanager
def opened():
    with Parallel(n_jobs=-1, backend="threading") as parallel:
        yield lambda size: parallel(delayed(noop)(number) for number in range(size))
