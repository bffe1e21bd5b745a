"""Who waits, and where: for messages about deadlocks and about what was left behind."""

from __future__ import annotations

import asyncio
import sys
import threading
from types import FrameType
from typing import Any

from upwell.engine.future import RunFuture


def describe_task(task: asyncio.Task[Any]) -> str | None:
    """An asyncio Task in a line: the run or coroutine, and its innermost line. None: an idle part of an engine."""
    coroutine: Any = task.get_coro()
    who = f"asyncio task {task.get_name()!r}"
    if type(coroutine).__module__ == "upwell.engine.driver":  # it, that may have adopted a run
        if coroutine._run is None:
            return None
        who, coroutine = f"task run {coroutine._run.name!r}", coroutine._attempt
    return f"{who} {_place(_frames_of(coroutine))}"


def describe_coroutine(coroutine: Any) -> str:
    """Where a suspended coroutine waits, in a line."""
    return _place(_frames_of(coroutine))


def describe_thread(thread_id: int, run: RunFuture[Any] | None = None) -> str:
    """A thread in a line: the run or the thread's name, and the line of the user's code where it is."""
    name = next((t.name for t in threading.enumerate() if t.ident == thread_id), str(thread_id))
    frame = sys._current_frames().get(thread_id)  # pyright: ignore[reportPrivateUsage]  # the documented way
    frames: list[FrameType] = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    who = f"task run {run.name!r}" if run is not None else f"thread {name!r}"
    return f"{who} {_place(frames)}"


def pending_tasks() -> set[asyncio.Task[Any]]:
    """Every asyncio Task of this process that has not ended, whatever its loop."""
    registers = ("_all_tasks", "_scheduled_tasks", "_eager_tasks")  # the first up to Python 3.11
    while True:
        try:
            found = [task for register in registers for task in list(getattr(asyncio.tasks, register, ()))]
        except RuntimeError:  # a loop on another thread has begun or ended one meanwhile
            continue
        return {task for task in found if not task.done()}


def _frames_of(awaitable: Any) -> list[FrameType]:
    """The frames of a suspended coroutine, innermost first."""
    frames: list[FrameType] = []
    while awaitable is not None:
        frame = _part(awaitable, "frame")
        if frame is not None:
            frames.append(frame)
        awaitable = _part(awaitable, "await") or getattr(awaitable, "gi_yieldfrom", None)
    return frames[::-1]


def _part(awaitable: Any, name: str) -> Any:
    found = (getattr(awaitable, f"{prefix}_{name}", None) for prefix in ("cr", "gi", "ag"))
    return next((part for part in found if part is not None), None)


def _place(frames: list[FrameType]) -> str:
    """The innermost line of the user's code, if there is any."""
    own = [frame for frame in frames if not _is_machinery(frame.f_globals.get("__name__", ""))]
    if not frames:
        return "(has not begun, or has ended)"
    frame = (own or frames)[0]
    return f"in {frame.f_code.co_qualname}, {frame.f_code.co_filename}:{frame.f_lineno}"


def _is_machinery(module: str) -> bool:
    return module.partition(".")[0] in ("upwell", "upwell_runners", "asyncio", "threading", "contextlib")
