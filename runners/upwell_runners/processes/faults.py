"""Exceptions across processes: as they are where they can be pickled, as a stand-in that says all where not."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final

from upwell.core.errors import FailedRun, SerializationError
from upwell.core.lifecycle import describe
from upwell.serializers import PickleSerializer


class RemoteTraceback(Exception):
    """The traceback, as text, of an exception that was raised in another process; stands as its `__cause__`."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class UncarriedException(FailedRun):
    """Stands for an exception that could not be brought from the process it was raised in."""


class CarriedException:
    """An exception and its traceback's text, as they are pickled; becomes the exception when it is read."""

    def __init__(self, error: BaseException, text: str) -> None:
        self._error = error
        self._text = text

    def __reduce__(self) -> Any:
        return _with_traceback, (self._error, self._text)


def _with_traceback(error: BaseException, text: str) -> BaseException:
    error.__cause__ = RemoteTraceback(text)
    return error


_OWN_FRAMES: Final = ("upwell_runners.processes.", "upwell.engine.")


def traceback_text(error: BaseException) -> str:
    """The traceback of an exception and of its causes, without the frames that lead to the user's function."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(_OWN_FRAMES):
        trace = trace.tb_next
    error.__traceback__ = trace
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # an exception whose own `__str__` raises, or one too deep
        return describe(error) + "\n"


def stand_in(error: BaseException, text: str, why: BaseException) -> BaseException:
    """What arrives in place of an exception that cannot."""
    kind = type(error)
    return _with_traceback(
        UncarriedException(
            f"The task raised {kind.__module__}.{kind.__qualname__}, which cannot be brought over from its process "
            f"({describe(why)}), so this stands for it: {describe(error)}"
        ),
        text,
    )


def unsendable_argument(
    name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], why: Exception
) -> SerializationError:
    """The error of a run whose arguments cannot be pickled: names the first argument that cannot."""
    for argument, value in _by_name(fn, args, kwargs).items():
        try:
            PickleSerializer().dumps(value)
        except Exception as error:
            detail = str(error).removeprefix("value: ")
            return SerializationError(
                f"The argument {argument!r} of {name!r} cannot be sent to another process: {detail}. "
                "Make it inside the task, or run the task with task_runner='threads'."
            )
    return SerializationError(f"The arguments of {name!r} cannot be sent to another process: {describe(why)}")


def _by_name(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(inspect.signature(fn).bind(*args, **kwargs).arguments)
    except (TypeError, ValueError):
        return {**{str(position): value for position, value in enumerate(args)}, **kwargs}


def unsendable_result(value: object, why: Exception) -> SerializationError:
    """The error of a run whose result cannot be brought back."""
    kind = type(value)
    return SerializationError(
        f"The task returned a {kind.__module__}.{kind.__qualname__} that cannot be brought over from its process: "
        f"{describe(why)}. Return data instead, or run the task with task_runner='threads'."
    )
