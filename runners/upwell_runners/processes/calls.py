"""How a child calls the user's function for one row."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Mapping
from typing import Any, Final

from upwell.core.definition import FunctionKind, kind_of
from upwell.core.errors import SerializationError
from upwell.core.lifecycle import describe
from upwell.engine.elsewhere import ELSEWHERE, RunElsewhere
from upwell.engine.prints import printing_to_log
from upwell_runners.processes.functions import resolve
from upwell_runners.processes.wire import Form, Function

Ask = Callable[[RunElsewhere], Mapping[str, Any]]
_set_elsewhere = ELSEWHERE.set
_NO_KEYWORDS: Final[Mapping[str, Any]] = {}  # one for all: making one takes longer than the rest of a row


class Callee:
    """A function that this child was told of; imported or unpickled when its first row comes.

    packs_each: its results are not all of builtin kinds, so each is packed on its own.
    """

    def __init__(self, function: Function) -> None:
        self._function: Function | None = function
        self.fn: Callable[..., Any] = _not_loaded
        self.call: Callable[..., Any] = _not_loaded
        self.packs_each = False

    def load(self) -> None:
        """Get the function itself; what fails here fails each row that needs it."""
        if self._function is None:
            return
        told, self._function = self._function, None
        try:
            self.fn = resolve(told.reference, told.file) if told.reference else pickle.loads(told.pickle)
            self.call = _caller(self.fn, told.log_prints)
        except BaseException as error:
            where = f"{told.reference!r}" if told.reference else "the task's function"
            message = f"{where} cannot be loaded in a worker process: {describe(error)}"
            self.fn = self.call = _failing(message, error)


def _run_item(callee: Callee, ask: Ask, serial: int, item: Any) -> Any:
    _set_elsewhere(RunElsewhere(ask, serial, callee.fn, (item,), _NO_KEYWORDS))
    return callee.call(item)


def _run_args(callee: Callee, ask: Ask, serial: int, args: tuple[Any, ...]) -> Any:
    _set_elsewhere(RunElsewhere(ask, serial, callee.fn, args, _NO_KEYWORDS))
    return callee.call(*args)


def _run_call(callee: Callee, ask: Ask, serial: int, call: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
    args, kwargs = call
    _set_elsewhere(RunElsewhere(ask, serial, callee.fn, args, kwargs))
    return callee.call(*args, **kwargs)


RUN_ROW: Final[dict[int, Callable[[Callee, Ask, int, Any], Any]]] = {
    Form.ITEM: _run_item,
    Form.ARGS: _run_args,
    Form.CALL: _run_call,
}
"""What calls the function with a row's arguments, in the context that it is called in; by the row's form."""


def _caller(fn: Callable[..., Any], log_prints: bool) -> Callable[..., Any]:
    if log_prints:
        return _with_prints_logged(_caller(fn, False))
    kind = kind_of(fn)
    if kind is FunctionKind.SYNC:
        return fn
    if kind is FunctionKind.GENERATOR:
        return lambda *args, **kwargs: list(fn(*args, **kwargs))
    if kind is FunctionKind.COROUTINE:
        return lambda *args, **kwargs: asyncio.run(fn(*args, **kwargs))

    async def exhaust(*args: Any, **kwargs: Any) -> list[Any]:
        return [item async for item in fn(*args, **kwargs)]

    return lambda *args, **kwargs: asyncio.run(exhaust(*args, **kwargs))


def _with_prints_logged(call: Callable[..., Any]) -> Callable[..., Any]:
    def call_with_prints_logged(*args: Any, **kwargs: Any) -> Any:
        with printing_to_log(True):
            return call(*args, **kwargs)

    return call_with_prints_logged


def _failing(message: str, error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise SerializationError(message) from error

    return fail


def _not_loaded(*_: Any, **__: Any) -> Any:
    raise AssertionError("called before it was loaded")
