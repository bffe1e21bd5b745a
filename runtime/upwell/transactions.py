"""Transactions: tasks that count together, or not at all.

    with transaction() as txn:
        write_file(path)          # if quality_test fails, the file is deleted again
        quality_test(path)

    @write_file.on_rollback
    def delete_file(txn): ...

What is run inside of a transaction is *staged* when it completes, and committed when the transaction is: only then
others find its cached result, and its `on_commit` hooks are called. An exception that leaves the block rolls everything
back: `on_rollback` hooks are called, the last staged first, and its runs are marked RolledBack.
"""

# An isinstance check cannot say what a generic future holds, and here nobody needs to know.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false, reportUnknownMemberType=false
from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextvars import Token
from enum import Enum
from types import TracebackType
from typing import Any, Final, Self

from upwell.cache_policies import digest_of_text
from upwell.core.errors import BlockingWaitError
from upwell.core.ids import RANDOM_BITS, uuid7
from upwell.core.results import ResultRecord
from upwell.engine.caching import Computation, keep_in_cache
from upwell.engine.clock import clock
from upwell.engine.future import CURRENT_RUN, RunFuture
from upwell.engine.loggers import get_logger
from upwell.engine.staging import CURRENT_TRANSACTION
from upwell.engine.steps import AllEnded, CallUser, Life, live_async, live_blocking
from upwell.results import ResultStore
