"""A flow that is run in a template before it forks, into a store that is thrown away.

What that loads, caches and teaches the interpreter the template's children share: each begins and ends its run with a
quarter less of the processor's time.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from upwell.composition import close_journal
from upwell.engine.current import close_portal
from upwell.flows import flow
from upwell.settings import temporary_settings
from upwell.tasks import task

TIMES: Final = 5
"""Python 3.11 and later make code that is run again and again faster."""

LOGGER: Final = logging.getLogger("upwell.serving.rehearsal")


@task(name="rehearsal")
def _step(number: int) -> int:
    return number


@flow(name="rehearsal")
def _flow() -> int:
    return _step(1)


def rehearse() -> None:
    """Run it, and leave no thread, no file and no line of a log behind; where it cannot be run, do without."""
    try:
        with (
            tempfile.TemporaryDirectory(prefix="upwell-") as folder,
            temporary_settings(home=folder, journal="on", api_url=None, database_url=None),
            _nothing_logged(),
        ):
            try:
                for _ in range(TIMES):
                    _flow()
            finally:
                close_portal()
                close_journal()
    except Exception as error:
        LOGGER.debug("Children of this template begin slower: a flow could not be run before", exc_info=error)


@contextmanager
def _nothing_logged() -> Generator[None]:
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)
