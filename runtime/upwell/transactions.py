"""Transactions: tasks that count together, or not at all.

    with transaction():
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
import re
from collections.abc import Callable, Iterable, Sequence
from contextvars import Token
from enum import Enum
from types import TracebackType
from typing import Any, Final, Self

from upwell.core.errors import ConfigurationError, UpwellError
from upwell.core.ids import RANDOM_BITS, uuid7
from upwell.core.keys import digest
from upwell.core.results import ResultRecord
from upwell.engine.caching import CacheRow, Computation, cache_in, keep_in_cache
from upwell.engine.caching_inline import Answer, Beside, claim
from upwell.engine.clock import clock
from upwell.engine.current import scope_of_direct_call
from upwell.engine.future import RunFuture
from upwell.engine.logs import current_run_logger
from upwell.engine.staging import CURRENT_TRANSACTION, current_transaction, mark_rolled_back, open_with
from upwell.engine.steps import AllEnded, CallUser, Life, live_async, live_blocking
from upwell.persistence import default_store
from upwell.results import ResultStore

__all__ = [
    "CommitMode",
    "IsolationLevel",
    "Transaction",
    "TransactionState",
    "get_transaction",
    "transaction",
]

Run = RunFuture[Any]
TransactionHook = Callable[["Transaction"], Any]
Logger = logging.Logger | logging.LoggerAdapter[Any]

_SAFE: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_LOGGER: Final = logging.getLogger("upwell.transactions")
_UNSET: Final = object()


class IsolationLevel(Enum):
    """READ_COMMITTED: others may run the same transaction at the same time. SERIALIZABLE: they wait for this one."""

    READ_COMMITTED = "READ_COMMITTED"
    SERIALIZABLE = "SERIALIZABLE"


class CommitMode(Enum):
    """When a transaction is committed: EAGER: at its own end; LAZY: with the outermost one; OFF: only by `commit()`."""

    EAGER = "EAGER"
    LAZY = "LAZY"
    OFF = "OFF"


class TransactionState(Enum):
    """How far a transaction is."""

    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    STAGED = "STAGED"
    COMMITTED = "COMMITTED"
    ROLLED_BACK = "ROLLED_BACK"


_ENDED: Final = (TransactionState.COMMITTED, TransactionState.ROLLED_BACK)


class _Key:
    """What the cache needs to know of a transaction that has a key."""

    persists = caches = in_memory = True
    is_local = is_inline = False
    expiration = known = None

    def __init__(self, results: ResultStore, is_exclusive: bool, refresh: bool) -> None:
        self.results = results
        self.is_exclusive = is_exclusive
        self.refresh = refresh

    def key_of(self, run: Run) -> str | None:
        return None

    def keys_of(self, runs: Sequence[Run]) -> list[str] | None:
        return None

    def location_of(self, run: Run) -> str | None:
        return None


class Transaction:
    """One transaction; made by `transaction(...)`, or for a task run inside of one.

    Use it with `with` in sync code and `async with` in async code.
    """

    def __init__(
        self,
        key: str | None = None,
        store: ResultStore | None = None,
        commit_mode: CommitMode | None = None,
        isolation_level: IsolationLevel | None = None,
        overwrite: bool = False,
        write_on_commit: bool = True,
        logger: Logger | None = None,
        *,
        run: Run | None = None,
        parent: Transaction | None = None,
    ) -> None:
        _check("key", key, str)
        _check("store", store, ResultStore)
        _check("commit_mode", commit_mode, CommitMode)
        _check("isolation_level", isolation_level, IsolationLevel)
        if key == "":
            raise ConfigurationError("The key of a transaction must not be empty; leave it out for none.")
        self.key = key
        self.store = store
        self.commit_mode = commit_mode
        self.isolation_level = isolation_level
        self.overwrite = overwrite
        self.write_on_commit = write_on_commit
        self.logger: Any = logger
        self.state = TransactionState.PENDING
        self.children: list[Transaction] = []
        self.parent = parent
        self.on_commit_hooks: list[TransactionHook] = []
        self.on_rollback_hooks: list[TransactionHook] = []
        self._run = run
        self._runs: list[Run] = []
        self._of_runs: dict[Run, Transaction] = {}
        self._values: dict[str, Any] = {}
        self._staged: Any = _UNSET
        self._record: ResultRecord | None = None
        self._computation: Computation | None = None
        self._token: Token[Any] | None = None

    # --- values and state ---------------------------------------------------------------------------------

    def set(self, name: str, value: Any) -> None:
        """Keep a value for hooks, and for what is run inside."""
        self._values[name] = value

    def get(self, name: str, default: Any = _UNSET) -> Any:
        """A value that was set here or in a transaction around.

        Raises:
            ValueError: there is none, and no default is given.
        """
        at: Transaction | None = self
        while at is not None:
            if name in at._values:
                return at._values[name]
            at = at.parent
        if default is _UNSET:
            raise ValueError(f"This transaction has no value named {name!r}; set it with txn.set({name!r}, ...)")
        return default

    def is_pending(self) -> bool:
        return self.state is TransactionState.PENDING

    def is_active(self) -> bool:
        return self.state is TransactionState.ACTIVE

    def is_staged(self) -> bool:
        return self.state is TransactionState.STAGED

    def is_committed(self) -> bool:
        """Whether it is committed: by itself, or by an earlier one with the same key; then there is nothing to do."""
        return self.state is TransactionState.COMMITTED

    def is_rolled_back(self) -> bool:
        return self.state is TransactionState.ROLLED_BACK

    @property
    def root(self) -> Transaction:
        """The outermost transaction around."""
        at = self
        while at.parent is not None:
            at = at.parent
        return at

    def stage(
        self,
        value: Any,
        on_rollback_hooks: Iterable[TransactionHook] = (),
        on_commit_hooks: Iterable[TransactionHook] = (),
    ) -> None:
        """Have a value stored under the transaction's key when it is committed, and hooks called."""
        if self.state not in _ENDED:
            self._staged = value
            self.on_rollback_hooks += on_rollback_hooks
            self.on_commit_hooks += on_commit_hooks
            self.state = TransactionState.STAGED

    def read(self) -> Any:
        """The value that was stored under the transaction's key; None if there is none.

        Raises:
            MissingResult: it is lost.
        """
        return None if self._record is None else self._store().get(self._record)

    # --- runs inside (engine.staging.TransactionSeam) -----------------------------------------------------

    def joined(self, runs: Sequence[Run]) -> None:
        self._runs.extend(runs)

    def of_run(self, run: Run) -> Transaction:
        """The transaction of one run inside."""
        return self._of_runs.setdefault(run, Transaction(run=run, parent=self))

    def stage_run(self, run: Run, computation: Computation | None, record: ResultRecord | None) -> Life[Any] | None:
        inner = self._of_runs.pop(run, None) or Transaction(run=run, parent=self)
        definition = run.call.definition
        inner.on_commit_hooks += definition.commit_hooks
        inner.on_rollback_hooks += definition.rollback_hooks
        inner._computation, inner._record = computation, record
        inner.state = TransactionState.STAGED
        self.children.append(inner)
        if self.is_rolled_back():
            return inner._roll_back()
        return inner._commit() if self.is_committed() else None

    def run_failed(self, run: Run) -> None:
        inner = self._of_runs.pop(run, None)
        if inner is not None:  # it is not staged: what is in it will be rolled back
            self.children.append(inner)

    # --- with ---------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        live_blocking(self._begin())
        self._token = CURRENT_TRANSACTION.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._leave()
        live_blocking(self._end(error))

    async def __aenter__(self) -> Self:
        await live_async(self._begin())
        self._token = CURRENT_TRANSACTION.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._leave()
        await live_async(self._end(error))

    def _leave(self) -> None:
        if self._token is not None:
            CURRENT_TRANSACTION.reset(self._token)
            self._token = None

    def commit(self) -> bool:
        """Commit now; whether that was still to be done."""
        return live_blocking(self._commit())

    def rollback(self) -> bool:
        """Roll back now; whether that was still to be done."""
        return live_blocking(self._roll_back())

    # --- its life -------------------------------------------------------------------------------------------

    def _begin(self) -> Life[None]:
        if self.state is not TransactionState.PENDING:
            raise UpwellError("A transaction can be entered once; make another one with transaction(...)")
        self.parent = parent = get_transaction()
        if self.commit_mode is None:
            self.commit_mode = CommitMode.LAZY if parent is None else parent.commit_mode
        if self.isolation_level is None:
            self.isolation_level = IsolationLevel.READ_COMMITTED if parent is None else parent.isolation_level
        self.logger = self.logger or current_run_logger() or _LOGGER
        self.state = TransactionState.ACTIVE
        if self.key is not None:
            yield from self._look_up(self.key)

    def _look_up(self, key: str) -> Life[None]:
        """See whether it was committed before, and have others wait for it."""
        cache = cache_in(scope_of_direct_call())
        key = key if _SAFE.fullmatch(key) else digest(key).hex()
        is_exclusive = self.isolation_level is IsolationLevel.SERIALIZABLE and not self._is_held_around(key)
        holder: Any = _Holder()
        keeping: Any = _Key(self._store(), is_exclusive, self.overwrite)
        while True:
            computation, is_own = cache.begin(key, holder, keeping, self.overwrite)
            if is_own:
                break
            yield Answer(lambda tell, waits=computation: cache.wait_for(waits, tell), computation.holder)  # type: ignore[misc]
        record = yield Answer(lambda tell: claim(cache, computation, tell))
        if record is None:
            self._computation = computation
        else:
            cache.end(computation, record)
            self._record, self.state = record, TransactionState.COMMITTED

    def _is_held_around(self, key: str) -> bool:
        """Whether one around this has the key: it ends later, so a wait for it would never end."""
        at = self.parent
        while at is not None and (at._computation is None or at._computation.key != key):
            at = at.parent
        return at is not None

    def _end(self, error: BaseException | None) -> Life[None]:
        if error is None or isinstance(error, Exception):  # else what is inside is cancelled, too
            try:
                yield AllEnded(list(self._unfinished()))
            except BaseException as why:
                if error is None or not isinstance(why, Exception):
                    yield from self._roll_back()
                    raise
        if error is not None:
            yield from self._roll_back()
        elif self.commit_mode is CommitMode.EAGER or (self.commit_mode is CommitMode.LAZY and self.parent is None):
            yield from self._commit()
        elif self.parent is None:
            yield from self._roll_back()
        if self.parent is not None:
            self.parent.children.append(self)
            if self.is_rolled_back():
                yield from self.parent._roll_back()

    def _unfinished(self) -> Iterable[Run]:
        for at in (self, *self.children, *self._of_runs.values()):
            yield from (run for run in at._runs if not run.done)
            if at is not self:
                yield from at._unfinished()

    def _commit(self) -> Life[bool]:
        if self.state in _ENDED:
            return False
        for child in self.children:
            if child._run is not None and not child.is_staged():
                yield from child._roll_back()  # of a run that failed
            else:
                yield from child._commit()
        try:
            yield from self._write()
        except Exception as error:
            self._log().error("The transaction is rolled back, because its value cannot be stored: %s", error)
            yield from self._roll_back()
            return False
        self.state = TransactionState.COMMITTED
        for hook in self.on_commit_hooks:
            yield from self._call(hook, "commit")
        return True

    def _write(self) -> Life[None]:
        computation, self._computation = self._computation, None
        if computation is None:
            return
        if self._run is not None:
            if self._record is not None:
                keep_in_cache(self._run, computation, self._record)
            return
        if self._staged is _UNSET or not self.write_on_commit:
            computation.cache.give_up(computation)
            return
        try:
            self._record = record = yield Beside(self._store().put, self._staged)
        except BaseException:
            computation.cache.give_up(computation)
            raise
        row = CacheRow(computation.key, "transaction", record, clock().time())
        computation.cache.keep(row, computation)
        computation.cache.end(computation, record)

    def _roll_back(self) -> Life[bool]:
        if self.state in _ENDED:
            return False
        self.state = TransactionState.ROLLED_BACK
        hooks, self.on_rollback_hooks = self.on_rollback_hooks, []  # a run under way may add more, and is staged yet
        for hook in reversed(hooks):
            yield from self._call(hook, "rollback")
        for child in reversed([*self.children, *self._of_runs.values()]):
            yield from child._roll_back()
        computation, self._computation = self._computation, None
        if computation is not None:
            computation.cache.give_up(computation)
        if self._run is not None:
            self._run.watch(mark_rolled_back)
        return True

    def _call(self, hook: TransactionHook, what: str) -> Life[None]:
        """Call a hook; what it raises is logged, and the others are still called."""
        name = getattr(hook, "__name__", repr(hook))
        self._log().info("Running %s hook %r", what, name)
        try:
            yield CallUser(hook, self)
        except Exception:
            self._log().exception("The %s hook %r failed", what, name)

    def _log(self) -> Any:
        at: Transaction | None = self
        while at is not None:
            if at.logger is not None:
                return at.logger
            at = at.parent
        return _LOGGER

    def _store(self) -> ResultStore:
        if self.store is None:
            self.store = default_store()
        return self.store

    def __repr__(self) -> str:
        return f"<Transaction {self.key or ''} {self.state.value}>"


class _Holder:
    """Who holds the key of a transaction, for the cache."""

    def __init__(self) -> None:
        import random

        self.task_run_id = uuid7(clock().time(), random.getrandbits(RANDOM_BITS))


def _check(name: str, value: object, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} takes {kind.__name__}, not {value!r}")


def transaction(
    key: str | None = None,
    store: ResultStore | None = None,
    commit_mode: CommitMode | None = None,
    isolation_level: IsolationLevel | None = None,
    overwrite: bool = False,
    write_on_commit: bool = True,
    logger: Logger | None = None,
) -> Transaction:
    """A transaction for what is run inside of `with`, or `async with`.

    Args:
        key: what it is known by; if one with this key was committed before, `is_committed()` is true from the start.
        store: what stores the value that is staged.
        commit_mode: when it is committed; that of the one around, or LAZY, unless said.
        isolation_level: whether others with the same key wait; that of the one around, or READ_COMMITTED.
        overwrite: what was committed under this key before does not count.
        write_on_commit: False: the value that is staged is not stored.
        logger: where it says what it does; unless given, the log of the run around.

    Raises:
        TypeError, ConfigurationError: a value that cannot work.
    """
    return Transaction(key, store, commit_mode, isolation_level, overwrite, write_on_commit, logger)


def get_transaction() -> Transaction | None:
    """The innermost transaction here; inside of a task run, the run's own."""
    found: Transaction | None = current_transaction()
    return found


def _commit_alone(run: Run) -> Life[None]:
    """The hooks of a run that has no transaction around it."""
    alone = Transaction(run=run)
    alone.on_commit_hooks += run.call.definition.commit_hooks
    yield from alone._commit()  # pyright: ignore[reportPrivateUsage]  # this module's own


open_with(_commit_alone)
